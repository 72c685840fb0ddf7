"""What a person sees first: every study with its quality, its trials, its verdict and its signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import AlertKind
from easeml_core.services.joint_sets import meter_settings_of
from easeml_core.services.readings import shown_reading
from easeml_core.store import releases, studies, summary, trials

if TYPE_CHECKING:
    from sqlalchemy import Row

    from easeml_core.entities import Candidate
    from easeml_core.store.database import Store

_ALL = 1_000_000


def overview(store: Store, *, limit: int = 1000) -> dict[str, Any]:
    """All studies with released facts only.

    Returns:
        ``{"policy": str | None, "tenants": [...]}``; each entry has tenant, study, state, source, weight,
        budget_seconds, priority, deadline (ISO 8601), target_quality, active_since, candidates, trials (succeeded),
        failed and cancelled (these three on the present data), running, waiting, best_quality in [0, 1] or None,
        best_candidate, device_seconds (also of lost attempts), reserved_seconds, tenant_quota_seconds,
        tenant_charged_seconds (used and reserved), tenant_max_parallel, tenant_open_trials, verdict, signal, signals,
        direct_signal, drift (both None without a second validation sample; of a set that several teams share nobody's
        signals and alerts are told), teams (of the meter set, None without one), production_model_id,
        production_candidate, open_alerts, alert_kind (of the most urgent one), meter_retired, gate_set_live, refusal,
        and ``next``: one sentence on what to do.
    """
    with store.begin() as tx:
        entries = summary.study_summaries(tx, limit=limit)
        policies = summary.policies_used(tx)
    return {"policy": policies[0] if policies else None, "tenants": [_told(e) for e in entries]}


def _told(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as plain JSON, with the one thing to do."""
    times = {k: None if entry[k] is None else entry[k].isoformat() for k in ("deadline", "active_since")}
    return {k: v for k, v in entry.items() if k != "seconds_left"} | times | {"next": _next(entry)}


def _next(entry: dict[str, Any]) -> str:
    """The one thing to do for a study, worst first."""
    steps = (
        (entry["state"] == "REFUSED", f"register it again: {entry['refusal']}"),
        (entry["state"] == "REGISTERED", "wait: the referee is splitting and sealing its data"),
        (entry["state"] == "PAUSED", "resume it when it shall get trials again"),
        (entry["meter_retired"] is True, "seal a new meter set: the present one is retired"),
        (entry["alert_kind"] == AlertKind.OVERFITTING, "read the alert: the overfitting budget is exceeded"),
        (entry["alert_kind"] == AlertKind.DRIFT, _drift_sentence(entry)),
        (entry["open_alerts"] > 0, _served_sentence(entry)),
        (entry["running"] + entry["waiting"] > 0, "wait: trials are under way"),
        (_to_run(entry) > 0 and _has_reached_target(entry), _target_sentence(entry)),
        (_to_run(entry) > 0 and _is_late(entry), "nothing: its deadline has passed; set a later one to go on"),
        (_to_run(entry) > 0 and _is_spent(entry), "nothing: its compute budget is used up before its candidates"),
        (_to_run(entry) > 0 and _is_out_of_quota(entry), "nothing: its tenant's quota is used up"),
        (_to_run(entry) > 0 and _is_full(entry), "wait: its tenant has as many open trials as it may have at once"),
        (_to_run(entry) > 0, f"train: {_to_run(entry)} candidates have not run on the present data{_left(entry)}"),
        (entry["verdict"] == "fail", "nothing: the best model did not pass the gate"),
    )
    return next((text for holds, text in steps if holds), "nothing: every candidate has run on the present data")


def _drift_sentence(entry: dict[str, Any]) -> str:
    return (
        "read the alert: validation and test data differ, so more validation data of the old kind do not help "
        f"(`easeml alerts {entry['study']}`)"
    )


def _served_sentence(entry: dict[str, Any]) -> str:
    """After a sealed set has served: the alert can only be cleared for good where another set is live."""
    if not entry["gate_set_live"]:
        return "seal a new gate set: none is live, so the gate answers nothing"
    return f"seal the set after the one that has served, then clear the alert (`easeml alerts {entry['study']}`)"


def _to_run(entry: dict[str, Any]) -> int:
    done = ("trials", "failed", "cancelled", "running", "waiting")
    return int(entry["candidates"]) - sum(int(entry[k]) for k in done)


def _left(entry: dict[str, Any]) -> str:
    """What is left of the compute budget: a candidate that needs more stays where it is."""
    if entry["budget_seconds"] is None:
        return ""
    left = entry["budget_seconds"] - entry["device_seconds"] - entry["reserved_seconds"]
    return f"; {left:,.1f} s of its compute budget are left"


def _target_sentence(entry: dict[str, Any]) -> str:
    sentence = f"nothing: its target quality of {entry['target_quality']} is reached"
    return sentence + ("; the best model did not pass the gate" if entry["verdict"] == "fail" else "")


def _is_spent(entry: dict[str, Any]) -> bool:
    return entry["budget_seconds"] is not None and entry["device_seconds"] >= entry["budget_seconds"]


def _is_late(entry: dict[str, Any]) -> bool:
    return entry["seconds_left"] is not None and entry["seconds_left"] <= 0


def _has_reached_target(entry: dict[str, Any]) -> bool:
    target, best = entry["target_quality"], entry["best_quality"]
    return target is not None and best is not None and best >= target


def _is_out_of_quota(entry: dict[str, Any]) -> bool:
    quota = entry["tenant_quota_seconds"]
    return quota is not None and entry["tenant_charged_seconds"] >= quota


def _is_full(entry: dict[str, Any]) -> bool:
    most = entry["tenant_max_parallel"]
    return most is not None and entry["tenant_open_trials"] >= most


def study_details(store: Store, *, study: str, team: int | None = None) -> dict[str, Any]:
    """One study with its candidates, trials, sealed sets (public side), last meter reading and open alerts.

    ``meter`` is None before the first reading, then as ``readings.shown_reading``, with ``{"model_id", "team",
    "method"}``. Where several teams share a meter set, the readings and alerts of ``team`` count, and without it none.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        row = next(e for e in summary.study_summaries(tx, limit=_ALL) if e["study"] == study)
        details = {
            "study": study,
            "goal": {"task": str(found.task), "metric": found.metric, "hit": found.hit, "program": found.program},
            "settings": dict(found.config),
            "summary": _told(row),
            "candidates": [_candidate(c) for c in studies.list_candidates(tx, found.id)],
            "trials": [_plain(t) for t in trials.list_trials(tx, found.id)],
            "sealed_sets": releases.public_test_sets(tx, found.id),
            "meter": _meter(releases.newest_reading(tx, found.id, team=team)),
            "alerts": [a["message"] for a in releases.list_alerts(tx, found.id, open_only=True, team=team)],
        }
    return details


def _meter(reading: Row[Any] | None) -> dict[str, Any] | None:
    """The last reading as the developer may see it."""
    if reading is None:
        return None
    named = {"model_id": reading.model_id, "team": reading.team, "method": meter_settings_of(reading).method}
    return shown_reading(reading) | named


def _candidate(candidate: Candidate) -> dict[str, Any]:
    """Name and kind; devices of those that have any."""
    shown = {"name": candidate.name, "kind": candidate.kind}
    return shown if candidate.devices is None else shown | {"devices": candidate.devices}


def _plain(trial: dict[str, Any]) -> dict[str, Any]:
    ended = trial["finished_at"]
    return trial | {"finished_at": None if ended is None else ended.isoformat()}


def study_state(store: Store, *, study: str) -> str:
    """The study's state now: what a sensor looks at."""
    with store.begin() as tx:
        return str(studies.get_study(tx, study).state)


def live_sets(store: Store, *, study: str) -> list[str]:
    """Purposes for which the study has a live sealed set; a ``joint`` one counts for ``gate`` and ``meter`` too."""
    with store.begin() as tx:
        found = releases.public_test_sets(tx, studies.get_study(tx, study).id)
    live = {str(s["purpose"]) for s in found if s["state"] == "live"}
    return sorted(live | ({"gate", "meter"} if "joint" in live else set()))

"""What a person sees first: every study with its quality, its trials, its verdict and its signal."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from easeml_core.services.meter.results import shown_reading
from easeml_core.services.reports.next_steps import told_steps
from easeml_core.services.reports.recommendations import Severity, StepKind, steps_of
from easeml_core.services.selection.executors import waiting_sentences
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.queries import overview as store_board
from easeml_core.store.queries import overview as summary
from easeml_core.store.tables import releases, studies, trials

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Row

    from easeml_core.entities import Candidate
    from easeml_core.services.reports.recommendations import Step
    from easeml_core.store.database import Store

MOST_SHOWN = 20_000
"""Studies on one overview: beyond, the last by tenant and name are left out."""

MOST_DRAWN = 200
"""Studies up to which the overview draws small charts."""

_CLOCK = ("seconds_left", "read_at")
"""What changes while nothing happens."""


class Standing(StrEnum):
    """Where a study stands; each is in one of these."""

    NEEDS = "needs"
    SEARCHING = "searching"
    FINISHED = "finished"
    PAUSED = "paused"


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
        production_candidate, open_alerts, alert_kind (of the most urgent one), alert_kinds, sets_wanted (purposes of
        the sealed sets in whose place another one is wanted), meter_retired, gate_set_live, refusal, and ``next``: one
        sentence on what to do.
    """
    with store.begin() as tx:
        entries = summary.study_summaries(tx, limit=limit)
        policies = summary.policies_used(tx)
    return {"policy": policies[0] if policies else None, "tenants": [_told(e) for e in entries]}


def _told(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as plain JSON, with the one thing to do."""
    plain = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in entry.items() if k not in _CLOCK}
    return plain | {"next": steps_of(entry)[0].act}


def board(store: Store, *, names: Collection[str] | None = None) -> dict[str, Any]:
    """All that the overview shows, with released facts only, in one transaction of a few queries.

    Args:
        store: Any role.
        names: The studies that may be shown; None for all.

    Returns:
        ``{"tenants", "steps", "totals", "week", "busy", "improvements"}``. ``tenants`` are rows of
        ``summary.study_summaries`` with ``steps`` (``step_rules``) and ``standing``; ``steps`` is what needs a person,
        as of ``next_steps``; ``totals`` are of the whole installation, whoever asks. Up to ``MOST_DRAWN`` studies also
        come with ``busy`` (devices by the hour) and ``improvements`` (study to times and qualities); beyond, with none.
    """
    with store.begin() as tx:
        entries = summary.study_summaries(tx, limit=MOST_SHOWN, names=names)
        drawn = len(entries) <= MOST_DRAWN
        for entry in entries:
            entry["steps"] = steps_of(entry)
            entry["standing"] = standing(entry["steps"])
        needing = [entry for entry in entries if entry["standing"] is Standing.NEEDS]
        return {
            "tenants": entries,
            "steps": [s for s in told_steps(tx, needing) if s["severity"] != Severity.INFO],
            "totals": store_board.totals(tx),
            "week": store_board.week(tx, names),
            "busy": store_board.busy_devices(tx, names) if drawn else [],
            "improvements": store_board.improvements(tx, [e["study"] for e in entries]) if drawn else {},
        }


def standing(steps: Sequence[Step]) -> Standing:
    """Where a study stands, by what is next for it."""
    if any(step.needs_a_person for step in steps):
        return Standing.NEEDS
    by_kind = {step.kind: step for step in steps}
    if StepKind.PAUSED in by_kind:
        return Standing.PAUSED
    search = by_kind.get(StepKind.COMPUTE)
    goes_on = StepKind.SEALING in by_kind or (search is not None and not search.act.startswith("nothing"))
    return Standing.SEARCHING if goes_on else Standing.FINISHED


def standing_of(store: Store, *, study: str) -> dict[str, Any]:
    """Where one study stands, by the same rules as on the board of all.

    Returns:
        ``{"steps", "standing"}``, as an entry of ``board`` has them.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        studies.get_study(tx, study)
        (entry,) = summary.study_summaries(tx, names=[study])
    steps = steps_of(entry)
    return {"steps": steps, "standing": standing(steps)}


def study_details(store: Store, *, study: str, team: int | None = None) -> dict[str, Any]:
    """One study with its candidates, trials, sealed sets (public side), last meter reading and open alerts.

    ``meter`` is None before the first reading, then as ``readings.shown_reading``, with ``{"model_id", "team",
    "method"}``. Where several teams share a meter set, the readings and alerts of ``team`` count, and without it none.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        (row,) = summary.study_summaries(tx, names=[study])
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
            "waiting": waiting_sentences(tx, [study]).get(study, []),
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

"""What runs where, who waits, who gets what for their weight, and what an hour of a device is worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.entities import TrialState
from easeml_core.services.selection.policy import current_config
from easeml_core.store.queries import compute as store_compute
from easeml_core.store.tables.decisions import list_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from easeml_core.store.database import Store

WINDOWS = {
    "6h": (timedelta(hours=6), 36),
    "24h": (timedelta(hours=24), 48),
    "7d": (timedelta(days=7), 84),
}
"""How far back a look goes, and into how many parts it is cut."""

MOST_RUNS = 600
"""Trials drawn: those that run, and the latest that have ended."""

MOST_WAITS = 12
MOST_GAINS = 400


def compute(store: Store, *, window: str = "6h", studies: Collection[str] | None = None) -> dict[str, Any]:
    """Everything about devices in a time, in one transaction of six bounded queries.

    Args:
        store: Role ``easeml_worker``.
        window: One of ``WINDOWS``.
        studies: Names of the studies that whoever asks may see; None for all. Of others only sums are told.

    Returns:
        ``{"since", "now", "window", "totals", "lanes", "drawn", "at_once", "waits", "busy", "shares", "gains",
        "prices"}``. ``lanes`` as of ``lanes_of``; ``drawn`` of how many trials; ``at_once`` as of the
        function; ``shares`` are ``{"tenant", "seconds", "share", "due"}``, with a tenant of None for all others
        together; ``prices`` are ``{"at", "per_hour"}``, oldest first: least gain of quality that an hour of a device
        must promise.

    Raises:
        ConfigError: There is no such window.
    """
    require(window in WINDOWS, "window", window, ", ".join(WINDOWS))
    span, buckets = WINDOWS[window]
    since = datetime.now(UTC) - span
    with store.begin() as tx:
        seen = {"names": studies}
        runs = store_compute.runs(tx, since=since, limit=MOST_RUNS, **seen)
        totals = store_compute.totals(tx, since=since, **seen)
        lanes = lanes_of(runs, now=totals["read_at"])
        return {
            "since": since,
            "now": totals["read_at"],
            "window": window,
            "totals": totals,
            "lanes": lanes,
            "drawn": len(runs),
            "at_once": at_once(lanes, since=since),
            "waits": store_compute.waits(tx, limit=MOST_WAITS, **seen),
            "busy": store_compute.busy(tx, since=since, buckets=buckets, **seen),
            "shares": _shares(store_compute.shares(tx, since=since, **seen)),
            "gains": store_compute.gains(tx, since=since, limit=MOST_GAINS, **seen),
            "prices": [
                *({"at": s.created_at, "per_hour": _price(s.config)} for s in reversed(list_settings(tx))),
                {"at": totals["read_at"], "per_hour": 3600 * current_config(tx).price_per_second},
            ],
        }


def _price(config: Mapping[str, Any]) -> float:
    return 3600 * float(config.get("price_per_second") or 0)


def lanes_of(runs: Sequence[Mapping[str, Any]], *, now: datetime) -> list[dict[str, Any]]:
    """Trials side by side: as many lanes as devices of a kind were held at once, each trial in the first that is free.

    Args:
        runs: Rows of ``store.compute.runs``.
        now: When they were read.

    Returns:
        ``{"device", "number", "jobs"}`` each, by kind and number. A job is ``{"state", "from", "to", "expected",
        "run"}``: state ``running``, ``ended``, ``failed`` or ``lost``; ``expected`` is when a running one should end,
        None where nobody can tell.
    """
    jobs = sorted(
        (job for run in runs for job in _jobs(run, now)), key=lambda job: (job["from"], job["run"]["trial_id"])
    )
    lanes: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        kind = job["run"]["device"] or "device"
        of_kind = lanes.setdefault(kind, [])
        lane = next((lane for lane in of_kind if lane["jobs"][-1]["to"] <= job["from"]), None)
        if lane is None:
            lane = {"device": kind, "number": len(of_kind) + 1, "jobs": []}
            of_kind.append(lane)
        lane["jobs"].append(job)
    return [lane for _, of_kind in sorted(lanes.items()) for lane in of_kind]


def at_once(lanes: Sequence[Mapping[str, Any]], *, since: datetime) -> float | None:
    """How many devices trained at once, on average over the time in which any did; of what is drawn.

    Time that was lost with a device that fell silent is not training. Two slots of one machine are two devices here,
    however slow they make each other.

    Returns:
        At least 1; None where nothing trained.
    """
    jobs = [job for lane in lanes for job in lane["jobs"] if job["to"] > since and job["state"] != "lost"]
    spans = sorted((max(job["from"], since), job["to"]) for job in jobs)
    held = sum((end - begin).total_seconds() for begin, end in spans)
    covered, until = 0.0, since
    for begin, end in spans:
        covered += max(0.0, (end - max(begin, until)).total_seconds())
        until = max(until, end)
    return held / covered if covered > 0 else None


def _jobs(run: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """The time that a trial held a device, and the time that was lost before."""
    begun, lost = run["begun_at"], timedelta(seconds=run["lost_seconds"])
    if run["state"] == TrialState.SUGGESTED:  # taken back: it waits again
        return [_job("lost", begun, begun + lost, run)]
    jobs = []
    if run["state"] == TrialState.RUNNING:
        state, end = ("lost", run["lease_until"]) if run["is_lost"] else ("running", now)
    else:
        failed = run["state"] == TrialState.FAILED
        state, end = "failed" if failed else "ended", run["finished_at"]
    jobs.append(_job(state, begun, max(end, begun), run, expected=_expected(run, now)))
    before = min(begun, run["started_at"] + lost)
    if lost and before > run["started_at"]:
        jobs.append(_job("lost", run["started_at"], before, run))
    return jobs


def _job(state: str, begun: datetime, end: datetime, run: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"state": state, "from": begun, "to": end, "run": run, "expected": None} | more


def _expected(run: Mapping[str, Any], now: datetime) -> datetime | None:
    """When a trial that runs should end; None for others, and where it has taken longer than was predicted."""
    if run["state"] != TrialState.RUNNING or run["is_lost"] or not run["predicted_seconds"]:
        return None
    left = min(run["predicted_seconds"], 1e8) - (run["resumed_seconds"] or 0)
    end = run["begun_at"] + timedelta(seconds=left)
    return end if end > now else None


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shares of the device time beside what is due by weight, in [0, 1]; the most served first, all others last."""
    seconds = sum(r["seconds"] for r in rows)
    weight = sum(r["weight"] or 0 for r in rows)
    found: dict[str | None, dict[str, Any]] = {}
    for r in rows:
        name = r["tenant"] if r["seen"] else None
        entry = found.setdefault(name, {"tenant": name, "seconds": 0.0, "share": 0.0, "due": 0.0})
        entry["seconds"] += r["seconds"]
        entry["share"] += r["seconds"] / seconds if seconds else 0.0
        entry["due"] += (r["weight"] or 0) / weight if weight else 0.0
    return sorted(found.values(), key=lambda e: (e["tenant"] is None, -e["seconds"], e["tenant"] or ""))

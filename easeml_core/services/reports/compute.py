"""Devices: what runs where, which trials wait, each tenant's share, and what an hour of a device is worth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.entities import JsonObject, TrialState
from easeml_core.services.selection.policy import current_config
from easeml_core.settings.config import require
from easeml_core.settings.device_requests import weight_of
from easeml_core.store.queries import compute as store_compute
from easeml_core.store.tables.capacity import live_devices, usable
from easeml_core.store.tables.decisions import list_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.queries.compute import (
        BusyDevices,
        DeviceRun,
        DeviceTotals,
        PromisedGain,
        TenantUse,
        WaitingTrial,
    )
    from easeml_core.store.tables.capacity import RegisteredDevice

WINDOWS = {
    "6h": (timedelta(hours=6), 36),
    "24h": (timedelta(hours=24), 48),
    "7d": (timedelta(days=7), 84),
}
"""The period of a report, and the parts into which it is cut."""

MOST_RUNS = 600
"""Largest number of drawn trials: those that run, and the latest that have ended."""

MOST_WAITS = 12
MOST_GAINS = 400


class JobState(StrEnum):
    """The use of a stretch of device time."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Job:
    """A stretch of time for which a trial held a device.

    Attributes:
        state: The use of the time.
        begun: When it began.
        until: When it ended; of a running trial the present.
        run: The trial.
        expected: When a running trial should end; None where that is not known.
    """

    state: JobState
    begun: datetime
    until: datetime
    run: DeviceRun
    expected: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """One device of a kind, with the jobs that it held one after the other; at least one."""

    device: str
    number: int
    jobs: list[Job]


@dataclass(frozen=True, slots=True)
class Share:
    """Device time of a tenant; of all unseen tenants together where ``tenant`` is None.

    Attributes:
        tenant: Its name.
        seconds: Device seconds.
        share: Of all device time, in [0, 1].
        due: What is due to it by weight, in [0, 1].
    """

    tenant: str | None
    seconds: float
    share: float
    due: float


@dataclass(frozen=True, slots=True)
class Price:
    """From a moment on: the least gain of quality that an hour of a device must promise."""

    at: datetime
    per_hour: float


@dataclass(frozen=True, slots=True)
class ComputeReport:
    """The devices in a period.

    Attributes:
        since: Its beginning.
        now: Its end, by the database's clock.
        window: One of ``WINDOWS``.
        totals: Counts.
        lanes: The trials by device, as of ``lanes_of``.
        drawn: Number of trials in the lanes.
        at_once: Devices that trained at once, as of ``at_once``.
        waits: Trials that wait.
        busy: Devices that trained over time.
        shares: Device time by tenant, most first, that of all unseen tenants last.
        gains: Gains promised by choices, newest first.
        prices: Prices of compute, oldest first; the last one is in force.
        devices: The live devices of the registry; None for viewers who do not see all studies, to whom the names of
            hosts are not shown.
        free: Free slots by kind of the live devices that train for who looks.
    """

    since: datetime
    now: datetime
    window: str
    totals: DeviceTotals
    lanes: list[Lane]
    drawn: int
    at_once: float | None
    waits: list[WaitingTrial]
    busy: list[BusyDevices]
    shares: list[Share]
    gains: list[PromisedGain]
    prices: list[Price]
    devices: list[RegisteredDevice] | None
    free: Mapping[str, int]


def compute(store: Store, *, window: str = "6h", studies: Collection[str] | None = None) -> ComputeReport:
    """Return the devices in a period, in one transaction of bounded queries."""
    require(window in WINDOWS, "window", window, ", ".join(WINDOWS))
    length, buckets = WINDOWS[window]
    since = datetime.now(UTC) - length
    with store.begin() as tx:
        registered = live_devices(tx)
        runs = store_compute.runs(tx, since=since, names=studies, limit=MOST_RUNS)
        totals = store_compute.totals(tx, since=since, names=studies)
        lanes = lanes_of(runs, now=totals.read_at)
        return ComputeReport(
            since=since,
            now=totals.read_at,
            window=window,
            totals=totals,
            lanes=lanes,
            drawn=len(runs),
            at_once=at_once(lanes, since=since),
            waits=store_compute.waits(tx, names=studies, limit=MOST_WAITS),
            busy=store_compute.busy(tx, since=since, buckets=buckets, names=studies),
            shares=_shares(store_compute.shares(tx, since=since, names=studies)),
            gains=store_compute.gains(tx, since=since, names=studies, limit=MOST_GAINS),
            prices=[
                *(Price(s.created_at, _price(s.config)) for s in reversed(list_settings(tx))),
                Price(totals.read_at, 3600 * current_config(tx).price_per_second),
            ],
            devices=registered if studies is None else None,
            free=_free(usable(tx, registered)),
        )


def _free(devices: Sequence[RegisteredDevice]) -> dict[str, int]:
    """Return the free slots of the devices by kind."""
    free: Counter[str] = Counter()
    for device in devices:
        free[device.kind] += device.free
    return dict(sorted(free.items()))


def _price(config: JsonObject) -> float:
    """Return the price per device-hour in stored settings."""
    return 3600 * float(config.get("price_per_second") or 0)


def lanes_of(runs: Sequence[DeviceRun], *, now: datetime) -> list[Lane]:
    """Return as many lanes as devices of a kind were held at once, each trial in the first lane that is free."""
    jobs = sorted((job for run in runs for job in _jobs(run, now)), key=lambda job: (job.begun, job.run.trial_id))
    lanes: dict[str, list[Lane]] = {}
    for job in jobs:
        kind = job.run.device or "device"
        of_kind = lanes.setdefault(kind, [])
        lane = next((lane for lane in of_kind if lane.jobs[-1].until <= job.begun), None)
        if lane is None:
            lane = Lane(kind, len(of_kind) + 1, [])
            of_kind.append(lane)
        lane.jobs.append(job)
    return [lane for _, of_kind in sorted(lanes.items()) for lane in of_kind]


def at_once(lanes: Sequence[Lane], *, since: datetime) -> float | None:
    """Return how many drawn devices trained at once, on average over the time in which any did.

    Time that was lost with a device that stopped answering is not training. Two slots of one machine count as two
    devices, even though they slow each other down.
    """
    jobs = [job for lane in lanes for job in lane.jobs if job.until > since and job.state != JobState.LOST]
    spans = sorted((max(job.begun, since), job.until) for job in jobs)
    held = sum((end - begin).total_seconds() for begin, end in spans)
    covered, until = 0.0, since
    for begin, end in spans:
        covered += max(0.0, (end - max(begin, until)).total_seconds())
        until = max(until, end)
    return held / covered if covered > 0 else None


def _jobs(run: DeviceRun, now: datetime) -> list[Job]:
    """Return the time for which a trial held a device, and the time that was lost before."""
    begun, lost = run.begun_at, timedelta(seconds=run.lost_seconds / weight_of(run.device))
    if run.state == TrialState.SUGGESTED:  # taken back: it waits again
        return [Job(JobState.LOST, begun, begun + lost, run)]
    state, end = _end(run, now)
    jobs = [Job(state, begun, max(end, begun), run, _expected(run, now))]
    before = min(begun, run.started_at + lost)
    if lost and before > run.started_at:
        jobs.append(Job(JobState.LOST, run.started_at, before, run))
    return jobs


def _end(run: DeviceRun, now: datetime) -> tuple[JobState, datetime]:
    """Return how the latest attempt ended, and when; of a running one the present."""
    if run.state == TrialState.RUNNING:
        return (JobState.LOST, run.lease_until or now) if run.is_lost else (JobState.RUNNING, now)
    return JobState.FAILED if run.state == TrialState.FAILED else JobState.ENDED, run.finished_at or now


def _expected(run: DeviceRun, now: datetime) -> datetime | None:
    """Return when a running trial should end; None for others, and where it takes longer than predicted."""
    if run.state != TrialState.RUNNING or run.is_lost or not run.predicted_seconds:
        return None
    left = min(run.predicted_seconds, 1e8) - run.resumed_seconds
    end = run.begun_at + timedelta(seconds=left / weight_of(run.device))
    return end if end > now else None


def _shares(rows: Sequence[TenantUse]) -> list[Share]:
    """Return shares of the device time with what is due by weight; most time first, all unseen tenants last."""
    seconds = sum(r.seconds for r in rows)
    weight = sum(r.weight or 0 for r in rows)
    by_tenant: dict[str | None, list[TenantUse]] = {}
    for r in rows:
        by_tenant.setdefault(r.tenant if r.seen else None, []).append(r)
    found = [
        Share(
            tenant=tenant,
            seconds=sum(r.seconds for r in of_tenant),
            share=sum(r.seconds for r in of_tenant) / seconds if seconds else 0.0,
            due=sum(r.weight or 0 for r in of_tenant) / weight if weight else 0.0,
        )
        for tenant, of_tenant in by_tenant.items()
    ]
    return sorted(found, key=lambda share: (share.tenant is None, -share.seconds, share.tenant or ""))

"""Queries about devices: what runs where, which trials wait, and the device time that each tenant used.

A model that was evaluated again used no training device and is left out. A lost attempt counts as device time of its
trial, drawn where the trial began. Devices are identified by their kind alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.entities import TrialState
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import record, records

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


@typed_record
class DeviceRun:
    """A trial that held a device.

    Attributes:
        device: Kind of device; None for any.
        begun_at: When its latest attempt began; ``started_at`` is when the first one did.
        lost_seconds: Device time of attempts that were lost.
        resumed_seconds: Device time that the present attempt was spared by a checkpoint.
        is_lost: Whether it runs and its lease has expired.
        predicted_seconds: Predicted cost of a trial that runs; None where nothing was predicted.
    """

    trial_id: int
    study: str
    tenant: str
    candidate: str
    device: str | None
    state: TrialState
    attempt: int
    begun_at: datetime
    started_at: datetime
    finished_at: datetime | None
    lost_seconds: float
    resumed_seconds: float
    lease_until: datetime | None
    lease_key: str | None
    is_lost: bool
    predicted_seconds: float | None


@typed_record
class WaitingTrial:
    """A suggested trial that waits for a device.

    Attributes:
        is_held: Whether a worker has it already.
        gain: Expected gain of quality; None for a first result, and where none was predicted.
        seconds: Predicted device time; None where none was predicted.
        guarded: Whether the guard for the least served chose it.
    """

    trial_id: int
    study: str
    tenant: str
    candidate: str
    device: str | None
    suggested_at: datetime
    attempt: int
    is_held: bool
    gain: float | None
    seconds: float | None
    guarded: bool


@typed_record
class DeviceTotals:
    """Counts of trials and device time since a moment.

    Attributes:
        running: Trials that run, of the whole installation; everything else is of the studies that may be seen.
        own_running: Those of them that may be seen.
        lost: Trials whose lease has expired; ``lost_since`` is when the first one did.
        waiting: Suggested trials; ``waiting_since`` is when the first one was.
        ended: Trials that have ended, ``failed`` of them without a result.
        lost_seconds: Device time of lost attempts.
        start_seconds: Device time of starting the processes of trials that have ended, which is no cost of theirs.
        read_at: The database's clock.
    """

    running: int
    own_running: int
    lost: int
    lost_since: datetime | None
    waiting: int
    waiting_since: datetime | None
    ended: int
    failed: int
    lost_seconds: float
    start_seconds: float
    read_at: datetime


@typed_record
class BusyDevices:
    """Devices that trained on average in a part of the time that begins ``at``; ``own`` of the studies seen."""

    at: datetime
    devices: float
    own: float


@typed_record
class TenantUse:
    """Device seconds of a tenant; ``seen`` where these are of studies that may be seen.

    ``weight`` is the sum over its active studies; None without any.
    """

    tenant: str
    seen: bool
    weight: float | None
    seconds: float


@typed_record
class PromisedGain:
    """The promise of a choice for an hour of a device."""

    at: datetime
    study: str
    candidate: str
    guarded: bool
    gain_per_hour: float


@typed_record
class StudySeconds:
    """Device seconds of one study."""

    study: str
    seconds: float


@typed_record
class HistoryStamp:
    """Changes whenever a backtest may change: number of results, the newest of them, the settings in force."""

    results: int
    newest: int
    settings: int


_SEEN = "(CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))"
_BEGUN = "coalesce(x.attempt_started_at, x.started_at)"
_HELD_UNTIL = "coalesce(x.finished_at, least(now(), x.lease_until))"

_RUNS = f"""
SELECT x.id AS trial_id, s.name AS study, n.name AS tenant, c.name AS candidate, x.device, x.state, x.attempt,
       {_BEGUN} AS begun_at, x.started_at, x.finished_at, x.lost_seconds, x.resumed_seconds, x.lease_until,
       x.lease_key,
       x.state = 'RUNNING' AND x.lease_until < now() AS is_lost,
       CASE WHEN x.state = 'RUNNING' THEN (
         SELECT CASE WHEN jsonb_typeof(g.reasons -> 'predicted_cost_seconds') = 'number'
           THEN (g.reasons ->> 'predicted_cost_seconds')::double precision END
         FROM work.suggestions g WHERE g.trial_id = x.id ORDER BY g.batch_id DESC LIMIT 1) END AS predicted_seconds
FROM work.trials x JOIN work.studies s ON s.id = x.study_id JOIN work.tenants n ON n.id = s.tenant_id
JOIN work.candidates c ON c.id = x.candidate_id
WHERE x.started_at IS NOT NULL AND x.reevaluates IS NULL AND {_SEEN} AND (x.state = 'RUNNING'
  OR x.finished_at > :since OR (x.state = 'SUGGESTED' AND x.attempt_started_at > :since))
ORDER BY x.state = 'RUNNING' DESC, x.finished_at DESC NULLS FIRST, x.id DESC LIMIT :limit
"""

# The latest reasons of each: an acquisition counts once it was handed out. A first result has no gain (``_GAINS``).
_WAITS = f"""
SELECT x.id AS trial_id, s.name AS study, n.name AS tenant, c.name AS candidate, x.device, x.suggested_at, x.attempt,
       coalesce(x.lease_until > now(), false) AS is_held, g.gain, g.seconds, coalesce(g.guarded, false) AS guarded
FROM work.trials x JOIN work.studies s ON s.id = x.study_id JOIN work.tenants n ON n.id = s.tenant_id
JOIN work.candidates c ON c.id = x.candidate_id
LEFT JOIN LATERAL (
  SELECT CASE WHEN jsonb_typeof(reasons -> 'expected_improvement') = 'number'
           AND jsonb_typeof(reasons -> 'best') = 'number' AND reasons -> 'best' > '0'::jsonb
           THEN (reasons ->> 'expected_improvement')::double precision END AS gain,
         CASE WHEN jsonb_typeof(reasons -> 'predicted_cost_seconds') = 'number'
           THEN (reasons ->> 'predicted_cost_seconds')::double precision END AS seconds,
         reasons -> 'guarded' = 'true'::jsonb AS guarded
  FROM work.suggestions WHERE trial_id = x.id ORDER BY batch_id DESC LIMIT 1) g ON true
WHERE x.state = 'SUGGESTED' AND {_SEEN}
ORDER BY x.lease_until > now() DESC NULLS LAST, s.priority DESC, x.id LIMIT :limit
"""

_TOTALS = f"""
SELECT count(*) FILTER (WHERE x.state = 'RUNNING' AND x.lease_until >= now()) AS running,
       count(*) FILTER (WHERE x.state = 'RUNNING' AND x.lease_until >= now() AND seen) AS own_running,
       count(*) FILTER (WHERE x.state = 'RUNNING' AND x.lease_until < now() AND seen) AS lost,
       min(x.lease_until) FILTER (WHERE x.state = 'RUNNING' AND x.lease_until < now() AND seen) AS lost_since,
       count(*) FILTER (WHERE x.state = 'SUGGESTED' AND seen) AS waiting,
       min(x.suggested_at) FILTER (WHERE x.state = 'SUGGESTED' AND seen) AS waiting_since,
       count(*) FILTER (WHERE x.finished_at > :since AND seen) AS ended,
       count(*) FILTER (WHERE x.finished_at > :since AND x.state = 'FAILED' AND seen) AS failed,
       coalesce(sum(x.lost_seconds) FILTER (WHERE x.attempt_started_at > :since AND seen), 0) AS lost_seconds,
       coalesce(sum(x.start_seconds) FILTER (WHERE x.finished_at > :since AND seen), 0) AS start_seconds,
       now() AS read_at
FROM work.trials x JOIN work.studies s ON s.id = x.study_id, LATERAL (SELECT {_SEEN} AS seen) z
WHERE x.reevaluates IS NULL AND (x.finished_at IS NULL OR x.finished_at > :since)
"""

# Each trial meets the few parts that it touches; the parts without any come in at the end.
_BUSY = f"""
WITH step AS (SELECT extract(epoch FROM now() - CAST(:since AS timestamptz))::double precision / :buckets AS width),
held AS (
  SELECT greatest(0, extract(epoch FROM {_BEGUN} - CAST(:since AS timestamptz))::double precision) AS begun,
         extract(epoch FROM {_HELD_UNTIL} - CAST(:since AS timestamptz))::double precision AS ended, {_SEEN} AS seen,
         work.device_weight(x.device) AS weight
  FROM work.trials x JOIN work.studies s ON s.id = x.study_id
  WHERE x.started_at IS NOT NULL AND x.reevaluates IS NULL AND (x.state = 'RUNNING' OR x.finished_at > :since)),
touched AS (
  SELECT k, sum(weight * (least(ended, (k + 1) * width) - greatest(begun, k * width)) / width) AS devices,
         sum(weight * (least(ended, (k + 1) * width) - greatest(begun, k * width)) / width) FILTER (WHERE seen) AS own
  FROM step, held,
    LATERAL generate_series(floor(begun / width)::int, least(:buckets - 1, floor(ended / width)::int)) k
  WHERE ended > begun GROUP BY k)
SELECT CAST(:since AS timestamptz) + make_interval(secs => k * width) AS at,
       coalesce(devices, 0) AS devices, coalesce(own, 0) AS own
FROM step, generate_series(0, :buckets - 1) k LEFT JOIN touched USING (k) ORDER BY k
"""

_SHARES = f"""
SELECT n.name AS tenant, {_SEEN} AS seen,
       sum(s.weight * n.weight) FILTER (WHERE s.state = 'ACTIVE') AS weight,
       coalesce(sum(u.seconds), 0) AS seconds
FROM work.studies s JOIN work.tenants n ON n.id = s.tenant_id
LEFT JOIN (
  SELECT x.study_id, sum(CASE WHEN x.state = 'RUNNING'
    THEN work.device_weight(x.device) * extract(epoch FROM {_HELD_UNTIL} - greatest({_BEGUN}, :since))::double precision
    ELSE x.charged_seconds END) AS seconds
  FROM work.trials x WHERE x.reevaluates IS NULL AND (x.finished_at > :since OR x.state = 'RUNNING')
  GROUP BY x.study_id) u ON u.study_id = s.id
WHERE s.state NOT IN ('REFUSED', 'ARCHIVED')
GROUP BY 1, 2 HAVING coalesce(sum(u.seconds), 0) > 0 OR bool_or(s.state = 'ACTIVE')
ORDER BY seconds DESC, tenant
"""

_SECONDS = f"""
SELECT s.name AS study, sum(CASE WHEN x.state = 'RUNNING'
  THEN work.device_weight(x.device) * extract(epoch FROM {_HELD_UNTIL} - greatest({_BEGUN}, :since))::double precision
  ELSE x.charged_seconds END) AS seconds
FROM work.trials x JOIN work.studies s ON s.id = x.study_id
WHERE x.reevaluates IS NULL AND (x.finished_at > :since OR x.state = 'RUNNING') AND {_SEEN} GROUP BY s.name
"""

# A first result is expected to gain all of its quality at an unknown cost, so it has no price.
_GAINS = f"""
SELECT b.created_at AS at, s.name AS study, c.name AS candidate, g.reasons -> 'guarded' = 'true'::jsonb AS guarded,
       3600 * (g.reasons ->> 'expected_improvement')::double precision
         / (g.reasons ->> 'predicted_cost_seconds')::double precision AS gain_per_hour
FROM work.suggestion_batches b JOIN work.suggestions g ON g.batch_id = b.id JOIN work.trials x ON x.id = g.trial_id
JOIN work.studies s ON s.id = x.study_id JOIN work.candidates c ON c.id = x.candidate_id
WHERE b.created_at > :since AND {_SEEN} AND CASE
  WHEN jsonb_typeof(g.reasons -> 'expected_improvement') = 'number' AND jsonb_typeof(g.reasons -> 'best') = 'number'
    AND jsonb_typeof(g.reasons -> 'predicted_cost_seconds') = 'number'
  THEN (g.reasons ->> 'best')::double precision > 0 AND (g.reasons ->> 'predicted_cost_seconds')::double precision > 0
  ELSE false END
ORDER BY b.id DESC, g.position LIMIT :limit
"""


def runs(tx: Connection, *, since: datetime, names: Collection[str] | None, limit: int) -> list[DeviceRun]:
    """Return trials that held a device since then: those that do now first, then the latest to end."""
    return records(tx, DeviceRun, _RUNS, since=since, names=_names(names), limit=limit)


def waits(tx: Connection, *, names: Collection[str] | None, limit: int) -> list[WaitingTrial]:
    """Return suggested trials that wait for a device: those handed out first, then by priority and age."""
    return records(tx, WaitingTrial, _WAITS, names=_names(names), limit=limit)


def totals(tx: Connection, *, since: datetime, names: Collection[str] | None) -> DeviceTotals:
    """Return counts of what runs, waits, is lost and has ended."""
    found = record(tx, DeviceTotals, _TOTALS, since=since, names=_names(names))
    assert found is not None  # counts are always there
    return found


def busy(tx: Connection, *, since: datetime, buckets: int, names: Collection[str] | None) -> list[BusyDevices]:
    """Return the average number of devices that trained in each part of the time, oldest first."""
    return records(tx, BusyDevices, _BUSY, since=since, buckets=buckets, names=_names(names))


def shares(tx: Connection, *, since: datetime, names: Collection[str] | None) -> list[TenantUse]:
    """Return the device seconds of each tenant since then, with its weight; the most served first."""
    return records(tx, TenantUse, _SHARES, since=since, names=_names(names))


def seconds_of_studies(tx: Connection, *, since: datetime, names: Collection[str] | None) -> dict[str, float]:
    """Return device seconds of each study since then; those that used none are left out."""
    found = records(tx, StudySeconds, _SECONDS, since=since, names=_names(names))
    return {used.study: float(used.seconds) for used in found}


def gains(tx: Connection, *, since: datetime, names: Collection[str] | None, limit: int) -> list[PromisedGain]:
    """Return what the newest choices promised for an hour of a device, newest first."""
    return records(tx, PromisedGain, _GAINS, since=since, names=_names(names), limit=limit)


def history_stamp(tx: Connection) -> HistoryStamp:
    """Return the stamp of what a backtest replays."""
    found = record(
        tx,
        HistoryStamp,
        "SELECT (SELECT count(*) FROM work.observations) AS results, (SELECT coalesce(max(trial_id), 0) FROM "
        "work.observations) AS newest, (SELECT coalesce(max(id), 0) FROM work.selection_settings) AS settings",
    )
    assert found is not None  # counts are always there
    return found


def _names(names: Collection[str] | None) -> list[str] | None:
    return None if names is None else list(names)

"""Queries of the overview, symbols only: one row per study, and quality, devices, verdicts and promises over time.

The row of a study is counted from its trials, verdicts, readings and alerts. Whatever shows many studies reads the rows
that were kept of that (``queries/assessments.py``).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, StudyState, Symbol
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import record, records, rows
from easeml_core.store.tables.releases import IS_OPEN
from easeml_core.store.tables.test_sets import ON_THE_PLAN

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


@typed_record
class StudyFacts:
    """A study's row of the overview, with released facts only.

    Of a test set that several teams share, no team's signals and alerts are here.

    Attributes:
        weight: The study's own; ``tenant_weight`` multiplies it.
        budget_seconds: Device seconds that it may use; None for no limit.
        active_since: Since when it gets trials; None before.
        reserved_seconds: Limits of its open trials, less what these have lost.
        tenant_charged_seconds: Device seconds that all studies of the tenant have used and reserved.
        tenant_open_trials: Open trials of all studies of the tenant.
        trials: Trials that succeeded on the present data; ``failed`` and ``cancelled`` likewise.
        running: Trials that run, on whatever data; ``waiting`` are suggested ones.
        not_held: Results of the study that did not hold when they were measured anew, and that no operator has
            acknowledged; ``not_held_trial`` is the trial of the first one, and ``not_held_at`` when it was measured.
        best_quality: In [0, 1]; None before the first result on the present data that was not found false.
        best_quality_day_ago: The same a day ago.
        device_seconds: Device seconds that were used, those of lost attempts included.
        device_seconds_day: Those of the last 24 hours.
        ended_day: Trials that have ended in the last 24 hours.
        lost: Trials whose lease has expired; ``lost_at`` is when the first one did.
        queued_at: When the first of the waiting trials was suggested.
        best_candidate: Candidate of the best result; ``best_model_id`` is its model.
        best_verdict: Last symbol about that model; None where the gate was not asked.
        best_is_judged: Whether the gate has been asked about it and has not answered yet.
        best_was_promoted: Whether it has ever been in production.
        verdict: Last symbol about any model, ``verdict_model_id``.
        signal: Last signal of the meter, in 1..signals; None before the first.
        direct_signal: The same on the second validation sample; ``drift`` compares both.
        submissions_left: Answers that the meter has left; None where there is no limit.
        meter_retired: Whether the last meter set was retired and none is live; None without a meter set.
        teams: That share the meter set; None without one.
        production_quality: Of the model in production, in [0, 1].
        best_stands: Whether the best model is the one in production.
        open_alerts: Number of open alerts; ``alert_kind`` is the kind of the most urgent one.
        alert_kinds: Kinds of the open alerts.
        sets_wanted: Purposes of the test sets that a new one is wanted for.
        gate_set_live: Whether a gate set is live; ``gate_set_waits`` whether a sealed one waits; likewise the meter's.
        gate_steps: Answers that the live gate set can give; ``gate_steps_used`` were given.
        labels_on_demand: Whether people label the gate set when a verdict needs labels.
        asked_at: When the oldest open request was filed that is not about gate or meter.
        judging_at: When the oldest open request to gate or meter was filed.
        refusal: What the referee said when it refused the study's data.
    """

    tenant: str
    study: str
    state: StudyState
    source: str
    metric: str
    created_at: datetime
    weight: float
    tenant_weight: float
    budget_seconds: float | None
    priority: int
    deadline: datetime | None
    target_quality: float | None
    active_since: datetime | None
    reserved_seconds: float
    tenant_quota_seconds: float | None
    tenant_charged_seconds: float
    tenant_max_parallel: int | None
    tenant_open_trials: int
    candidates: int
    trials: int
    running: int
    waiting: int
    failed: int
    cancelled: int
    not_held: int
    not_held_trial: int | None
    not_held_at: datetime | None
    best_quality: float | None
    best_quality_day_ago: float | None
    device_seconds: float
    device_seconds_day: float
    ended_day: int
    lost: int
    lost_at: datetime | None
    queued_at: datetime | None
    best_candidate: str | None
    best_model_id: int | None
    best_verdict: Symbol | None
    best_is_judged: bool
    best_was_promoted: bool
    verdict: Symbol | None
    verdict_model_id: int | None
    signal: int | None
    signals: int | None
    direct_signal: int | None
    drift: str | None
    submissions_left: int | None
    meter_retired: bool | None
    teams: int | None
    production_model_id: int | None
    production_candidate: str | None
    production_quality: float | None
    best_stands: bool
    open_alerts: int
    alert_kind: AlertKind | None
    alert_kinds: list[str]
    sets_wanted: list[str]
    gate_set_live: bool
    gate_set_waits: bool
    meter_set_waits: bool
    gate_steps: int | None
    gate_steps_used: int
    labels_on_demand: bool
    asked_at: datetime | None
    judging_at: datetime | None
    refusal: str | None


@typed_record
class StudySummary(StudyFacts):
    """The facts as of a moment, and what only a page of the study needs.

    Attributes:
        read_at: The moment, by the database's clock.
        seconds_left: Until the deadline; None without one.
        best_trial_id: Trial of the best result.
        all_trials: Trials on whatever data.
    """

    read_at: datetime
    seconds_left: float | None
    best_trial_id: int | None
    all_trials: int


@typed_record
class CountedStudy(StudySummary):
    """The summary, and what an assessment keeps beside it.

    Attributes:
        shown: False of a refused study whose name another one has taken.
        charged: Device seconds of all its trials, those that open ones have reserved included; ``open`` counts these.
        day_seconds: Device seconds of the last day are ``day_seconds + day_running * now - day_since``, where times
            are in seconds since 1970: ``day_running`` devices train in attempts that have begun within the day.
        until: When the row changes by the passing of time alone, as far as its trials say; None for never.
    """

    study_id: int
    tenant_id: int
    shown: bool
    charged: float
    open: int
    day_seconds: float
    day_running: int
    day_since: float
    until: datetime | None


@typed_record
class WeekCounts:
    """Verdicts and promotions of the last seven days."""

    passed: int
    failed: int
    withheld: int
    promoted: int
    rolled_back: int


@typed_record
class Promise:
    """The promise of a study's last choice: ``gain`` of quality for ``seconds`` of device time."""

    study: str
    candidate: str
    gain: float
    seconds: float


@typed_record
class InstallationTotals:
    """Device ``seconds`` of the last day, and the ``weight`` of all active studies."""

    seconds: float
    weight: float


# Trials are counted on the present data: what ran on earlier ones says nothing of what is left to do, unless only the
# validation part is another. The best one is the largest of (quality, -cost, -trial): arrays are compared place by
# place. Behind that stand its candidate and the trial that trained it.
# ``charged`` is the rule of work.charge written out: a function that is handed whole rows takes a quarter of the query.
_ROW = f"""
WITH chosen AS MATERIALIZED (
  SELECT s.*, CASE s.state WHEN 'ARCHIVED' THEN false WHEN 'REFUSED' THEN NOT EXISTS (SELECT FROM work.studies z
      WHERE z.name = s.name AND (z.id > s.id AND z.state <> 'ARCHIVED' OR z.state NOT IN ('REFUSED', 'ARCHIVED')))
    ELSE true END AS shown
  FROM work.studies s WHERE (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))
  AND (CAST(:ids AS bigint[]) IS NULL OR s.id = ANY(CAST(:ids AS bigint[])))),
fellows AS MATERIALIZED (
  SELECT id, tenant_id FROM chosen
  UNION SELECT s.id, s.tenant_id FROM work.studies s LEFT JOIN work.assessments k ON k.study_id = s.id
  WHERE s.tenant_id IN (SELECT tenant_id FROM chosen)
  AND (k.study_id IS NULL OR s.id IN (SELECT study_id FROM work.study_changes))),
newest AS MATERIALIZED (
  SELECT DISTINCT ON (d.study_id) d.study_id, d.id, coalesce(d.same_training_as, d.id) AS training
  FROM work.data_versions d JOIN fellows s ON s.id = d.study_id ORDER BY d.study_id, d.version DESC),
present AS MATERIALIZED (
  SELECT d.id, d.id = n.id AS is_newest FROM work.data_versions d
  JOIN newest n ON n.study_id = d.study_id AND n.training = coalesce(d.same_training_as, d.id)),
false_results AS MATERIALIZED (
  SELECT q.trial_id FROM work.quality_checks q JOIN fellows s ON s.id = q.study_id WHERE q.outcome = 'not held'),
runs AS MATERIALIZED (
  SELECT x.study_id,
         count(*) FILTER (WHERE x.state = 'SUCCEEDED' AND reevaluates IS NULL AND p.id IS NOT NULL
           AND w.trial_id IS NULL) AS succeeded,
         count(*) FILTER (WHERE x.state = 'RUNNING') AS running,
         count(*) FILTER (WHERE x.state = 'SUGGESTED') AS waiting,
         count(*) FILTER (WHERE p.id IS NOT NULL AND (w.trial_id IS NOT NULL OR x.state = 'FAILED'
           AND (x.failure_kind IS DISTINCT FROM 'task'
           OR NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = x.id)))) AS failed,
         count(*) FILTER (WHERE x.state = 'CANCELLED' AND p.id IS NOT NULL) AS cancelled,
         count(*) FILTER (WHERE x.finished_at > now() - interval '1 day') AS ended_day,
         count(*) FILTER (WHERE x.state = 'RUNNING' AND lease_until < now()) AS lost,
         min(lease_until) FILTER (WHERE x.state = 'RUNNING' AND lease_until < now()) AS lost_at,
         min(suggested_at) FILTER (WHERE x.state = 'SUGGESTED') AS queued_at,
         sum(x.charged_seconds) AS device_seconds,
         sum(x.charged_seconds) FILTER (WHERE x.finished_at > now() - interval '1 day')
           AS ended_seconds_day,
         extract(epoch FROM sum(work.device_weight(x.device)
           * (now() - greatest(attempt_started_at, now() - interval '1 day')))
           FILTER (WHERE x.state = 'RUNNING'))::double precision AS running_seconds,
         sum(limit_seconds - lost_seconds) FILTER (WHERE x.finished_at IS NULL) AS reserved_seconds,
         max(ARRAY[o.quality, -o.cost_seconds, -x.id, x.candidate_id, coalesce(reevaluates, x.id)])
           FILTER (WHERE is_newest AND o.trial_id IS NOT NULL) AS best,
         count(*) AS all_trials,
         sum(CASE WHEN x.finished_at IS NULL THEN limit_seconds ELSE x.charged_seconds END)
           AS charged, count(*) FILTER (WHERE x.finished_at IS NULL) AS open,
         max(o.quality) FILTER (WHERE is_newest AND observed_at <= now() - interval '1 day') AS best_quality_day_ago,
         extract(epoch FROM sum(work.device_weight(x.device) * (now() - attempt_started_at))
           FILTER (WHERE x.state = 'RUNNING'
           AND attempt_started_at > now() - interval '1 day'))::double precision AS day_run,
         -- A whole number of devices, by which the sum grows until it is worked out anew.
         round(sum(work.device_weight(x.device)) FILTER (WHERE x.state = 'RUNNING'
           AND attempt_started_at > now() - interval '1 day'))::integer AS day_running,
         least(min(x.finished_at) FILTER (WHERE x.finished_at > now() - interval '1 day') + interval '1 day',
           min(observed_at) FILTER (WHERE observed_at > now() - interval '1 day') + interval '1 day',
           min(attempt_started_at) FILTER (WHERE x.state = 'RUNNING'
             AND attempt_started_at > now() - interval '1 day') + interval '1 day',
           min(lease_until) FILTER (WHERE x.state = 'RUNNING' AND lease_until >= now())) AS until
  FROM work.trials x JOIN fellows s ON s.id = x.study_id LEFT JOIN present p ON p.id = x.data_version_id
  LEFT JOIN false_results w ON w.trial_id = x.id
  LEFT JOIN LATERAL (
    SELECT * FROM work.observations z WHERE z.trial_id = x.id AND w.trial_id IS NULL LIMIT 1) o ON true
  GROUP BY x.study_id),
charges AS (
  SELECT tenant_id, sum(charged) AS charged, sum(open) AS open FROM (
    SELECT s.tenant_id, r.charged, r.open FROM fellows s JOIN runs r ON r.study_id = s.id
    UNION ALL SELECT k.tenant_id, k.charged, k.open FROM work.assessments k
    WHERE k.tenant_id IN (SELECT tenant_id FROM chosen) AND k.study_id NOT IN (SELECT id FROM fellows)) every
  GROUP BY tenant_id),
asked AS (
  SELECT q.study_id, min(q.requested_at) FILTER (WHERE q.kind NOT IN ('gate', 'meter')) AS asked_at,
         min(q.requested_at) FILTER (WHERE q.kind IN ('gate', 'meter')) AS judging_at,
         array_agg(q.model_id) FILTER (WHERE q.kind = 'gate') AS judging
  FROM work.requests q JOIN chosen s ON s.id = q.study_id
  WHERE NOT EXISTS (SELECT FROM work.answers w WHERE w.request_id = q.id) GROUP BY q.study_id),
sets AS (
  SELECT e.study_id, bool_or(is_gate AND e.state = 'live') AS gate_live,
         bool_or(is_gate AND e.state = 'sealed') AS gate_waits,
         bool_or(is_meter AND e.state = 'retired') AND NOT bool_or(is_meter AND e.state = 'live') AS meter_retired,
         (array_agg(coalesce((plan ->> 'teams')::int, 1) ORDER BY e.state = 'live' DESC, e.id DESC)
           FILTER (WHERE is_meter))[1] AS teams,
         bool_or(is_meter AND e.state = 'sealed') AS meter_waits,
         max(e.id) FILTER (WHERE is_gate AND e.state = 'live') AS gate_set
  FROM work.test_sets e JOIN chosen s ON s.id = e.study_id AND e.deleted_at IS NULL,
  LATERAL (SELECT e.purpose IN ('gate', 'joint') AS is_gate, e.purpose IN ('meter', 'joint') AS is_meter) k
  GROUP BY e.study_id)
SELECT t.name AS tenant, s.name AS study, s.state, d.source, s.metric, s.created_at, s.weight,
       t.weight AS tenant_weight, s.budget_seconds, s.priority, s.deadline,
       extract(epoch FROM s.deadline - now())::double precision AS seconds_left, s.target_quality, s.active_since,
       coalesce(r.reserved_seconds, 0) AS reserved_seconds, t.quota_seconds AS tenant_quota_seconds,
       coalesce(q.charged, 0) AS tenant_charged_seconds, t.max_parallel AS tenant_max_parallel,
       coalesce(q.open, 0)::bigint AS tenant_open_trials,
       (SELECT count(*) FROM work.candidates k WHERE k.study_id = s.id AND (k.withdrawn_at IS NULL
        OR EXISTS (SELECT FROM work.trials x JOIN present p ON p.id = x.data_version_id WHERE x.candidate_id = k.id)))
         AS candidates,
       coalesce(r.succeeded, 0) AS trials, coalesce(r.running, 0) AS running,
       coalesce(r.waiting, 0) AS waiting, coalesce(r.failed, 0) AS failed, coalesce(r.cancelled, 0) AS cancelled,
       coalesce(nh.n, 0) AS not_held, nh.trial_id AS not_held_trial, nh.checked_at AS not_held_at,
       coalesce(r.all_trials, 0) AS all_trials, (-r.best[3])::bigint AS best_trial_id,
       r.best[1] AS best_quality, r.best_quality_day_ago, coalesce(r.device_seconds, 0) AS device_seconds,
       coalesce(r.ended_seconds_day, 0) + coalesce(r.running_seconds, 0) AS device_seconds_day,
       coalesce(r.ended_day, 0) AS ended_day, coalesce(r.lost, 0) AS lost, r.lost_at, r.queued_at,
       (SELECT name FROM work.candidates k WHERE k.id = r.best[4]::bigint) AS best_candidate,
       bm.id AS best_model_id, bg.symbol AS best_verdict,
       coalesce(bm.id = ANY (a.judging), false) AS best_is_judged,
       EXISTS (SELECT FROM work.promotions y WHERE y.study_id = s.id AND y.model_id = bm.id) AS best_was_promoted,
       g.symbol AS verdict, g.model_id AS verdict_model_id, m.signal, m.signals, m.direct_signal, m.drift,
       m.submissions_left, ts.meter_retired, ts.teams,
       p.model_id AS production_model_id, p.candidate AS production_candidate, p.quality AS production_quality,
       coalesce(bm.artifact = p.artifact AND bm.format = p.format, false) AS best_stands,
       coalesce(o.n, 0) AS open_alerts, o.kind AS alert_kind,
       coalesce(o.kinds, ARRAY[]::text[]) AS alert_kinds, coalesce(o.wanted, ARRAY[]::text[]) AS sets_wanted,
       coalesce(ts.gate_live, false) AS gate_set_live,
       coalesce(ts.gate_waits, false) AS gate_set_waits, coalesce(ts.meter_waits, false) AS meter_set_waits,
       CASE ge.purpose WHEN 'joint' THEN (ge.plan -> 'gate' ->> 'steps')::int ELSE ge.steps END AS gate_steps,
       (SELECT coalesce(max(step), 0) FROM work.gate_verdicts v JOIN work.test_sets t ON t.id = v.test_set_id
        WHERE v.study_id = s.id AND v.test_set_id = ge.id AND {ON_THE_PLAN})
         AS gate_steps_used,
       coalesce(ge.labels_on_demand, false) AS labels_on_demand, a.asked_at, a.judging_at,
       now() AS read_at, refusal.message AS refusal %s
FROM chosen s
JOIN work.tenants t ON t.id = s.tenant_id
JOIN work.data_sets d ON d.id = s.data_set_id
LEFT JOIN runs r ON r.study_id = s.id
LEFT JOIN charges q ON q.tenant_id = t.id
LEFT JOIN asked a ON a.study_id = s.id
LEFT JOIN sets ts ON ts.study_id = s.id
LEFT JOIN work.test_sets ge ON ge.id = ts.gate_set
LEFT JOIN (
  SELECT q.study_id, count(*) AS n, min(q.trial_id) AS trial_id, min(q.checked_at) AS checked_at
  FROM work.quality_checks q WHERE q.outcome = 'not held' AND q.acknowledged_at IS NULL GROUP BY q.study_id) nh
  ON nh.study_id = s.id
LEFT JOIN work.models bm ON bm.trial_id = r.best[5]::bigint
LEFT JOIN LATERAL (
  SELECT symbol FROM work.gate_verdicts v WHERE v.study_id = s.id AND v.model_id = bm.id AND v.planned
  ORDER BY request_id DESC LIMIT 1) bg ON true
LEFT JOIN LATERAL (
  SELECT symbol, model_id FROM work.gate_verdicts WHERE study_id = s.id AND planned
  ORDER BY request_id DESC LIMIT 1) g ON true
LEFT JOIN LATERAL (
  SELECT y.signal, y.signals, y.direct_signal, y.drift, y.submissions_left FROM work.meter_readings y
  JOIN work.test_sets e ON e.id = y.test_set_id
  WHERE y.study_id = s.id AND coalesce((e.plan ->> 'teams')::int, 1) = 1 ORDER BY y.request_id DESC LIMIT 1) m ON true
LEFT JOIN (
  SELECT pr.study_id, pr.model_id, k.name AS candidate, w.artifact, w.format,
         coalesce(qc.measured, b.quality, 1 - w.validation_loss) AS quality
  FROM work.production pr JOIN work.models w ON w.id = pr.model_id
  LEFT JOIN work.trials x ON x.id = w.trial_id LEFT JOIN work.candidates k ON k.id = x.candidate_id
  LEFT JOIN work.quality_checks qc ON qc.trial_id = x.id AND qc.outcome = 'not held'
  LEFT JOIN work.observations b ON b.trial_id = x.id) p ON p.study_id = s.id
LEFT JOIN (
  SELECT a.study_id, count(*) AS n, array_agg(DISTINCT a.kind) AS kinds, (array_agg(a.kind ORDER BY array_position(
    ARRAY['overfitting', 'drift', 'new-test-set'], a.kind)))[1] AS kind,
    array_agg(DISTINCT y.purpose) FILTER (WHERE a.kind = 'new-test-set') AS wanted
  FROM work.alerts a JOIN chosen w ON w.id = a.study_id LEFT JOIN work.test_sets y ON y.id = a.test_set_id
  WHERE {IS_OPEN} AND a.team IS NULL GROUP BY a.study_id) o ON o.study_id = s.id
LEFT JOIN LATERAL (
  SELECT message FROM work.requests q JOIN work.answers w ON w.request_id = q.id
  WHERE q.study_id = s.id AND q.kind = 'seal' AND w.refused ORDER BY q.id DESC LIMIT 1) refusal ON true
"""
_SUMMARY = f"{_ROW % ''} WHERE s.shown OR CAST(:ids AS bigint[]) IS NOT NULL ORDER BY t.name, s.name LIMIT :limit"
_COUNTED = (
    _ROW
    % """,
       s.id AS study_id, t.id AS tenant_id, s.shown, coalesce(r.charged, 0) AS charged, coalesce(r.open, 0) AS open,
       coalesce(r.ended_seconds_day, 0) + coalesce(r.running_seconds, 0) - coalesce(r.day_run, 0) AS day_seconds,
       coalesce(r.day_running, 0) AS day_running,
       coalesce(r.day_running * extract(epoch FROM now())::double precision - r.day_run, 0) AS day_since, r.until"""
)


def study_summaries(
    tx: Connection, *, limit: int = 1000, names: Collection[str] | None = None, ids: Collection[int] | None = None
) -> list[StudySummary]:
    """Return everything that a developer may know of each study, by tenant and name, counted now."""
    given = {"names": None if names is None else list(names), "ids": None if ids is None else list(ids)}
    return records(tx, StudySummary, _SUMMARY, limit=limit, **given)


def counted_studies(tx: Connection, ids: Collection[int]) -> list[CountedStudy]:
    """Return the rows of these studies, counted now; in no order."""
    return records(tx, CountedStudy, _COUNTED, ids=list(ids), names=None)


def policies_used(tx: Connection) -> list[str]:
    """Policies that have suggested trials, most recent first."""
    found = rows(tx, "SELECT policy, max(id) AS last FROM work.suggestion_batches GROUP BY policy ORDER BY last DESC")
    return [r.policy for r in found]


_IMPROVEMENTS = """
SELECT study, observed_at, quality FROM (
  SELECT s.name AS study, o.observed_at, o.quality, max(o.quality) OVER (
    PARTITION BY s.id ORDER BY o.observed_at, o.trial_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM work.studies s JOIN LATERAL (
    SELECT id FROM work.data_versions WHERE study_id = s.id ORDER BY version DESC LIMIT 1) v ON true
  JOIN work.trials x ON x.study_id = s.id AND x.data_version_id = v.id
  JOIN work.observations o ON o.trial_id = x.id
  AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = x.id AND q.outcome = 'not held')
  WHERE s.state NOT IN ('REFUSED', 'ARCHIVED') AND s.name = ANY(CAST(:names AS text[]))) every
WHERE before IS NULL OR quality > before ORDER BY study, observed_at
"""

_BUSY = """
WITH day AS MATERIALIZED (
  SELECT x.started_at, coalesce(x.finished_at, least(now(), x.lease_until)) AS ended,
         work.device_weight(x.device) AS weight FROM work.trials x
  JOIN work.studies s ON s.id = x.study_id
  WHERE x.started_at IS NOT NULL AND coalesce(x.finished_at, now()) > now() - interval '24 h'
  AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[]))))
SELECT coalesce(sum(weight * extract(epoch FROM least(ended, h + interval '1 h') - greatest(started_at, h)))
         FILTER (WHERE ended > h), 0)::double precision / 3600 AS devices
FROM generate_series(now() - interval '24 h', now() - interval '1 h', interval '1 h') h
LEFT JOIN day ON started_at < h + interval '1 h' AND ended > h GROUP BY h ORDER BY h
"""

_WEEK = """
WITH chosen AS (SELECT id FROM work.studies WHERE CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[]))),
verdicts AS (SELECT symbol FROM work.gate_verdicts
  WHERE planned AND decided_at > now() - interval '7 days' AND study_id IN (SELECT id FROM chosen)),
moves AS (SELECT kind FROM work.promotions
  WHERE promoted_at > now() - interval '7 days' AND study_id IN (SELECT id FROM chosen))
SELECT (SELECT count(*) FROM verdicts WHERE symbol = 'pass') AS passed,
       (SELECT count(*) FROM verdicts WHERE symbol = 'fail') AS failed,
       (SELECT count(*) FROM verdicts WHERE symbol = 'withheld') AS withheld,
       (SELECT count(*) FROM moves WHERE kind <> 'rollback') AS promoted,
       (SELECT count(*) FROM moves WHERE kind = 'rollback') AS rolled_back
"""

_PROMISES = """
SELECT DISTINCT ON (x.study_id) s.name AS study, c.name AS candidate,
       (g.reasons ->> 'expected_improvement')::double precision AS gain,
       (g.reasons ->> 'predicted_cost_seconds')::double precision AS seconds
FROM work.studies s JOIN work.trials x ON x.study_id = s.id JOIN work.candidates c ON c.id = x.candidate_id
JOIN work.suggestions g ON g.trial_id = x.id
WHERE s.state <> 'ARCHIVED' AND s.name = ANY(CAST(:names AS text[]))
AND jsonb_typeof(g.reasons -> 'expected_improvement') = 'number'
AND jsonb_typeof(g.reasons -> 'predicted_cost_seconds') = 'number'
ORDER BY x.study_id, g.batch_id DESC, g.position DESC
"""


def improvements(tx: Connection, names: Collection[str]) -> dict[str, list[tuple[datetime, float]]]:
    """Each study's best quality over time, on its newest data: when it rose, and to what; oldest first."""
    found: dict[str, list[tuple[datetime, float]]] = {}
    for r in rows(tx, _IMPROVEMENTS, names=list(names)):
        found.setdefault(r.study, []).append((r.observed_at, r.quality))
    return found


def busy_devices(tx: Connection, names: Collection[str] | None) -> list[float]:
    """Devices that trained on average in each of the last 24 hours, oldest first; of these studies, or of all."""
    return [r.devices for r in rows(tx, _BUSY, names=None if names is None else list(names))]


def week(tx: Connection, names: Collection[str] | None) -> WeekCounts:
    """Return verdicts and promotions of the last seven days; of these studies, or of all."""
    found = record(tx, WeekCounts, _WEEK, names=None if names is None else list(names))
    assert found is not None  # counts are always there
    return found


def promises(tx: Connection, names: Collection[str]) -> dict[str, Promise]:
    """Return what each study's last choice promised, by name; studies without one are left out."""
    return {found.study: found for found in records(tx, Promise, _PROMISES, names=list(names))}

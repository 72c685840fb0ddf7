"""Trials: states, outcomes, reports, learning curves, decisions at rungs. ``leases`` has the attempts at a trial."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from easeml_core.entities import FailureKind, JsonObject, Trial, TrialState
from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import row_of, to_stored_json, typed_record
from easeml_core.store.logins import is_tenant
from easeml_core.store.rows import as_json, change, record, records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection


_TRIAL = """
SELECT t.id, t.study_id, s.name AS study, t.candidate_id, c.name AS candidate, c.kind, c.parameters,
       t.data_version_id, t.state, t.attempt, t.failure, t.cancel_requested, t.lease_key, t.lease_until, t.device,
       t.limit_seconds, t.lost_seconds, t.failure_kind, t.retries, t.executor, t.executor_details, t.last_key,
       t.excused
FROM work.trials t JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id
"""

RUNS_HERE = """(CASE WHEN c.kind = 'function' THEN c.implementation = ANY(CAST(:functions AS text[]))
  WHEN c.kind = 'container' AND CAST(:runtimes AS text[]) IS NOT NULL
    THEN :trainers AND coalesce(c.parameters ->> 'runtime', 'docker') = ANY(CAST(:runtimes AS text[]))
  ELSE :trainers END)"""
"""Of a candidate c: the caller's tasks can execute it; ``offered`` gives the parameters."""


class Offer(TypedDict):
    """The parameters of ``RUNS_HERE``."""

    functions: list[str]
    trainers: bool
    runtimes: list[str] | None


def offered(functions: Iterable[str], *, trainers: bool = True, runtimes: Iterable[str] | None = None) -> Offer:
    """Return the parameters of ``RUNS_HERE``."""
    return {
        "functions": [f"function:{name}" for name in functions],
        "trainers": trainers,
        "runtimes": None if runtimes is None else list(runtimes),
    }


@typed_record
class CurvePoint:
    """One point of a learning curve.

    Attributes:
        step: From 1.
        of: How many steps the training has; None for unknown.
        quality: In [0, 1]; None for unknown.
        loss: On the validation rows; None for unknown.
        seconds: Since the work on the trial began, >= 0.
    """

    step: int
    of: int | None
    quality: float | None
    loss: float | None
    seconds: float


@typed_record
class TrialReport:
    """State and result of a trial: what ``easeml trial`` prints, and what a task gives to the next one.

    ``quality`` is in [0, 1] and higher is better; ``score`` is the same result in the unit of ``metric``. ``failure``
    is the reason of a FAILED trial, ``model_id`` the model of a SUCCEEDED one.
    """

    trial_id: int
    study: str
    candidate: str
    state: TrialState
    quality: float | None
    score: float | None
    metric: str
    cost_seconds: float | None
    failure: str | None
    failure_kind: FailureKind | None
    model_id: int | None


@typed_record
class TrialLife(TrialReport):
    """A trial with its newest attempt: times, seconds lost and resumed, checkpoint, the last progress reported.

    ``start_seconds`` is the start of the process that succeeded, which is no part of its cost; None where it is.
    ``checked`` says what the referee has found where it has measured the result anew: ``held``, ``not held`` or
    ``unmeasurable``.
    """

    checked: str | None
    attempt: int
    device: str | None
    start_seconds: float | None
    lost_seconds: float
    resumed_seconds: float
    checkpoint_seconds: float | None
    checkpoint_progress: float | None
    progress: JsonObject | None
    started_at: datetime | None
    finished_at: datetime | None


@typed_record
class TrialEntry:
    """One trial in the list of its study; ``reevaluates`` is the trial whose model it evaluated again."""

    trial_id: int
    candidate: str
    state: TrialState
    attempt: int
    failure: str | None
    progress: JsonObject | None
    cost_seconds: float | None
    start_seconds: float | None
    lost_seconds: float
    limit_seconds: float | None
    device: str | None
    data_version_id: int
    reevaluates: int | None
    quality: float | None
    model_id: int | None
    finished_at: datetime | None
    failure_kind: FailureKind | None
    retries: int | None
    executor: str | None
    executor_details: JsonObject | None


@typed_record
class TrialOutcome:
    """Quality and cost of one trial, from which the scheduler learns.

    ``cost_seconds`` is always the cost of training. A trial that only evaluated the model of another trial again has
    ``reevaluates``, the id of that trial, and its cost.
    """

    study_id: int
    candidate_id: int
    candidate: str
    data_version_id: int
    state: TrialState
    quality: float | None
    cost_seconds: float | None
    lost_seconds: float
    limit_seconds: float | None
    device: str | None
    reevaluates: int | None


def get_trial(tx: Connection, trial_id: int, *, lock: bool = False) -> Trial:
    """The trial, locked until the transaction ends when asked."""
    found = record(tx, Trial, _TRIAL + "WHERE t.id = :id" + (" FOR UPDATE OF t" if lock else ""), id=trial_id)
    if found is None:
        raise _no_trial(trial_id)
    return found


def _no_trial(trial_id: int) -> NotFoundError:
    return NotFoundError(kind="trial", name=trial_id, remedy="list them with `easeml study show STUDY`")


_REPORT = """t.id AS trial_id, s.name AS study, c.name AS candidate, t.state, o.quality, o.score, s.metric,
  t.cost_seconds, t.failure, t.failure_kind, m.id AS model_id"""
_REPORTED = """
FROM work.trials t JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id
LEFT JOIN work.observations o ON o.trial_id = t.id LEFT JOIN work.models m ON m.trial_id = t.id WHERE t.id = :id
"""


def trial_report(tx: Connection, trial_id: int) -> TrialReport:
    """Return state, quality, cost, failure and model of a trial."""
    found = record(tx, TrialReport, f"SELECT {_REPORT} {_REPORTED}", id=trial_id)
    if found is None:
        raise _no_trial(trial_id)
    return found


def trial_life(tx: Connection, trial_id: int) -> TrialLife:
    """Return a trial's report with its attempts, device, times and last progress."""
    more = (
        "(SELECT q.outcome FROM work.quality_checks q WHERE q.trial_id = t.id) AS checked, t.attempt, t.device, "
        "t.start_seconds, t.lost_seconds, t.resumed_seconds, t.checkpoint_seconds, t.checkpoint_progress"
    )
    found = record(
        tx,
        TrialLife,
        f"SELECT {_REPORT}, {more}, t.progress, t.started_at, t.finished_at {_REPORTED}",
        id=trial_id,
    )
    if found is None:
        raise _no_trial(trial_id)
    return found


def list_trials(tx: Connection, study_id: int) -> list[TrialEntry]:
    """Return all trials of a study, oldest first."""
    return records(
        tx,
        TrialEntry,
        "SELECT t.id AS trial_id, c.name AS candidate, t.attempt, "
        "CASE WHEN w.trial_id IS NULL THEN t.state ELSE 'FAILED' END AS state, "
        "CASE WHEN w.trial_id IS NULL THEN t.failure ELSE 'its stated quality did not hold' END AS failure, "
        "t.progress, t.cost_seconds, "
        "t.start_seconds, t.lost_seconds, t.limit_seconds, t.device, t.data_version_id, t.reevaluates, "
        "CASE WHEN w.trial_id IS NULL THEN o.quality END AS quality, "
        "m.id AS model_id, t.finished_at, t.failure_kind, t.retries, t.executor, t.executor_details "
        "FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "LEFT JOIN work.observations o ON o.trial_id = t.id "
        "LEFT JOIN work.quality_checks w ON w.trial_id = t.id AND w.outcome = 'not held' "
        "LEFT JOIN work.models m ON m.trial_id = t.id WHERE t.study_id = :id ORDER BY t.id",
        id=study_id,
    )


def add_trial(
    tx: Connection,
    *,
    study_id: int,
    candidate_id: int,
    data_version_id: int,
    device: str | None = None,
    limit_seconds: float | None = None,
    retries: int | None = None,
) -> int:
    """A new SUGGESTED trial; ``trials_once_per_data_key`` refuses a second one for the same data."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.trials (study_id, candidate_id, data_version_id, device, limit_seconds, retries) "
            "VALUES (:study_id, :candidate_id, :data_version_id, :device, :limit_seconds, :retries) RETURNING id",
            study_id=study_id,
            candidate_id=candidate_id,
            data_version_id=data_version_id,
            device=device,
            limit_seconds=limit_seconds,
            retries=retries,
        )
    )


def set_device(tx: Connection, trial_id: int, device: str | None) -> None:
    """Note which kind of device an open trial was handed out for."""
    change(
        tx,
        "UPDATE work.trials SET device = :device WHERE id = :id AND device IS DISTINCT FROM :device",
        id=trial_id,
        device=device,
    )


def left_over_trials(
    tx: Connection,
    study_ids: Sequence[int],
    *,
    device: str | None = None,
    functions: Iterable[str] = (),
    trainers: bool = True,
    runtimes: Iterable[str] | None = None,
) -> list[Trial]:
    """Return SUGGESTED trials that no worker holds: lease or hand-out has run out."""
    return records(
        tx,
        Trial,
        _TRIAL + "WHERE t.state = 'SUGGESTED' AND (t.lease_until IS NULL OR t.lease_until < now()) "
        "AND work.device_fits(c.devices, CAST(:device AS text)) "
        f"AND {RUNS_HERE} AND t.study_id = ANY(:ids) ORDER BY s.priority DESC, t.id FOR UPDATE OF t SKIP LOCKED",
        ids=list(study_ids),
        device=device,
        **offered(functions, trainers=trainers, runtimes=runtimes),
    )


def under_way_by_tenant(tx: Connection, study_ids: Sequence[int]) -> dict[str, int]:
    """Return how many trials of these studies are held or were just handed out, by the name of the tenant."""
    found = rows(
        tx,
        "SELECT n.name, count(*) AS many FROM work.trials t JOIN work.studies s ON s.id = t.study_id "
        "JOIN work.tenants n ON n.id = s.tenant_id WHERE t.finished_at IS NULL AND t.lease_until >= now() "
        "AND t.study_id = ANY(:ids) GROUP BY n.name",
        ids=list(study_ids),
    )
    return {r.name: int(r.many) for r in found}


def outcomes(tx: Connection) -> list[TrialOutcome]:
    """Return the outcome of every trial: finished ones in the order of their end, then the open ones."""
    return records(
        tx,
        TrialOutcome,
        "SELECT t.study_id, t.candidate_id, c.name AS candidate, t.data_version_id, "
        "CASE WHEN w.trial_id IS NULL THEN t.state ELSE 'FAILED' END AS state, "
        "CASE WHEN w.trial_id IS NULL THEN o.quality END AS quality, "
        "CASE WHEN t.reevaluates IS NULL THEN t.cost_seconds ELSE r.cost_seconds END AS cost_seconds, t.lost_seconds, "
        "t.limit_seconds, t.device, t.reevaluates FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "LEFT JOIN work.trials r ON r.id = t.reevaluates "
        "LEFT JOIN work.observations o ON o.trial_id = t.id "
        "LEFT JOIN work.quality_checks w ON w.trial_id = t.id AND w.outcome = 'not held' "
        "ORDER BY t.finished_at NULLS LAST, t.id",
    )


def ended_trials(tx: Connection, trial_ids: Sequence[int]) -> list[int]:
    """Which of these trials have ended."""
    found = rows(
        tx,
        "SELECT id FROM work.trials WHERE id = ANY(CAST(:ids AS bigint[])) AND finished_at IS NOT NULL",
        ids=list(trial_ids),
    )
    return [r.id for r in found]


def request_cancel(tx: Connection, trial_id: int) -> None:
    """Ask for the trial's end: at once when it waits, at its next heartbeat when it runs."""
    if is_tenant(tx):
        scalar(tx, "SELECT work.cancel_trial(:id)", id=trial_id)
        return
    change(
        tx,
        "UPDATE work.trials SET cancel_requested = true, "
        "state = CASE WHEN state = 'SUGGESTED' THEN 'CANCELLED' ELSE state END, "
        "finished_at = CASE WHEN state = 'SUGGESTED' THEN clock_timestamp() ELSE finished_at END "
        "WHERE id = :id AND state IN ('SUGGESTED', 'RUNNING')",
        id=trial_id,
    )


MOST_STEPS = 10_000
"""Steps of one trial that are kept; the schema's bound."""


def add_points(tx: Connection, trial_id: int, points: Sequence[CurvePoint]) -> None:
    """Keep points of a trial's curve.

    A step that is there already stays as it is: an attempt that goes on from a checkpoint repeats some.
    """
    if not points:
        return
    change(
        tx,
        'INSERT INTO work.curves (trial_id, step, "of", quality, loss, seconds) '
        'SELECT :id, p.step, p."of", p.quality, p.loss, p.seconds FROM jsonb_to_recordset(CAST(:points AS jsonb)) '
        'AS p (step integer, "of" integer, quality double precision, loss double precision, seconds double precision) '
        "ON CONFLICT DO NOTHING",
        id=trial_id,
        points=as_json(to_stored_json(points)),
    )


def curve_of(tx: Connection, trial_id: int) -> tuple[CurvePoint, ...]:
    """Return the points of a trial's curve, in the order of their steps."""
    sql = 'SELECT step, "of", quality, loss, seconds FROM work.curves WHERE trial_id = :id ORDER BY step'
    return tuple(records(tx, CurvePoint, sql, id=trial_id))


_MOST_TRIALS = 1000
"""Ended trials that are looked at: those of the study first, then the latest ones."""

# Trials that a rung has stopped are left out: their final quality is unknown; and results that did not hold.
_ENDED = """
SELECT c.quality, e.final, e.is_here, c.average FROM (
  SELECT t.id, t.study_id = :study_id AS is_here, o.quality AS final
  FROM work.trials t JOIN work.candidates k ON k.id = t.candidate_id JOIN work.observations o ON o.trial_id = t.id
  WHERE k.kind = ANY(:kinds) AND t.reevaluates IS NULL
  AND NOT EXISTS (SELECT FROM work.rungs r WHERE r.trial_id = t.id AND NOT r.goes_on)
  AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = t.id AND q.outcome = 'not held')
  ORDER BY is_here DESC, t.finished_at DESC, t.id DESC LIMIT :most) e
CROSS JOIN LATERAL (
  SELECT avg(p.quality) AS average, max(p.quality) FILTER (WHERE p.step = p.rung) AS quality
  FROM (SELECT step, quality, least("of", greatest(1, ceil(:share * "of" - 1e-9)::integer)) AS rung
    FROM work.curves WHERE trial_id = e.id) p WHERE p.step <= p.rung) c
WHERE c.quality IS NOT NULL
"""


@typed_record
class RungDecision:
    """Whether a trial went on after one rung, and the numbers that decided it.

    Attributes:
        rung: Its number, from 1.
        step: The step at which it was decided, of ``of``.
        of: Steps of the whole training.
        quality: Of the trial at this step, in [0, 1].
        hoped: Quality that the trial may reach; None for unknown.
        needed: What ``hoped`` must not be below; None for nothing.
        known: How many trials the decision rests on.
        rule: ``gains`` or ``median``.
        goes_on: Whether the rest of the epochs is trained.
    """

    rung: int
    step: int
    of: int
    quality: float
    hoped: float | None
    needed: float | None
    known: int
    rule: str
    goes_on: bool


class Ended(NamedTuple):
    """The result of an ended trial for a rung.

    Attributes:
        quality: Reported at the rung, in [0, 1].
        final: Of the model that it ended with.
        is_here: Whether it is of the study that asks.
        average: Of the qualities reported up to the rung.
    """

    quality: float
    final: float
    is_here: bool
    average: float


def ended_after(tx: Connection, *, study_id: int, kinds: Collection[str], share: float) -> list[Ended]:
    """Return ended trials of these kinds that reported their quality at this share of their steps, at most 1,000."""
    found = rows(tx, _ENDED, study_id=study_id, kinds=list(kinds), share=share, most=_MOST_TRIALS)
    return [Ended(**r._mapping) for r in found]


def best_of_study(tx: Connection, *, study_id: int, data_version_id: int) -> float | None:
    """The best quality that a study's trials have reached on these data, as far as it holds; None for none."""
    found = scalar(
        tx,
        "SELECT max(o.quality) FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
        "WHERE t.study_id = :study_id AND t.data_version_id = :version "
        "AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = t.id AND q.outcome = 'not held')",
        study_id=study_id,
        version=data_version_id,
    )
    return None if found is None else float(found)


def add_decision(tx: Connection, *, trial_id: int, attempt: int, decision: RungDecision) -> None:
    """Store a decision, unless its rung has one, or the trial does not belong to this attempt any more."""
    change(
        tx,
        'INSERT INTO work.rungs (trial_id, rung, step, "of", quality, hoped, needed, known, rule, goes_on) '
        "SELECT id, :rung, :step, :of, :quality, :hoped, :needed, :known, :rule, :goes_on FROM work.trials "
        "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt ON CONFLICT DO NOTHING",
        id=trial_id,
        attempt=attempt,
        **row_of(decision),
    )


_DECISION = (
    'SELECT rung, step, "of", quality, hoped, needed, known, rule, goes_on FROM work.rungs WHERE trial_id = :id '
)


def decision_at(tx: Connection, trial_id: int, rung: int) -> RungDecision | None:
    """Return the decision at this rung; None where there is none."""
    return record(tx, RungDecision, _DECISION + "AND rung = :rung", id=trial_id, rung=rung)


def decisions_of(tx: Connection, trial_id: int) -> tuple[RungDecision, ...]:
    """Return the decisions at the trial's rungs, in their order."""
    return tuple(records(tx, RungDecision, _DECISION + "ORDER BY rung", id=trial_id))

"""Trials, their states, leases and learning curves. Time is the database's clock, never a worker's.

A lease begins at ``clock_timestamp()``: the transaction may have waited long for the trial's row. Expiry is decided by
``now()``, the transaction's start, so that such a wait never ends a lease.

Where a trial has a reservation (``limit_seconds``), no lease outlasts it: a worker that is still at work then has lost
the trial, so the charge never exceeds the reservation (``reservations.py``).

Work that is saved in a checkpoint is not lost with its attempt: it counts once, in the cost of the attempt that ends
the trial, or as lost when none does (``work.trials_checkpoint_spent``).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from easeml_core.encoding import to_stored_json, typed_record
from easeml_core.entities import FailureKind, JsonObject, Trial, TrialState
from easeml_core.errors import NotFoundError
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.rows import as_json, change, clean, record, records, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Executor


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

# A lost attempt is charged until its last heartbeat, which its reservation bounds, less what it saved: what came after
# gave nothing, since neither a checkpoint nor a result is taken without the lease. ``least`` takes no notice of NULL,
# and is needed beyond that only because an interval is rounded to microseconds, and since 1e9 is the most that the
# column takes.
_SAVED = "coalesce(t.checkpoint_seconds, 0)"
_LOST = f"""least(t.limit_seconds - {_SAVED}, 1e9, t.lost_seconds + CASE WHEN t.state = 'RUNNING' THEN
  greatest(0, extract(epoch FROM least(t.lease_until, coalesce(t.beat_at, clock_timestamp())) - t.attempt_started_at)
    ::double precision
    - ({_SAVED} - t.resumed_seconds))
  ELSE 0 END)"""
_COUNTED = "t.attempt - t.excused - (t.excused < 10 AND work.was_restarted(t.beat_at))::int"
"""Attempts that count, of a RUNNING trial t whose lease is lost; the trigger ``trials_excuse`` counts likewise."""

_END = "attempt_started_at + make_interval(secs => limit_seconds - lost_seconds - resumed_seconds)"


class Checkpoint(NamedTuple):
    """A checkpoint from which a trial can continue.

    Attributes:
        reference: Of its file, ``sha256:<hex>``.
        seconds: Device seconds of the work in it, >= 0: of all attempts when read, of the present one when recorded.
        progress: Of the whole training, in [0, 1].
    """

    reference: str
    seconds: float
    progress: float


class Offer(TypedDict):
    """The parameters of ``RUNS_HERE``."""

    functions: list[str]
    trainers: bool
    runtimes: list[str] | None


def offered(functions: Iterable[str], *, trainers: bool = True, runtimes: Iterable[str] | None = None) -> Offer:
    """Return the parameters of ``RUNS_HERE``.

    Args:
        functions: Names of the caller's training functions.
        trainers: Whether the caller has the trainers of this package, which run commands and containers too.
        runtimes: Container programs of the caller's machine; None where that is not known.
    """
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
    """A trial with its newest attempt: times, seconds lost and resumed, checkpoint, the last progress reported."""

    attempt: int
    device: str | None
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
    """The trial, locked until the transaction ends when asked.

    Raises:
        NotFoundError: When there is none.
    """
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
    """Return state, quality, cost, failure and model of a trial.

    Raises:
        NotFoundError: There is no such trial.
    """
    found = record(tx, TrialReport, f"SELECT {_REPORT} {_REPORTED}", id=trial_id)
    if found is None:
        raise _no_trial(trial_id)
    return found


def trial_life(tx: Connection, trial_id: int) -> TrialLife:
    """Return a trial's report with its attempts, device, times and last progress.

    Raises:
        NotFoundError: There is no such trial.
    """
    more = "t.attempt, t.device, t.lost_seconds, t.resumed_seconds, t.checkpoint_seconds, t.checkpoint_progress"
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
        "SELECT t.id AS trial_id, c.name AS candidate, t.state, t.attempt, t.failure, t.progress, t.cost_seconds, "
        "t.lost_seconds, t.limit_seconds, t.device, t.data_version_id, t.reevaluates, o.quality, m.id AS model_id, "
        "t.finished_at, t.failure_kind, t.retries, t.executor, t.executor_details "
        "FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "LEFT JOIN work.observations o ON o.trial_id = t.id "
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
    """A new SUGGESTED trial; ``trials_once_per_data_key`` refuses a second one for the same data.

    Args:
        tx: Role ``easeml_worker``.
        study_id: Its study.
        candidate_id: What it trains.
        data_version_id: On which data.
        device: Kind of device that it is handed out for.
        limit_seconds: What is reserved for it.
        retries: The trial that failed because of its task, whose place it takes; None for the first one.

    Raises:
        AlreadyExistsError: There is one on these data, or one that takes the same place.
        BudgetExhaustedError: The reservation, or one more open trial, exceeds what study or tenant may use.
    """
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
    """Return SUGGESTED trials that no worker holds: lease or hand-out has run out.

    Args:
        tx: Role ``easeml_worker``.
        study_ids: Of these studies.
        device: Those that may run on this kind; None for all.
        functions: Names of the caller's training functions; trials of others are left out.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.
    """
    return records(
        tx,
        Trial,
        _TRIAL + "WHERE t.state = 'SUGGESTED' AND (t.lease_until IS NULL OR t.lease_until < now()) "
        "AND (CAST(:device AS text) IS NULL OR c.devices IS NULL OR jsonb_exists(c.devices, :device)) "
        f"AND {RUNS_HERE} AND t.study_id = ANY(:ids) ORDER BY s.priority DESC, t.id FOR UPDATE OF t SKIP LOCKED",
        ids=list(study_ids),
        device=device,
        **offered(functions, trainers=trainers, runtimes=runtimes),
    )


def outcomes(tx: Connection) -> list[TrialOutcome]:
    """Return the outcome of every trial: finished ones in the order of their end, then the open ones."""
    return records(
        tx,
        TrialOutcome,
        "SELECT t.study_id, t.candidate_id, c.name AS candidate, t.data_version_id, t.state, o.quality, "
        "CASE WHEN t.reevaluates IS NULL THEN t.cost_seconds ELSE r.cost_seconds END AS cost_seconds, t.lost_seconds, "
        "t.limit_seconds, t.device, t.reevaluates FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "LEFT JOIN work.trials r ON r.id = t.reevaluates "
        "LEFT JOIN work.observations o ON o.trial_id = t.id ORDER BY t.finished_at NULLS LAST, t.id",
    )


def expire_leases(tx: Connection) -> list[int]:
    """Take back leases that have run out; the trials' ids.

    CANCELLED when that was asked for, FAILED after the last attempt that counts, else SUGGESTED again. An attempt that
    was lost to a restart of the installation does not count (``work.restarts``). Each is charged until its last
    heartbeat.
    """
    found = rows(
        tx,
        f"WITH lost AS (SELECT t.id, s.name AS study, {_LOST} AS seconds, "
        "CASE WHEN t.cancel_requested THEN 'CANCELLED' "
        f"WHEN {_COUNTED} >= (s.config -> 'training' ->> 'max_attempts')::int THEN 'FAILED' "
        "ELSE 'SUGGESTED' END AS next "
        "FROM work.trials t JOIN work.studies s ON s.id = t.study_id "
        "WHERE t.state = 'RUNNING' AND t.lease_until < now() FOR UPDATE OF t SKIP LOCKED) "
        "UPDATE work.trials t SET state = next, "
        "failure = CASE WHEN next = 'FAILED' THEN 'its worker was lost ' || attempt - excused || ' times' END, "
        "finished_at = CASE WHEN next <> 'SUGGESTED' THEN clock_timestamp() END, "
        "lost_seconds = lost.seconds, lease_key = NULL, lease_until = NULL FROM lost WHERE t.id = lost.id "
        "RETURNING t.id, t.state, lost.study",
    )
    for lost in found:
        if lost.state != TrialState.SUGGESTED:
            notify(tx, f"trial:{lost.id}")
    notify_pages(tx, *{lost.study for lost in found})
    return [r.id for r in found]


def lease_is_over(tx: Connection, trial_id: int) -> bool:
    """Whether the trial's lease or reservation has run out, by the database's clock."""
    return bool(scalar(tx, "SELECT lease_until < now() FROM work.trials WHERE id = :id", id=trial_id))


def start_trial(
    tx: Connection, *, trial_id: int, lease_key: str, lease_seconds: float, executor: Executor
) -> int | None:
    """RUNNING under this key from now on; the number of this attempt, which fences off every earlier one.

    None, and nothing is written, where the candidate names another implementation than the executor's.

    The key is kept when the lease has ended, with the try of the task that acts (``actors.py``): they name its log.

    The earlier attempt of a worker that takes over its own lease is charged as a lost one. What is saved in a
    checkpoint is taken to be resumed, until ``forget_checkpoint`` says that it cannot be.
    """
    found = scalar(
        tx,
        "UPDATE work.trials t SET state = 'RUNNING', attempt = attempt + 1, lease_key = :key, progress = NULL, "
        "last_key = :key, last_try = nullif(current_setting('easeml.try', true), '')::int, "
        "executor = :executor, executor_details = CAST(:details AS jsonb), "
        f"lost_seconds = {_LOST}, resumed_seconds = {_SAVED}, attempt_started_at = clock_timestamp(), "
        "lease_until = clock_timestamp() + make_interval(secs => "
        f"least(:seconds, limit_seconds - {_SAVED} - {_LOST})), "
        "started_at = coalesce(started_at, clock_timestamp()) "
        "WHERE id = :id AND EXISTS (SELECT FROM work.candidates c WHERE c.id = t.candidate_id "
        "AND c.implementation = :executor) RETURNING attempt",
        id=trial_id,
        key=lease_key,
        seconds=lease_seconds,
        executor=clean(executor.implementation),
        details=as_json(executor.details),
    )
    return None if found is None else int(found)


def extend_lease(
    tx: Connection,
    *,
    trial_id: int,
    attempt: int,
    lease_seconds: float,
    progress: JsonObject | None,
    checkpoint: Checkpoint | None = None,
) -> bool | None:
    """Heartbeat of one attempt: whether a cancel was asked for, or None when the lease or the reservation is over.

    A checkpoint is recorded with it, and only by the attempt that holds the lease. Its seconds are at most those that
    the attempt has run by the database's clock.
    """
    reference, saved, share = checkpoint or (None, None, None)
    found = row(
        tx,
        "UPDATE work.trials SET progress = coalesce(CAST(:progress AS jsonb), progress), beat_at = clock_timestamp(), "
        f"lease_until = least(clock_timestamp() + make_interval(secs => :seconds), {_END}), "
        "checkpoint = coalesce(CAST(:reference AS text), checkpoint), "
        "checkpoint_progress = coalesce(CAST(:share AS double precision), checkpoint_progress), "
        "checkpoint_seconds = CASE WHEN CAST(:reference AS text) IS NULL THEN checkpoint_seconds ELSE resumed_seconds "
        "+ least(:saved, extract(epoch FROM clock_timestamp() - attempt_started_at)::double precision) END "
        f"WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt AND clock_timestamp() < coalesce({_END}, "
        "'infinity') RETURNING cancel_requested",
        id=trial_id,
        attempt=attempt,
        seconds=lease_seconds,
        progress=_progress(progress),
        reference=reference,
        saved=saved,
        share=share,
    )
    return None if found is None else bool(found.cancel_requested)


def _progress(news: JsonObject | None) -> str | None:
    """Progress is for the eye: NaN becomes null, since a diverging loss is news and no reason to end a training."""
    return None if news is None else as_json(json.loads(json.dumps(news), parse_constant=lambda _: None))


def is_wanted(tx: Connection, *, trial_id: int, attempt: int) -> bool | None:
    """Between heartbeats: False when a cancel was asked for, None when the trial is not this attempt's any more."""
    found = row(
        tx,
        "SELECT cancel_requested FROM work.trials WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt",
        id=trial_id,
        attempt=attempt,
    )
    return None if found is None else not found.cancel_requested


def checkpoint_of(tx: Connection, trial_id: int) -> Checkpoint | None:
    """Return the checkpoint of the trial's next attempt; None for its beginning."""
    found = row(
        tx,
        "SELECT checkpoint, checkpoint_seconds, checkpoint_progress FROM work.trials "
        "WHERE id = :id AND checkpoint IS NOT NULL",
        id=trial_id,
    )
    return None if found is None else Checkpoint(*tuple(found))


def forget_checkpoint(tx: Connection, *, trial_id: int, attempt: int) -> bool:
    """Its file cannot be used: all work in it is lost, and this attempt begins anew. False when it lost its lease."""
    return bool(
        change(
            tx,
            "UPDATE work.trials SET lost_seconds = least(limit_seconds, 1e9, lost_seconds + resumed_seconds), "
            "resumed_seconds = 0, checkpoint = NULL, checkpoint_seconds = NULL, checkpoint_progress = NULL "
            "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt AND checkpoint IS NOT NULL",
            id=trial_id,
            attempt=attempt,
        )
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
    change(
        tx,
        "UPDATE work.trials SET cancel_requested = true, "
        "state = CASE WHEN state = 'SUGGESTED' THEN 'CANCELLED' ELSE state END, "
        "finished_at = CASE WHEN state = 'SUGGESTED' THEN clock_timestamp() ELSE finished_at END "
        "WHERE id = :id AND state IN ('SUGGESTED', 'RUNNING')",
        id=trial_id,
    )


def finish_trial(
    tx: Connection,
    *,
    trial_id: int,
    attempt: int,
    state: TrialState,
    cost_seconds: float | None,
    failure: str | None = None,
    failure_kind: FailureKind | None = None,
    progress: JsonObject | None = None,
) -> bool:
    """End one attempt; False when the lease was lost meanwhile, and then nothing is written.

    It was also lost when the attempt took more than was reserved for it: the device was not its own any more. The cost
    is that of the whole work, with what was resumed. A failure of the task has none: what the attempt took is lost, and
    the trial tells the scheduler nothing.
    """
    return bool(
        change(
            tx,
            "UPDATE work.trials t SET state = :state, failure = :failure, failure_kind = :kind, "
            f"cost_seconds = :cost, lost_seconds = CASE WHEN :kind = 'task' THEN {_LOST} ELSE lost_seconds END, "
            "lease_key = NULL, lease_until = NULL, finished_at = clock_timestamp(), "
            "progress = coalesce(CAST(:progress AS jsonb), progress) "
            "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt "
            # NaN is left to its check, which says what is wrong.
            "AND (limit_seconds IS NULL OR CAST(:cost AS double precision) = 'NaN' "
            "OR lost_seconds + coalesce(CAST(:cost AS double precision), 0) <= limit_seconds)",
            id=trial_id,
            attempt=attempt,
            state=state,
            failure=None if failure is None else clean(failure),
            kind=failure_kind,
            cost=None if failure_kind == FailureKind.TASK else cost_seconds,
            progress=_progress(progress),
        )
    )


def end_overrun(tx: Connection, *, trial_id: int, attempt: int, why: str) -> bool:
    """End an attempt that took more than was reserved: FAILED, or CANCELLED when asked for; False when it was lost.

    Its reservation is charged whole, and no cost is recorded: the last part of it was not the trial's to take.
    """
    return bool(
        change(
            tx,
            "UPDATE work.trials SET state = CASE WHEN cancel_requested THEN 'CANCELLED' ELSE 'FAILED' END, "
            "failure = CASE WHEN NOT cancel_requested THEN :why END, lost_seconds = limit_seconds, lease_key = NULL, "
            "lease_until = NULL, finished_at = clock_timestamp() "
            "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt AND limit_seconds IS NOT NULL",
            id=trial_id,
            attempt=attempt,
            why=clean(why),
        )
    )


def release_lease(tx: Connection, trial_id: int, *, alive: bool = False) -> None:
    """Set a RUNNING trial back to SUGGESTED: its lease is over, and its attempt is charged until its last heartbeat.

    Args:
        tx: Role ``easeml_worker``.
        trial_id: The trial.
        alive: Whether the holder of the lease gives it up now. That counts as its last heartbeat, in the same
            statement, by which the trigger ``trials_excuse`` knows that the attempt does not count.
    """
    if alive:
        change(
            tx, "UPDATE work.trials SET beat_at = clock_timestamp() WHERE id = :id AND state = 'RUNNING'", id=trial_id
        )
    change(
        tx,
        f"UPDATE work.trials t SET state = 'SUGGESTED', lost_seconds = {_LOST}, lease_key = NULL, lease_until = NULL, "
        "beat_at = CASE WHEN :alive AND state = 'RUNNING' THEN clock_timestamp() ELSE beat_at END WHERE id = :id",
        id=trial_id,
        alive=alive,
    )


def give_up(tx: Connection, trial_id: int, *, why: str = "") -> None:
    """CANCELLED when that was asked for, else FAILED: its worker was lost too often, or for the given reason."""
    change(
        tx,
        "UPDATE work.trials t SET state = CASE WHEN cancel_requested THEN 'CANCELLED' ELSE 'FAILED' END, "
        "failure = CASE WHEN NOT cancel_requested THEN "
        "coalesce(nullif(:why, ''), 'its worker was lost ' || attempt - excused || ' times') END, "
        f"lost_seconds = {_LOST}, lease_key = NULL, lease_until = NULL, finished_at = clock_timestamp() WHERE id = :id",
        id=trial_id,
        why=why,
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

"""Attempts at a trial: the lease that each holds, its checkpoint, and how it ends. Time is the database's clock.

A lease begins at ``clock_timestamp()``: the transaction may have waited long for the trial's row. Expiry is decided by
``now()``, the transaction's start, so that such a wait never ends a lease.

Seconds of a trial are device seconds: those on the clock times the devices that it holds (``work.device_weight``).

Where a trial has a reservation (``limit_seconds``), no lease outlasts it: a worker that is still at work then has lost
the trial, so the charge never exceeds the reservation (``capacity``).

Work that is saved in a checkpoint is not lost with its attempt: it counts once, in the cost of the attempt that ends
the trial, or as lost when none does (``work.trials_checkpoint_spent``).

A trial that failed because of its task is replaced by another one. A recorded restart of the installation is evidence
that an attempt was lost to it. The role of tasks reads restarts and writes none. The latest start of the database
server counts without a row; a referee records it, so that it still counts after the next start
(``requests.note_attempt``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.entities import FailureKind, JsonObject, TrialState
from easeml_core.errors import NotFoundError
from easeml_core.settings.config import require
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.rows import as_json, change, clean, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Executor


# A lost attempt is charged until its last heartbeat, which its reservation bounds, less what it saved: what came after
# gave nothing, since neither a checkpoint nor a result is taken without the lease. ``least`` takes no notice of NULL,
# and is needed beyond that only because an interval is rounded to microseconds, and since 1e9 is the most that the
# column takes.
_SAVED = "coalesce(t.checkpoint_seconds, 0)"
_LOST = f"""least(t.limit_seconds - {_SAVED}, 1e9, t.lost_seconds + CASE WHEN t.state = 'RUNNING' THEN
  greatest(0, work.device_weight(t.device) * extract(epoch FROM least(t.lease_until, CASE WHEN t.lease_hash IS NULL
    THEN coalesce(t.beat_at, clock_timestamp()) ELSE clock_timestamp() END) - t.attempt_started_at)::double precision
    - ({_SAVED} - t.resumed_seconds))
  ELSE 0 END)"""
_COUNTED = "t.attempt - t.excused - (t.excused < 10 AND work.was_restarted(t.beat_at))::int"
"""Attempts that count, of a RUNNING trial t whose lease is lost; the trigger ``trials_excuse`` counts likewise."""

_ARCHIVED = "EXISTS (SELECT FROM work.studies s WHERE s.id = trials.study_id AND s.state = 'ARCHIVED')"
"""An archived study cancels its trials; the row of one may have been held by another transaction then."""

_END = (
    "attempt_started_at + make_interval(secs => (limit_seconds - lost_seconds - resumed_seconds) "
    "/ work.device_weight(device))"
)


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


def start_trial(
    tx: Connection, *, trial_id: int, lease_key: str, lease_seconds: float, executor: Executor
) -> int | None:
    """RUNNING under this key from now on; the number of this attempt, which fences off every earlier one.

    None, and nothing is written, where the candidate names another implementation than the executor's.

    The key is kept when the lease has ended, with the try of the task that acts (``callers.py``): they name its log.

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
        f"least(:seconds, (limit_seconds - {_SAVED} - {_LOST}) / work.device_weight(device))), "
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


class Claim(NamedTuple):
    """The answer to a claim with a token.

    Attributes:
        outcome: ``claimed``; ``ended``: the trial has ended, also by this claim; ``held`` by another worker; or
            ``elsewhere``: its candidate names another implementation, and the trial was given back.
        token: Of the lease that was granted; the database keeps its hash alone.
    """

    outcome: str
    token: str | None


def claim_by_token(tx: Connection, *, trial_id: int, lease_key: str, executor: Executor | None) -> Claim:
    """Claim a trial as a tenant's login or a device: all of ``services/trials/lease.py`` in the database."""
    found = row(
        tx,
        "SELECT outcome, token FROM work.claim_trial(:id, :key, :executor, CAST(:details AS jsonb))",
        id=trial_id,
        key=lease_key,
        executor="" if executor is None else clean(executor.implementation),
        details=None if executor is None else as_json(executor.details),
    )
    if found is None or found.outcome is None:
        raise NotFoundError(kind="trial", name=trial_id, remedy="list them with `easeml study show STUDY`")
    return Claim(found.outcome, found.token)


def show(tx: Connection, token: str | None) -> None:
    """Show the token of a lease for the rest of the transaction; without one do nothing."""
    if token is not None:
        scalar(tx, "SELECT set_config('easeml.lease', :token, true)", token=token)


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
        "+ least(:saved, work.device_weight(device) "
        "* extract(epoch FROM clock_timestamp() - attempt_started_at)::double precision) END "
        f"WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt AND clock_timestamp() < coalesce({_END}, "
        f"'infinity') RETURNING cancel_requested OR {_ARCHIVED} AS cancel_requested",
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
        f"SELECT cancel_requested OR {_ARCHIVED} AS cancel_requested FROM work.trials "
        "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt",
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


def finish_trial(
    tx: Connection,
    *,
    trial_id: int,
    attempt: int,
    state: TrialState,
    cost_seconds: float | None,
    start_seconds: float | None = None,
    failure: str | None = None,
    failure_kind: FailureKind | None = None,
    progress: JsonObject | None = None,
) -> bool:
    """End one attempt; False when the lease was lost meanwhile, and then nothing is written.

    It was also lost when the attempt took more than was reserved for it: the device was not its own any more. The cost
    is that of the whole work, with what was resumed, and without ``start_seconds`` where they are known. A failure of
    the task has none: what the attempt took is lost, and the trial tells the scheduler nothing.
    """
    return bool(
        change(
            tx,
            "UPDATE work.trials t SET state = :state, failure = :failure, failure_kind = :kind, "
            "cost_seconds = :cost, start_seconds = :start, "
            f"lost_seconds = CASE WHEN :kind = 'task' THEN {_LOST} ELSE lost_seconds END, "
            "lease_key = NULL, lease_until = NULL, finished_at = clock_timestamp(), "
            "progress = coalesce(CAST(:progress AS jsonb), progress) "
            "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt "
            # NaN is left to its check, which says what is wrong.
            "AND (limit_seconds IS NULL OR CAST(:cost AS double precision) = 'NaN' "
            "OR lost_seconds + coalesce(CAST(:cost AS double precision), 0) "
            "+ coalesce(CAST(:start AS double precision), 0) <= limit_seconds)",
            id=trial_id,
            attempt=attempt,
            state=state,
            failure=None if failure is None else clean(failure),
            kind=failure_kind,
            cost=None if failure_kind == FailureKind.TASK else cost_seconds,
            start=start_seconds,
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


def lease_is_over(tx: Connection, trial_id: int) -> bool:
    """Whether the trial's lease or reservation has run out, by the database's clock."""
    return bool(scalar(tx, "SELECT lease_until < now() FROM work.trials WHERE id = :id", id=trial_id))


def expire_leases(tx: Connection) -> list[int]:
    """Take back leases that have run out; the trials' ids.

    CANCELLED when that was asked for, FAILED after the last attempt that counts, else SUGGESTED again. An attempt that
    was lost to a restart of the installation does not count (``work.restarts``). Each is charged until its last
    heartbeat.
    """
    found = rows(
        tx,
        f"WITH lost AS (SELECT t.id, s.name AS study, {_LOST} AS seconds, "
        "CASE WHEN t.cancel_requested OR s.state = 'ARCHIVED' THEN 'CANCELLED' "
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


def release_lease(tx: Connection, trial_id: int, *, alive: bool = False) -> None:
    """Set a RUNNING trial back to SUGGESTED: its lease is over, and its attempt is charged until its last heartbeat."""
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


_LAST = """
WITH RECURSIVE place AS (
  SELECT CAST(:id AS bigint) AS id
  UNION ALL SELECT t.id FROM place JOIN work.trials t ON t.retries = place.id)
SELECT max(id) FROM place
"""

# Of each candidate the failure that stands last in its place; ``tries`` counts the whole chain, which goes over one
# candidate and one version of the data.
_CHANGED = """
SELECT t.id FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id AND c.withdrawn_at IS NULL
JOIN work.studies s ON s.id = t.study_id AND s.state = 'ACTIVE'
  AND (CAST(:studies AS text[]) IS NULL OR s.name = ANY(CAST(:studies AS text[])))
LEFT JOIN unnest(CAST(:names AS text[]), CAST(:hashes AS text[])) AS f (name, hash) ON c.implementation = f.name
WHERE t.failure_kind = 'task' AND NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = t.id)
AND t.data_version_id = (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = t.study_id)
AND (SELECT count(*) FROM work.trials k WHERE k.candidate_id = t.candidate_id
     AND k.data_version_id = t.data_version_id AND k.retries IS NOT NULL) < :most
AND CASE WHEN c.kind = 'function'
    THEN f.hash IS NOT NULL AND f.hash IS DISTINCT FROM t.executor_details ->> 'source_hash'
    ELSE CAST(:version AS text) IS NOT NULL
         AND CAST(:version AS text) IS DISTINCT FROM t.executor_details ->> 'code_version' END
ORDER BY t.id
"""


def last_in_place(tx: Connection, trial_id: int) -> int:
    """The trial that stands last in the place of this one: itself where it was not retried."""
    return int(scalar(tx, _LAST, id=trial_id))


def is_withdrawn(tx: Connection, candidate_id: int) -> bool:
    """Whether the candidate is withdrawn."""
    return bool(scalar(tx, "SELECT withdrawn_at IS NOT NULL FROM work.candidates WHERE id = :id", id=candidate_id))


def changed_since(
    tx: Connection,
    *,
    sources: Mapping[str, str],
    code_version: str | None,
    studies: Sequence[str] | None,
    most: int,
) -> list[int]:
    """Trials of active studies that failed because of a task that is another one by now, oldest first.

    Those of withdrawn candidates are left out.
    """
    names = [f"function:{name}" for name in sources]
    found = rows(
        tx,
        _CHANGED,
        names=names,
        hashes=list(sources.values()),
        version=code_version,
        studies=None if studies is None else list(studies),
        most=most,
    )
    return [r.id for r in found]


def note_offer(tx: Connection, *, functions: Iterable[str], trainers: bool, studies: Sequence[str] | None) -> None:
    """Record, at most once a minute, that a caller with these implementations asks for trials of these studies."""
    named = [*(f"function:{name}" for name in functions), *(["trainer"] if trainers else [])]
    change(
        tx,
        "INSERT INTO work.offers (implementation, study) "
        "SELECT i, s FROM unnest(CAST(:named AS text[])) AS i, unnest(CAST(:studies AS text[])) AS s "
        "ON CONFLICT ON CONSTRAINT offers_pkey DO UPDATE SET asked_at = now() "
        "WHERE offers.asked_at < now() - interval '1 minute'",
        named=named,
        studies=[""] if studies is None else list(studies),
    )


MOST_EXCUSED = 10
"""Attempts of one trial that restarts excuse at most, as in ``work.trials_excused_check``."""


def note_server_start(tx: Connection) -> bool:
    """Record when the database server started, once; True where that was new. Role ``easeml_referee``."""
    return bool(
        change(
            tx,
            "INSERT INTO work.restarts (what, at) VALUES ('server', pg_postmaster_start_time()) "
            "ON CONFLICT ON CONSTRAINT restarts_once_key DO NOTHING",
        )
    )


def state_restart(tx: Connection, *, reason: str) -> None:
    """Record that workers were restarted or taken away just now, such as a drained node."""
    is_line = len(reason.strip()) >= 1 and len(reason) <= 200 and reason.isprintable()
    require(is_line, "reason", reason, "a line of 1 to 200 characters")
    change(tx, "INSERT INTO work.restarts (what, reason) VALUES ('stated', :reason)", reason=reason)

"""What other roles ask of the scheduler's process: suggestions, and changes of rows that other roles wait for.

A role that may not suggest files a request for suggestions. The batch of suggestions with the request's key is the
answer; a refusal is a sentence in the request's row, after which the key can be filed again.

A tenant's login asks for a pause of its study, or the end of its trial: it can keep a transaction open for as long as
it likes, so it locks no such row. It adds a request, and the scheduler's process makes the change in a short
transaction (ADR 0032).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import NotFoundError, StateError, StoreUnavailableError
from easeml_core.formats.encoding import typed_record
from easeml_core.settings.limits import LONGEST_TEXT
from easeml_core.store import logins
from easeml_core.store.database import CHANNEL, DECISIONS_CHANNEL, SCHEDULER_CHANNEL, notify, notify_pages
from easeml_core.store.listen import wait_here
from easeml_core.store.roles import SCHEDULER, WORKER
from easeml_core.store.rows import change, clean, record, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store


@typed_record
class SuggestionRequest:
    """A filed request.

    Attributes:
        id: Its number.
        request_key: Of the request, and of the batch that answers it.
        login: Role of the database that filed it.
        requested: How many trials at most.
        device: Kind of the free device; None where all are alike.
        studies: Names of the studies to choose from; None for all that the login may have.
        functions: Names of the caller's training functions.
        sources: Of each of them the hash of its source, or None.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.
        traceparent: Span of the caller's task, by W3C Trace Context; None where it is not traced.
        filed_at: When.
        waits_seconds: For how long it has waited, or had when it was decided.
        tries: How often a decision was begun.
        decided_at: When the scheduler decided; None before.
        refusal: Why nothing was decided; None where there is a batch, or no decision yet.
    """

    id: int
    request_key: str
    login: str
    requested: int
    device: str | None
    studies: list[str] | None
    functions: list[str]
    sources: list[str | None]
    trainers: bool
    runtimes: list[str] | None
    traceparent: str | None
    filed_at: datetime
    waits_seconds: float
    tries: int
    decided_at: datetime | None
    refusal: str | None


class FiledSuggestionRequest(NamedTuple):
    """The request with a key: its number, and whether it was there before."""

    id: int
    was_there: bool


BEAT_SECONDS, SILENT_SECONDS = 5.0, 60.0
"""Between two beats of a process of the scheduler, and since the last one of a process that counts as dead."""

_FOR_ALL = frozenset({SCHEDULER, WORKER})
"""With devices, the roles that have trials of all tenants; any other one has those of its login's tenants."""

_REQUEST = """
SELECT q.id, q.request_key, q.login, q.requested, q.device, q.studies, q.functions, q.sources, q.trainers, q.runtimes,
  q.traceparent, q.filed_at,
  extract(epoch FROM coalesce(q.decided_at, now()) - q.filed_at)::double precision AS waits_seconds,
  q.tries, q.decided_at, q.refusal
FROM work.suggestion_requests q WHERE q.id = :id
"""


def may_suggest(tx: Connection) -> bool:
    """Whether this transaction's role may add suggestions; others file requests."""
    return bool(scalar(tx, "SELECT has_any_column_privilege('work.suggestions', 'INSERT')"))


def file_suggestion_request(
    tx: Connection,
    *,
    request_key: str,
    requested: int,
    device: str | None,
    studies: Sequence[str] | None,
    functions: Mapping[str, str | None],
    trainers: bool,
    runtimes: Sequence[str] | None,
    traceparent: str | None = None,
) -> FiledSuggestionRequest:
    """File a request and wake the scheduler; repeatable: a further call with the key gives the same request."""
    key = logins.own_key(tx, request_key)
    made = scalar(
        tx,
        "INSERT INTO work.suggestion_requests "
        "(request_key, requested, device, studies, functions, sources, trainers, runtimes, traceparent) "
        "VALUES (:key, :requested, :device, CAST(:studies AS text[]), CAST(:functions AS text[]), "
        "CAST(:sources AS text[]), :trainers, CAST(:runtimes AS text[]), :traceparent) "
        "ON CONFLICT (request_key) WHERE refusal IS NULL DO NOTHING RETURNING id",
        key=key,
        requested=requested,
        device=device,
        studies=None if studies is None else list(studies),
        functions=list(functions),
        sources=list(functions.values()),
        trainers=trainers,
        runtimes=None if runtimes is None else list(runtimes),
        traceparent=traceparent,
    )
    number = made if made is not None else scalar(tx, _OF_KEY, key=key)
    if number is None:  # a login sees its own requests only
        raise NotFoundError(kind="request for suggestions with the key", name=request_key)
    notify(tx, f"suggestions:{number}", channel=SCHEDULER_CHANNEL)
    return FiledSuggestionRequest(int(number), made is None)


_OF_KEY = "SELECT id FROM work.suggestion_requests WHERE request_key = :key AND refusal IS NULL"


def get_suggestion_request(tx: Connection, number: int) -> SuggestionRequest:
    """Return a request."""
    found = record(tx, SuggestionRequest, _REQUEST, id=number)
    if found is None:
        raise NotFoundError(kind="request for suggestions", name=number)
    return found


def open_suggestion_requests(tx: Connection, *, limit: int = 100) -> list[int]:
    """Return the oldest open request of each login, by age: a login that files many delays no other one."""
    found = rows(
        tx,
        "SELECT min(id) AS id FROM work.suggestion_requests WHERE decided_at IS NULL GROUP BY login "
        "ORDER BY min(id) LIMIT :limit",
        limit=limit,
    )
    return [r.id for r in found]


def begin_decision(tx: Connection, number: int) -> int | None:
    """Count one more decision that is begun; return how many, or None where the request is closed or another's."""
    tries = scalar(
        tx,
        "UPDATE work.suggestion_requests SET tries = tries + 1 WHERE id = (SELECT id FROM work.suggestion_requests "
        "WHERE id = :id AND decided_at IS NULL FOR UPDATE SKIP LOCKED) RETURNING tries",
        id=number,
    )
    return None if tries is None else int(tries)


def hold_open(tx: Connection, number: int) -> bool:
    """Hold a request's row while it is decided; False where it is closed, or another process has it."""
    held = "SELECT FROM work.suggestion_requests WHERE id = :id AND decided_at IS NULL FOR UPDATE SKIP LOCKED"
    return row(tx, held, id=number) is not None


def note_decided(tx: Connection, number: int, *, refusal: str | None = None) -> None:
    """Close a request and notify its caller; harmless where that was done. What has a batch is not refused."""
    closed = change(
        tx,
        "UPDATE work.suggestion_requests q SET decided_at = now(), studies = NULL, functions = '{}', sources = '{}', "
        "refusal = CASE WHEN NOT EXISTS (SELECT FROM work.suggestion_batches b WHERE b.request_key = q.request_key) "
        "THEN CAST(:refusal AS text) END WHERE q.id = :id AND q.decided_at IS NULL",
        id=number,
        refusal=None if refusal is None else clean(refusal)[:LONGEST_TEXT],
    )
    if closed:
        notify(tx, f"suggestions:{number}", channel=DECISIONS_CHANNEL)


def forget_old_requests(tx: Connection) -> int:
    """Delete requests that were decided a week ago; the batch of a key still answers a further try."""
    return change(tx, "DELETE FROM work.suggestion_requests WHERE decided_at < now() - interval '7 days'")


@typed_record
class SchedulerLife:
    """What every role may know of the scheduler's processes, which write a beat about every ``BEAT_SECONDS``.

    Attributes:
        alive: How many live.
        beat_seconds: Since the last beat of any; None where none has ever run.
        waiting: Requests of this role, or of all for a role that sees them, that are not decided.
        oldest_seconds: For how long the oldest of those has waited; None without any.
    """

    alive: int
    beat_seconds: float | None
    waiting: int
    oldest_seconds: float | None


def scheduler_life(tx: Connection) -> SchedulerLife:
    """Return whether a process decides requests for suggestions, and what waits for it."""
    found = record(
        tx,
        SchedulerLife,
        "SELECT count(*) FILTER (WHERE b.beat_at > n.at - make_interval(secs => :silent)) AS alive, "
        "extract(epoch FROM min(n.at - b.beat_at))::double precision AS beat_seconds, max(w.waiting) AS waiting, "
        "extract(epoch FROM max(n.at - w.oldest))::double precision AS oldest_seconds "
        "FROM (SELECT clock_timestamp() AS at) n "
        "CROSS JOIN (SELECT count(*) AS waiting, min(filed_at) AS oldest FROM work.suggestion_requests "
        "WHERE decided_at IS NULL) w LEFT JOIN work.scheduler_beats b ON true",
        silent=SILENT_SECONDS,
    )
    assert found is not None  # an aggregate has one row
    return found


def note_beat(tx: Connection, number: int | None) -> int:
    """Write that a process lives, and return its number; beats of a day ago are deleted with the first."""
    written = "UPDATE work.scheduler_beats SET beat_at = greatest(beat_at, now()) WHERE id = :id"
    if number is not None and change(tx, written, id=number):
        return number
    change(tx, "DELETE FROM work.scheduler_beats WHERE beat_at < now() - interval '1 day'")
    return int(scalar(tx, "INSERT INTO work.scheduler_beats (started_at) VALUES (now()) RETURNING id") or 0)


def end_beats(tx: Connection, number: int) -> None:
    """Delete the beats of a process that ends."""
    change(tx, "DELETE FROM work.scheduler_beats WHERE id = :id", id=number)


def studies_of_login(tx: Connection, login: str) -> list[str] | None:
    """Return the names of the studies that a login may have trials of; None where that is all of them."""
    if login in _FOR_ALL or logins.is_device(login):
        return None
    found = rows(
        tx,
        "SELECT s.name FROM work.studies s JOIN work.tenant_logins l ON l.tenant_id = s.tenant_id "
        "WHERE l.login = :login AND s.state NOT IN ('REFUSED', 'ARCHIVED') ORDER BY s.name",
        login=login,
    )
    return [r.name for r in found]


class _Outcome(NamedTuple):
    """What became of a change; the name is None while it is open."""

    name: str | None
    refusal: str | None


WAIT_SECONDS = 30.0
"""How long a caller waits until its change is made; it is made later all the same."""


def apply_changes(tx: Connection) -> int:
    """Make the changes that logins have asked for, some of each login, and notify who waits; return how many.

    A row that another transaction holds is left for the next call.
    """
    made = rows(tx, "SELECT study, trial FROM work.apply_changes()")
    for r in made:
        notify(tx, f"study:{r.study}" if r.trial is None else f"trial:{r.trial}")
    notify_pages(tx, *{r.study for r in made})
    return len(made)


def is_any_open(tx: Connection) -> bool:
    """Whether a change waits for a row that another transaction holds."""
    return bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.change_requests WHERE outcome IS NULL)"))


def wait_until_made(store: Store, *, study_id: int, trial_id: int | None = None) -> None:
    """Wait until the change that this login has asked for is made; at once for a role that makes it itself."""
    asked = (
        "SELECT outcome, refusal FROM work.change_requests WHERE login = work.caller() AND study_id = :study "
        "AND trial_id IS NOT DISTINCT FROM CAST(:trial AS bigint)"
    )

    def look() -> _Outcome | None:
        with store.begin(writes=False) as tx:
            if not logins.is_tenant(tx):
                return _Outcome("made", None)
            # No row: nothing had to be changed.
            found = row(tx, asked, study=study_id, trial=trial_id)
            outcome = _Outcome("made", None) if found is None else _Outcome(found.outcome, found.refusal)
            return outcome if outcome.name is not None else None

    outcome = wait_here(store.dsn, CHANNEL, look, seconds=WAIT_SECONDS, poll_seconds=1.0)
    if outcome is not None and outcome.name != "made":
        what = f"study {study_id}" if trial_id is None else f"trial {trial_id}"
        message = f"the change of {what} was not made: {outcome.refusal}; see its present state, and ask again"
        raise StateError(message)
    if outcome is None:
        message = (
            f"the change was asked for, and the scheduler has not made it within {WAIT_SECONDS:g} s; see that "
            "`easeml scheduler` runs with this database: it is made then"
        )
        raise StoreUnavailableError(message)

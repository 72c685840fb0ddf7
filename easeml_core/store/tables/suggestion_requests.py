"""Requests for suggestions of roles that may not suggest: filed by an operator or a device, decided by the scheduler.

The batch of suggestions with the request's key is the answer; a refusal is a sentence in the request's row.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.entities import JsonObject
from easeml_core.errors import NotFoundError
from easeml_core.limits import LONGEST_TEXT
from easeml_core.store.database import CHANNEL, SCHEDULER_CHANNEL, notify
from easeml_core.store.logins import own_key
from easeml_core.store.roles import DEVICE, OWNER, SCHEDULER, WORKER
from easeml_core.store.rows import as_json, change, clean, record, records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection


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
        functions: Names of the caller's training functions, each with the hash of its source or None.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.
        filed_at: When.
        decided_at: When the scheduler decided; None before.
        refusal: Why nothing was decided; None where there is a batch, or no decision yet.
    """

    id: int
    request_key: str
    login: str
    requested: int
    device: str | None
    studies: list[str] | None
    functions: JsonObject
    trainers: bool
    runtimes: list[str] | None
    filed_at: datetime
    decided_at: datetime | None
    refusal: str | None


_FOR_ALL = frozenset({DEVICE, OWNER, SCHEDULER, WORKER})
"""Roles that have trials of all tenants; any other one has those of the tenants that it is a login of."""

_COLUMNS = (
    "q.id, q.request_key, q.login, q.requested, q.device, q.studies, q.functions, q.trainers, q.runtimes, q.filed_at, "
    "q.decided_at, q.refusal"
)


def may_suggest(tx: Connection) -> bool:
    """Whether this transaction's role may add suggestions; others file requests."""
    return bool(scalar(tx, "SELECT has_table_privilege('work.suggestions', 'INSERT')"))


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
) -> int:
    """File a request and wake the scheduler; repeatable: a further call with the key gives the same request.

    Args:
        tx: Any role but ``easeml_referee``.
        request_key: Of the caller's task.
        requested: How many trials at most, 1 to 1000.
        device: Kind of the free device, or None.
        studies: Names of the studies to choose from; None for all that the login may have.
        functions: Names of the caller's training functions, each with the hash of its source or None.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.

    Returns:
        The request's number.
    """
    request_key = own_key(tx, request_key)
    change(
        tx,
        "INSERT INTO work.suggestion_requests (request_key, requested, device, studies, functions, trainers, runtimes) "
        "VALUES (:request_key, :requested, :device, CAST(:studies AS text[]), CAST(:functions AS jsonb), :trainers, "
        "CAST(:runtimes AS text[])) ON CONFLICT ON CONSTRAINT suggestion_requests_request_key DO NOTHING",
        request_key=request_key,
        requested=requested,
        device=device,
        studies=None if studies is None else list(studies),
        functions=as_json(dict(functions)),
        trainers=trainers,
        runtimes=None if runtimes is None else list(runtimes),
    )
    number = scalar(tx, "SELECT id FROM work.suggestion_requests WHERE request_key = :key", key=request_key)
    if number is None:  # a login sees its own requests only
        raise NotFoundError(kind="request for suggestions with the key", name=request_key)
    notify(tx, f"suggestions:{number}", channel=SCHEDULER_CHANNEL)
    return int(number)


def get_suggestion_request(tx: Connection, number: int) -> SuggestionRequest:
    """Return a request.

    Raises:
        NotFoundError: There is no such request, or the role may not see it.
    """
    found = record(
        tx, SuggestionRequest, f"SELECT {_COLUMNS} FROM work.suggestion_requests q WHERE q.id = :id", id=number
    )
    if found is None:
        raise NotFoundError(kind="request for suggestions", name=number)
    return found


# The first open request of each login before the second one of any: a login that files many delays no other one.
_OPEN = f"""
SELECT {_COLUMNS} FROM (
  SELECT *, row_number() OVER (PARTITION BY login ORDER BY id) AS turn
  FROM work.suggestion_requests WHERE decided_at IS NULL) q
ORDER BY q.turn, q.id LIMIT :limit
"""


def open_suggestion_requests(tx: Connection, *, limit: int = 100) -> list[SuggestionRequest]:
    """Return the requests without a decision, in the order in which they are decided.

    Args:
        tx: Role ``easeml_scheduler``.
        limit: How many at most.
    """
    return records(tx, SuggestionRequest, _OPEN, limit=limit)


def note_decided(tx: Connection, number: int, *, refusal: str | None = None) -> None:
    """Close a request and notify its caller; harmless where that was done.

    Args:
        tx: Role ``easeml_scheduler``.
        number: The request.
        refusal: Why there is no batch; None where there is one.
    """
    closed = change(
        tx,
        "UPDATE work.suggestion_requests SET decided_at = now(), refusal = :refusal "
        "WHERE id = :id AND decided_at IS NULL",
        id=number,
        refusal=None if refusal is None else clean(refusal)[:LONGEST_TEXT],
    )
    if closed:
        notify(tx, f"suggestions:{number}", channel=CHANNEL)


def studies_of_login(tx: Connection, login: str) -> list[str] | None:
    """Return the names of the studies that a login may have trials of; None where that is all of them.

    Args:
        tx: Role ``easeml_scheduler``.
        login: Role of the database that filed a request.
    """
    if login in _FOR_ALL:
        return None
    found = rows(
        tx,
        "SELECT s.name FROM work.studies s JOIN work.tenant_logins l ON l.tenant_id = s.tenant_id "
        "WHERE l.login = :login AND s.state <> 'REFUSED' ORDER BY s.name",
        login=login,
    )
    return [r.name for r in found]

"""What is asked of the referee and what it answered, as rows; a request key files its request once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.entities import RequestKind
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.store.database import REFEREE_CHANNEL, notify
from easeml_core.store.rows import as_json, change, clean, row, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Request:
    """One request: who is meant, and the arguments as they were given."""

    id: int
    kind: RequestKind
    study_id: int
    model_id: int | None
    arguments: Mapping[str, Any]


def file_request(
    tx: Connection,
    *,
    kind: RequestKind,
    study_id: int,
    model_id: int | None,
    arguments: Mapping[str, Any],
    request_key: str,
) -> int:
    """File a request and wake the referee; the same key gives the same request.

    Raises:
        InvalidInputError: The key was used for another study or kind, or is empty.
    """
    if not request_key:
        message = "request_key must not be empty; it makes the call repeatable"
        raise InvalidInputError(message)
    found = scalar(
        tx,
        "INSERT INTO work.requests (request_key, kind, study_id, model_id, arguments) "
        "VALUES (:key, :kind, :study_id, :model_id, CAST(:arguments AS jsonb)) "
        "ON CONFLICT ON CONSTRAINT requests_request_key DO NOTHING RETURNING id",
        key=request_key,
        kind=kind,
        study_id=study_id,
        model_id=model_id,
        arguments=as_json(arguments),
    )
    if found is None:
        earlier = request_of_key(tx, request_key)
        if earlier is None or (earlier.kind, earlier.study_id) != (kind, study_id):
            message = f"request key {request_key!r} was used for another request; use a new key"
            raise InvalidInputError(message)
        return earlier.id
    notify(tx, f"request:{found}", channel=REFEREE_CHANNEL)
    return int(found)


_REQUEST = "SELECT r.id, r.kind, r.study_id, r.model_id, r.arguments FROM work.requests r "


def request_of_key(tx: Connection, request_key: str) -> Request | None:
    """The request that this key has filed, or None."""
    found = row(tx, _REQUEST + "WHERE r.request_key = :key", key=request_key)
    return None if found is None else Request(**dict(found._mapping) | {"kind": RequestKind(found.kind)})


def claim_request(tx: Connection) -> Request | None:
    """The oldest unanswered request, held until the transaction ends; None when all are answered or held.

    A referee that dies gives the request back with its lock; nothing of its work was written.
    """
    while True:
        found = row(
            tx,
            _REQUEST + "WHERE NOT EXISTS (SELECT 1 FROM work.answers a WHERE a.request_id = r.id) "
            "ORDER BY r.id LIMIT 1 FOR UPDATE OF r SKIP LOCKED",
        )
        if found is None:
            return None
        # Another referee may have answered it between this statement's snapshot and its lock: look again, locked.
        if not scalar(tx, "SELECT EXISTS (SELECT 1 FROM work.answers WHERE request_id = :id)", id=found.id):
            return Request(**dict(found._mapping) | {"kind": RequestKind(found.kind)})


def add_answer(tx: Connection, request_id: int, *, refused: bool, message: str) -> None:
    """Answer a request and wake whoever waits for it."""
    change(
        tx,
        "INSERT INTO work.answers (request_id, refused, message) VALUES (:id, :refused, :message)",
        id=request_id,
        refused=refused,
        message=clean(message),
    )
    notify(tx, f"answer:{request_id}")


def get_answer(tx: Connection, request_id: int) -> dict[str, Any] | None:
    """Kind, study, model and outcome of an answered request, or None while there is no answer.

    Raises:
        NotFoundError: There is no such request.
    """
    found = row(
        tx,
        "SELECT r.id AS request_id, r.kind, s.name AS study, r.model_id, a.refused, a.message FROM work.requests r "
        "JOIN work.studies s ON s.id = r.study_id LEFT JOIN work.answers a ON a.request_id = r.id WHERE r.id = :id",
        id=request_id,
    )
    if found is None:
        raise NotFoundError(kind="request", name=request_id)
    return None if found.refused is None else dict(found._mapping)

"""Decided answers that have not left yet, as rows. Only the referee's role can read them.

A row stays for good; ``left_at`` says when its answer was given.

Mail that is to be sent, as rows: written with what it is about, sent later, at least once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import as_json, change, clean, row, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Held:
    """A decided answer that is not published yet: its message, and what is published with it."""

    request_id: int
    refused: bool
    message: str
    facts: Mapping[str, Any]


def hold(
    tx: Connection,
    *,
    request_id: int,
    refused: bool,
    message: str,
    facts: Mapping[str, Any],
    leaves_at: datetime | None,
) -> None:
    """Keep a decided answer; a request is decided once.

    Args:
        tx: Transaction of the referee's role that holds the request.
        request_id: The request.
        refused: Whether the answer is a refusal.
        message: Its public sentence.
        facts: What is published with it; plain JSON.
        leaves_at: When the answer leaves; None where it leaves in this very transaction.
    """
    change(
        tx,
        "INSERT INTO sealed.outbox (request_id, refused, message, facts, leaves_at, left_at) VALUES (:id, :refused, "
        ":message, CAST(:facts AS jsonb), coalesce(:leaves_at, clock_timestamp()), "
        "CASE WHEN CAST(:leaves_at AS timestamptz) IS NULL THEN clock_timestamp() END)",
        id=request_id,
        refused=refused,
        message=message,
        facts=as_json(facts),
        leaves_at=leaves_at,
    )


def claim_due(tx: Connection, *, skip: Sequence[int] = ()) -> Held | None:
    """The answer whose time has come first, held until the transaction ends; None when there is none.

    Args:
        tx: Transaction of the referee's role.
        skip: Requests to pass over for now.
    """
    found = row(
        tx,
        "SELECT request_id, refused, message, facts FROM sealed.outbox WHERE left_at IS NULL "
        "AND leaves_at <= clock_timestamp() AND request_id <> ALL (:skip) ORDER BY leaves_at, request_id LIMIT 1 "
        "FOR UPDATE SKIP LOCKED",
        skip=list(skip),
    )
    return None if found is None else Held(**found._mapping)


def mark_left(tx: Connection, request_id: int) -> None:
    """The answer is said, in this very transaction."""
    change(tx, "UPDATE sealed.outbox SET left_at = clock_timestamp() WHERE request_id = :id", id=request_id)


def seconds_to_next(tx: Connection, *, looked_ago: float) -> float | None:
    """Seconds until the next decided answer leaves that was not due ``looked_ago`` seconds ago; None without any.

    At most 0 where it has become due since then.
    """
    found = scalar(
        tx,
        "SELECT extract(epoch FROM min(leaves_at) - clock_timestamp())::double precision FROM sealed.outbox "
        "WHERE left_at IS NULL AND leaves_at > clock_timestamp() - make_interval(secs => :ago)",
        ago=looked_ago,
    )
    return None if found is None else float(found)


def times(tx: Connection, request_id: int) -> tuple[datetime, datetime]:
    """When the request was filed, and now, both by the database's clock and in UTC."""
    found = row(tx, "SELECT requested_at, clock_timestamp() AS now FROM work.requests WHERE id = :id", id=request_id)
    assert found is not None  # the caller has it claimed
    return found.requested_at, found.now


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail that nobody has sent yet."""

    id: int
    recipient: str
    subject: str
    body: str
    created_at: datetime


def add_mail(tx: Connection, *, recipient: str, subject: str, body: str) -> None:
    """Leave a mail for the sender; it exists when and only when this transaction commits."""
    change(
        tx,
        "INSERT INTO sealed.mails (recipient, subject, body) VALUES (:recipient, :subject, :body)",
        recipient=recipient,
        subject=clean(subject),
        body=clean(body),
    )


def claim_mail(tx: Connection, *, skip: Sequence[int] = ()) -> Mail | None:
    """The oldest unsent mail, held until the transaction ends; None when all are sent or held.

    Args:
        tx: Transaction of the referee's role.
        skip: Mails to pass over for now.
    """
    found = row(
        tx,
        "SELECT id, recipient, subject, body, created_at FROM sealed.mails WHERE sent_at IS NULL "
        "AND id <> ALL (:skip) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        skip=list(skip),
    )
    return None if found is None else Mail(**found._mapping)


def mark_sent(tx: Connection, mail_id: int) -> None:
    """The mail was handed over."""
    change(tx, "UPDATE sealed.mails SET sent_at = clock_timestamp() WHERE id = :id", id=mail_id)

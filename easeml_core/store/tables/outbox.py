"""Decided answers and mail that have not left yet. Only the referee's role can read them.

An answer's row stays; ``left_at`` says when it was published. A mail is stored with what it is about and sent later, at
least once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.formats.encoding import from_json, to_stored_json, typed_record
from easeml_core.store.rows import as_json, change, clean, filler, record, row, scalar
from easeml_core.store.tables.releases import Reading, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject


@typed_record
class MailText:
    """A mail that is sent with an answer."""

    recipient: str
    subject: str
    body: str


@typed_record
class GateFacts:
    """The facts published with a verdict.

    Attributes:
        study_id: The study.
        test_set_id: The set that was asked.
        retired_why: Why the set ends with this answer; None while it lives.
        verdict: What is released.
        mails: That leave with it.
    """

    study_id: int
    test_set_id: int
    retired_why: str | None
    verdict: Verdict
    mails: tuple[MailText, ...] = ()


@typed_record
class MeterFacts:
    """The facts published with a reading.

    Attributes:
        study_id: The study.
        test_set_id: The meter set that was asked.
        retired_why: Why the set ends with this answer; None while it lives.
        reading: What is released.
        alert: Message of the overfitting alert, or None.
        over_budget: Whether the alert says that the budget is broken; None without one.
        drift_alert: Message of the drift alert, or None.
        direct_retired_why: Why the second validation sample ends with it; None while it lives, and without one.
    """

    study_id: int
    test_set_id: int
    retired_why: str | None
    reading: Reading
    alert: str | None = None
    over_budget: bool | None = None
    drift_alert: str | None = None
    direct_retired_why: str | None = None


Facts = GateFacts | MeterFacts


@dataclass(frozen=True, slots=True)
class Held:
    """A decided answer that is not published yet: its message, and what is published with it, if anything."""

    request_id: int
    refused: bool
    message: str
    facts: Facts | None


def hold(
    tx: Connection,
    *,
    request_id: int,
    refused: bool,
    message: str,
    facts: Facts | None,
    leaves_at: datetime | None,
) -> None:
    """Keep a decided answer; a request is decided once."""
    change(
        tx,
        "INSERT INTO sealed.outbox (request_id, refused, message, facts, filler, leaves_at, left_at) VALUES (:id, "
        f":refused, :message, CAST(:facts AS jsonb), {filler('pg_column_size(CAST(:facts AS jsonb))')}, "
        "coalesce(:leaves_at, clock_timestamp()), "
        "CASE WHEN CAST(:leaves_at AS timestamptz) IS NULL THEN clock_timestamp() END)",
        id=request_id,
        refused=refused,
        message=message,
        facts=as_json({} if facts is None else to_stored_json(facts)),
        leaves_at=leaves_at,
    )


def claim_due(tx: Connection, *, skip: Sequence[int] = ()) -> Held | None:
    """The answer whose time has come first, held until the transaction ends; None when there is none."""
    found = row(
        tx,
        "SELECT request_id, refused, message, facts FROM sealed.outbox WHERE left_at IS NULL "
        "AND leaves_at <= clock_timestamp() AND request_id <> ALL (:skip) ORDER BY leaves_at, request_id LIMIT 1 "
        "FOR UPDATE SKIP LOCKED",
        skip=list(skip),
    )
    return None if found is None else Held(found.request_id, found.refused, found.message, _facts(found.facts))


def _facts(stored: JsonObject) -> Facts | None:
    """Return the facts stored with an answer; an earlier version may have left out fields that are None."""
    if not stored:
        return None
    return from_json(stored, GateFacts) if "verdict" in stored else from_json(stored, MeterFacts)


def mark_left(tx: Connection, request_id: int) -> None:
    """Mark the answer as published, in this same transaction."""
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
    """Return the time of the request, and the present, both by the database's clock and in UTC."""
    found = row(tx, "SELECT requested_at, clock_timestamp() AS now FROM work.requests WHERE id = :id", id=request_id)
    assert found is not None  # the caller has it claimed
    return found.requested_at, found.now


@typed_record
class Mail:
    """One mail that has not been sent."""

    id: int
    recipient: str
    subject: str
    body: str
    created_at: datetime


def add_mail(tx: Connection, *, recipient: str, subject: str, body: str) -> None:
    """Add a mail to send; it exists if and only if this transaction commits."""
    change(
        tx,
        "INSERT INTO sealed.mails (recipient, subject, body, filler) "
        f"VALUES (:recipient, :subject, :body, {filler('pg_column_size(CAST(:body AS text))')})",
        recipient=recipient,
        subject=clean(subject),
        body=clean(body),
    )


def claim_mail(tx: Connection, *, skip: Sequence[int] = ()) -> Mail | None:
    """The oldest unsent mail, held until the transaction ends; None when all are sent or held."""
    return record(
        tx,
        Mail,
        "SELECT id, recipient, subject, body, created_at FROM sealed.mails WHERE sent_at IS NULL "
        "AND id <> ALL (:skip) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        skip=list(skip),
    )


def mark_sent(tx: Connection, mail_id: int) -> None:
    """Mark the mail as sent."""
    change(tx, "UPDATE sealed.mails SET sent_at = clock_timestamp() WHERE id = :id", id=mail_id)

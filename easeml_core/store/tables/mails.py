"""Mail that is to be sent, as rows: written with what it is about, sent later, at least once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.store.rows import change, clean, row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


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

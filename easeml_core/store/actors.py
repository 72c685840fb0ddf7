"""In whose name a transaction is made, for the audit: said once at the door, told to the database by every ``begin``.

    door            says
    a page          who looks at it
    command line    the user of the operating system, or ``--by``
    a task          its DAG, run and task, and which try of it this is

Triggers keep it with each act (``work.audit``). It is what the door says and no proof: whoever holds the database's
address could say anything, so the row has the database's own role, too.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

MOST_REASON = 2000
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody, or some task, that changes things.

    Attributes:
        name: As the door knows them.
        door: Where they came in, such as ``page``.
        reason: Why, in their words; empty where nobody asked.
        try_number: Of a task, from 1; None of all else.
    """

    name: str
    door: str
    reason: str = ""
    try_number: int | None = None


_now: ContextVar[Actor | None] = ContextVar("easeml_actor", default=None)


@contextlib.contextmanager
def acting(name: str, *, door: str, reason: str = "") -> Iterator[Actor]:
    """Everything in this block is done in their name."""
    with _acting(Actor(name, door, reason[:MOST_REASON])) as actor:
        yield actor


@contextlib.contextmanager
def because(reason: str) -> Iterator[None]:
    """Everything in this block has this reason; whoever acts stays the same."""
    actor = _now.get()
    if actor is None or not reason.strip():
        yield
        return
    with _acting(replace(actor, reason=reason.strip()[:MOST_REASON])):
        yield


@contextlib.contextmanager
def _acting(actor: Actor) -> Iterator[Actor]:
    token = _now.set(actor)
    try:
        yield actor
    finally:
        _now.reset(token)


def tell(tx: Connection, usual: Actor | None = None) -> None:
    """Let the database know for this transaction; where nobody acts, its role is all that is known.

    Args:
        tx: A transaction that has just begun.
        usual: Who acts where nobody else was said to.
    """
    from easeml_core.store.rows import clean  # who only says who acts, on the command line, needs no numpy for it

    actor = _now.get() or usual
    if actor is not None:
        told = {"who": clean(actor.name), "door": clean(actor.door), "reason": clean(actor.reason)}
        told["try"] = "" if actor.try_number is None else str(actor.try_number)
        tx.exec_driver_sql(_TELL, told)


_TELL = (
    "SELECT set_config('easeml.actor', %(who)s, true), set_config('easeml.door', %(door)s, true), "
    "set_config('easeml.reason', %(reason)s, true), set_config('easeml.try', %(try)s, true)"
)

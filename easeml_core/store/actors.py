"""The actor of a transaction, for the audit: set once at the entry point, and passed to the database by ``begin``.

    door            says
    a page          who looks at it
    command line    the user of the operating system, or ``--by``
    a task          its DAG, run and task, and which try of it this is

Triggers keep it with each act (``work.audit``). It is a statement and no proof: a process with the database's
address could say anything, so the row has the database's own role, too.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.limits import LONGEST_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Actor:
    """A user or a task that changes something.

    Attributes:
        name: As the door knows them.
        door: Where they came in, such as ``page``.
        reason: The reason that was given; empty where none was asked for.
        try_number: Of a task, from 1; None of all else.
    """

    name: str
    door: str
    reason: str = ""
    try_number: int | None = None


_now: ContextVar[Actor | None] = ContextVar("easeml_actor", default=None)


@contextlib.contextmanager
def acting(name: str, *, door: str, reason: str = "") -> Iterator[Actor]:
    """Record this actor for all acts in the block."""
    with _acting(Actor(name, door, reason[:LONGEST_TEXT])) as actor:
        yield actor


@contextlib.contextmanager
def because(reason: str) -> Iterator[None]:
    """Give every change in this block this reason; the actor stays the same."""
    actor = _now.get()
    if actor is None or not reason.strip():
        yield
        return
    with _acting(replace(actor, reason=reason.strip()[:LONGEST_TEXT])):
        yield


@contextlib.contextmanager
def _acting(actor: Actor) -> Iterator[Actor]:
    token = _now.set(actor)
    try:
        yield actor
    finally:
        _now.reset(token)


def tell(tx: Connection, usual: Actor | None = None) -> None:
    """Pass the actor to the database for this transaction; without an actor only the database role is recorded.

    Args:
        tx: A transaction that has just begun.
        usual: The actor by default.
    """
    from easeml_core.store.rows import clean  # the command line sets an actor without numpy

    actor = _now.get() or usual
    if actor is not None:
        settings = {"who": clean(actor.name), "door": clean(actor.door), "reason": clean(actor.reason)}
        settings["try"] = "" if actor.try_number is None else str(actor.try_number)
        tx.exec_driver_sql(_TELL, settings)


# Such a statement needs no plan and has no columns, which each transaction would pay for.
_TELL = (
    "SET LOCAL easeml.actor = %(who)s; SET LOCAL easeml.door = %(door)s; "
    "SET LOCAL easeml.reason = %(reason)s; SET LOCAL easeml.try = %(try)s"
)

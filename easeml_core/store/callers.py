"""Who acts in a transaction, and whose rows it may touch: ``database.begin`` passes both on to the database.

**The actor**, for the audit, is set once at the entry point:

    door            says
    a page          who looks at it
    command line    the user of the operating system, or ``--by``
    a task          its DAG, run and task, and which try of it this is

Triggers keep it with each act (``work.audit``). It is a statement and no proof: a process with the database's
address could say anything, so the row has the database's own role, too.

**The reach**, for the pages, is the rows of the tenants of who asks (ADR 0032). The pages check what they show and
change. Where tenants have logins, their transactions also take the role ``easeml_viewer``, or ``easeml_person`` where
something is sent, so that a check which was forgotten shows and changes nothing. The settings that name the tenants
prove nothing to the database: the role that can take both, ``easeml_worker``, reads and changes all rows anyway. What
lies in files is no row: the names of other tenants say whose folders stay closed.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.errors import NotFoundError
from easeml_core.settings.limits import LONGEST_TEXT
from easeml_core.store.roles import PERSON, VIEWER, WORKER

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
    """Pass the actor to the database for this transaction; without an actor only the database role is recorded."""
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


@dataclass(frozen=True, slots=True)
class Reach:
    """What one request of a person may touch.

    Attributes:
        reads: Numbers of the tenants whose rows it sees.
        changes: Those of which it changes rows; None where it only looks.
        hidden: Names of the tenants whose files it opens none of.
    """

    reads: tuple[int, ...]
    changes: tuple[int, ...] | None = None
    hidden: frozenset[str] = frozenset()

    @property
    def role(self) -> str:
        """The role that its transactions take."""
        return VIEWER if self.changes is None else PERSON


_reach: ContextVar[Reach | None] = ContextVar("easeml_reach", default=None)

_REACH = "easeml_reach"


@contextlib.contextmanager
def reaching(reach: Reach | None) -> Iterator[None]:
    """Let the transactions of ``easeml_worker`` in this block touch these rows only; None for all rows."""
    token = _reach.set(reach)
    try:
        yield
    finally:
        _reach.reset(token)


def reaches_all() -> bool:
    """Whether what runs here may see all rows: what was computed from all rows is for such callers."""
    return _reach.get() is None


def require_files_of(tenant: str) -> None:
    """Refuse the files of a tenant whose rows the person may not see."""
    reach = _reach.get()
    if reach is not None and tenant in reach.hidden:
        raise NotFoundError(kind="tenant", name=tenant, remedy="name one whose studies you may see")


def take_role(tx: Connection, login: str) -> None:
    """Take the person's role for the rest of a transaction of the pages; earlier statements keep their own rights."""
    reach = _reach.get()
    if reach is None or login != WORKER:
        return
    _take(tx, reach)
    tx.execution_options(**{_REACH: reach})


@contextlib.contextmanager
def own_rights(tx: Connection) -> Iterator[list[int]]:
    """Have the rights of the pages for a part of a transaction that has taken a role.

    For a tenant that is new, and nothing else: it is put into the list, and its rows may be changed afterwards.
    """
    reach, added = tx.get_execution_options()[_REACH], list[int]()
    tx.exec_driver_sql("SET LOCAL ROLE NONE")
    yield added
    changes = None if reach.changes is None else (*reach.changes, *added)
    _take(tx, Reach((*reach.reads, *added), changes))


def _take(tx: Connection, reach: Reach) -> None:
    named = {"viewer": reach.reads, "person": reach.changes or ()}
    settings = [f"SET LOCAL easeml.{who}_tenants = '{{{','.join(map(str, ids))}}}'" for who, ids in named.items()]
    tx.exec_driver_sql("; ".join([*settings, f"SET LOCAL ROLE {reach.role}"]))


def is_viewer(tx: Connection) -> bool:
    """Whether the transaction has taken a person's role, to look or to change."""
    return role_taken(tx) is not None


def role_taken(tx: Connection) -> str | None:
    """Return the role that the transaction has taken, or None."""
    reach: Reach | None = tx.get_execution_options().get(_REACH)
    return None if reach is None else reach.role

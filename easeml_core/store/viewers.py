"""Whose rows the transactions of the pages may see and change: those of the tenants of who asks (ADR 0032).

The pages check what they show and change. Where tenants have logins, their transactions also take the role
``easeml_viewer``, or ``easeml_person`` where something is sent, so that a check which was forgotten shows and changes
nothing. The settings that name the tenants prove nothing to the database: the role that can take both,
``easeml_worker``, reads and changes all rows anyway. What lies in files is no row: the names of other tenants say
whose folders stay closed.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import NotFoundError
from easeml_core.store.roles import PERSON, VIEWER, WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


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
    """Refuse the files of a tenant whose rows the person may not see.

    Raises:
        NotFoundError: They may not.
    """
    reach = _reach.get()
    if reach is not None and tenant in reach.hidden:
        raise NotFoundError(kind="tenant", name=tenant, remedy="name one whose studies you may see")


def take_role(tx: Connection, login: str) -> None:
    """Take the person's role for the rest of a transaction of the pages; statements before have the role's own rights.

    Args:
        tx: A transaction that has just begun.
        login: Role of its connection.
    """
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

"""Whose rows the transactions of the pages may see: those of the tenants of who looks (ADR 0032).

The pages filter what they show. Where tenants have logins, their transactions also take the role ``easeml_viewer``,
whose rows are those of the viewer's tenants, so that a filter which was forgotten shows nothing. The setting that names
the tenants proves nothing to the database: the role that can take it, ``easeml_worker``, reads all rows anyway.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

from easeml_core.store.roles import VIEWER, WORKER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection

_tenants: ContextVar[tuple[int, ...] | None] = ContextVar("easeml_viewer_tenants", default=None)

_IS_VIEWER = "easeml_is_viewer"


@contextlib.contextmanager
def looking_for(tenant_ids: Collection[int] | None) -> Iterator[None]:
    """Let the transactions of ``easeml_worker`` in this block see the rows of these tenants only; None for all rows."""
    token = _tenants.set(None if tenant_ids is None else tuple(sorted(tenant_ids)))
    try:
        yield
    finally:
        _tenants.reset(token)


def take_role(tx: Connection, login: str) -> None:
    """Take the viewer's role for the rest of a transaction of the pages; statements before have the role's own rights.

    Args:
        tx: A transaction that has just begun.
        login: Role of its connection.
    """
    tenants = _tenants.get()
    if tenants is None or login != WORKER:
        return
    tx.exec_driver_sql(
        f"SET LOCAL easeml.viewer_tenants = '{{{','.join(map(str, tenants))}}}'; SET LOCAL ROLE {VIEWER}"
    )
    tx.execution_options(**{_IS_VIEWER: True})


def is_viewer(tx: Connection) -> bool:
    """Whether the transaction has taken the viewer's role."""
    return bool(tx.get_execution_options().get(_IS_VIEWER))

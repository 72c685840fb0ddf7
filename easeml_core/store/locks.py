"""Locks of the whole installation, which are rows, and how long a transaction waits for any lock."""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from easeml_core.errors import ConcurrentUpdateError
from easeml_core.store.database import translate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

LOCKS = ("suggest", "assess", "row registry")
"""Locks with a separate row in ``work.locks``."""

_OTHER_LOCKS = 16


def lock(tx: Connection, name: str) -> None:
    """Hold the installation-wide lock of this name until the transaction ends.

    It is a row, on which tenants have no right: every role can take every advisory lock. Names beyond ``LOCKS`` share a
    few rows.
    """
    tx.execute(text("SELECT FROM work.locks WHERE name = :name FOR UPDATE"), {"name": _row_of(name)})


def lock_within(tx: Connection, name: str, milliseconds: int) -> bool:
    """Hold the lock as of ``lock`` where it is free within this time; return whether it is held.

    One trip to the server: between the grant and the caller's next statement lies no other one, for which all other
    transactions that need the lock would wait.
    """
    try:
        tx.exec_driver_sql(_LOCK_WITHIN, {"name": _row_of(name), "limit": str(int(milliseconds))})
    except DBAPIError as error:
        if not isinstance(translate(error, tx.engine), ConcurrentUpdateError):
            raise
        tx.exec_driver_sql("ROLLBACK TO SAVEPOINT awaited")
        return False
    return True


_LOCK_WITHIN = """SAVEPOINT awaited;
SELECT set_config('easeml.lock_timeout', current_setting('lock_timeout'), true);
SELECT set_config('lock_timeout', %(limit)s, true);
SELECT FROM work.locks WHERE name = %(name)s FOR UPDATE;
SELECT set_config('lock_timeout', current_setting('easeml.lock_timeout'), true);
RELEASE SAVEPOINT awaited"""


def _row_of(name: str) -> str:
    return name if name in LOCKS else f"other {zlib.crc32(name.encode()) % _OTHER_LOCKS}"


@contextlib.contextmanager
def waiting_briefly(tx: Connection, milliseconds: int = 100) -> Iterator[None]:
    """A part of a savepoint that waits for locks of other transactions no longer than this.

    Raises:
        ConcurrentUpdateError: Of the savepoint around it, which restores the limit of the transaction.
    """
    before = tx.exec_driver_sql("SHOW lock_timeout").scalar()
    tx.exec_driver_sql(f"SET LOCAL lock_timeout = {int(milliseconds)}")
    yield
    tx.exec_driver_sql("SELECT set_config('lock_timeout', %(before)s, true)", {"before": before})

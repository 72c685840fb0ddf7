"""Every connection has limits: of a statement, of a wait for a lock, and of a transaction that does nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from easeml_core.errors import ConcurrentUpdateError
from easeml_core.store.database import Store
from easeml_core.store.roles import LIMITS
from easeml_core.store.rows import row

_SHOWN = (
    "SELECT current_setting('lock_timeout')::interval, current_setting('statement_timeout')::interval, "
    "current_setting('idle_in_transaction_session_timeout')::interval"
)


@pytest.mark.parametrize("role", sorted(LIMITS))
def test_each_role_has_limits_by_itself_and_through_a_store(database: Any, role: str) -> None:
    """By itself: also a task that connects with the role's address and without our store."""
    wanted = LIMITS[role]
    with closing(database.server.connect(role, database.name)) as opened, opened.cursor() as cursor:
        cursor.execute(_SHOWN)
        alone = [found.total_seconds() for found in cursor.fetchone()]
    store = Store(database.url(role))
    with closing(store), store.begin() as tx:
        of_store = [found.total_seconds() for found in row(tx, _SHOWN) or ()]
    assert alone == of_store == [wanted.lock_seconds, wanted.statement_seconds, wanted.idle_seconds]
    assert wanted.lock_seconds > 0
    assert wanted.idle_seconds > 0


def test_a_wait_for_a_lock_ends_and_says_for_what_it_waited(database: Any, superuser: Any) -> None:
    with superuser.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE work.studies IN ACCESS EXCLUSIVE MODE")
        store = Store(database.url("easeml_worker"), lock_timeout_seconds=0.05)
        refused = pytest.raises(
            ConcurrentUpdateError, match=r"in the way; try again\. It holds a lock for longer .*pg_blocking_pids"
        )
        with closing(store), refused, store.begin() as tx:
            row(tx, "SELECT count(*) FROM work.studies")
        cursor.execute("ROLLBACK")

"""A tenant's login that leaves a transaction open while its study is deleted, or another tenant's is archived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError
from test_store_tenants import KEY, NEW_STUDY, Doors, doors

from easeml_core.store import archive
from easeml_core.store.rows import change, scalar
from easeml_core.store.tables import scheduler_requests

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

__all__ = ["doors"]
pytestmark = pytest.mark.own_database

ADDED = "(SELECT max(id) FROM work.studies)"


def test_a_deletion_waits_for_no_candidate_that_its_tenant_holds(doors: Doors, ask: Ask) -> None:
    """The scheduler's process decides for every tenant, and makes the changes of logins as well."""
    with doors.tenant.begin() as tx:
        change(tx, NEW_STUDY.format(key=KEY, more="", values=""))
        change(tx, f"INSERT INTO work.candidates (study_id, name, kind) SELECT {ADDED}, 'mine', 'tree'")
    with doors.tenant.begin() as tx:
        assert scalar(tx, f"SELECT work.change_study({ADDED}, 'delete', 'a typo')")
    outcome = "SELECT outcome FROM work.change_requests WHERE change = 'delete'"
    with doors.tenant.begin() as held:
        assert scalar(held, f"SELECT work.set_candidate_withdrawn({ADDED}, 'mine', true, 'x')")
        with doors.scheduler.begin() as tx:
            change(tx, "SET LOCAL statement_timeout = '5s'")
            scheduler_requests.apply_changes(tx)
        assert ask(outcome) == [(None,)]  # it is left for the next look
    with doors.scheduler.begin() as tx:
        scheduler_requests.apply_changes(tx)
    assert ask(outcome) == [("made",)]


def test_an_old_snapshot_does_not_take_the_name_of_a_study_that_was_archived_since(
    doors: Doors, database: Any, make_rows: Any
) -> None:
    other = make_rows("more", tenant="others")
    with doors.tenant.begin() as tx:
        tx.exec_driver_sql("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert scalar(tx, "SELECT count(*) FROM work.studies") == 1
        with database.worker.begin() as archiving:
            archive.apply_study_change(archiving, other.study_id, "more", "archive", "over")
        with pytest.raises(DBAPIError, match="a study is added under READ COMMITTED alone"):
            change(tx, NEW_STUDY.format(key=KEY, more="", values=""))

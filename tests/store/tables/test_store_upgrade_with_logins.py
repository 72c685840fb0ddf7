"""An upgrade while tenants work: it waits in short tries, and then no login keeps it from its locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from test_store_tenants import TENANT, Doors, done, doors

from easeml_core.errors import ConcurrentUpdateError, StoreUnavailableError
from easeml_core.services.operations.doctor import check_tenants
from easeml_core.store import logins, schema
from easeml_core.store.database import Store
from easeml_core.store.queries import health
from easeml_core.store.rows import scalar

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

__all__ = ["doors"]
pytestmark = pytest.mark.own_database


def connects(database: Any) -> bool:
    """Whether a session of the tenant's login can begin."""
    store = Store(database.owner.address_of(TENANT, "secret"))
    try:
        return done(store, "SELECT 1") == 1
    except StoreUnavailableError:
        return False
    finally:
        store.close()


def test_an_upgrade_waits_for_a_tenants_transaction_in_short_tries(
    doors: Doors, database: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("COMMENT ON FUNCTION work.my_tenants() IS 'other rights'")
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(schema, "PATIENCE_SECONDS", 0.0)
    with doors.tenant.begin() as held:
        scalar(held, "SELECT count(*) FROM work.trials")
        with pytest.raises(ConcurrentUpdateError):
            schema.upgrade(database.owner)
    assert schema.upgrade(database.owner) == schema.REVISION


def test_a_login_that_is_in_the_way_of_an_upgrade_is_ended_and_kept_out(
    doors: Doors, database: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("COMMENT ON FUNCTION work.my_tenants() IS 'other rights'")
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(schema, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(schema, "CLOSE_SECONDS", 0.0)
    upgrade, begun = schema._upgrade, list[bool]()

    def watched(store: Any) -> str:
        begun.append(connects(database))
        return upgrade(store)

    monkeypatch.setattr(schema, "_upgrade", watched)

    def hold_on() -> None:
        with doors.tenant.begin() as held:
            scalar(held, "SELECT count(*) FROM work.trials")
            assert schema.upgrade(database.owner) == schema.REVISION
            scalar(held, "SELECT 1")

    with pytest.raises(StoreUnavailableError):
        hold_on()
    assert begun[0]
    assert begun[1:]
    assert not any(begun[1:])
    assert connects(database)


def test_an_upgrade_that_was_killed_leaves_the_door_to_the_next_one(doors: Doors, database: Any) -> None:
    with database.owner.begin() as tx:
        assert logins.keep_logins_out(tx, all_sessions=True)
    assert not connects(database)
    with pytest.raises(StoreUnavailableError, match="an upgrade may be under way"):  # not that it may not
        done(Store(database.owner.address_of(TENANT, "secret")), "SELECT 1")
    for is_closed in (True, False):
        with database.worker.begin() as tx:
            kept = health.logins_of_tenants(tx)
        assert ("were kept out" in check_tenants(kept, []).found, kept.is_closed) == (is_closed, is_closed)
        schema.upgrade(database.owner)
    assert connects(database)

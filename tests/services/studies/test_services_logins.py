"""A tenant's login: made with a password that works, mapped to its tenants, and taken away."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.errors import InvalidInputError, NotFoundError, StateError, StoreUnavailableError, WrongRoleError
from easeml_core.services.studies.archive import archive_tenant
from easeml_core.services.studies.logins import end_login, make_login
from easeml_core.store.database import Store
from easeml_core.store.queries import health
from easeml_core.store.roles import membership
from easeml_core.store.rows import scalar
from easeml_core.store.tables import studies

pytestmark = pytest.mark.own_database  # its sessions are ended


@pytest.fixture
def administrator(database: Any) -> Any:
    store = Store(database.url("postgres"))
    with store.begin() as tx:
        for name in ("lab", "garden"):
            studies.add_tenant(tx, name=name)
    yield store
    store.close()


def tenants(database: Any, login: str, password: str) -> Any:
    store = Store(database.owner.address_of(login, password))
    try:
        with store.begin(check_schema=False) as tx:
            return scalar(tx, "SELECT work.my_tenants()")
    finally:
        store.close()


def test_a_login_has_its_tenants_until_it_is_taken_away(database: Any, administrator: Any) -> None:
    made = make_login(administrator, name="lab", tenants=["lab"])
    assert (made.login.login, made.login.tenants, made.login.sql) == ("easeml_t_lab", ("lab",), ())
    assert tenants(database, "easeml_t_lab", made.password) == [1]
    again = make_login(administrator, name="easeml_t_lab", tenants=["lab", "garden"])
    assert tenants(database, "easeml_t_lab", again.password) == [1, 2]
    with pytest.raises(StoreUnavailableError, match="authentication failed"):
        tenants(database, "easeml_t_lab", made.password)
    for sql in ("SELECT work.my_tenants()", "SET LOCAL ROLE easeml_t_lab"):  # the worker becomes no login
        with pytest.raises(WrongRoleError), database.worker.begin() as tx:
            tx.exec_driver_sql(sql)
    assert end_login(administrator, name="lab").sql == ()
    with pytest.raises(StoreUnavailableError, match="authentication failed"):
        tenants(database, "easeml_t_lab", again.password)
    with pytest.raises(NotFoundError, match="easeml_t_lab"):
        end_login(administrator, name="lab")


def test_the_logins_of_an_archived_tenant_end_and_one_of_several_tenants_is_the_administrators(
    database: Any, administrator: Any
) -> None:
    made = make_login(administrator, name="lab", tenants=["lab"])
    with pytest.raises(WrongRoleError):
        archive_tenant(database.worker, tenant="lab", why="over")
    tried = archive_tenant(administrator, tenant="lab", why="over", dry_run=True)
    assert (tried.logins, tried.changed, tenants(database, "easeml_t_lab", made.password)) == (
        ["easeml_t_lab"],
        False,
        [1],
    )
    assert archive_tenant(administrator, tenant="lab", why="over").sql == []
    with pytest.raises(StoreUnavailableError, match="authentication failed"):
        tenants(database, "easeml_t_lab", made.password)
    make_login(administrator, name="both", tenants=["lab", "garden"])
    with pytest.raises(StateError, match=r"easeml_t_both .*'garden' and"):
        archive_tenant(administrator, tenant="garden", why="over")
    end_login(administrator, name="both")


def test_from_postgresql_16_on_no_login_takes_the_name_of_its_group() -> None:
    assert membership(160002, inherits=True, becomes=False) == " WITH INHERIT TRUE, SET FALSE"
    assert membership(160000, inherits=False, becomes=True) == " WITH INHERIT FALSE, SET TRUE"
    assert membership(150012, inherits=True, becomes=False) == ""


def test_a_login_itself_is_counted_where_it_sees_no_others(database: Any, administrator: Any) -> None:
    made = make_login(administrator, name="lab", tenants=["lab"])
    login = Store(database.owner.address_of(made.login.login, made.password))
    try:
        with login.begin() as tx:
            assert health.logins_of_tenants(tx).logins == 1
    finally:
        login.close()
    end_login(administrator, name="lab")


def test_a_role_that_makes_no_roles_shows_the_sql(database: Any, administrator: Any) -> None:
    shown = make_login(database.owner, name="lab", tenants=["lab"])
    assert [s.split(" LOGIN")[0].split(" TO ")[0] for s in shown.login.sql] == [
        'CREATE ROLE "easeml_t_lab"',
        "GRANT easeml_tenant",
        f"COMMENT ON ROLE \"easeml_t_lab\" IS 'easeml: a login of the database {database.name}'",
        "ALTER ROLE \"easeml_t_lab\" SET lock_timeout = '30s'",
        "ALTER ROLE \"easeml_t_lab\" SET statement_timeout = '120s'",
        "ALTER ROLE \"easeml_t_lab\" SET idle_in_transaction_session_timeout = '120s'",
    ]
    assert shown.password not in "".join(shown.login.sql)
    with administrator.begin() as tx:
        for statement in shown.login.sql:
            tx.exec_driver_sql(statement)
    assert tenants(database, "easeml_t_lab", shown.password) == [1]
    assert end_login(database.owner, name="lab").sql[-1] == 'DROP ROLE "easeml_t_lab"'
    assert tenants(database, "easeml_t_lab", shown.password) == []  # at once, although the role is still there
    with administrator.begin() as tx:
        tx.exec_driver_sql('DROP ROLE "easeml_t_lab"')


@pytest.mark.parametrize("device", [False, True])
def test_a_login_of_another_database_of_the_server_is_left_alone(
    database: Any, administrator: Any, device: bool
) -> None:
    """Roles belong to the whole server: this database would give it another password, count it, and end it."""
    given: Any = {"name": "shared", "device": device} | ({} if device else {"tenants": ["lab"]})
    made = make_login(administrator, **given)
    of = "SELECT rolpassword FROM pg_authid WHERE rolname = :name"
    with administrator.begin() as tx:
        tx.exec_driver_sql(f"COMMENT ON ROLE {made.login.login} IS 'easeml: a login of the database postgres'")
        before = scalar(tx, of, name=made.login.login)
        counted = health.logins_of_tenants(tx).devices
    for act in (
        lambda: make_login(administrator, **given),
        lambda: end_login(administrator, name="shared", device=device),
    ):
        with pytest.raises((StateError, NotFoundError), match=f"{made.login.login}.*") as refused:
            act()
        assert device or "'postgres'" in str(refused.value)
    with administrator.begin() as tx:
        assert scalar(tx, of, name=made.login.login) == before
        tx.exec_driver_sql(f"COMMENT ON ROLE {made.login.login} IS 'easeml: a login of the database gone'")
        assert health.logins_of_tenants(tx).devices == counted + device
    assert end_login(administrator, name="shared", device=device).sql == ()


@pytest.mark.parametrize("name", ["", "A", 'x"; DROP', "easeml_t_", "a" * 60])
def test_what_is_no_name_of_a_login(database: Any, name: str) -> None:
    with pytest.raises(InvalidInputError, match="name of a"):
        make_login(database.owner, name=name, tenants=["lab"])


def test_only_the_owner_maps_logins(database: Any, administrator: Any) -> None:
    for store in (database.worker, database.referee):
        with pytest.raises(WrongRoleError, match="tenant_logins"):
            make_login(store, name="lab", tenants=["lab"])

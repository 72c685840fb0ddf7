"""Who gets into the embedded server, by which door, and what is closed to them. One real server for the module."""

from __future__ import annotations

import itertools
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import make_url

from easeml_core.errors import AlreadyExistsError, NotFoundError, StateError, StoreUnavailableError
from easeml_core.store.roles import PERSON, ROLES, VIEWER, WATCHING
from easeml_core.store.server.cluster import find_postmaster
from easeml_core.store.server.server import throwaway_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.store.server.server import Server

AIRFLOW, OWNER, WORKER, REFEREE = "airflow", "easeml_owner", "easeml_worker", "easeml_referee"
SCHEDULER, DEVICE = "easeml_scheduler", "easeml_device"
OURS = {OWNER, WORKER, REFEREE, SCHEDULER, DEVICE}
DOORS = {"airflow": {AIRFLOW}, "easeml": OURS, "postgres": set(), "template1": set()}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with throwaway_server() as server:
        server.ensure_installation()
        execute(server, OWNER, "CREATE TABLE sealed.labels AS SELECT 1 AS label")
        execute(server, OWNER, "CREATE TABLE work.trials AS SELECT 2 AS trial")
        yield server


def execute(server: Server, role: str, statement: str, database: str = "easeml") -> list[tuple[object, ...]]:
    with closing(server.connect(role, database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_the_roles_of_the_specification() -> None:
    assert ROLES == (AIRFLOW, OWNER, WORKER, REFEREE, SCHEDULER, DEVICE)


def test_it_listens_on_loopback_only_and_on_no_socket(server: Server) -> None:
    postmaster = find_postmaster(server.data)
    assert postmaster is not None
    process = psutil.Process(postmaster.pid)
    listening = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", server.port)}
    assert [c for c in process.net_connections("unix") if c.laddr] == []


def test_a_role_enters_its_own_database_only(server: Server) -> None:
    for role, database in itertools.product(ROLES, DOORS):
        if role in DOORS[database]:
            assert execute(server, role, "SELECT current_user, current_database()", database) == [(role, database)]
        else:
            with pytest.raises(StoreUnavailableError, match=f'permission denied for database "{database}"'):
                server.connect(role, database)


def test_wrong_and_missing_passwords_are_refused(server: Server) -> None:
    for role, password in itertools.product(("postgres", WORKER), ("", "wrong", "postgres")):
        where = make_dsn(host="127.0.0.1", port=server.port, user=role, dbname="easeml", passfile="/dev/null")
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(make_dsn(where, password=password) if password else where)


def test_the_password_of_another_role_is_refused(server: Server) -> None:
    worker = make_url(server.url(WORKER, "easeml"))
    assert worker.password == server.secrets[WORKER]
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        psycopg2.connect(host="127.0.0.1", port=server.port, user=REFEREE, password=worker.password, dbname="easeml")


def test_passwords_differ_and_lie_in_a_private_file(server: Server) -> None:
    assert set(server.secrets) == {"postgres", *ROLES}
    assert len(set(server.secrets.values())) == 1 + len(ROLES)
    assert stat.S_IMODE((server.home / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_only_scram_verifiers_are_stored(server: Server) -> None:
    stored = execute(server, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolcanlogin", "postgres")
    assert len(stored) == 1 + len(ROLES)
    assert all(str(verifier).startswith("SCRAM-SHA-256$") for (verifier,) in stored)


def test_no_role_has_a_right_over_the_server(server: Server) -> None:
    for role in ROLES:
        rights = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit"
        rows = execute(server, "postgres", f"SELECT {rights} FROM pg_roles WHERE rolname = '{role}'", "postgres")
        assert rows == [(*(False,) * 5, role != WORKER)]
        query = f"SELECT roleid::regrole::text FROM pg_auth_members WHERE member = '{role}'::regrole"
        # The pages take a role for each person, with none of its rights before; the owner ends logins' sessions.
        member_of = {WORKER: {VIEWER, PERSON}, OWNER: set(WATCHING)}.get(role, set())
        assert {name for (name,) in execute(server, "postgres", query, "postgres")} == member_of


def test_what_the_worker_may_not(server: Server) -> None:
    for statement in (
        "SELECT * FROM sealed.labels",
        "INSERT INTO sealed.labels VALUES (0)",
        "SELECT * FROM work.trials",  # a schema's door opens no table: migrations grant each
        "DELETE FROM work.trials",
        "CREATE TABLE work.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE TEMP TABLE mine ()",
        "CREATE SCHEMA mine",
        "SET ROLE easeml_referee",
        "GRANT easeml_referee TO easeml_worker",
        "GRANT USAGE ON SCHEMA sealed TO easeml_worker",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT * FROM pg_authid",
        "ALTER SYSTEM SET listen_addresses = '*'",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(server, WORKER, statement)


def test_grants_open_tables_behind_open_doors_only(server: Server) -> None:
    execute(server, OWNER, "GRANT SELECT ON sealed.labels, work.trials TO easeml_worker, easeml_referee")
    try:
        assert execute(server, REFEREE, "SELECT label FROM sealed.labels") == [(1,)]
        assert execute(server, WORKER, "SELECT trial FROM work.trials") == [(2,)]
        with pytest.raises(errors.InsufficientPrivilege, match="schema sealed"):
            execute(server, WORKER, "SELECT label FROM sealed.labels")
    finally:
        execute(server, OWNER, "REVOKE ALL ON sealed.labels, work.trials FROM easeml_worker, easeml_referee")


def test_airflow_may_make_its_own_tables(server: Server) -> None:
    execute(server, AIRFLOW, "CREATE TABLE dag (); DROP TABLE dag", "airflow")


def test_it_repairs_what_was_changed_by_hand(server: Server) -> None:
    before = dict(server.secrets)
    for statement in (
        "ALTER ROLE easeml_worker CREATEDB PASSWORD 'changed'",
        "GRANT CONNECT ON DATABASE postgres, airflow, easeml TO PUBLIC",
    ):
        execute(server, "postgres", statement, "postgres")
    execute(server, OWNER, "REVOKE USAGE ON SCHEMA work FROM easeml_worker")
    execute(server, OWNER, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    server.ensure_installation()
    assert dict(server.secrets) == before
    assert execute(server, WORKER, "SELECT has_schema_privilege('work', 'USAGE')") == [(True,)]
    for statement in ("CREATE DATABASE mine", "CREATE TABLE public.mine ()"):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(server, WORKER, statement)
    for role, database in ((WORKER, "postgres"), (WORKER, "airflow"), (AIRFLOW, "easeml")):
        with pytest.raises(StoreUnavailableError, match="permission denied"):
            server.connect(role, database)
    assert execute(server, OWNER, "SELECT label FROM sealed.labels") == [(1,)]


def test_simultaneous_installations_of_a_fresh_server_and_no_password_in_its_log() -> None:
    with throwaway_server(log_statement="all") as fresh:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: fresh.ensure_installation(), range(6)))
        for role, database in ((AIRFLOW, "airflow"), (OWNER, "easeml"), (WORKER, "easeml"), (REFEREE, "easeml")):
            assert execute(fresh, role, "SELECT 1", database) == [(1,)]
        log = (fresh.data / "server.log").read_text()
        assert "ALTER ROLE" in log
        assert not [secret for secret in fresh.secrets.values() if secret in log]


def test_a_copied_database_has_the_same_content_owner_and_doors(server: Server) -> None:
    name = 'copy"; DROP DATABASE airflow; --'  # a name is a name, never a statement
    server.create_database_from_template(name, "easeml")
    try:
        assert execute(server, OWNER, "SELECT label FROM sealed.labels", name) == [(1,)]
        execute(server, OWNER, "CREATE TABLE work.more ()", name)
        with pytest.raises(errors.InsufficientPrivilege, match="schema sealed"):
            execute(server, WORKER, "SELECT label FROM sealed.labels", name)
        with pytest.raises(errors.InsufficientPrivilege, match="temporary tables"):
            execute(server, REFEREE, "CREATE TEMP TABLE mine ()", name)
        with pytest.raises(StoreUnavailableError, match="permission denied for database"):
            server.connect(AIRFLOW, name)
        with pytest.raises(AlreadyExistsError, match="database"):
            server.create_database_from_template(name, "easeml")
    finally:
        with closing(server.connect(OWNER, name)):  # an open connection does not keep it
            server.drop_database(name)
    server.drop_database(name)  # once more is fine
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        server.connect(OWNER, name)
    assert execute(server, AIRFLOW, "SELECT 1", "airflow") == [(1,)]


def test_copying_from_nothing_or_from_a_database_in_use_is_refused(server: Server) -> None:
    with pytest.raises(NotFoundError, match="there is no database 'nowhere'"):
        server.create_database_from_template("copy", "nowhere")
    with closing(server.connect(OWNER, "easeml")), pytest.raises(StateError, match="while connections to it are open"):
        server.create_database_from_template("copy", "easeml")


def test_a_role_without_a_password_here_is_named(server: Server) -> None:
    with pytest.raises(NotFoundError, match=r"'easeml_judge'.*'easeml_referee'"):
        server.url("easeml_judge", "easeml")


@pytest.mark.parametrize("variable", ["PGSSLMODE", "PGGSSENCMODE"])
def test_the_callers_libpq_settings_do_not_matter(
    server: Server, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "require")
    assert server.alive()

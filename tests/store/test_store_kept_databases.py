"""A database that a test gets after another one is as a new one, or is not given to it."""

from __future__ import annotations

import gc
import io
import subprocess
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import databases as kept_databases
import psycopg2
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = (
    "SELECT c.oid::regclass::text, attname, atttypid::regtype::text, attnotnull, attacl::text, relacl::text"
    " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attrelid >= 16384 ORDER BY 1, 2",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1, 2",
    "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger ORDER BY 1, 2",
    "SELECT oid::regprocedure::text, prosrc, proacl::text FROM pg_proc WHERE oid >= 16384 ORDER BY 1",
    "SELECT relname, reltuples FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1",
)


def state(server: Any, name: str) -> dict[str, Any]:
    """All rows, sequences and definitions, as the superuser reads them."""
    found: dict[str, Any] = {}
    with closing(server.connect(database=name)) as opened, opened.cursor() as cursor:
        cursor.execute(kept_databases.TABLES)
        for _, table, _ in cursor.fetchall():
            rows = io.StringIO()
            cursor.copy_expert(f"COPY {table} TO STDOUT", rows)
            found[table] = rows.getvalue()
        cursor.execute(kept_databases.SEQUENCES)
        for (sequence,) in cursor.fetchall():
            cursor.execute(f"SELECT last_value, is_called FROM {sequence}")
            found[sequence] = cursor.fetchall()
        for number, query in enumerate(SCHEMA):
            cursor.execute(query)
            found[f"schema {number}"] = cursor.fetchall()
    return found


@pytest.fixture
def pool(server: Any) -> Iterator[kept_databases.Databases]:
    """Databases of this test alone."""
    made = kept_databases.Databases(server)
    yield made
    for name in list(made._lent):
        made.give_back(name)
    made.forget("easeml")


def test_after_a_test_that_wrote_to_every_table_all_is_as_in_a_new_one(
    world: Any, database: Any, databases: Any, pool: Any, server: Any
) -> None:
    pool.is_own = True
    new = state(server, pool.take("easeml"))
    written = state(server, database.name)
    tables = [name for name in new if not name.startswith("schema")]
    assert sum(written[name] != new[name] for name in tables) > len(tables) / 2
    for store in (database.owner, database.worker, database.referee):
        store.close()
    kept = databases._lent[database.name][1]
    for _ in range(2):  # what is as new can be made so again
        assert kept.reset()
        assert state(server, database.name) == new


def test_a_large_table_is_small_again_and_a_changed_row_of_the_template_is_put_back(pool: Any, server: Any) -> None:
    name = pool.take("easeml")
    before = state(server, name)
    store = Store(server.url("easeml_owner", name))
    with store.begin() as tx:
        tx.execute(text("INSERT INTO work.tenants (name) SELECT 'tenant-' || n FROM generate_series(1, 3000) n"))
        tx.execute(text("UPDATE sealed.installation SET secret = gen_random_uuid()"))
        tx.execute(text("ANALYZE work.tenants"))
        tx.execute(text("ANALYZE work.studies"))
    store.close()
    pool.give_back(name)
    assert pool.take("easeml") == name
    assert state(server, name) == before
    with closing(server.connect(database=name)) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT pg_relation_size('work.tenants')")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM pg_statistic WHERE starelid >= 16384")
        assert cursor.fetchone() == (0,)  # the planner knows as much as of a new one


def test_what_is_no_row_is_not_undone_but_dropped(pool: Any, server: Any) -> None:
    """A right or a rule that a test leaves behind would hide from the next ones that it is missing, or is there."""
    name = pool.take("easeml")
    for statement in (
        "CREATE TABLE public.extra ()",
        "ALTER TABLE work.studies DROP CONSTRAINT studies_weight_check",
        "ALTER TABLE work.test_sets DISABLE TRIGGER USER",
        "ALTER TABLE work.tenants ADD COLUMN extra int",
        "GRANT SELECT ON sealed.installation TO easeml_worker",
        "GRANT SELECT (secret) ON sealed.installation TO easeml_worker",
        "GRANT USAGE ON SCHEMA sealed TO easeml_worker",
        "CREATE FUNCTION public.extra() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE INDEX ON work.tenants (id)",
        "COMMENT ON TABLE work.tenants IS 'x'; ALTER TABLE work.tenants SET (fillfactor = 50)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 1000', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$",
    ):
        with closing(server.connect(database=name)) as opened, opened.cursor() as cursor:
            cursor.execute(statement)
        pool.give_back(name)
        before, name = name, pool.take("easeml")
        assert name != before, statement


def test_a_connection_that_was_left_open_is_ended(pool: Any, server: Any) -> None:
    name = pool.take("easeml")
    left = Store(server.url("easeml_worker", name))._engine.connect()  # in the middle of a transaction
    with closing(server.connect(database=name)) as opened, opened.cursor() as cursor:
        left.execute(text("SELECT count(*) FROM work.studies"))
        pool.give_back(name)
        with pytest.raises(psycopg2.Error):
            cursor.execute("SELECT 1")
    with pytest.raises(DBAPIError):
        left.execute(text("SELECT 1"))
    assert pool.take("easeml") == name


def test_a_thread_or_a_child_that_lives_on_keeps_a_database_from_the_next_test(pool: Any) -> None:
    name, ended = pool.take("easeml"), threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    pool.give_back(name)
    ended.set()
    thread.join()
    name, before = pool.take("easeml"), name
    assert name != before
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE):
        pool.give_back(name)
    assert pool.take("easeml") != name


def test_a_connection_that_is_handed_on_has_forgotten_the_test_before(pool: Any, server: Any) -> None:
    name = pool.take("easeml")
    seen = []
    for state_of in ("changed", "new"):
        store = Store(server.url("easeml_owner", name))
        with store.begin(check_schema=False) as tx:
            seen.append(
                tx.execute(
                    text(
                        "SELECT current_setting('timezone'), current_setting('work_mem'),"
                        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
                        " (SELECT count(*) FROM pg_listening_channels())"
                    )
                ).one()
            )
            number = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
            if state_of == "changed":
                first = number
                tx.execute(text("SET timezone = 'Asia/Tokyo'; SET work_mem = '1MB'; LISTEN easeml"))
                tx.execute(text("SELECT pg_advisory_lock(7)"))
        store.close()
    assert number == first
    assert seen[0] == seen[1]
    pool.give_back(name)
    assert pool.take("easeml") == name


def test_a_role_that_another_test_makes_is_no_change_of_a_database_that_lies_idle(pool: Any, server: Any) -> None:
    idle, busy = pool.take("easeml"), pool.take("easeml")
    pool.give_back(idle)
    with closing(server.connect(database=busy)) as opened, opened.cursor() as cursor:
        opened.autocommit = True
        cursor.execute("CREATE ROLE easeml_of_another_test")
        try:
            assert pool.take("easeml") == idle
            pool.give_back(idle)
            assert pool.take("easeml") == idle
        finally:
            cursor.execute("DROP ROLE easeml_of_another_test")


def test_the_engine_of_a_store_is_handed_on_unless_a_test_listens_to_it(pool: Any, server: Any) -> None:
    name, engines = pool.take("easeml"), []
    for _ in range(3):
        engines.append(Store(server.url("easeml_worker", name))._engine)
        if len(engines) == 2:
            event.listen(engines[-1], "commit", print)
        pool._lent[name][1]._keep_engines()  # as after a test
    assert engines[1] is engines[0]
    assert engines[2] is not engines[0]


@pytest.mark.own_database
def test_a_test_may_have_its_own(database: Any, databases: Any) -> None:
    assert databases._lent[database.name][1] is None


def look(store: Store) -> None:
    with store.begin() as tx:
        tx.execute(text("SELECT 1"))


@pytest.mark.own_database
def test_a_store_that_is_forgotten_holds_no_connection_of_a_warm_database(server: Any, database: Any) -> None:
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = 'easeml_worker'"
    with kept_databases.warm(server, [database.name]):
        for _ in range(3):
            look(Store(database.url("easeml_worker")))
        gc.collect()
        with closing(server.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(ours, [database.name])
            assert cursor.fetchone() == (0,)

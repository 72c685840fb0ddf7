"""Databases that tests use one after another: each begins as a copy of a template and is put back after a test.

To copy a database, to connect to it and to learn its schema anew costs a test three times what its own statements do.
After a test ``Databases`` ends the connections that were left open, removes the rows that the template lacks, restores
those that it has, and sets back the sequences. A database whose state cannot be known is dropped instead: when its
schema, rights or roles have changed, and when the test has left a thread or a child process behind. A test that is
marked ``own_database`` gets a new one, over new connections.
"""

from __future__ import annotations

import io
import itertools
import os
import threading
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import extensions
from sqlalchemy import Engine, create_engine, event

from easeml_core.store import database

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from easeml_core.store.server.server import Server

USES = 50
"""Tests that one database serves: rows that were removed still lie in its files."""

SMALL_BYTES = 9 * 8192
"""Up to here the planner takes a table for one of ten pages, empty or not; a larger one is made small again."""

_CATALOGUES = dict.fromkeys(
    (
        "pg_namespace", "pg_proc", "pg_type", "pg_constraint", "pg_trigger", "pg_index", "pg_attrdef", "pg_policy",
        "pg_rewrite", "pg_default_acl", "pg_inherits", "pg_event_trigger", "pg_extension", "pg_sequence", "pg_authid",
        "pg_auth_members", "pg_db_role_setting", "pg_largeobject_metadata", "pg_publication", "pg_statistic",
    ), "",
) | {"pg_attribute": " WHERE attrelid >= 16384"}  # fmt: skip

_SHARED = ("pg_authid", "pg_auth_members", "pg_db_role_setting")
"""Of the whole server: what tests do with other databases changes them, too."""


def _newest(catalogues: Iterable[str]) -> str:
    return " UNION ALL ".join(
        f"SELECT '{name}', count(*), coalesce(max(xmin::text::bigint), 0) FROM pg_catalog.{name}{_CATALOGUES[name]}"
        for name in catalogues
    )


# A changed row of a catalogue has a higher xmin than all others, a lost one is missing. pg_class changes whenever a
# table is emptied, so that its lasting columns are compared.
SCHEMA = (
    _newest(_CATALOGUES)
    + " UNION ALL SELECT 'pg_class', count(*), coalesce(sum(hashtextextended(concat_ws(' ', oid, relname, relnamespace,"
    " relowner, relkind, relpersistence, relhastriggers, relhasrules, relrowsecurity, relforcerowsecurity, relchecks,"
    " relacl, reloptions, CASE relkind WHEN 'r' THEN reltuples END), 0)), 0)"
    " FROM pg_catalog.pg_class WHERE oid >= 16384"
    " UNION ALL SELECT 'pg_database', 1, xmin::text::bigint FROM pg_catalog.pg_database"
    " WHERE datname = current_database()"
)
TABLES = (
    "SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid)"
    " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'"
    " ORDER BY 1"
)
SEQUENCES = "SELECT seqrelid::regclass::text FROM pg_catalog.pg_sequence ORDER BY seqrelid"
COLUMNS = (
    "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_catalog.pg_attribute"
    " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
)
ANALYSED = {"pg_statistic", "pg_class"}
"""Catalogues that change when a test lets the planner learn of its rows."""

UNLEARN = (
    "SELECT pg_clear_attribute_stats(nspname::text, relname::text, attname::text, stainherit)"
    " FROM pg_catalog.pg_statistic JOIN pg_catalog.pg_class c ON c.oid = starelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace"
    " JOIN pg_catalog.pg_attribute ON attrelid = starelid AND attnum = staattnum WHERE starelid >= 16384",
    "SELECT pg_clear_relation_stats(nspname::text, relname::text) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace"
    " WHERE relkind = 'r' AND c.oid >= 16384 AND reltuples >= 0",
)
CONNECTED = (
    "SELECT pid FROM pg_stat_get_activity(NULL) WHERE datid ="
    " (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
)
END = "SELECT pg_terminate_backend(pid, 1000) FROM unnest(%s) AS pid"
"""Each is waited for, up to a second."""
FORGET = "UNLISTEN *; SELECT pg_advisory_unlock_all(); CLOSE ALL; DEALLOCATE ALL; DISCARD SEQUENCES; DISCARD TEMP"

PREPARED = {"kept_schema": SCHEMA, "kept_shared": _newest(_SHARED), "kept_tables": TABLES, "kept_connected": CONNECTED}
"""What is asked after each test: to plan the statements takes longer than to execute them."""

_numbers = itertools.count()


class Warm(extensions.connection):
    """A connection that goes back to its database when it is closed, for the next test."""

    home: Kept | None = None
    key: tuple[Any, ...] = ()

    def close(self) -> None:
        if self.home is None or os.getpid() != self.home.pid or not self.home.takes_back(self):
            super().close()

    def end(self) -> None:
        super().close()


@dataclass
class Kept:
    """One database: its administrator's connection, what it holds when a test begins, and connections for tests."""

    name: str
    admin: extensions.connection
    uses: int = 0
    is_open: bool = True
    pid: int = field(default_factory=os.getpid)
    idle: list[Warm] = field(default_factory=list)
    lent: weakref.WeakSet[Warm] = field(default_factory=weakref.WeakSet)
    keeps_engines: bool = True
    schema: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """What tells that no definition has changed, by catalogue."""
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Columns and text of the tables that the template fills."""
    seen: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """What tells that nothing has been written to them."""
    sequences: list[tuple[Any, ...]] = field(default_factory=list)
    engines: dict[str, list[Engine]] = field(default_factory=dict)
    """Of stores that earlier tests have closed, by what they were made with."""
    used: list[tuple[str, Engine]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.admin.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def learn(self) -> None:
        """Remember what it holds."""
        self.ask("SET session_replication_role = replica")  # rows are put back without triggers and foreign keys
        for name, statement in PREPARED.items():
            self.ask(f"PREPARE {name} AS {statement}")
        self.schema = self._signature("EXECUTE kept_schema")
        for oid, table, size in self.ask("EXECUTE kept_tables"):
            if size:
                ((columns,),) = self.ask(COLUMNS, oid)
                kept = io.StringIO()
                with self.admin.cursor() as cursor:
                    cursor.copy_expert(f"COPY {table} ({columns}) TO STDOUT", kept)
                self.rows[table] = (columns, kept.getvalue())
        self.ask(f"PREPARE kept_rows AS {_signatures(self.rows)}")
        self._see(self.ask("EXECUTE kept_rows"))
        names = [name for (name,) in self.ask(SEQUENCES)]
        self.sequences = self.ask(" UNION ALL ".join(f"SELECT '{n}', last_value, is_called FROM {n}" for n in names))

    def _signature(self, statement: str) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(told) for name, *told in self.ask(statement)}

    def lend(self) -> None:
        """Take in what other tests have done to the roles of the server, which is not the next test's doing."""
        self.schema |= self._signature("EXECUTE kept_shared")

    def _see(self, found: Iterable[tuple[Any, ...]]) -> None:
        self.seen.update((table, tuple(told)) for table, *told in found)

    def reset(self) -> bool:
        """Make it what it was; whether that is sure."""
        self._keep_engines()
        for left in tuple(self.lent):  # by a store that was not closed
            left.home = None
            left.end()
        self.lent.clear()
        others = self._others()
        if others:
            self.ask(END, others)
        if (others and self._others()) or not self._has_its_schema():
            return False
        changed = [table for table, *now in self.ask("EXECUTE kept_rows") if tuple(now) != self.seen[table]]
        tables = [(table, size) for _, table, size in self.ask("EXECUTE kept_tables") if size]
        written = [table for table, _ in tables if table not in self.rows] + changed
        values = ", ".join(f"setval('{name}', {last}, {called})" for name, last, called in self.sequences)
        self.ask(";".join(["BEGIN", *(f"DELETE FROM {table}" for table in written), f"SELECT {values}", "COMMIT"]))
        for table in [table for table, size in tables if size > SMALL_BYTES and table in written]:
            self.ask(f"VACUUM {table}")
            schema, _, name = table.partition(".")
            self.ask("SELECT pg_clear_relation_stats(%s, %s)", schema.strip('"'), name.strip('"'))
        for table in changed:
            columns, text = self.rows[table]
            with self.admin.cursor() as cursor:
                cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", io.StringIO(text))
        if changed:
            self._see(self.ask(_signatures(changed)))
        return True

    def _has_its_schema(self) -> bool:
        """Whether no definition has changed; what the planner has learnt of rows is forgotten."""
        now = self._signature("EXECUTE kept_schema")
        changed = {name for name, told in now.items() if told != self.schema[name]}
        if changed and changed <= ANALYSED:
            for statement in UNLEARN:
                self.ask(statement)
            now = self._signature("EXECUTE kept_schema")
        return now == self.schema

    def _others(self) -> list[int]:
        """Processes of connections that are not kept."""
        mine = {c.info.backend_pid for c in (self.admin, *self.idle)}
        return [pid for (pid,) in self.ask("EXECUTE kept_connected") if pid not in mine]

    def engine(self, url: Any, named: dict[str, Any]) -> Engine:
        """The engine of a store that an earlier test has closed, which knows server and statements, or a new one."""
        key = f"{url.render_as_string(hide_password=False)} {named}"
        free = self.engines.setdefault(key, [])
        found = free.pop() if free else create_engine(url, **named)
        self.used.append((key, found))
        return found

    def _keep_engines(self) -> None:
        """Those that nobody listens to are as good as new."""
        for key, engine in self.used:
            engine.dispose()
            if "_has_events" not in vars(engine):
                self.engines[key].append(engine)
        self.used.clear()

    def connect(self, key: tuple[Any, ...], named: dict[str, Any]) -> Warm:
        """A connection that an earlier test has left, or a new one."""
        while True:
            with self._lock:
                found = next((c for c in self.idle if c.key == key), None)
                if found is not None:
                    self.idle.remove(found)
                    self.lent.add(found)
            if found is None:
                break
            with suppress(psycopg2.Error), found.cursor() as cursor:
                cursor.execute("SELECT 1")
                found.rollback()
                return found
            self.lent.discard(found)
            found.end()
        made: Warm = psycopg2.connect(connection_factory=Warm, **named)
        made.home, made.key = self, key
        self.lent.add(made)
        return made

    def takes_back(self, given: Warm) -> bool:
        """Whether the connection is kept, as good as new."""
        self.lent.discard(given)
        if given.closed or not self.is_open:
            return False
        try:
            given.reset()
            given.autocommit = True
            with given.cursor() as cursor:
                cursor.execute(FORGET)
            given.autocommit = False
            del given.notices[:], given.notifies[:]
        except psycopg2.Error:
            return False
        with self._lock:
            self.idle.append(given)
        return True

    def close(self) -> None:
        """Keep no connection any more."""
        self.is_open = False
        for connection in self.idle:
            connection.end()
        self.admin.close()


def _signatures(tables: Iterable[str]) -> str:
    return " UNION ALL ".join(
        f"SELECT '{table}', count(*), sum(xmin::text::bigint), sum(hashtid(ctid)) FROM {table}" for table in tables
    )


_in_use: dict[str, Kept] = {}


def install() -> None:
    """Let every store of this process use what earlier tests have left; once, by the suite's conftest.

    Not at import: pytest imports this file a second time, under another name, where it looks for doctests.
    """
    event.listen(Engine, "do_connect", _connect)
    vars(database)["create_engine"] = _create_engine


def _connect(_dialect: Any, _record: Any, _given: Any, named: dict[str, Any]) -> Warm | None:
    """Give every store of this process the connections that earlier tests have left."""
    kept = _in_use.get(named.get("dbname", ""))
    if kept is None or os.getpid() != kept.pid:
        return None
    return kept.connect(tuple(sorted(named.items())), named)


def _create_engine(url: Any, **named: Any) -> Engine:
    """As SQLAlchemy's, for the stores of this process."""
    kept = _in_use.get(url.database or "")
    if kept is None or not kept.keeps_engines or os.getpid() != kept.pid:
        return create_engine(url, **named)
    return kept.engine(url, named)


@contextmanager
def warm(server: Server, names: Iterable[str]) -> Iterator[None]:
    """Let the stores of these databases, which are not kept, hand their connections on up to the end of the block.

    Nothing here refers to a store that is forgotten instead of closed: its connection ends with it, as elsewhere.
    """
    made = [Kept(name, server.connect(database=name), keeps_engines=False) for name in names]
    _in_use.update((kept.name, kept) for kept in made)
    try:
        yield
    finally:
        for kept in made:
            del _in_use[kept.name]
            kept.close()


class Databases:
    """All databases of a test process, by the template that they are copies of."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._free: dict[str, list[Kept]] = {}
        self._lent: dict[str, tuple[str, Kept | None, set[int], set[int]]] = {}
        self.is_own = False

    def take(self, template: str) -> str:
        """The name of a database that is as the template."""
        free = self._free.setdefault(template, [])
        kept = free.pop() if free and not self.is_own else None
        if kept is not None:
            kept.lend()
        name = kept.name if kept else f"test_{os.getpid()}_{next(_numbers)}"
        if kept is None:
            self.server.create_database_from_template(name, template)
            if not self.is_own:
                kept = Kept(name, self.server.connect(database=name))
                kept.learn()
        if kept is not None:
            _in_use[name] = kept
        self._lent[name] = template, kept, _threads(), _children()
        return name

    def give_back(self, name: str) -> None:
        """Put it back as it was, for the next test, or drop it."""
        template, kept, threads, children = self._lent.pop(name)
        if kept is not None:
            del _in_use[name]
            kept.uses += 1
            with suppress(psycopg2.Error):
                alive = _threads() - threads or _children() - children
                if not alive and kept.uses < USES and kept.reset():
                    self._free[template].append(kept)
                    return
            kept.close()
        self.server.drop_database(name)

    def forget(self, template: str) -> None:
        """Drop the copies of a template that goes."""
        for kept in self._free.pop(template, []):
            kept.close()
            self.server.drop_database(kept.name)


def _threads() -> set[int]:
    return {thread.ident or 0 for thread in threading.enumerate()}


def _children() -> set[int]:
    """The living children of this process."""
    found = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for number in file.read_text().split():
                if not Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].startswith(" Z"):
                    found.add(int(number))
    return found

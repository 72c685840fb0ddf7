"""Roles, databases and schemas of an installation, and who may enter which.

    database   owner          may connect                      schemas
    airflow    airflow        airflow                          public
    easeml     easeml_owner   easeml_worker, easeml_referee,   work (all), sealed (easeml_referee)
                              easeml_scheduler, easeml_device,
                              members of easeml_tenant

``easeml_tenant`` is a group: each tenant's login is a member of it, and ``work.tenant_logins`` maps the login to its
tenants (ADR 0032). What the group, the scheduler and a device may do is in ``grants.py``.

No other role can connect to any database, ``postgres`` and ``template1`` included, and in ``easeml`` only the owner
reads the server's statistics. USAGE of a schema grants no table: the migrations grant table by table. Every function
is idempotent.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.extensions import encrypt_password
from psycopg2.sql import SQL, Identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import cursor as Cursor

AIRFLOW, OWNER, WORKER, REFEREE, SCHEDULER, DEVICE = ROLES = (
    "airflow",
    "easeml_owner",
    "easeml_worker",
    "easeml_referee",
    "easeml_scheduler",
    "easeml_device",
)
TENANT = "easeml_tenant"
"""The group of the tenants' logins (``logins.py``); it cannot log in itself."""

VIEWER, PERSON = "easeml_viewer", "easeml_person"
"""Roles without a login: the pages take one for who looks, the other for who changes something (``SET LOCAL ROLE``)."""

WATCHING = ("pg_read_all_stats", "pg_signal_backend")
"""Roles of PostgreSQL that the owner is a member of, to end sessions of logins (``logins.end_sessions``)."""

EASEML_DATABASE, AIRFLOW_DATABASE = "easeml", "airflow"
_OWNERS = {AIRFLOW_DATABASE: AIRFLOW, EASEML_DATABASE: OWNER}
GROUPS = (TENANT, VIEWER, PERSON)
GUESTS = (WORKER, REFEREE, SCHEDULER, DEVICE, TENANT)
OUR_SCHEMAS = {"work": GUESTS, "sealed": (REFEREE,)}
RIGHTS = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session of a role may keep others waiting, in seconds; 0 for no limit.

    Attributes:
        lock_seconds: Of a wait for a lock of another transaction.
        statement_seconds: Of one statement.
        idle_seconds: Of an open transaction in which nothing happens, after which its session is ended.
    """

    lock_seconds: float
    statement_seconds: float
    idle_seconds: float


LIMITS = {
    OWNER: Limits(300.0, 0.0, 3600.0),  # upgrades, backups
    WORKER: Limits(60.0, 600.0, 600.0),
    REFEREE: Limits(60.0, 3600.0, 3600.0),  # without fixed times a decision is computed within its transaction
    SCHEDULER: Limits(60.0, 600.0, 600.0),
    DEVICE: Limits(30.0, 120.0, 120.0),
}
"""Of each role of ours; ``ALTER ROLE ... SET`` makes them hold for every connection, and ``Store`` sets them too."""

LOGIN_LIMITS = Limits(30.0, 120.0, 120.0)
"""Of a tenant's login."""

_INSTALLATION_LOCK = 0x0EA5E31  # any number that no other user of advisory locks in the database `postgres` takes


@contextmanager
def installing(cursor: Cursor) -> Iterator[None]:
    """Keep other installers out, whatever process they are in; the cursor must be in the database ``postgres``."""
    cursor.execute("SELECT pg_advisory_lock(%s)", [_INSTALLATION_LOCK])
    try:
        yield
    finally:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [_INSTALLATION_LOCK])


def ensure_roles(cursor: Cursor, password_of: Callable[[str], str]) -> None:
    """Make the roles, and set their passwords and rights to what they should be."""
    cursor.execute("SELECT rolname FROM pg_roles")
    present = {name for (name,) in cursor}
    for role in (*ROLES, *GROUPS):
        if role not in present:
            _execute(cursor, "CREATE ROLE {}", role)
    for role in ROLES:
        verifier = encrypt_password(password_of(role), role, scope=cursor.connection, algorithm="scram-sha-256")
        cursor.execute(SQL(f"ALTER ROLE {{}} LOGIN {RIGHTS} PASSWORD %s").format(Identifier(role)), [verifier])
    for role in GROUPS:
        _execute(cursor, f"ALTER ROLE {{}} NOLOGIN {RIGHTS}", role)
    version = cursor.connection.server_version
    for right in WATCHING:  # for work.end_sessions
        _execute(cursor, "GRANT {} TO {}", right, OWNER)
    # Before PostgreSQL 16 it is the role that says whether it has the rights of what it can become.
    _execute(cursor, "ALTER ROLE {} NOINHERIT", WORKER)
    for taken in (VIEWER, PERSON):
        _execute(cursor, "GRANT {} TO {}" + membership(version, inherits=False, becomes=True), taken, WORKER)
    for role, limits in LIMITS.items():
        for statement in limit_statements(role, limits):
            cursor.execute(statement)


def membership(version: int, *, inherits: bool, becomes: bool) -> str:
    """Return the options of a membership: whether it has the rights of the group, and whether it can become it."""
    if version < FIRST_WITH_OPTIONS:
        return ""
    return f" WITH INHERIT {str(inherits).upper()}, SET {str(becomes).upper()}"


FIRST_WITH_OPTIONS = 160000


def limits_of(role: str) -> Limits:
    """Return the limits of a role, of ours or a tenant's login; an administrator of the server has the owner's."""
    if role.startswith("easeml_"):
        return LIMITS.get(role, LOGIN_LIMITS)
    return LIMITS[OWNER]


def limit_statements(role: str, limits: Limits) -> tuple[str, ...]:
    """Return the SQL that makes limits hold for all future sessions of a role."""
    settings = {
        "lock_timeout": limits.lock_seconds,
        "statement_timeout": limits.statement_seconds,
        "idle_in_transaction_session_timeout": limits.idle_seconds,
    }
    return tuple(f"ALTER ROLE \"{role}\" SET {name} = '{seconds:.0f}s'" for name, seconds in settings.items())


def ensure_databases(cursor: Cursor) -> None:
    """Make the databases ``airflow`` and ``easeml``, and close every door that PostgreSQL leaves open."""
    cursor.execute("SELECT datname FROM pg_database")
    present = {name for (name,) in cursor}
    for database, owner in _OWNERS.items():
        if database not in present:
            _execute(cursor, "CREATE DATABASE {} OWNER {} TEMPLATE template0", database, owner)
    for database in ("postgres", "template1", *_OWNERS):
        _execute(cursor, "REVOKE ALL ON DATABASE {} FROM PUBLIC", database)
    open_database(cursor, EASEML_DATABASE)


def open_database(cursor: Cursor, database: str) -> None:
    """Let only our roles connect to a database of ours."""
    _execute(cursor, "REVOKE ALL ON DATABASE {} FROM PUBLIC", database)
    _execute(cursor, "GRANT CONNECT ON DATABASE {} TO " + ", ".join(["{}"] * len(GUESTS)), database, *GUESTS)


def ensure_schemas(cursor: Cursor) -> None:
    """Make the schemas ``work`` and ``sealed`` in the database the cursor is in; only their doors are opened."""
    _execute(cursor, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    for schema, guests in OUR_SCHEMAS.items():
        _execute(cursor, "CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", schema, OWNER)
        _execute(cursor, "REVOKE ALL ON SCHEMA {} FROM PUBLIC", schema)
        for guest in guests:
            _execute(cursor, "GRANT USAGE ON SCHEMA {} TO {}", schema, guest)
    close_statistics(cursor)


# Every role may ask PostgreSQL how often a table was written, how large it is, what others wait for and how much log
# was written; and the number of a new large object, or of a large value, comes from the counter that every large value
# of the server moves. The catalogue says of each table, of sealed ones too, how many rows and pages it had when it was
# last vacuumed or analyzed: columns that only the owner may read. Advisory locks share the server's table of locks,
# which one session could fill. A role that reads them before and after an answer learns how much the referee wrote.
CLOSED_FUNCTIONS = (
    "^pg_stat_",
    "^pg_(relation|table|total_relation|indexes|database|tablespace)_size$",
    "^pg_control_",
    "_wal_",  # how much log was written, and of which blocks; where it is read, too
    "^pg_last_",
    "_slots?(_|$)",  # a slot of replication follows the log
    "^pg_logical_emit_message$",
    "_commit_timestamp",
    "^mxid_age$|^pg_get_multixact_members$",  # how many there are: a row that two transactions lock makes one
    "^pg_lock_status$",
    "_blocking_pids$",
    "^pg_isolation_test_session_is_blocked$",
    "^pg_(try_)?advisory_(xact_)?lock(_shared)?$",
    "^pg_notification_queue_usage$",
    "^lo_(creat|create|from_bytea)$",
    "^pg_column_toast_chunk_id$",
)
"""Regular expressions for the names of PostgreSQL's functions that the owner alone may call; those that compute from
their arguments are left. A test goes through the functions of the server that runs it."""

_OPEN_FUNCTIONS = f"""
    SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
    AND p.provolatile <> 'i' AND p.proname ~ '{"|".join(CLOSED_FUNCTIONS)}'
    AND has_function_privilege('{WORKER}', p.oid, 'EXECUTE')
""".strip()
_OPEN_COLUMN = f"has_column_privilege('{WORKER}', 'pg_catalog.pg_class', 'reltuples', 'SELECT')"
STATISTICS_ARE_OPEN = f"(EXISTS ({_OPEN_FUNCTIONS}) OR {_OPEN_COLUMN})"
CLOSE_STATISTICS = f"""
DO $$
DECLARE asked regprocedure;
BEGIN
  FOR asked IN
    {_OPEN_FUNCTIONS}
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', asked);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {OWNER}', asked);
  END LOOP;
  IF {_OPEN_COLUMN} THEN
    REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC;
    EXECUTE (SELECT format('GRANT SELECT (%s) ON pg_catalog.pg_class TO PUBLIC', string_agg(quote_ident(attname), ', '))
             FROM pg_catalog.pg_attribute WHERE attrelid = 'pg_catalog.pg_class'::regclass AND attnum > 0
             AND attname NOT IN ('relpages', 'reltuples', 'relallvisible', 'relallfrozen'));
    GRANT SELECT ON pg_catalog.pg_class TO {OWNER};
  END IF;
END $$
"""


def close_statistics(cursor: Cursor) -> None:
    """Revoke the server's statistics from all roles but the owner, in the cursor's database."""
    cursor.execute(CLOSE_STATISTICS)


def copy_database(cursor: Cursor, name: str, template: str) -> None:
    """Make a database from another one, with the same owner and doors as ``easeml``."""
    _execute(cursor, "CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY", name, OWNER, template)
    open_database(cursor, name)


def drop_database(cursor: Cursor, name: str) -> None:
    """Drop a database if it is there, and close the connections to it."""
    _execute(cursor, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _execute(cursor: Cursor, statement: str, *names: str) -> None:
    cursor.execute(SQL(statement).format(*map(Identifier, names)))

"""Logins of tenants: roles of the database that see the rows of their tenants only (ADR 0032).

A login is a member of the group ``easeml_tenant``, whose rights are in ``store/grants.py``, and ``work.tenant_logins``
says whose rows it may have. Roles belong to the whole server, so only a role with CREATEROLE can make one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.extensions import encrypt_password

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.settings.limits import NAME
from easeml_core.store.callers import is_viewer, role_taken
from easeml_core.store.roles import DEVICE, LOGIN_LIMITS, RIGHTS, TENANT, limit_statements, membership
from easeml_core.store.rows import change, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

LOGIN_PREFIX, DEVICE_PREFIX = "easeml_t_", "easeml_d_"
"""Each tenant's login begins with the first, each worker's that trains for all tenants with the second."""

MOST_CONNECTIONS = 50
"""Connections that one login may have at once: all logins share those of the server."""

_LONGEST_ROLE = 63  # PostgreSQL cuts a longer name off


def login_of(name: str, *, device: bool = False) -> str:
    """Return the login of this name: a tenant's, or one of workers that train for all tenants.

    Example:
        >>> login_of("garden"), login_of("gpu-1", device=True)
        ('easeml_t_garden', 'easeml_d_gpu-1')
    """
    prefix = DEVICE_PREFIX if device else LOGIN_PREFIX
    short = name.removeprefix(prefix)
    if not NAME.holds(short) or len(prefix + short) > _LONGEST_ROLE:
        most = f"of at most {_LONGEST_ROLE - len(prefix)} characters"
        message = f"the name of a login must be {NAME.rule}, {most}, got {name!r}"
        raise InvalidInputError(message)
    return prefix + short


def is_tenant(tx: Connection) -> bool:
    """Whether this transaction has a tenant's rights: those of its login, or of whom a page is for."""
    return is_viewer(tx) or (tx.engine.url.username or "").startswith(LOGIN_PREFIX)


def needs_token(tx: Connection) -> bool:
    """Whether trials are claimed with a function here, which makes a token (``leases.claim_by_token``)."""
    return is_tenant(tx) or is_device(tx.engine.url.username or "")


def is_device(login: str) -> bool:
    """Whether this role trains for all tenants: a worker's login, or the one that all workers share."""
    return login == DEVICE or login.startswith(DEVICE_PREFIX)


def is_login(role: str) -> bool:
    """Whether this role is a tenant's or a worker's login."""
    return role.startswith(LOGIN_PREFIX) or is_device(role)


def own_key(tx: Connection, request_key: str) -> str:
    """Return the request key as it is stored: that of a tenant's or a worker's login ends with ``@`` and its name.

    So does that of a page, with the role that it has taken: it names the person already. Keys are unique in the
    installation. Without the ending, which the database requires, a tenant could take the key that another one's next
    task will use.
    """
    login = role_taken(tx) or tx.engine.url.username or ""
    ending = f"@{login}" if is_tenant(tx) or login.startswith(DEVICE_PREFIX) else ""
    return request_key if not request_key or request_key.endswith(ending) else request_key + ending


def may_make_roles(tx: Connection) -> bool:
    """Whether the role of this transaction can make others."""
    asked = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    return bool(scalar(tx, asked))


def statements(tx: Connection, login: str, password: str) -> tuple[str, ...]:
    """Return the SQL that makes a login, or gives it another password.

    It has a SCRAM verifier in place of the password, so that no log can catch the password.
    """
    require_own(tx, login)
    group = DEVICE if is_device(login) else TENANT
    if row(tx, "SELECT FROM pg_roles WHERE rolname = :name", name=group) is None:
        message = (
            f"the server has no role {group}; run `easeml db create` with a superuser's address, which makes it and "
            "gives it its rights (docs/install.md, The database)"
        )
        raise StateError(message)
    exists = row(tx, "SELECT FROM pg_roles WHERE rolname = :name", name=login) is not None
    opened: Any = tx.connection.dbapi_connection
    verifier = encrypt_password(password, login, scope=opened, algorithm="scram-sha-256")
    rights = f"LOGIN {RIGHTS} INHERIT CONNECTION LIMIT {MOST_CONNECTIONS}"
    return (
        f"{'ALTER' if exists else 'CREATE'} ROLE \"{login}\" {rights} PASSWORD '{verifier}'",
        # It has the group's rights, and cannot become the group.
        f'GRANT {group} TO "{login}"{membership(_version(tx), inherits=True, becomes=False)}',
        f"COMMENT ON ROLE \"{login}\" IS '{_OF_DATABASE}{_database(tx)}'",
        *limit_statements(login, LOGIN_LIMITS),
    )


_OF_DATABASE = "easeml: a login of the database "
"""What a login's comment begins with: roles belong to the whole server, which may have another installation."""


def _database(tx: Connection) -> str:
    return str(scalar(tx, "SELECT current_database()")).replace("'", "''")


def require_own(tx: Connection, login: str) -> None:
    """Refuse a login of another database of the server.

    One without a comment, of before, is the database's that has given it tenants; a worker's is all databases'.
    """
    asked = (
        f"SELECT d.datname AS database, {_IS_OWN} AS is_own, "
        "EXISTS (SELECT FROM work.tenant_logins l WHERE l.login = r.rolname) AS is_mapped, "
        "shobj_description(r.oid, 'pg_authid') IS NULL AS is_bare "
        "FROM pg_roles r LEFT JOIN pg_database d ON shobj_description(r.oid, 'pg_authid') = :words || d.datname "
        "WHERE r.rolname = :login"
    )
    found = row(tx, asked, login=login, words=_OF_DATABASE)
    if found is None or (found.is_own and (not found.is_bare or found.is_mapped or is_device(login))):
        return
    whose = f"of the database {found.database!r}" if found.database else "of an unknown database"
    message = (
        f"the server has a login {login} already, {whose}; take another name, or, where nothing uses it, let an "
        f'administrator run DROP ROLE "{login}"'
    )
    raise StateError(message)


# Its comment names this database, or one that is gone; or it has none.
_IS_OWN = (
    "NOT EXISTS (SELECT FROM pg_database o WHERE o.datname <> current_database() "
    "AND shobj_description(r.oid, 'pg_authid') = :words || o.datname)"
)


def _version(tx: Connection) -> int:
    return int(scalar(tx, "SELECT current_setting('server_version_num')::int"))


def close_statement(login: str) -> str:
    """Return the SQL after which, once it is committed, no session of a login can begin."""
    return f'ALTER ROLE "{login}" NOLOGIN'


def end_statements(login: str) -> tuple[str, ...]:
    """Return the SQL that ends a login's sessions and removes it, after ``close_statement``."""
    return (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{login}'",
        f'DROP OWNED BY "{login}"',  # default privileges that it has set, say
        f'DROP ROLE "{login}"',
    )


def run(tx: Connection, sql: Sequence[str]) -> None:
    """Run statements of this module."""
    for statement in sql:
        tx.exec_driver_sql(statement)


def map_login(tx: Connection, login: str, tenant_ids: Sequence[int]) -> None:
    """Set the tenants of a login; with others than before it has no requests and no devices; role ``easeml_owner``."""
    asked = "SELECT tenant_id FROM work.tenant_logins WHERE login = :login"
    before = {r.tenant_id for r in rows(tx, asked, login=login)}
    change(tx, "DELETE FROM work.tenant_logins WHERE login = :login", login=login)
    change(
        tx,
        "INSERT INTO work.tenant_logins (login, tenant_id) SELECT :login, unnest(CAST(:ids AS bigint[]))",
        login=login,
        ids=sorted(set(tenant_ids)),
    )
    if before != set(tenant_ids):  # what was filed under the name is not the next tenant's
        for table in ("change_requests", "suggestion_requests", "devices"):
            change(tx, f"DELETE FROM work.{table} WHERE login = :login", login=login)


def tenants_of_login(tx: Connection, login: str) -> tuple[str, ...]:
    """Return the names of a login's tenants, in order; role ``easeml_owner``."""
    asked = (
        "SELECT t.name FROM work.tenant_logins l JOIN work.tenants t ON t.id = l.tenant_id "
        "WHERE l.login = :login ORDER BY t.name"
    )
    return tuple(r.name for r in rows(tx, asked, login=login))


def are_pages_apart(tx: Connection, role: str) -> bool:
    """Whether the pages have a tenant's rights: tenants have logins, and the server has the role for it."""
    asked = (
        "SELECT has_table_privilege('work.tenant_logins', 'SELECT') AND EXISTS (SELECT FROM pg_roles r "
        "WHERE r.rolname = :role AND pg_has_role(current_user, r.oid, 'MEMBER') "
        "AND has_schema_privilege(r.oid, 'work', 'USAGE'))"
    )
    return bool(scalar(tx, asked, role=role)) and bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.tenant_logins)"))


def studies_by_tenant(tx: Connection) -> dict[tuple[int, str], list[str]]:
    """Return the names of all studies by number and name of their tenant, one without studies too."""
    asked = (
        "SELECT t.id, t.name, ARRAY (SELECT s.name FROM work.studies s WHERE s.tenant_id = t.id ORDER BY s.id) "
        "AS studies FROM work.tenants t ORDER BY t.id"
    )
    return {(r.id, r.name): list(r.studies) for r in rows(tx, asked)}


def device_logins(tx: Connection, *, surely: bool = False) -> list[str]:
    """Return the logins of workers that train for all tenants, in order; not those of another database."""
    own = "shobj_description(r.oid, 'pg_authid') = :words || current_database()" if surely else _IS_OWN
    asked = f"SELECT r.rolname FROM pg_roles r WHERE starts_with(r.rolname::text, :prefix) AND {own} ORDER BY 1"
    return [r.rolname for r in rows(tx, asked, prefix=DEVICE_PREFIX, words=_OF_DATABASE)]


def end_sessions(tx: Connection, *, most_locks: int, longest_seconds: float) -> int | None:
    """End the sessions of logins that hold too many locks, or a transaction for too long."""
    may = "SELECT has_function_privilege('work.end_sessions(bigint, double precision)', 'EXECUTE')"
    if not scalar(tx, may):
        return None
    asked = "SELECT work.end_sessions(:most, :longest)"
    ended = scalar(tx, asked, most=most_locks, longest=longest_seconds)
    return None if ended is None else int(ended)


def reads_logins(tx: Connection) -> bool:
    """Whether the role may read which logins tenants have."""
    return bool(scalar(tx, "SELECT has_table_privilege('work.tenant_logins', 'SELECT')"))


def all_logins(tx: Connection) -> list[str]:
    """Return the logins that have a tenant, in order; role ``easeml_owner``."""
    return [r.login for r in rows(tx, "SELECT DISTINCT login FROM work.tenant_logins ORDER BY login")]


_CLOSED = "closed to logins for an upgrade"
"""Comment of the schema while no login may begin a session: an upgrade that was killed leaves it to the next one."""


def keep_logins_out(tx: Connection, *, all_sessions: bool) -> bool:
    """Let no session of a login begin, and end those that hold a transaction; False if this role lacks the rights."""
    may = (
        "SELECT pg_has_role(datdba, 'USAGE') AND pg_has_role('pg_signal_backend', 'USAGE') "
        "AND pg_has_role('pg_read_all_stats', 'USAGE') AND to_regrole('easeml_tenant') IS NOT NULL "
        "AND to_regrole('easeml_device') IS NOT NULL FROM pg_database WHERE datname = current_database()"
    )
    if not scalar(tx, may):
        return False
    _set_entry(tx, "REVOKE CONNECT ON DATABASE %I FROM easeml_tenant, easeml_device", f"'{_CLOSED}'")
    ended = (
        "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE a.datname = current_database() "
        "AND (:all OR a.xact_start IS NOT NULL) AND (a.usename = :device "
        "OR starts_with(a.usename::text, :tenants) OR starts_with(a.usename::text, :devices))"
    )
    scalar(tx, ended, all=all_sessions, device=DEVICE, tenants=LOGIN_PREFIX, devices=DEVICE_PREFIX)
    return True


def let_logins_in(tx: Connection) -> None:
    """Let logins begin sessions again, where ``keep_logins_out`` has closed it; role ``easeml_owner``."""
    if is_closed(tx):
        _set_entry(tx, "GRANT CONNECT ON DATABASE %I TO easeml_tenant, easeml_device", "NULL")


def is_closed(tx: Connection) -> bool:
    """Whether ``keep_logins_out`` keeps logins out."""
    return bool(scalar(tx, "SELECT obj_description(to_regnamespace('work'), 'pg_namespace')") == _CLOSED)


def _set_entry(tx: Connection, statement: str, comment: str) -> None:
    tx.exec_driver_sql(f"COMMENT ON SCHEMA work IS {comment}")
    tx.exec_driver_sql(f"DO $$ BEGIN EXECUTE format('{statement}', current_database()); END $$".replace("%", "%%"))

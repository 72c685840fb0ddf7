"""Roles, database and schemas of an installation on a PostgreSQL server that others run.

The statements are the same whether an administrator runs them with psql or `easeml db create` does. Other databases of
the server stay as they are; roles belong to the whole server.

A password reaches the server as its SCRAM verifier, so that no log can hold it: RFC 5803, RFC 7677.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from easeml_core.errors import InvalidInputError, StateError, StoreUnavailableError
from easeml_core.settings.connection import ConnectionExtra, database_url
from easeml_core.store.roles import (
    CLOSE_STATISTICS,
    DEVICE,
    EASEML_DATABASE,
    FIRST_WITH_OPTIONS,
    GROUPS,
    GUESTS,
    LIMITS,
    OUR_SCHEMAS,
    OWNER,
    PERSON,
    REFEREE,
    RIGHTS,
    SCHEDULER,
    STATISTICS_ARE_OPEN,
    VIEWER,
    WATCHING,
    WORKER,
    limit_statements,
    membership,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

LOGINS = (OWNER, WORKER, REFEREE, SCHEDULER, DEVICE)
OLDEST_SERVER = 150000
ITERATIONS = 4096
CONNECT_SECONDS = 10
PASSED_ON = (ConnectionExtra.MODE, ConnectionExtra.ROOT_CERTIFICATE)
"""What holds for our roles, too, of the parameters in the administrator's address."""

_AFTER_PASSWORD = (
    f'database "{EASEML_DATABASE}" does not exist',
    "permission denied for database",
    "not permitted to log",
)

_MEMBERS = ", ".join(f"'{role}'" for role in (*LOGINS[1:], *GROUPS))
_MEMBERSHIPS = f"""
SELECT g.rolname AS taken, m.rolname AS member, pg_get_userbyid(a.grantor) AS grantor
FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
WHERE m.rolname IN ({_MEMBERS}) AND NOT (m.rolname = '{WORKER}' AND g.rolname IN ('{VIEWER}', '{PERSON}'))
AND (g.rolname IN ('{OWNER}', {_MEMBERS}) OR g.rolsuper OR starts_with(g.rolname::text, 'pg_'))
"""
"""Memberships of our roles in each other, in superusers and in PostgreSQL's own roles that none of ours should have."""

_TAKE_MEMBERSHIPS = f"""
DO $$
DECLARE given record;
BEGIN
  FOR given IN {_MEMBERSHIPS.strip()}
  LOOP
    EXECUTE format('REVOKE %I FROM %I', given.taken, given.member)
      || CASE WHEN current_setting('server_version_num')::int < {FIRST_WITH_OPTIONS} THEN ''
              ELSE format(' GRANTED BY %I CASCADE', given.grantor) END;
  END LOOP;
END $$
""".strip()


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement.

    Attributes:
        sql: Without a semicolon.
        purpose: What a superuser has to do it for; empty where a role with CREATEROLE and CREATEDB can.
        needed: SQL expression that is true as long as there is something to do; empty for always. PostgreSQL only warns
            where a role may not grant or revoke, so that the state afterwards says whether it was done.
    """

    sql: str
    purpose: str = ""
    needed: str = ""

    def __str__(self) -> str:
        """The statement for psql, with its purpose."""
        return f"-- {self.purpose}\n{self.sql};" if self.purpose else f"{self.sql};"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is, as our processes reach it.

    Attributes:
        host: Name or number.
        port: Of the server.
        tls: Parameters of libpq.
    """

    host: str
    port: int
    tls: Mapping[str, str]

    def url(self, role: str, password: str) -> str:
        """Return the address of our database for a role, password included: never log it."""
        given = {"host": self.host, "port": self.port, "database": EASEML_DATABASE, "tls": self.tls}
        return database_url(**given, login=role, password=password)  # type: ignore[arg-type]  # of a literal mapping


def address_file(role: str) -> str:
    """Name of the file with the address of a role, in the folder of passwords."""
    return f"{role.removeprefix('easeml_')}.url"


def scram_verifier(password: str) -> str:
    """Return what PostgreSQL stores of a password of ASCII letters, digits and signs.

    Example:
        >>> scram_verifier("secret").partition(":")[0]
        'SCRAM-SHA-256$4096'
    """
    if not password.isascii():
        message = "a password of a role must be of ASCII letters, digits and signs: take another for it"
        raise InvalidInputError(message)
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    client, server = (hmac.digest(salted, word, "sha256") for word in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_text}${stored_text}:{server_text}"


def role_statements(passwords: Mapping[str, str]) -> Iterator[Statement]:
    """Yield what makes the roles, in any database of the server."""
    for role in (*LOGINS, *GROUPS):
        # With its password from the start: an interrupted run can be repeated, since the role logs in with it.
        made = f"CREATE ROLE {role}"
        if role in passwords:
            made += f" LOGIN PASSWORD '{scram_verifier(passwords[role])}'"
        yield Statement(_unless("SELECT FROM pg_roles WHERE rolname = '{0}'", made, role))
    yield from _rights_statements()
    for role in LOGINS:
        yield Statement(f"ALTER ROLE {role} LOGIN PASSWORD '{scram_verifier(passwords[role])}'")
    yield Statement(f"ALTER ROLE {WORKER} NOINHERIT")  # before PostgreSQL 16 this keeps the pages' roles apart
    options = membership(FIRST_WITH_OPTIONS, inherits=False, becomes=True)
    grant = f"GRANT {VIEWER}, {PERSON} TO {WORKER}"
    is_old = f"current_setting('server_version_num')::int < {FIRST_WITH_OPTIONS}"
    # As a text: PL/pgSQL parses every branch, and a server before 16 does not know the options.
    yield Statement(f"DO $$ BEGIN EXECUTE '{grant}' || CASE WHEN {is_old} THEN '' ELSE '{options}' END; END $$")
    for role, limits in LIMITS.items():
        for sql in limit_statements(role, limits):
            yield Statement(sql)
    lacks = " OR ".join(f"NOT pg_has_role('{OWNER}', '{right}', 'MEMBER')" for right in WATCHING)
    purpose = "`easeml scheduler` ends sessions that keep locks"
    yield Statement(f"GRANT {', '.join(WATCHING)} TO {OWNER}", purpose, lacks)


def _rights_statements() -> Iterator[Statement]:
    """Yield what takes attributes and memberships back that a role must not have.

    The owner keeps CREATEROLE: with it `easeml tenant login` makes roles.
    """
    purpose = "no role of ours has more rights than its work needs"
    for role in (*LOGINS, *GROUPS):
        of_role = f"EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}' AND ({{}}))"
        rights, wrong = RIGHTS, "rolsuper OR rolcreatedb OR rolreplication OR rolbypassrls"
        if role == OWNER:
            rights = rights.replace("NOCREATEROLE ", "")
        else:
            wrong += " OR rolcreaterole"
        yield Statement(f"ALTER ROLE {role} {rights}", purpose, of_role.format(wrong))
        if role in GROUPS:
            yield Statement(f"ALTER ROLE {role} NOLOGIN", purpose, of_role.format("rolcanlogin"))
    yield Statement(_TAKE_MEMBERSHIPS, purpose, f"EXISTS ({_MEMBERSHIPS})")


def database_statement() -> Statement:
    """Return what makes the database."""
    return Statement(f"CREATE DATABASE {EASEML_DATABASE} OWNER {OWNER} TEMPLATE template0")


def door_statements() -> Iterator[Statement]:
    """Yield what lets our roles alone into the database."""
    yield Statement(f"REVOKE ALL ON DATABASE {EASEML_DATABASE} FROM PUBLIC")
    yield Statement(f"GRANT CONNECT ON DATABASE {EASEML_DATABASE} TO {', '.join(GUESTS)}")


def schema_statements() -> Iterator[Statement]:
    """Yield what makes the schemas, within the database."""
    yield Statement("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    for schema, guests in OUR_SCHEMAS.items():
        yield Statement(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {OWNER}")
        yield Statement(f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC")
        yield Statement(f"GRANT USAGE ON SCHEMA {schema} TO {', '.join(guests)}")
    purpose = "no role but the owner reads the statistics of sealed tables"
    yield Statement(CLOSE_STATISTICS.strip(), purpose, STATISTICS_ARE_OPEN)


def psql_script(passwords: Mapping[str, str]) -> str:
    """Return all statements for psql, for a superuser."""
    lines = ["-- For a superuser: psql --dbname postgres --file THIS", "\\set ON_ERROR_STOP on"]
    lines += [f"{one.sql};" for one in role_statements(passwords)]
    missing = f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{EASEML_DATABASE}')"
    lines.append(f"SELECT '{database_statement().sql}' {missing} \\gexec")
    lines += [f"{one.sql};" for one in door_statements()]
    lines.append(f"\\connect {EASEML_DATABASE}")
    lines += [f"{one.sql};" for one in schema_statements()]
    return "\n".join(lines) + "\n"


class Administrator:
    """A role of the server that makes roles and databases.

    Args:
        url: Its address; without a password libpq's own ways to find one hold.

    Raises:
        InvalidInputError: It is no address of PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url).set(drivername="postgresql")
        except (ArgumentError, ValueError) as error:
            message = "the administrator's address must look like postgresql://role:password@host:port/postgres"
            raise InvalidInputError(message) from error
        self._url = parsed if parsed.database else parsed.set(database="postgres")
        self._shown = self._url.set(query={}).render_as_string()  # one of the options may be the password
        tls = {str(key): str(parsed.query[key]) for key in PASSED_ON if key in parsed.query}
        self.address = ServerAddress(parsed.host or "", parsed.port or 5432, tls)

    def present_roles(self) -> set[str]:
        """Return which of our logins the server has."""
        with closing(self._connect()) as opened, opened.cursor() as cursor:
            if opened.server_version < OLDEST_SERVER:
                message = f"{self._shown} is PostgreSQL {opened.server_version // 10000}; 15 or newer is needed"
                raise StateError(message)
            cursor.execute(
                "SELECT rolname, rolsuper OR rolcreaterole AND rolcreatedb FROM pg_roles WHERE rolname = current_user"
            )
            ((name, may),) = cursor.fetchall()
            if not may:
                raise self._lacks_rights(name)
            cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(LOGINS)])
            return {role for (role,) in cursor.fetchall()}

    def check_installation(self, passwords: Mapping[str, str], folder: Path) -> None:
        """Check, without a change, that what the server has of our names is the installation of these passwords."""
        for role, password in passwords.items():
            self._check_password(role, password, folder)
        with closing(self._connect()) as opened, opened.cursor() as cursor:
            cursor.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s AND pg_get_userbyid(datdba) <> %s",
                [EASEML_DATABASE, OWNER],
            )
            for (other,) in cursor.fetchall():
                found = "the database"
                raise self._of_others(found, other)
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [EASEML_DATABASE])
            if cursor.fetchone() is None:
                return
        with closing(self._connect(EASEML_DATABASE, (OWNER, passwords[OWNER]))) as inside, inside.cursor() as cursor:
            cursor.execute(
                "SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace "
                "WHERE nspname = ANY(%s) AND pg_get_userbyid(nspowner) <> %s",
                [[*OUR_SCHEMAS], OWNER],
            )
            for schema, other in cursor.fetchall():
                found = f"the schema {schema} in the database"
                raise self._of_others(found, other)

    def _check_password(self, role: str, password: str, folder: Path) -> None:
        try:
            self._connect(EASEML_DATABASE, (role, password)).close()
        except StoreUnavailableError as error:
            said = str(error.__cause__).strip()
            # The server compares the password before it looks for the database and at the right to connect to it.
            if any(text in said for text in _AFTER_PASSWORD):
                return
            message = (
                f"the role {role} of {self._shown} does not log in with the password in {folder} ({said}); nothing was "
                f"changed. If its password was changed, write the present address into {folder / address_file(role)}; "
                "if the role is another installation's, give --secrets the folder of that, or take a server for each "
                "installation"
            )
            raise StateError(message) from error

    def _of_others(self, what: str, owner: str) -> StateError:
        return StateError(
            f"{self._shown} has {what} {EASEML_DATABASE}, which is of {owner}; nothing was changed. Take another "
            f"server; or, where it is meant for this installation, make {OWNER} its owner (ALTER ... OWNER TO {OWNER})"
        )

    def create(self, passwords: Mapping[str, str]) -> list[Statement]:
        """Make roles, database and schemas, or bring them to what they should be; return what only a superuser can."""
        with closing(self._connect()) as opened, opened.cursor() as cursor:
            left = self._run(opened, [*role_statements(passwords)])
            with _as_owner(cursor):
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", [EASEML_DATABASE])
                if cursor.fetchone() is None:
                    self._run(opened, [database_statement()])
                self._run(opened, [*door_statements()])
                with closing(self._connect(EASEML_DATABASE)) as inside:
                    left += self._run(inside, [*schema_statements()])
        return left

    def _connect(self, database: str | None = None, login: tuple[str, str] | None = None) -> Connection:
        url = self._url if database is None else self._url.set(database=database)
        if login is not None:
            user, password = login
            url = url.set(username=user, password=password).difference_update_query(["user", "password"])
        try:
            opened = psycopg2.connect(url.render_as_string(hide_password=False), connect_timeout=CONNECT_SECONDS)
        except psycopg2.Error as error:
            message = (
                f"{self._shown} cannot be reached: {str(error).strip()}; start the server, or correct the "
                "administrator's address (libpq also takes a password from PGPASSWORD or ~/.pgpass)"
            )
            raise StoreUnavailableError(message) from error
        opened.autocommit = True
        return opened

    def _run(self, opened: Connection, statements: Sequence[Statement]) -> list[Statement]:
        left = []
        with opened.cursor() as cursor:
            for statement in statements:
                if not _is_needed(cursor, statement):
                    continue
                try:
                    cursor.execute(statement.sql)
                except InsufficientPrivilege as error:
                    if not statement.purpose:
                        raise self._lacks_rights(str(self._url.username), str(error)) from error
                if statement.needed and _is_needed(cursor, statement):
                    left.append(statement)
        return left

    def _lacks_rights(self, role: str, said: str = "") -> StateError:
        about = f" ({said.strip()})" if said else ""
        return StateError(
            f"the role {role} cannot make roles and databases{about}: give the address of a superuser or of a role "
            "with CREATEROLE and CREATEDB, or let an administrator run what `easeml db create --print` prints"
        )


def _unless(found: str, sql: str, role: str) -> str:
    return f"DO $$ BEGIN IF NOT EXISTS ({found.format(role)}) THEN {sql}; END IF; END $$"


def _is_needed(cursor: Cursor, statement: Statement) -> bool:
    if not statement.needed:
        return True
    cursor.execute(f"SELECT {statement.needed}")
    ((is_needed,),) = cursor.fetchall()
    return bool(is_needed)


@contextmanager
def _as_owner(cursor: Cursor) -> Iterator[None]:
    """Make the administrator a member of the owner: who makes a database for a role must be able to become it.

    A membership that it has been given before stays; this one is taken back at the end, after an error too.
    """
    cursor.execute(
        "SELECT rolsuper OR EXISTS (SELECT FROM pg_auth_members WHERE roleid = %s::regrole AND member = r.oid "
        "AND (grantor = r.oid OR current_setting('server_version_num')::int < %s)) "
        "FROM pg_roles r WHERE rolname = current_user",
        [OWNER, FIRST_WITH_OPTIONS],
    )
    ((has_it,),) = cursor.fetchall()
    if has_it:
        yield
        return
    cursor.execute(f"GRANT {OWNER} TO CURRENT_USER")
    try:
        yield
    finally:
        cursor.execute(f"REVOKE {OWNER} FROM CURRENT_USER")

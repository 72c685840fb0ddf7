"""The door to PostgreSQL: one engine, one way to begin a transaction, locks and notifications of the installation."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import zlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from easeml_core.errors import (
    ConcurrentUpdateError,
    InvalidInputError,
    StoreUnavailableError,
)
from easeml_core.settings.limits import (
    NAME,
)
from easeml_core.store import callers, schema
from easeml_core.store.refusals import NEEDS, SOURCE, shown, translate
from easeml_core.store.roles import limits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

CHANNEL = "easeml"
"""NOTIFY channel of everything that can be waited for; the payload is a topic such as ``answer:17``."""

REFEREE_CHANNEL = "easeml_referee"
"""NOTIFY channel that wakes the referee's process."""

SCHEDULER_CHANNEL = "easeml_scheduler"
"""NOTIFY channel that wakes the scheduler's process."""

DECISIONS_CHANNEL = "easeml_decisions"
"""NOTIFY channel of the scheduler's decisions: it wakes who has asked, and no device that waits for anything else."""

NEWS_CHANNEL = "easeml_news"
"""NOTIFY channel of what only a page that stands open wants to know: no device that waits is woken by it."""

# No payload beyond an id or a name (or * for any name): every role may listen.
_TOPIC = re.compile(
    rf"(answer|labels|request|suggestions|trial):[0-9]+|(alert|evidence|production|study|submission):({NAME.pattern}|\*)"
)

_NO_NUL = "cannot contain NUL"
"""In the driver's words."""

_helping = contextvars.ContextVar("helping", default=False)


@contextlib.contextmanager
def helping() -> Iterator[None]:
    """Take connections for this thread from a second pool of each store.

    For a thread whose end must not be seen. Where a row lands depends on the connection that writes it, and with one
    pool the connection of the thread that decides would depend on whether this one has ended.
    """
    token = _helping.set(True)
    try:
        yield
    finally:
        _helping.reset(token)


@contextlib.contextmanager
def _of_one_moment(connection: Connection) -> Iterator[None]:
    """Let the connection's next transaction write nothing and see one moment; ``BEGIN`` states both.

    Afterwards the connection is as it was: by SQLAlchemy's options it would keep ``READ WRITE``, which overrides a
    server that is set to read-only, and each later use would send two more statements.
    """
    driver: Any = connection.connection.driver_connection
    try:
        driver.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield
    finally:
        try:
            driver.set_session(isolation_level="DEFAULT", readonly="DEFAULT")
        except connection.dialect.loaded_dbapi.Error:  # it is closed, or an interruption has left a transaction in it
            connection.invalidate()


class Store:
    """The database of one installation, seen through one role.

    Safe to share between threads. Nothing is connected before the first transaction.

    Args:
        url: ``postgresql+psycopg2://role:password@host:port/database``.
        statement_timeout_seconds: Upper bound of one statement, 0 for none; None for that of the role (``LIMITS``).
        lock_timeout_seconds: Likewise of waiting for a lock of another transaction.
        actor: Whose name its changes bear in the audit where ``callers.acting`` says nothing else.
        needs: Role that this store's work needs, for the error where the address names another one.
        source: Who gave the address, for the same error.
        connections: How many are kept open once they were needed, >= 1; up to 8 more are opened for a moment.
    """

    def __init__(
        self,
        url: str,
        *,
        statement_timeout_seconds: float | None = None,
        lock_timeout_seconds: float | None = None,
        actor: callers.Actor | None = None,
        needs: str | None = None,
        source: str = "",
        connections: int = 2,
    ) -> None:
        try:
            self._url = make_url(url).set(drivername="postgresql+psycopg2")
        except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
            message = "the database address must look like postgresql+psycopg2://role:password@host:port/database"
            raise InvalidInputError(message) from error
        limits = limits_of(self._url.username or "")
        statement = limits.statement_seconds if statement_timeout_seconds is None else statement_timeout_seconds
        lock = limits.lock_seconds if lock_timeout_seconds is None else lock_timeout_seconds
        options = (
            f"-c statement_timeout={int(1000 * statement)} -c lock_timeout={int(1000 * lock)} "
            f"-c idle_in_transaction_session_timeout={int(1000 * limits.idle_seconds)} -c timezone=UTC"
        )
        create = functools.partial(
            create_engine,
            self._url,
            pool_size=connections,
            pool_use_lifo=True,  # the same one again where one is enough: no row lands elsewhere for an earlier call
            max_overflow=8,
            pool_pre_ping=True,
            execution_options={NEEDS: needs, SOURCE: source},
            use_native_hstore=False,  # no column has that type, and each connection would ask for its number
            hide_parameters=True,  # an error's text ends up in a task's log, where values have no place
            connect_args={
                "connect_timeout": 5,
                "application_name": "easeml",
                "options": options,
                # A server that vanished without closing its connection must not block a heartbeat for 15 minutes.
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "tcp_user_timeout": 30_000,
            },
        )
        self._create, self._engine = create, create()
        self._of_helpers: Engine | None = None
        self._checked = False
        self._actor = actor

    def __repr__(self) -> str:
        """The address without its password."""
        return f"Store({shown(self._url)!r})"

    @property
    def dsn(self) -> str:
        """The address as libpq reads it, password included: for the listener only, never for a log."""
        return self._url.set(drivername="postgresql").render_as_string(hide_password=False)

    def address_of(self, role: str, password: str) -> str:
        """Return the address of the same database for another role, with its password."""
        return self._url.set(username=role, password=password).render_as_string(hide_password=False)

    @contextlib.contextmanager
    def begin(self, *, check_schema: bool = True, writes: bool = True, snapshot: bool = False) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back on any error.

        Args:
            check_schema: Whether to look once whether the schema is the one of this code.
            writes: Whether anything may be changed; then the database receives the actor.
            snapshot: As of the method ``snapshot``.

        Raises:
            StoreUnavailableError: The database cannot be reached.
            InvalidInputError: A text has a character that no database keeps.
            ConcurrentUpdateError: Another transaction was in the way; the same call may be made again.
            SchemaVersionError: The schema is not the one of this code.
            WrongRoleError: The role lacks a right that the call needs.
            StoreError: Any other refusal of the database; the driver's error is its cause.
        """
        moment = _of_one_moment if snapshot else contextlib.nullcontext
        try:
            with self._pool().connect() as tx, moment(tx), tx.begin():
                if check_schema and not self._checked:
                    schema.check(tx)
                    self._checked = True
                callers.take_role(tx, self._url.username or "")
                if writes:
                    callers.tell(tx, self._actor)
                yield tx
        except DBAPIError as error:
            raise translate(error, self._engine) from error
        except PoolTimeoutError as error:
            message = "every connection of this process to the database is in use; try again, or run fewer at once"
            raise StoreUnavailableError(message) from error
        except ValueError as error:  # the driver's own refusal, before anything was sent
            if not isinstance(error, UnicodeEncodeError) and _NO_NUL not in str(error):
                raise
            message = "text may hold neither the character NUL nor half of one (a lone surrogate); leave it out"
            raise InvalidInputError(message) from error

    def snapshot(self) -> contextlib.AbstractContextManager[Connection]:
        """One transaction that writes nothing and sees all tables as of its first query; errors as of ``begin``."""
        return self.begin(writes=False, snapshot=True)

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()
        if self._of_helpers is not None:
            self._of_helpers.dispose()

    def _pool(self) -> Engine:
        """Return the engine for this thread (``helping``)."""
        if not _helping.get():
            return self._engine
        if self._of_helpers is None:  # two threads at once may make two: one of them keeps no connection
            self._of_helpers = self._create()
        return self._of_helpers


@contextlib.contextmanager
def savepoint(tx: Connection, *, ending: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """A part of a transaction that is undone alone when it fails; driver errors come out as ours.

    A driver error of the savepoint itself comes out as ours too, in place of the error that is undone: the whole
    transaction is of no use then.
    """
    try:
        nested = tx.begin_nested()
    except DBAPIError as error:
        raise translate(error, tx.engine) from error
    try:
        yield
    except BaseException as error:
        if nested.is_active and not tx.invalidated and not isinstance(error, ending):
            try:
                nested.rollback()
            except DBAPIError as failure:
                raise translate(failure, tx.engine) from failure
        if isinstance(error, DBAPIError):
            raise translate(error, tx.engine) from error
        raise
    try:
        nested.commit()
    except DBAPIError as failure:
        nested.close()  # otherwise the connection refuses every further statement
        raise translate(failure, tx.engine) from failure


LOCKS = ("suggest", "assess", "row registry")
"""Locks with a separate row in ``work.locks``."""

_OTHER_LOCKS = 16


def lock(tx: Connection, name: str) -> None:
    """Hold the installation-wide lock of this name until the transaction ends.

    It is a row, on which tenants have no right: every role can take every advisory lock. Names beyond ``LOCKS`` share a
    few rows.
    """
    tx.execute(text("SELECT FROM work.locks WHERE name = :name FOR UPDATE"), {"name": _row_of(name)})


def lock_within(tx: Connection, name: str, milliseconds: int) -> bool:
    """Hold the lock as of ``lock`` where it is free within this time; return whether it is held.

    One trip to the server: between the grant and the caller's next statement lies no other one, for which all other
    transactions that need the lock would wait.
    """
    try:
        tx.exec_driver_sql(_LOCK_WITHIN, {"name": _row_of(name), "limit": str(int(milliseconds))})
    except DBAPIError as error:
        if not isinstance(translate(error, tx.engine), ConcurrentUpdateError):
            raise
        tx.exec_driver_sql("ROLLBACK TO SAVEPOINT awaited")
        return False
    return True


_LOCK_WITHIN = """SAVEPOINT awaited;
SELECT set_config('easeml.lock_timeout', current_setting('lock_timeout'), true);
SELECT set_config('lock_timeout', %(limit)s, true);
SELECT FROM work.locks WHERE name = %(name)s FOR UPDATE;
SELECT set_config('lock_timeout', current_setting('easeml.lock_timeout'), true);
RELEASE SAVEPOINT awaited"""


def _row_of(name: str) -> str:
    return name if name in LOCKS else f"other {zlib.crc32(name.encode()) % _OTHER_LOCKS}"


@contextlib.contextmanager
def waiting_briefly(tx: Connection, milliseconds: int = 100) -> Iterator[None]:
    """A part of a savepoint that waits for locks of other transactions no longer than this."""
    before = tx.exec_driver_sql("SHOW lock_timeout").scalar()
    tx.exec_driver_sql(f"SET LOCAL lock_timeout = {int(milliseconds)}")
    yield
    tx.exec_driver_sql("SELECT set_config('lock_timeout', %(before)s, true)", {"before": before})


def notify(tx: Connection, *topics: str, channel: str = CHANNEL) -> None:
    """Notify the listeners of the topics, when and only when this transaction commits."""
    tx.execute(text(NOTIFY), {"channel": channel, "topics": known_topics(*topics)})


NOTIFY = "SELECT pg_notify(:channel, topic) FROM unnest(CAST(:topics AS text[])) AS topic"
"""Notifies of ``known_topics``; a statement that writes may have it as its last part."""


def known_topics(*topics: str) -> list[str]:
    """Return the topics as a parameter of ``NOTIFY``."""
    for topic in topics:
        if _TOPIC.fullmatch(topic) is None:
            message = (
                "a topic must be answer, request, suggestions or trial with an id (or labels with a set's), or alert, "
                f"evidence, production, study or submission with a name, got {topic!r}"
            )
            raise InvalidInputError(message)
    return list(topics)


def notify_pages(tx: Connection, *studies: str) -> None:
    """Notify the pages of these studies of a trial's new state, once this transaction commits."""
    notify(tx, *(f"study:{study}" for study in studies), channel=NEWS_CHANNEL)

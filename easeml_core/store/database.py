"""The door to PostgreSQL: one engine, one way to begin a transaction, one table from driver errors to ours."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from easeml_core.errors import (
    AlreadyExistsError,
    BudgetExhaustedError,
    ConcurrentUpdateError,
    EasemlError,
    InvalidInputError,
    StateError,
    StoreError,
    StoreExhaustedError,
    StoreUnavailableError,
    WrongRoleError,
)
from easeml_core.faults import DatabaseFault, database_fault
from easeml_core.limits import (
    ATTEMPTS,
    COST_SECONDS,
    DURATION,
    LABELER,
    LONGEST_CANDIDATE,
    LONGEST_TARGET,
    LONGEST_TEXT,
    MAX_PARALLEL,
    MOST_DEVICES,
    MOST_JSON_BYTES,
    NAME,
    PRIORITY,
    SECONDS,
    TARGET_QUALITY,
    WEIGHT,
    Limit,
)
from easeml_core.store import actors, logins, schema, viewers
from easeml_core.store.refusals import OF_ARCHIVE
from easeml_core.store.roles import limits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2 import OperationalError as OperationalDriverError
    from sqlalchemy import URL, Connection, Engine

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

AWAY_ERRORS = (OperationalError, InterfaceError, PoolTimeoutError)
"""Errors of the driver, and of the pool, where a database is away: also of databases that others open."""

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE of a wait for a lock that has reached its limit."""

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE of what a role may not do."""

_NO_ENTRY = "permission denied for database"
"""PostgreSQL's message to a role that may not connect; the driver gives no SQLSTATE of a refused connection."""

_REFUSED_LOGIN = "password authentication failed"
"""PostgreSQL's message to a role with another password, or none."""

_NEEDS, _SOURCE = "easeml_needs", "easeml_source"
"""Execution options of an engine: what the error of a refused role names."""

# No payload beyond an id or a name (or * for any name): every role may listen.
_TOPIC = re.compile(
    rf"(answer|labels|request|suggestions|trial):[0-9]+|(alert|evidence|production|study|submission):({NAME.pattern}|\*)"
)

_NO_NUL = "cannot contain NUL"
"""In the driver's words."""

_NAME_RULE = f"must be {NAME.rule}"
_MAPPING = f"a mapping of at most {MOST_JSON_BYTES} bytes as JSON"
_JSON_RULE = f"must be {_MAPPING}, with all numbers written out"
_DISJOINT = "gate and meter need disjoint sets; seal other examples"


_Values: TypeAlias = Mapping[str, Any]
"""The values of a statement by the names of its parameters, and the database's own words as ``said`` and ``detail``."""


def _value(values: _Values, *names: str) -> str:
    return next((f", got {values[n]!r}" for n in names if n in values), "")


def _outside(values: _Values, name: str, limit: Limit, column: str = "") -> EasemlError:
    return InvalidInputError(f"{name} must be {limit.allowed}{_value(values, column or name)}")


def _live_already(values: _Values, system: str) -> EasemlError:
    return AlreadyExistsError(
        f"live sealed set of this study for the {system}",
        values.get("study_id"),
        remedy="retire it before sealing another",
    )


def _exceeded(values: _Values, what: str, remedy: str) -> EasemlError:
    """A limit that the database keeps; a trial without a bound met a limit that was set in the same moment."""
    found = json.loads(values["detail"])
    if found["taken"] is None:
        return ConcurrentUpdateError(f"the {what} {found['owner']!r} has just been set; try again")
    return BudgetExhaustedError(f"{what} {found['owner']!r}", found["taken"], found["allowed"], remedy)


# Violations whose cause is the caller's input: constraint -> our error.
_MEANING: dict[str, Callable[[_Values], EasemlError]] = {
    "studies_name_key": lambda v: AlreadyExistsError("study", v.get("name"), remedy="choose another name"),
    "tenants_name_check": lambda v: InvalidInputError(f"a tenant's name {_NAME_RULE}{_value(v, 'name')}"),
    "studies_name_check": lambda v: InvalidInputError(f"a study's name {_NAME_RULE}{_value(v, 'name')}"),
    "tenants_weight_check": lambda v: _outside(v, "weight", WEIGHT),
    "studies_weight_check": lambda v: _outside(v, "weight", WEIGHT),
    "tenants_max_parallel_check": lambda v: _outside(v, "max_parallel", MAX_PARALLEL),
    "tenants_quota_check": lambda v: _outside(v, "quota_seconds", SECONDS),
    "studies_budget_check": lambda v: _outside(v, "budget_seconds", SECONDS),
    "studies_priority_check": lambda v: _outside(v, "priority", PRIORITY),
    "studies_deadline_check": lambda v: InvalidInputError(
        f"deadline must be a point in time of the years 2000 to 2999{_value(v, 'deadline')}"
    ),
    "candidates_name_check": lambda v: InvalidInputError(
        f"a candidate's name must be 1 to {LONGEST_CANDIDATE} characters without control characters{_value(v, 'name')}"
    ),
    "data_sets_source_check": lambda v: InvalidInputError(
        f"a source must be at most {LONGEST_TEXT} characters, and its target at most {LONGEST_TARGET}"
    ),
    "studies_config_check": lambda _: InvalidInputError(
        f"a study's settings must be {_MAPPING}, with max_attempts {ATTEMPTS.rule}, "
        f"and time_limit_seconds {DURATION.rule}"
    ),
    "studies_target_check": lambda v: _outside(v, "target_quality", TARGET_QUALITY),
    "candidates_devices_check": lambda v: InvalidInputError(
        f"the devices of candidate {v.get('name')!r} must be 1 to {MOST_DEVICES} names, such as gpu, gpu:2 or gpu/4; "
        f"each kind {_NAME_RULE}"
        f"{_value(v, 'devices')}"
    ),
    "trials_device_check": lambda v: InvalidInputError(f"a device's kind {_NAME_RULE}{_value(v, 'device')}"),
    "studies_budget_kept": lambda v: _exceeded(
        v,
        "compute budget of study",
        "raise it with `easeml study set`, or wait for what open trials give back",
    ),
    "tenants_quota_kept": lambda v: _exceeded(
        v, "quota of tenant", "raise it with `easeml tenant set`, or wait for what open trials give back"
    ),
    "tenants_parallel_kept": lambda v: _exceeded(
        v, "open trials of tenant", "wait until some have ended, cancel some, or raise --max-parallel"
    ),
    "observations_quality_check": lambda v: InvalidInputError(
        f"quality must be a number in [0, 1], which NaN is not{_value(v, 'quality')}"
    ),
    "observations_cost_check": lambda v: _outside(v, "cost_seconds", COST_SECONDS, "cost"),
    "trials_cost_check": lambda v: _outside(v, "cost_seconds", COST_SECONDS, "cost"),
    "trials_once_per_data_key": lambda v: AlreadyExistsError(
        "trial of this candidate on this data version",
        v.get("candidate_id"),
        remedy="no candidate runs twice on it, and one trial at most takes the same place",
    ),
    "candidates_parameters_check": lambda v: InvalidInputError(
        f"the parameters of candidate {v.get('name')!r} {_JSON_RULE}"
    ),
    "requests_arguments_check": lambda _: InvalidInputError(f"a request's arguments {_JSON_RULE}"),
    "studies_forward_check": lambda v: StateError(
        f"{v['said']}; only the referee activates or refuses a new study, and nothing makes it new again"
    ),
    **OF_ARCHIVE,
    "trials_forward_check": lambda v: StateError(f"{v['said']}; states only move forward, start from its present one"),
    "test_sets_fingerprint_key": lambda v: AlreadyExistsError("sealed set", "with these examples", remedy=_DISJOINT),
    "examples_pkey": lambda v: AlreadyExistsError("sealed set", "with some of these examples", remedy=_DISJOINT),
    "test_sets_live_gate_key": lambda v: _live_already(v, "gate"),
    "test_sets_live_meter_key": lambda v: _live_already(v, "meter"),
    "test_sets_live_direct_key": lambda v: _live_already(v, "second meter"),
    "test_sets_name_key": lambda v: AlreadyExistsError(
        "test set of this study", v.get("name"), remedy="choose another name"
    ),
    "suggestion_requests_open_check": lambda v: StateError(
        f"{v['said']}; see that `easeml scheduler` runs with this database, and ask again once it has decided"
    ),
    "change_requests_open_check": lambda v: StateError(
        f"{v['said']}; see that `easeml scheduler` runs with this database, and ask again once it has made some"
    ),
    "rows_of_tenants_check": lambda v: StateError(
        f"{v['said']}; wait until the referee has answered what is open, or ask the provider for another tenant"
    ),
    "audit_rate_check": lambda v: StateError(f"{v['said']}; the rest is made in an hour, or by another login"),
    "test_sets_name_check": lambda v: InvalidInputError(f"a test set's name {_NAME_RULE}{_value(v, 'name')}"),
    "test_sets_forward_check": lambda v: StateError(
        f"{v['said']}; a set goes from planned over sealed, live and retired to released, and never back"
    ),
    "labels_labeler_check": lambda v: InvalidInputError(
        f"a labeler's name must be {LABELER.rule}{_value(v, 'labeler')}"
    ),
    "ledger_step_check": lambda v: BudgetExhaustedError(
        "steps of the sealed set", v.get("step", 1) - 1, v.get("steps", 0), "the referee must seal a new set"
    ),
    "ledger_system_step_check": lambda v: BudgetExhaustedError(
        f"{v.get('system', 'system')} steps of the sealed set",
        v.get("system_step", 1) - 1,
        v.get("system_steps", 0),
        "the referee must seal a new set",
    ),
    "promotions_verdict_fkey": lambda v: StateError(
        f"there is no recorded pass of this model{_value(v, 'model_id')}; ask the gate first, promote after a pass"
    ),
}


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
        actor: Whose name its changes bear in the audit where ``actors.acting`` says nothing else.
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
        actor: actors.Actor | None = None,
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
            execution_options={_NEEDS: needs, _SOURCE: source},
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
        return f"Store({_shown(self._url)!r})"

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
                viewers.take_role(tx, self._url.username or "")
                if writes:
                    actors.tell(tx, self._actor)
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

    Args:
        tx: The transaction.
        ending: Errors with which the whole transaction ends, so that no part of it is undone alone.

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


def _shown(url: URL) -> str:
    """The address for messages: without its password, and without options, since one of them may be the password."""
    return url.set(query={}).render_as_string(hide_password=True)


def translate(error: DBAPIError, engine: Engine) -> EasemlError:
    """Our error for a driver's error; the meaning of a violated constraint lies in its name."""
    code, address = getattr(error.orig, "pgcode", None), _shown(engine.url)
    if code == INSUFFICIENT_PRIVILEGE or (code is None and _NO_ENTRY in str(error.orig)):
        given = engine.get_execution_options()
        return _wrong_role(_first_line(error), engine.url, given.get(_NEEDS), given.get(_SOURCE, ""))
    if isinstance(error, IntegrityError):
        return _refusal(error)
    fault = database_fault(code)
    if code == LOCK_NOT_AVAILABLE:
        return ConcurrentUpdateError(_lock_message(error))
    if fault is DatabaseFault.CONCURRENT:
        return ConcurrentUpdateError("another transaction was in the way; try again")
    if fault is DatabaseFault.EXHAUSTED:
        return StoreExhaustedError(
            f"the database at {address} cannot do this now ({_first_line(error)}); "
            "give it what it lacks (disk, memory, time, the right to write), and try again"
        )
    if code is None and _REFUSED_LOGIN in str(error.orig):
        return StoreUnavailableError(
            f"the database at {address} refuses the login ({_first_line(error)}); correct the password where the "
            f"address stands ({engine.get_execution_options().get(_SOURCE) or 'EASEML_DATABASE_URL or --database'})"
        )
    if fault is DatabaseFault.AWAY or (code is None and isinstance(error, OperationalError | InterfaceError)):
        return StoreUnavailableError(
            f"the database at {address} cannot be reached ({_first_line(error)}); "
            "start it with `make up` or `easeml db start`, or correct the address"
        )
    return StoreError(f"the database failed: {_first_line(error)}")


def _lock_message(error: DBAPIError) -> str:
    """Say which lock was waited for; who holds it only an administrator of the server may see."""
    context = str(getattr(getattr(error.orig, "diag", None), "context", "") or "").split("\n")[0]
    return (
        f"another transaction was in the way; try again. It holds a lock{f' ({context})' if context else ''} for "
        "longer than this may wait; where that stays so, an administrator of the server finds its session with "
        "pg_blocking_pids() and pg_stat_activity, and ends it with pg_terminate_backend()"
    )


def refused_connection(error: OperationalDriverError, dsn: str) -> StoreError:
    """Our error for a connection of the listener that the server did not open.

    Args:
        error: The driver's.
        dsn: As of ``Store.dsn``.
    """
    if _NO_ENTRY in str(error):
        return _wrong_role(str(error).strip(), make_url(dsn), None, "")
    return StoreUnavailableError(str(error).strip())


def _wrong_role(said: str, url: URL, needed: str | None, source: str) -> StoreError:
    if _NO_ENTRY in said and logins.is_login(url.username or ""):  # `schema.upgrade` closes the database to them
        return StoreUnavailableError(f"{said}; an upgrade may be under way: try again")
    return WrongRoleError(said, role=url.username or "", address=_shown(url), source=source, needed=needed)


def _refusal(error: IntegrityError) -> EasemlError:
    meaning = _MEANING.get(violated(error))
    if meaning is not None:
        values = error.params if isinstance(error.params, dict) else {}
        detail = getattr(getattr(error.orig, "diag", None), "message_detail", None)
        return meaning({**values, "said": _first_line(error), "detail": detail})
    return StoreError(
        f"the database refuses this, and nothing was written: {_first_line(error)}; correct what was given, "
        "or report it as a fault of easeml with this line"
    )


def violated(error: IntegrityError) -> str:
    """Name of the constraint that was violated, or the empty string."""
    return str(getattr(getattr(error.orig, "diag", None), "constraint_name", "") or "")


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["no reason given"])[0]


def notify(tx: Connection, *topics: str, channel: str = CHANNEL) -> None:
    """Notify the listeners of the topics, when and only when this transaction commits.

    Raises:
        InvalidInputError: The topic is more than a kind with an id or a name; a notification carries nothing else.
    """
    tx.execute(text(NOTIFY), {"channel": channel, "topics": known_topics(*topics)})


NOTIFY = "SELECT pg_notify(:channel, topic) FROM unnest(CAST(:topics AS text[])) AS topic"
"""Notifies of ``known_topics``; a statement that writes may have it as its last part."""


def known_topics(*topics: str) -> list[str]:
    """Return the topics as a parameter of ``NOTIFY``.

    Raises:
        InvalidInputError: As of ``notify``.
    """
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

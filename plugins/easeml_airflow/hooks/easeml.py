"""From an Airflow connection to the store and the artifacts of Ease.ml, and what else a task has of Airflow.

That is the key under which it writes, the name that its changes bear in the audit, the metrics that measurements of
this process go to, and whether a name that Airflow did not find is missing at all.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseHook

from easeml_airflow import settings
from easeml_airflow.version_compat import AirflowNotFoundException, Stats
from easeml_core.errors import EasemlError, NotFoundError, StoreUnavailableError
from easeml_core.settings.config import require
from easeml_core.settings.connection import artifacts_of, database_url, extra_of, tls_of

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

    from easeml_core.client.installation import Client
    from easeml_core.entities import JsonObject
    from easeml_core.services.telemetry import Instrument
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.callers import Actor
    from easeml_core.store.database import Store

WORKER = "easeml_worker"
"""The role that everything in Airflow needs, but for the pages of the referee."""

REMEDY = (
    "start the stack with `make up`, or set AIRFLOW_CONN_{name} to a JSON connection of type easeml "
    "(host, port, schema, login, password, extra.artifacts)"
)


class EasemlHook(BaseHook):
    """Opens the store as the role that the connection names (``easeml_worker``; never the referee's).

    The connection's extra may hold what ``ConnectionExtra`` lists and nothing else. A word that was silently left out,
    such as a misspelt ``sslmode``, would leave a connection open that its owner believes to be closed.

    Args:
        easeml_conn_id: Connection of type ``easeml``; None means the installation's ``[easeml] conn_id``.
    """

    conn_name_attr = "easeml_conn_id"
    default_conn_name = "easeml_default"
    conn_type = "easeml"
    hook_name = "Ease.ml"

    def __init__(self, easeml_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.easeml_conn_id = easeml_conn_id or settings.conn_id()

    @cached_property
    def connection(self) -> Connection:
        """The connection itself.

        Raises:
            NotFoundError: If Airflow knows no such connection; says how to give it one.
            StoreUnavailableError: If Airflow could not look.
        """
        try:
            return self.get_connection(self.easeml_conn_id)
        except AirflowNotFoundException:
            require_missing("connection", self.easeml_conn_id)
            kind, remedy = "connection", REMEDY.format(name=self.easeml_conn_id.upper())
            raise NotFoundError(kind, self.easeml_conn_id, remedy=remedy) from None

    @cached_property
    def extra(self) -> JsonObject:
        """What the connection's extra holds; what a form left empty is not in it.

        Raises:
            ConfigError: If it holds anything that is not in ``ConnectionExtra``; the message has names, never values.
        """
        return extra_of(self.connection.extra_dejson, self._name_of_extra)

    @property
    def url(self) -> str:
        """Address of the database, with role, password and what the extra says of TLS; never log it.

        Raises:
            ConfigError: If host, login or database is missing in the connection, or the extra is not as it must be.
        """
        connection = self.connection
        given = {"host": connection.host, "login": connection.login, "schema (the database)": connection.schema}
        for field, value in given.items():
            require(bool(value), f"connection {self.easeml_conn_id!r}: {field}", value, "given")
        return database_url(
            host=connection.host or "",
            port=connection.port,
            database=connection.schema or "",
            login=connection.login or "",
            password=connection.password,
            tls=tls_of(self.extra, self._name_of_extra),
        )

    @property
    def source(self) -> str:
        """What an error calls the place that the address comes from."""
        return f"Airflow's connection {self.easeml_conn_id!r}"

    @property
    def _name_of_extra(self) -> str:
        """What errors call the extra."""
        return f"connection {self.easeml_conn_id!r}: extra"

    def get_store(self) -> Store:
        """The database of Ease.ml."""
        from easeml_core.store.database import Store

        connect_metrics()
        return Store(self.url, actor=task_actor(), needs=WORKER, source=self.source)

    def get_client(self) -> Client:
        """The installation for Python code of a task: studies, submissions, the gate, predictions."""
        from easeml_core.client.installation import Client

        return Client(self.get_store(), self.get_artifacts())

    def get_artifacts(self) -> ArtifactStore:
        """The folder of data parts and models, or the bucket, known to be the installation's.

        The connection says where this machine reaches the artifacts; the database says which they are.

        Raises:
            ArtifactPlaceError: If the place is not the installation's artifact store.
            ConfigError: As of ``named_artifacts``.
            StoreUnavailableError: If the database cannot be reached.
        """
        from easeml_core.services.operations.artifact_store import checked_artifacts

        artifacts, store = self.named_artifacts(), self.get_store()
        try:
            return checked_artifacts(store, artifacts, remembers=True)
        finally:
            store.close()

    def named_artifacts(self) -> ArtifactStore:
        """The place that the connection names; a bucket is read through a cache on this machine.

        Raises:
            ConfigError: If the connection's extra names no place, or is not as it must be.
            InvalidInputError: If it names an address that cannot be one of artifacts.
        """
        from easeml_core.files.cache import FileCache
        from easeml_core.store.artifacts.remote import artifact_store

        place = artifacts_of(self.extra, self._name_of_extra)
        is_elsewhere = "://" in place
        return artifact_store(
            place, FileCache(settings.cache_folder(), settings.cache_limit_mb()) if is_elsewhere else None
        )

    def get_conn(self) -> Store:
        """The name that Airflow gives to what every hook can do."""
        return self.get_store()

    def test_connection(self) -> tuple[bool, str]:
        """What the button in the connection's form says."""
        try:
            self.get_artifacts()
            store = self.get_store()
            with store.begin():
                pass  # beginning reaches the server and compares the schema's version
            store.close()
        except EasemlError as error:
            return False, str(error)
        return True, "The database answers and its schema is the one that this version needs."


def request_key(context: Context) -> str:
    """One key for all tries of one task instance: ``dag id/run id/task id/map index``.

    The same key gives the same answer: a retry never starts a second trial and never spends a sealed set twice.
    """
    index = context["ti"].map_index
    return f"{_of_task(context)}/{-1 if index is None else index}"


def key_of_all(context: Context) -> str:
    """One key for all mapped instances of a task in a run, ``dag id/run id/task id/all``.

    For requests that add their study: a study may be in another instance at the next try.
    """
    return f"{_of_task(context)}/all"


def _of_task(context: Context) -> str:
    ti = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}"


def task_actor() -> Actor | None:
    """Who acts in this process: the task that it runs, as ``dag id/run id/task id``; None outside of tasks.

    Airflow puts the three into the environment of every task before it executes, and the number of its try.
    """
    from easeml_core.store.callers import Actor

    found = [os.environ.get(f"AIRFLOW_CTX_{part}", "") for part in ("DAG_ID", "DAG_RUN_ID", "TASK_ID")]
    tried = os.environ.get("AIRFLOW_CTX_TRY_NUMBER", "")
    number = int(tried) if tried.isdecimal() and 1 <= int(tried) < 2**31 else None
    return Actor("/".join(found), "task", try_number=number) if all(found) else None


_RUNNER = "airflow.sdk.execution_time.task_runner"


def require_missing(kind: Literal["connection", "variable"], name: str) -> None:
    """Return where Airflow says that there is none of this name, or where it cannot be asked from this process.

    ``get_connection`` and ``Variable.get`` ask one backend of secrets after the other and pass over every error, so
    that an API server that is away, or has no database, reads like a missing name. Here the supervisor of the task or
    trigger itself is asked, whose answer tells the two apart (``airflow.sdk.execution_time.comms.ErrorResponse``).

    Args:
        kind: What was looked for.
        name: Under which it was not found.

    Raises:
        StoreUnavailableError: Airflow could not look, or finds it by now; a further try may.
    """
    supervisor = getattr(sys.modules.get(_RUNNER), "SUPERVISOR_COMMS", None)
    if supervisor is None:  # neither a task nor a trigger
        return
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection, GetVariable

    question, missing = {
        "connection": (GetConnection(conn_id=name), ErrorType.CONNECTION_NOT_FOUND),
        "variable": (GetVariable(key=name), ErrorType.VARIABLE_NOT_FOUND),
    }[kind]
    message = (
        f"Airflow could not look for the {kind} {name!r}: its API server, or the database of that, is away; "
        "the next try asks again"
    )
    try:
        answer = supervisor.send(question)
    except Exception as error:  # whatever it is: the supervisor did not say that there is none
        raise StoreUnavailableError(message) from error
    if not isinstance(answer, ErrorResponse) or answer.error is not missing:
        raise StoreUnavailableError(message)


_levels: dict[tuple[str, ...], float] = {}
"""What each level of this process is, by the name and what else tells one from another."""

_BACKENDS = ("statsd_on", "statsd_datadog_enabled")


def connect_metrics() -> None:
    """From now on hand measurements of this process to Airflow's metrics, if these go to StatsD or Datadog; repeatable.

    With OpenTelemetry on, Airflow has given the process a provider, which gets every measurement without this.
    """
    from airflow.configuration import conf

    from easeml_core.services import telemetry

    if any(conf.getboolean("metrics", name, fallback=False) for name in _BACKENDS):
        telemetry.add_sink(to_airflow)


def watch_listeners() -> None:
    """From now on count connections for notifications that this process opens anew; repeatable."""
    from easeml_core.services.telemetry import RECONNECTS
    from easeml_core.store import listen

    listen.on_reopened = partial(RECONNECTS.note, 1)


def to_airflow(measured: Instrument, value: float, labels: dict[str, str]) -> None:
    """Hand one measurement to Airflow: a counter as one, a time in milliseconds, a level as a gauge of this process."""
    if measured.kind == "counter":
        Stats.incr(measured.name, int(value), tags=labels)
    elif measured.kind == "level":
        of = measured.name, *labels.values()
        _levels[of] = _levels.get(of, 0.0) + value
        Stats.gauge(measured.name, _levels[of], tags=labels)
    else:
        Stats.timing(measured.name, timedelta(seconds=value), tags=labels)

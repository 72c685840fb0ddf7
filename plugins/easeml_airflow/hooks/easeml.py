"""From an Airflow connection to the store and the artifact folder of Ease.ml."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from easeml_airflow import settings
from easeml_airflow.hooks.request_key import task_actor
from easeml_airflow.lookups import require_missing
from easeml_airflow.version_compat import AirflowNotFoundException
from easeml_core.config import require
from easeml_core.connection import artifacts_of, database_url, extra_of, tls_of
from easeml_core.errors import EasemlError, NotFoundError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from easeml_core.client.installation import Client
    from easeml_core.entities import JsonObject
    from easeml_core.store.artifacts.local import ArtifactStore
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
        from easeml_airflow.hooks.measurements import connect
        from easeml_core.store.database import Store

        connect()
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
        from easeml_core.remote.cache import FileCache
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

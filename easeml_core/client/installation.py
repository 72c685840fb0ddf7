"""Find the database and the artifacts of an installation, and list its studies: for Python and the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.client.study_client import StudyClient
from easeml_core.errors import ConfigError, InvalidInputError, StoreUnavailableError
from easeml_core.formats.display import frame_of_records

if TYPE_CHECKING:
    from typing import Self

    from easeml_core.client.signatures import Actions
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
else:
    from easeml_core.client.actions import Actions


HOME = Path(".easeml")
"""State of the embedded installation, relative to the current folder."""

ADDRESS = "EASEML_DATABASE_URL"
"""Environment variable with the address of the database."""

WORKER = "easeml_worker"

LOCK_SECONDS = 15.0
"""How long a statement waits for a lock of another transaction; a person waits for it."""

_SCHEMES = ("postgresql", "postgresql+psycopg2", "postgres")


def open_database(
    url: str | None,
    *,
    source: str,
    role: str = WORKER,
    lock_timeout_seconds: float | None = None,
    connections: int = 2,
) -> Store:
    """Open the store at the address, or the embedded server's as this role.

    Args:
        url: The address; None for the embedded server of the current folder.
        source: Who gave the address, for errors about its role.
        role: Role that the work needs; of the embedded server, also the role that is opened.
        lock_timeout_seconds: As of ``Store``; None for ``LOCK_SECONDS`` as the worker.
        connections: As of ``Store``.

    Raises:
        StoreUnavailableError: No address was given and there is no embedded server here.
    """
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import Server, default_home

    if url is None:
        source = f"the embedded server of {HOME}"
        if not default_home().exists():
            message = (
                f"there is no database: no address was given, {ADDRESS} is not set, and there is no embedded server in "
                f"{HOME}; start one with `make up` or `easeml db start`, or give an address"
            )
            raise StoreUnavailableError(message)
        url = Server(default_home()).url(role, "easeml")
    if lock_timeout_seconds is None and role == WORKER:
        lock_timeout_seconds = LOCK_SECONDS
    return Store(url, needs=role, source=source, lock_timeout_seconds=lock_timeout_seconds, connections=connections)


def open_artifacts(place: str | None, store: Store) -> ArtifactStore:
    """Open the artifacts of the installation.

    Args:
        place: The requested folder or address; None for the one that the database names. Where it names none
            yet, that is ``.easeml/artifacts``, and becomes the installation's.
        store: The installation's database.

    Raises:
        ArtifactPlaceError: The place is not the installation's artifact store.
    """
    from easeml_core.services.operations.artifact_store import artifacts_of_installation, checked_artifacts
    from easeml_core.store.artifacts.remote import artifact_store

    if place is None and (found := artifacts_of_installation(store)) is not None:
        return found
    return checked_artifacts(store, artifact_store(HOME / "artifacts" if place is None else place))


class Client(Actions):
    """An installation, seen with the rights of one login; safe to share between threads.

    Nothing is connected before the first call, and nothing is read when a notebook shows the client. Use it in a
    ``with`` block, or call ``close``.

    Args:
        store: The database.
        artifacts: Folder or address of models and data; None for the one that the database names.
    """

    def __init__(self, store: Store, artifacts: str | ArtifactStore | None = None) -> None:
        self.store = store
        self._artifacts = artifacts

    @property
    def artifacts(self) -> ArtifactStore:
        """Models and data of the installation; opened on first use.

        Raises:
            ArtifactPlaceError: The place is not the installation's artifact store.
        """
        if self._artifacts is None or isinstance(self._artifacts, str):
            self._artifacts = open_artifacts(self._artifacts, self.store)
        return self._artifacts

    def studies(self) -> Any:
        """Return a pandas DataFrame with the studies that the login may see, one row each.

        Raises:
            InvalidInputError: pandas is not installed.
            StoreError: The database cannot be reached, or refuses the login.
        """
        from easeml_core.services.reports.overview import StudyEntry, overview

        return frame_of_records(overview(self.store).tenants, StudyEntry)

    def archived(self) -> Any:
        """Return a pandas DataFrame with the archived studies that the login may see, the newest first.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        from easeml_core.services.studies.archive import ArchivedStudy, archived_studies

        return frame_of_records(archived_studies(self.store), ArchivedStudy)

    def devices(self) -> Any:
        """Return a pandas DataFrame with the live devices that the login may see, one row each.

        Raises:
            InvalidInputError: pandas is not installed.
            StoreError: The database cannot be reached, or refuses the login.
        """
        from easeml_core.services.trials.devices import list_devices
        from easeml_core.store.tables.capacity import RegisteredDevice

        return frame_of_records(list_devices(self.store), RegisteredDevice)

    def study(self, name: str) -> StudyClient:
        """Return one study; ``NAME@NUMBER`` is an archived one whose name another study has taken.

        Raises:
            NotFoundError: There is no such study, or the login may not see it.
            StoreError: The database cannot be reached, or refuses the login.
        """
        from easeml_core.services.reports.overview import study_state

        if not isinstance(name, str):
            what = "the name of a study, a text"
            raise ConfigError(field="study", value=name, allowed=what)
        study_state(self.store, study=name)
        return StudyClient(self, name)

    def close(self) -> None:
        """Close the connections to the database."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.store!r}>"


def connect(url: str | None = None, *, artifacts: str | None = None) -> Client:
    """Open an installation with the login that an address carries.

    In an Airflow, ``EasemlHook(easeml_conn_id).get_client()`` of ``easeml_airflow.hooks.easeml`` opens the one of a
    connection.

    Args:
        url: ``postgresql://LOGIN:PASSWORD@HOST:PORT/DATABASE``, such as ``easeml tenant login`` prints. None for the
            environment variable EASEML_DATABASE_URL, and where that is not set, for the embedded server of
            ``./.easeml``.
        artifacts: Folder or address (``s3://BUCKET/PATH``) of models and data, where this machine reaches it; None for
            the one that the database names.

    Returns:
        The client. Nothing is connected yet.

    Raises:
        InvalidInputError: The address is none of PostgreSQL's.
        StoreUnavailableError: There is no address and no embedded server.

    Example:
        >>> import easeml_core as easeml
        >>> easeml.connect("postgresql://easeml_t_lab:secret@db.example:5432/easeml")
        <Client of Store('postgresql+psycopg2://easeml_t_lab:***@db.example:5432/easeml')>
    """
    source = "easeml_core.connect(url)"
    if url is None:
        url, source = os.environ.get(ADDRESS) or None, ADDRESS
    elif not isinstance(url, str) or url.partition("://")[0] not in _SCHEMES:
        message = (
            "url must be an address of PostgreSQL such as postgresql://LOGIN:PASSWORD@HOST:PORT/DATABASE, got "
            f"{_scheme(url)}"
        )
        raise InvalidInputError(message)
    return Client(open_database(url, source=source), artifacts)


def _scheme(url: object) -> str:
    """Return what may be shown of an address that is none: never the part that may be a password."""
    if not isinstance(url, str):
        return type(url).__name__
    return f"one that begins with {url.partition('://')[0]!r}" if "://" in url else "a text without ://"

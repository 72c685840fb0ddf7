"""Where a command finds its database and its artifacts, and the options that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.errors import StoreUnavailableError, WrongRoleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import Server

HOME = Path(".easeml")
"""State of the embedded installation, relative to where the command is run."""


def role_remedy(error: BaseException) -> str:
    """What to do about a database that refuses its role what a command needs; empty for other errors."""
    needed = error.needed if isinstance(error, WrongRoleError) else None
    if needed is None:
        return ""
    return (
        f"\nthis command needs the address of the role {needed}; that of the embedded server is given with "
        f'--database "$(easeml db url --role {needed})"'
    )


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--database``, with the environment variable behind it."""
    return click.option(
        "--database",
        metavar="URL",
        envvar="EASEML_DATABASE_URL",
        show_envvar=True,
        help="postgresql+psycopg2://role:password@host:port/database; default: the embedded server of ./.easeml",
    )(command)


def artifacts_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--artifacts``: the place of models and data."""
    return click.option(
        "--artifacts",
        metavar="PLACE",
        help="Folder or address (s3://BUCKET/PATH) of models and data, where this machine reaches it; default: the "
        "installation's, see `easeml db artifacts`.",
    )(command)


def embedded_server() -> Server:
    """The embedded server of the current folder; not started here."""
    from easeml_core.store.server.server import Server, default_home

    return Server(default_home())


def open_store(url: str | None, *, role: str = "easeml_worker", lock_timeout_seconds: float = 0) -> Store:
    """The store at the address, or the embedded server's as this role.

    Raises:
        StoreUnavailableError: No address was given and there is no embedded server here.
    """
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import default_home

    source = f"the embedded server of {HOME}" if url is None else _source_of_address()
    if url is None:
        if not default_home().exists():
            message = (
                f"there is no database: no --database, no EASEML_DATABASE_URL, and no embedded server in {HOME}; "
                "start one with `make up` or `easeml db start`, or give an address"
            )
            raise StoreUnavailableError(message)
        url = embedded_server().url(role, "easeml")
    return Store(url, lock_timeout_seconds=lock_timeout_seconds, needs=role, source=source)


def _source_of_address() -> str:
    """Which option or variable gave the present command its database."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.get_parameter_source("database")
    return "EASEML_DATABASE_URL" if found is click.core.ParameterSource.ENVIRONMENT else "--database"


def open_installation(
    url: str | None, place: str | None, *, role: str = "easeml_worker"
) -> tuple[Store, ArtifactStore]:
    """The store and the artifacts of one installation; as of ``open_store`` and ``open_artifacts``."""
    store = open_store(url, role=role)
    return store, open_artifacts(place, store)


def open_artifacts(place: str | None, store: Store) -> ArtifactStore:
    """The artifacts of the installation.

    Args:
        place: The folder or address that was asked for; None for the one that the database names. Where it names none
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

"""Where a command finds its database and its artifacts, and the options that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.errors import StoreUnavailableError, WrongRoleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.server import Server

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
        default=str(HOME / "artifacts"),
        show_default=True,
        help="Folder or address (s3://BUCKET/PATH) of models and data; the same for workers and referee.",
    )(command)


def embedded_server() -> Server:
    """The embedded server of the current folder; not started here."""
    from easeml_core.store.server import Server, default_home

    return Server(default_home())


def open_store(url: str | None, *, role: str = "easeml_worker", lock_timeout_seconds: float = 0) -> Store:
    """The store at the address, or the embedded server's as this role.

    Raises:
        StoreUnavailableError: No address was given and there is no embedded server here.
    """
    from easeml_core.store.database import Store
    from easeml_core.store.server import default_home

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


def open_artifacts(place: str | Path) -> ArtifactStore:
    """The artifact store in the folder or at the address."""
    from easeml_core.store.remote_artifacts import artifact_store

    return artifact_store(place)

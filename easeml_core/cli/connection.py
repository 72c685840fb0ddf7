"""Where a command finds its database and its artifacts, and the options that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.server import Server

INSUFFICIENT_PRIVILEGE = "42501"
"""PostgreSQL's code for what a role may not do."""

HOME = Path(".easeml")
"""State of the embedded installation, relative to where the command is run."""


ROLE = "easeml.role"
"""Where the click context keeps the role that the command needs."""


def role_remedy(error: BaseException, role: str | None) -> str:
    """What to do about a database that refuses its role what a command needs; empty for other errors.

    Args:
        error: An error of ours; the driver's is its cause.
        role: The role that the command needs, or None where it has opened no store.
    """
    code = getattr(getattr(error.__cause__, "orig", None), "pgcode", None)
    if code != INSUFFICIENT_PRIVILEGE or role is None:
        return ""
    return (
        f"\nthis command needs the address of the role {role}; that of the embedded server is given with "
        f'--database "$(easeml db url --role {role})"'
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

    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[ROLE] = role  # for the error where the address is another role's
    if url is None:
        if not default_home().exists():
            message = (
                f"there is no database: no --database, no EASEML_DATABASE_URL, and no embedded server in {HOME}; "
                "start one with `make up` or `easeml db start`, or give an address"
            )
            raise StoreUnavailableError(message)
        url = embedded_server().url(role, "easeml")
    return Store(url, lock_timeout_seconds=lock_timeout_seconds)


def open_artifacts(place: str | Path) -> ArtifactStore:
    """The artifact store in the folder or at the address."""
    from easeml_core.store.remote_artifacts import artifact_store

    return artifact_store(place)

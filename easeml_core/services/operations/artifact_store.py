"""The installation's artifact store: adopted at first use, compared at every other, changed by the owner.

What a command stores in another place than that of the workers and the referee is never found. Each command, task, page
and referee that opens a place therefore compares the identity in its marker with the one in the database.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, ArtifactPlaceError, NotFoundError
from easeml_core.store.artifacts import location as rows
from easeml_core.store.artifacts.remote import artifact_store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.artifacts.location import ArtifactPlace
    from easeml_core.store.database import Store

REMEMBERED_SECONDS = 60.0
"""How long a process relies on an earlier comparison."""

_checked: dict[tuple[str, str], tuple[float, str | None]] = {}
"""When a place was compared with a database, and the identity that it has; None for a place that was not adopted."""


def installed_place(store: Store) -> ArtifactPlace | None:
    """Return the installation's artifact store; None where none was used yet. Any role."""
    with store.begin() as tx:
        return rows.artifact_place(tx)


def checked_artifacts(store: Store, artifacts: ArtifactStore, *, remembers: bool = False) -> ArtifactStore:
    """Return the artifacts once they are known to be the installation's.

    Where the installation has none yet, these are adopted if they hold the newest data that the database names, or it
    names none. A place that this account cannot write to is used as it is, and not adopted.

    Args:
        store: Role ``easeml_worker``, ``easeml_referee`` or ``easeml_owner``.
        artifacts: The requested place.
        remembers: Whether a comparison of this process within the last minute suffices.

    Raises:
        ArtifactPlaceError: The installation's artifacts are another store.
        ArtifactError: The place cannot be read.
    """
    key = (store.dsn, artifacts.place)
    compared, identity = _checked.get(key, (-REMEMBERED_SECONDS, None))
    if not remembers or time.monotonic() - compared >= REMEMBERED_SECONDS:
        with store.begin() as tx:
            known = rows.artifact_place(tx)
            if known is None:
                known = _adopt(tx, artifacts)
            if known is not None and artifacts.identity() != known.store_id:
                raise ArtifactPlaceError(asked=artifacts.place, installed=known.place)
        identity = None if known is None else known.store_id
        _checked[key] = (time.monotonic(), identity)
    if identity is not None:
        artifacts.expect(identity)
    return artifacts


def artifacts_of_installation(store: Store) -> ArtifactStore | None:
    """Return the artifacts at the place in the database; None where the installation has none yet.

    Raises:
        ArtifactPlaceError: That place holds another store on this machine, or nothing.
        ArtifactError: The place cannot be read.
    """
    known = installed_place(store)
    if known is None:
        return None
    artifacts = artifact_store(known.place)
    if artifacts.identity() != known.store_id:
        raise ArtifactPlaceError(asked=None, installed=known.place)
    artifacts.expect(known.store_id)
    return artifacts


def set_artifacts(store: Store, artifacts: ArtifactStore, *, unchecked: bool = False) -> ArtifactPlace:
    """Make a place the installation's artifact store; harmless where it is.

    A copy of the present store has the marker of that, so both would be taken for the installation's. Under another
    place's name the marker is therefore written anew, with a new identity, and what still names the store that was
    copied is refused. Where the name is another one of the same storage, every host reads the new marker there.

    Args:
        store: Role ``easeml_owner``.
        artifacts: The place; its marker is made where it has none.
        unchecked: Whether it may lack the newest data that the database names.

    Raises:
        NotFoundError: It lacks the data.
        ArtifactError: The marker cannot be read or written.
        WrongRoleError: The role is not the owner's.
    """
    with store.begin() as tx:
        newest = rows.newest_artifact(tx)
        if newest is not None and not unchecked and not _holds(artifacts, *newest):
            kind, remedy = "artifact", f"copy the artifacts to {artifacts.place} first, or give --unchecked"
            raise NotFoundError(kind, newest[1], owner=artifacts.place, remedy=remedy)
        known, identity = rows.artifact_place(tx), artifacts.identity()
        is_copy = known is not None and identity == known.store_id and artifacts.place != known.place
        if identity is None or is_copy:
            identity = uuid.uuid4().hex
        rows.set_place(tx, store_id=identity, place=artifacts.place)  # first: another role leaves no marker
        _mark(artifacts, identity, replaces=is_copy)
        found = rows.artifact_place(tx)
    assert found is not None  # it has just been written
    _checked.clear()
    return found


def _adopt(tx: Connection, artifacts: ArtifactStore) -> ArtifactPlace | None:
    """Make the artifacts the installation's; None where this account may not write there.

    The row comes before the marker: its primary key lets one process at a time make one.
    """
    newest = rows.newest_artifact(tx)
    if newest is not None and not _holds(artifacts, *newest):
        raise ArtifactPlaceError(asked=artifacts.place, installed=None)
    if not artifacts.is_writable():
        return None
    identity = artifacts.identity() or uuid.uuid4().hex
    if rows.adopt_place(tx, store_id=identity, place=artifacts.place):
        _mark(artifacts, identity)
    return rows.artifact_place(tx)


def _holds(artifacts: ArtifactStore, tenant: str, reference: str) -> bool:
    return artifacts.of_tenant(tenant).holds(reference)


def _mark(artifacts: ArtifactStore, identity: str, *, replaces: bool = False) -> None:
    if artifacts.mark(identity, replaces=replaces) != identity:
        message = f"{artifacts.place} was marked by another installation in this moment; try again"
        raise ArtifactError(message)

"""Which artifact store the installation uses, as the one row of ``work.artifact_store``.

A store is known by the identity in its marker file, not by its path: two hosts may mount the same storage at different
paths, and one path may hold another store on another host. Any role adds the row where there is none; only the owner
changes it, so a task cannot move the installation's artifacts.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.store.rows import change, row

if TYPE_CHECKING:
    from sqlalchemy import Connection


@typed_record
class ArtifactPlace:
    """The artifact store of an installation.

    Attributes:
        store_id: Identity in the marker of the store, 32 hex digits.
        place: Path or address on the host that set it.
        set_at: When, by the database's clock.
        set_by: Role of the database that set it.
    """

    store_id: str
    place: str
    set_at: datetime
    set_by: str


def artifact_place(tx: Connection) -> ArtifactPlace | None:
    """Return the installation's artifact store; None where it has none yet."""
    found = row(tx, "SELECT store_id, place, set_at, set_by FROM work.artifact_store")
    return None if found is None else ArtifactPlace(**found._mapping)


def adopt_place(tx: Connection, *, store_id: str, place: str) -> bool:
    """Add the row unless there is one; whether it was added. A second call waits for the transaction of the first."""
    added = change(
        tx,
        "INSERT INTO work.artifact_store (store_id, place) VALUES (:store_id, :place) "
        "ON CONFLICT ON CONSTRAINT artifact_store_pkey DO NOTHING",
        store_id=store_id,
        place=place,
    )
    return bool(added)


def set_place(tx: Connection, *, store_id: str, place: str) -> None:
    """Add or replace the row. Role ``easeml_owner``."""
    change(
        tx,
        "INSERT INTO work.artifact_store (store_id, place) VALUES (:store_id, :place) "
        "ON CONFLICT ON CONSTRAINT artifact_store_pkey DO UPDATE SET store_id = :store_id, place = :place, "
        "set_at = now(), set_by = session_user",
        store_id=store_id,
        place=place,
    )


def newest_artifact(tx: Connection) -> tuple[str, str] | None:
    """Return tenant and reference of the newest data, which lie in the installation's store; None without data."""
    found = row(
        tx,
        "SELECT t.name, v.artifact FROM work.data_versions v JOIN work.studies s ON s.id = v.study_id "
        "JOIN work.tenants t ON t.id = s.tenant_id ORDER BY v.id DESC LIMIT 1",
    )
    return None if found is None else (str(found.name), str(found.artifact))

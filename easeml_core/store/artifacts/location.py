"""Which artifact store the installation uses: its row in ``work.artifact_store``, and the marker in the store's root.

A store is known by the identity in its marker file, not by its path: two hosts may mount the same storage at different
paths, and one path may hold another store on another host. A folder without a marker is another one, or the empty mount
point of a store that is away. Any role adds the row where there is none; only the owner changes it, so a task cannot
move the installation's artifacts.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import is_put_off
from easeml_core.formats.encoding import typed_record
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


MARKER = "easeml-store.json"
"""Name of the file."""

MARKER_BYTES = 4096

_IDENTITY = re.compile(r"[0-9a-f]{32}")
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def marker_text(identity: str) -> str:
    """Return the content of a marker."""
    return json.dumps({"easeml": "artifact store", "id": identity}) + "\n"


def identity_of(content: bytes) -> str | None:
    """The identity in a marker; None where the content is none."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    identity = found.get("id") if isinstance(found, dict) else None
    return identity if isinstance(identity, str) and _IDENTITY.fullmatch(identity) else None


def identity_in(root: Path | int) -> str | None:
    """Return the identity of a folder, or of an open one; None where there is no marker in it."""
    path, folder = (MARKER, root) if isinstance(root, int) else (str(root / MARKER), None)
    try:
        with open(os.open(path, _PLAIN, dir_fd=folder), "rb") as reader:
            return identity_of(reader.read(MARKER_BYTES))
    except OSError as error:
        if is_put_off(error) or isinstance(error, PermissionError):
            raise
        return None


def write_marker(root: Path, identity: str, *, prefix: str, replaces: bool = False) -> None:
    """Write the marker into a folder unless there is one, whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=root, prefix=prefix)
    try:
        with open(handle, "w", encoding="utf-8") as writer:
            writer.write(marker_text(identity))
            os.fchmod(writer.fileno(), 0o644)
            writer.flush()  # fsync does not know this buffer
            os.fsync(writer.fileno())
        if replaces:
            Path(name).replace(root / MARKER)
        else:
            _put_in_place(Path(name), root / MARKER)
    finally:
        Path(name).unlink(missing_ok=True)


def _put_in_place(whole: Path, target: Path) -> None:
    """Give a file its name unless the name is taken; the row in the database lets one writer in at a time."""
    try:
        os.link(whole, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not target.exists():
            whole.rename(target)

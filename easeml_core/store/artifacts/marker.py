"""The marker of an artifact store: a file in its root that holds its identity.

A folder without it is another one, or the empty mount point of a store that is away.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

from easeml_core.faults import is_put_off

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
    """Return the identity of a folder, or of an open one; None where there is no marker in it.

    Raises:
        OSError: The folder has a fault, or this account may not read the marker: not the same as no marker.
    """
    path, folder = (MARKER, root) if isinstance(root, int) else (str(root / MARKER), None)
    try:
        with open(os.open(path, _PLAIN, dir_fd=folder), "rb") as reader:
            return identity_of(reader.read(MARKER_BYTES))
    except OSError as error:
        if is_put_off(error) or isinstance(error, PermissionError):
            raise
        return None


def write_marker(root: Path, identity: str, *, prefix: str, replaces: bool = False) -> None:
    """Write the marker into a folder unless there is one, whole or not at all.

    Args:
        root: The folder; made where it is missing.
        identity: The identity.
        prefix: How the name of an unfinished file begins.
        replaces: Whether to write it also where there is one.

    Raises:
        OSError: It cannot be written.
    """
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

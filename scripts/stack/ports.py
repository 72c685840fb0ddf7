"""The port of the API server: a free one of loopback, if possible the same as last time, so bookmarks stay good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.errors import StateError
from easeml_core.store.server.cluster import free_port

if TYPE_CHECKING:
    from pathlib import Path


def remembered_port(path: Path) -> int:
    """The port in the file if it is still free, else another one, which the file then holds.

    Raises:
        StateError: If this machine has no free port.
    """
    try:
        wanted = int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        wanted = 0
    port = (free_port(wanted) if 0 < wanted < 2**16 else None) or free_port()
    if port is None:
        message = "no port of 127.0.0.1 is free"
        raise StateError(message)
    path.write_text(f"{port}\n", encoding="utf-8")
    return port

"""Embedded servers for tests and trials: fast, in memory where there is room, gone at the end of a block."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from easeml_core.errors import StateError
from easeml_core.store.server.files import owner_lock
from easeml_core.store.server.server import START_LOCK, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Such a server may lose everything with the machine, so it need not wait for a disk. Its passwords are random and die
# with it, so that one iteration of their hash suffices: a log-in takes 2 ms in place of 19 ms.
FAST_SETTINGS: Mapping[str, str | int] = MappingProxyType(
    {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "scram_iterations": 1}
)
PREFIX = "easeml-throwaway-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made by mkdtemp
ROOMY_BYTES = 1 << 30  # containers often have 64 MB, in which one cluster hardly fits
YOUNG_SECONDS = 60
_LOCK = "in-use.lock"


@contextmanager
def throwaway_server(**settings: str | int) -> Iterator[Server]:
    """Start a separate server, with nothing installed in it.

    Args:
        settings: As for ``Server``, over those that make it fast and unsafe against power cuts.
    """
    with throwaway_folder() as folder, Server(folder / "home", **{**FAST_SETTINGS, **settings}).owned() as server:
        yield server


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """A folder for one home or more, reachable for the server's account.

    At the end the servers of all our homes in it are stopped, and all is removed. What killed processes could not
    remove is swept away here too.
    """
    parent = SHARED_MEMORY if _is_roomy(SHARED_MEMORY) else Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    folder.chmod(0o711)
    with owner_lock(folder / _LOCK, f"the throw-away folder {folder}"):
        try:
            yield folder
        finally:
            _remove(folder)


def sweep_throwaways() -> None:
    """Stop the servers and remove the folders that killed processes of this account left, wherever they may lie."""
    for parent in {SHARED_MEMORY, Path(tempfile.gettempdir())}:
        if parent.is_dir():
            _sweep(parent)


def _is_roomy(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOMY_BYTES


def _sweep(parent: Path) -> None:
    """Remove the folders of dead processes; a young one may be about to be locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        # Another sweeper was faster, it is in use, or its server does not stop.
        with contextlib.suppress(FileNotFoundError, StateError):
            about = folder.stat()
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > YOUNG_SECONDS:
                with owner_lock(folder / _LOCK, f"the throw-away folder {folder}"):
                    _remove(folder)


def _remove(folder: Path) -> None:
    homes = [lock.parent for lock in folder.rglob(START_LOCK) if lock.stat().st_uid == os.geteuid()]
    for server in map(Server, homes):
        server.stop()
        shutil.rmtree(server.place, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)

"""Checkpoints on their way to where the next attempt finds them, beside the training.

A slow place, such as a bucket, must keep no heartbeat and no cancel waiting. One file travels at a time: what comes
meanwhile is passed over, since a newer one will follow.
"""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError
from easeml_core.store.tables.trials import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.store.artifacts.local import ArtifactStore


class Keeper:
    """Keeps the checkpoints of one attempt.

    Args:
        files: Makes the place where they are kept; called in the thread that keeps.
    """

    def __init__(self, files: Callable[[], ArtifactStore]) -> None:
        self._files = files
        self._thread: threading.Thread | None = None
        self._kept: queue.SimpleQueue[Checkpoint | ArtifactError] = queue.SimpleQueue()

    def start(self, path: Path, seconds: float, progress: float) -> None:
        """Keep this file, unless one is under way, or it has gone already: then a newer one will follow."""
        if self._thread is not None and self._thread.is_alive():
            return
        same = path.with_name(f"{path.name}.kept")
        same.unlink(missing_ok=True)
        try:
            os.link(path, same)  # whoever wrote it may remove it at any time
        except FileNotFoundError:
            return
        self._thread = threading.Thread(
            target=self._put, args=(same, seconds, progress), name="easeml-keep", daemon=True
        )
        self._thread.start()

    def _put(self, path: Path, seconds: float, progress: float) -> None:
        try:
            self._kept.put(Checkpoint(self._files().put(path), seconds, progress))
        except ArtifactError as error:
            self._kept.put(error)

    def kept(self) -> Checkpoint | ArtifactError | None:
        """What has been kept since the last time, or why it was not; None while nothing is new."""
        return None if self._kept.empty() else self._kept.get()

    def discard(self, reference: str) -> None:
        """Remove one that a newer one has replaced."""
        self._files().discard(reference)

    def join(self) -> None:
        """Wait for the one that is under way."""
        if self._thread is not None:
            self._thread.join()

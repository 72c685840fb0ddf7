"""Files of the artifact store that no row names: what a process left that was killed between a file and its row.

A file lies there before its row is written, so only one that nothing has written for longer than a grace period is an
orphan. Storing the same content again counts as writing: it makes the file young (``ArtifactStore.put``), under a lock
that the removal respects, so that none is removed between ``put`` and the row.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.limits import NAME
from easeml_core.store.artifacts.checkpoint_files import CHECKPOINTS
from easeml_core.store.artifacts.local import TENANTS_FOLDER, ArtifactStore, is_unfinished
from easeml_core.store.artifacts.references import named_files
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.tables.trials import ended_trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from sqlalchemy import Connection

    from easeml_core.store.artifacts.references import NamedFile
    from easeml_core.store.database import Store

DAY_SECONDS = 86_400.0
_SHARD, _DIGEST = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{64}")


class StoredFile(NamedTuple):
    """A file of the store.

    Attributes:
        path: Relative to the store's root.
        tenant: In whose folder it lies; None for the root, where an earlier version kept the files of all.
        size: Bytes.
        modified: When it was written last, seconds since 1970.
    """

    path: PurePosixPath
    tenant: str | None
    size: int
    modified: float

    @property
    def inner(self) -> tuple[str, ...]:
        """Its path inside the tenant's folder."""
        return self.path.parts if self.tenant is None else self.path.parts[2:]

    @property
    def reference(self) -> str | None:
        """``sha256:<hex>`` of a file under its content's hash; None of any other."""
        inner = self.inner
        is_content = len(inner) == 2 and _SHARD.fullmatch(inner[0]) and _DIGEST.fullmatch(inner[1])
        return f"sha256:{inner[1]}" if is_content else None

    @property
    def trial_id(self) -> int | None:
        """The trial of a checkpoint; None of any other file."""
        inner = self.inner
        is_checkpoint = len(inner) > 2 and inner[0] == CHECKPOINTS and inner[1].isdecimal() and len(inner[1]) < 19
        return int(inner[1]) if is_checkpoint else None


def stored_files(artifacts: ArtifactStore) -> Iterator[StoredFile]:
    """Yield all plain files of a store, as far as this account may list them. No link is followed."""
    found = artifacts.listed() if isinstance(artifacts, RemoteArtifactStore) else _walked(artifacts)
    for path, size, modified in found:
        parts = path.parts
        inside = len(parts) > 2 and parts[0] == TENANTS_FOLDER and NAME.holds(parts[1])
        yield StoredFile(path, parts[1] if inside else None, size, modified)


def _walked(artifacts: ArtifactStore) -> Iterator[tuple[PurePosixPath, int, float]]:
    for folder, _, names, descriptor in os.fwalk(artifacts.root, follow_symlinks=False):
        inner = PurePosixPath(folder).relative_to(PurePosixPath(artifacts.root))
        for name in names:
            with contextlib.suppress(OSError):  # just removed, or just given its name
                about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(about.st_mode):
                    yield inner / name, about.st_size, about.st_mtime


def find_orphans(tx: Connection, artifacts: ArtifactStore, *, older_than: float) -> list[StoredFile]:
    """Return the files that no row names and that nothing has written for some time.

    They are: files under a content's hash that no row of their tenant names (in the root: of any tenant), files without
    their name yet, and checkpoints of trials that have ended. Uploads have a separate time limit. What has any
    other name is nothing of ours.

    Args:
        tx: A role that sees the rows of all tenants.
        artifacts: The installation's store.
        older_than: Seconds since the last write, >= 0.
    """
    before = time.time() - older_than
    # Listed before the rows are read: what is written meanwhile is young.
    old = [file for file in stored_files(artifacts) if file.modified <= before]
    ended = ended_trials(tx, sorted({file.trial_id for file in old if file.trial_id is not None}))
    return orphans_among(old, named_files(tx), set(ended))


def orphans_among(files: Iterable[StoredFile], named: Set[NamedFile], ended: Set[int]) -> list[StoredFile]:
    """Return the orphans among some files, as of ``find_orphans``.

    Args:
        files: All of them, or the old ones.
        named: What rows name.
        ended: Ids of trials that have ended.
    """
    of_any = {reference for _, reference in named}

    def is_orphan(file: StoredFile) -> bool:
        if file.reference is not None:
            return file.reference not in of_any if file.tenant is None else (file.tenant, file.reference) not in named
        if file.trial_id is not None:
            return file.trial_id in ended
        return len(file.inner) == 1 and is_unfinished(file.path)

    return [file for file in files if is_orphan(file)]


def remove_orphan(artifacts: ArtifactStore, file: StoredFile, *, older_than: float) -> bool:
    """Remove a file of a folder unless it was written meanwhile; whether it was removed."""
    with contextlib.suppress(OSError), artifacts._folder(*file.path.parts[:-1]) as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(file.path.name, flags, dir_fd=folder), "rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(opened.fileno()).st_mtime > time.time() - older_than:
                return False
            os.unlink(file.path.name, dir_fd=folder)
            return True
    return False


def remove_unfinished_folders(artifacts: ArtifactStore, *, older_than: float) -> None:
    """Remove the empty folders that a killed process has made and not given their names, of such an age in seconds."""
    before = time.time() - older_than
    for _, folders, _, descriptor in os.fwalk(artifacts.root, follow_symlinks=False):
        for name in [n for n in folders if is_unfinished(PurePosixPath(n), is_folder=True)]:
            with contextlib.suppress(OSError):  # it has just got its name, or is another account's
                if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime <= before:
                    os.rmdir(name, dir_fd=descriptor)


def remove_orphans(store: Store, artifacts: ArtifactStore, *, days: float) -> int:
    """Remove the orphans of a folder, and folders that have not got their names; how many orphans.

    Args:
        store: A role that sees the rows of all tenants.
        artifacts: The installation's store, a folder.
        days: Since nothing has written them, >= 1.
    """
    remove_unfinished_folders(artifacts, older_than=days * DAY_SECONDS)
    with store.begin() as tx:
        found = find_orphans(tx, artifacts, older_than=days * DAY_SECONDS)
    return sum(remove_orphan(artifacts, file, older_than=days * DAY_SECONDS) for file in found)

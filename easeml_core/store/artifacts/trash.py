"""Files of an object store that no row names: put aside, and removed a day later unless a row names them by then.

An object store has no locks, so that a process may find its content there, write a row that names it, and lose the file
to a removal that was decided before. Therefore a removal copies the file to ``trash/`` in the same folder first, where
readers look for what they miss (``remote.py``), and the copy goes only when the rows are asked once more, a day later:
a row follows its file within that time. Each step can be repeated, so a kill anywhere loses nothing. What has changed
since a sweep looked is left alone: many files take it long, and referees sweep side by side.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.remote.object_faults import as_os_errors
from easeml_core.remote.object_files import filesystem
from easeml_core.remote.uploads import abort, unfinished
from easeml_core.store.artifacts.orphans import StoredFile, orphans_among, stored_files
from easeml_core.store.artifacts.references import NamedFile, named_files
from easeml_core.store.artifacts.remote import TRASH
from easeml_core.store.tables.trials import ended_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import PurePosixPath

    from easeml_core.remote.uploads import Unfinished
    from easeml_core.store.artifacts.remote import RemoteArtifactStore
    from easeml_core.store.database import Store

TRASH_SECONDS = 86_400.0
"""How long a file lies in the trash: longer than any process takes from a file to the row that names it."""

_AT_ONCE = 100
"""Files that go after one look at the rows."""
_OURS = re.compile(r"(?:.*/)?([0-9a-f]{2})/\1[0-9a-f]{62}")


class Found(NamedTuple):
    """What a sweep of an object store has to do, or has done.

    Attributes:
        orphans: Files that no row names, unwritten for long.
        trashed: Files in the trash, for long enough, that no row names.
        needed: Files in the trash that a row names: one was written after they were put aside.
        uploads: Uploads in parts that were begun long ago and not ended.
    """

    orphans: list[StoredFile]
    trashed: list[StoredFile]
    needed: list[StoredFile]
    uploads: list[Unfinished]

    @property
    def removed(self) -> int:
        """How many files and uploads are put aside, removed or given up."""
        return len(self.orphans) + len(self.trashed) + len(self.uploads)


def uploads_of(artifacts: RemoteArtifactStore) -> list[Unfinished]:
    """Return the unfinished uploads of files of the store: others may use the bucket, and names beside the store's.

    Raises:
        OSError: The object store cannot be listed.
    """
    return list(_ours(artifacts))


def _ours(artifacts: RemoteArtifactStore) -> Iterator[Unfinished]:
    for one in unfinished(filesystem(artifacts.address.protocol), artifacts.key()):
        with contextlib.suppress(ValueError):  # of another place that begins with the same letters
            if _OURS.fullmatch(str(artifacts.inner(one.key))):
                yield one


def find(store: Store, artifacts: RemoteArtifactStore, *, older_than: float) -> Found:
    """Look through an object store.

    Args:
        store: A role that sees the rows of all tenants.
        artifacts: The installation's store.
        older_than: Seconds since a file was written, and an upload begun, >= 0.

    Raises:
        OSError: The object store cannot be listed.
    """
    now = time.time()
    files = list(stored_files(artifacts))  # listed before the rows are read: what is written meanwhile is young
    old = [file for file in files if file.modified <= now - older_than]
    uploads = uploads_of(artifacts)
    with store.begin() as tx:
        ended = set(ended_trials(tx, sorted({file.trial_id for file in old if file.trial_id is not None})))
        named = named_files(tx)
    put_aside = [file for file in files if is_trash(file)]
    needed = [file for file in put_aside if _is_named(file, named)]
    gone = [file for file in put_aside if file not in needed and file.modified <= now - TRASH_SECONDS]
    late = [one for one in uploads if one.began <= now - max(older_than, TRASH_SECONDS)]
    return Found(orphans_among(old, named, ended), gone, needed, late)


def is_trash(file: StoredFile) -> bool:
    """Whether a file was put aside."""
    inner = file.inner
    return len(inner) == 3 and inner[0] == TRASH and inner[2].startswith(inner[1])


def _is_named(file: StoredFile, named: Set[NamedFile]) -> bool:
    reference = f"sha256:{file.inner[2]}"
    if file.tenant is None:
        return any(one.reference == reference for one in named)
    return NamedFile(file.tenant, reference) in named


def clear(store: Store, artifacts: RemoteArtifactStore, found: Found) -> Found:
    """Do what a sweep has to do; return what was done.

    Args:
        store: As of ``find``: the rows are asked once more before a file goes.
        artifacts: The installation's store.
        found: What ``find`` has returned.

    Raises:
        OSError: The object store cannot be written; a repetition goes on.
    """
    files = filesystem(artifacts.address.protocol)
    done = Found([], [], [], found.uploads)
    for file in found.needed:
        with contextlib.suppress(FileNotFoundError), as_os_errors():  # another sweep was there first
            aside, place = artifacts.key(file.path), artifacts.key(_out_of_trash(file))
            if not files.exists(place):
                files.cp_file(aside, place)
            files.rm_file(aside)
            done.needed.append(file)
    for file in found.orphans:
        if _is_unchanged(artifacts, file):
            with contextlib.suppress(FileNotFoundError), as_os_errors():
                if file.reference is not None:
                    files.cp_file(artifacts.key(file.path), artifacts.key(_into_trash(file)))  # its day begins now
                files.rm_file(artifacts.key(file.path))
                done.orphans.append(file)
    for start in range(0, len(found.trashed), _AT_ONCE):
        with store.begin() as tx:
            named = named_files(tx)
        for file in found.trashed[start : start + _AT_ONCE]:
            if not _is_named(file, named) and _is_unchanged(artifacts, file):
                with contextlib.suppress(FileNotFoundError), as_os_errors():
                    files.rm_file(artifacts.key(file.path))
                    done.trashed.append(file)
    for upload in found.uploads:
        abort(files, upload)
    return done


def _is_unchanged(artifacts: RemoteArtifactStore, file: StoredFile) -> bool:
    """Whether a file is there as it was listed, within the second that some servers leave out of a single answer."""
    modified = artifacts.modified(file.path)
    return modified is not None and modified < file.modified + 1


def _into_trash(file: StoredFile) -> PurePosixPath:
    return file.path.parents[1] / TRASH / file.path.parts[-2] / file.path.name


def _out_of_trash(file: StoredFile) -> PurePosixPath:
    return file.path.parents[2] / file.path.parts[-2] / file.path.name

"""Which files of the artifact store are needed, and the removal of those that are not.

**Rows name files**: one list (``NAMED_FILES``) for moving files, and for finding those that no row names.

**Checkpoints** lie beside the artifacts, in a folder for each open trial, and go when the trial has ended. The row of
the trial says which file counts, by its hash. A file is removed by the attempt that has recorded a newer one, and the
folders of ended trials by the process that ends the next one, since a trial may be ended where there are no files. A
missing or changed file costs time and never a result: the attempt restarts.

**Orphans** are files that no row names: what a process left that was killed between a file and its row. A file lies
there before its row is written, so only one that nothing has written for longer than a grace period is an orphan.
Storing the same content again counts as writing: it makes the file young (``ArtifactStore.put``), under a lock that the
removal respects, so that none is removed between ``put`` and the row.

**Trash**: an object store has no locks, so that a process may find its content there, write a row that names it, and
lose the file to a removal that was decided before. Therefore a removal copies the file to ``trash/`` in the same folder
first, where readers look for what they miss (``remote.py``), and the copy goes only when the rows are asked once more,
a day later: a row follows its file within that time. Each step can be repeated, so a kill anywhere loses nothing. What
has changed since a sweep looked is left alone: many files take it long, and referees sweep side by side.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import ArtifactError
from easeml_core.files.object_stores import abort, as_os_errors, filesystem, unfinished
from easeml_core.settings.limits import NAME
from easeml_core.store.artifacts.local import TENANTS_FOLDER, ArtifactStore, is_unfinished
from easeml_core.store.artifacts.remote import TRASH, RemoteArtifactStore
from easeml_core.store.rows import rows
from easeml_core.store.tables.trials import ended_trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from sqlalchemy import Connection

    from easeml_core.files.object_stores import Unfinished
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


_OF_STUDY = """
SELECT study_id, artifact, 'data version ' || id AS named_by, false AS is_claimed FROM work.data_versions
UNION ALL SELECT study_id, artifact, 'model ' || id, submitted FROM work.models WHERE removed_at IS NULL
UNION ALL SELECT study_id, artifact, 'feed ' || id, true FROM work.feeds
UNION ALL SELECT study_id, artifact, 'set ' || id, false FROM work.test_sets WHERE artifact IS NOT NULL
UNION ALL SELECT study_id, off, 'refresh ' || request_id, false FROM work.refreshes WHERE off IS NOT NULL
UNION ALL SELECT c.study_id, p.value, 'candidate ' || c.id, true
  FROM work.candidates c, jsonb_each_text(c.parameters) p WHERE p.value ~ '^sha256:[0-9a-f]{64}$'
"""

NAMED_FILES = f"""
SELECT t.name AS tenant, n.artifact, n.named_by, n.is_claimed FROM ({_OF_STUDY}) n
JOIN work.studies s ON s.id = n.study_id JOIN work.tenants t ON t.id = s.tenant_id ORDER BY 1, 2, 3
"""
"""SQL: tenant, reference, and the row that names it, for every file that some row needs. Checkpoints are apart."""


class NamedFile(NamedTuple):
    """A file of the artifact store that a row names.

    Attributes:
        tenant: Whose study the row belongs to: in whose folder the file lies.
        reference: ``sha256:<hex>``.
    """

    tenant: str
    reference: str


def named_files(tx: Connection) -> set[NamedFile]:
    """Return all files that rows name. Role ``easeml_owner`` or ``easeml_referee``: a tenant's login sees its own."""
    return {NamedFile(row.tenant, row.artifact) for row in rows(tx, NAMED_FILES)}


def claimed_files(tx: Connection) -> set[NamedFile]:
    """Return the files that only such rows of a tenant name as it writes itself, while another tenant names them too.

    A tenant can write any hash into a candidate, a feed or a submission: that does not make the file its own.
    """
    found = rows(tx, NAMED_FILES)
    tenants_of = defaultdict(set)
    for row in found:
        tenants_of[row.artifact].add(row.tenant)
    made = {NamedFile(row.tenant, row.artifact) for row in found if not row.is_claimed}
    shared = {NamedFile(row.tenant, row.artifact) for row in found if len(tenants_of[row.artifact]) > 1}
    return shared - made


CHECKPOINTS = "checkpoints"


def files_of(artifacts: ArtifactStore, trial_id: int) -> ArtifactStore:
    """Return the storage of one trial's checkpoints; other trials never share a file with it."""
    return artifacts.part(CHECKPOINTS, str(trial_id))


def remove_ended(store: Store, artifacts: ArtifactStore) -> list[int]:
    """Remove the folders of trials that have ended; whose they were.

    What another account keeps from us, or another worker removes meanwhile, stays or is gone: no reason to stop. Nor is
    a store that cannot be asked: the next trial that ends removes them.
    """
    there: list[int] = []
    with contextlib.suppress(ArtifactError):
        there = [int(name) for name in artifacts.parts(CHECKPOINTS) if name.isdecimal() and len(name) < 19]
    if not there:
        return []
    with store.begin() as tx:
        ended = ended_trials(tx, there)
    for trial_id in ended:
        artifacts.remove_part(CHECKPOINTS, str(trial_id))
    return ended


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
    """
    before = time.time() - older_than
    # Listed before the rows are read: what is written meanwhile is young.
    old = [file for file in stored_files(artifacts) if file.modified <= before]
    ended = ended_trials(tx, sorted({file.trial_id for file in old if file.trial_id is not None}))
    return orphans_among(old, named_files(tx), set(ended))


def orphans_among(files: Iterable[StoredFile], named: Set[NamedFile], ended: Set[int]) -> list[StoredFile]:
    """Return the orphans among some files, as of ``find_orphans``."""
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
    """Remove the orphans of a folder, and folders that have not got their names; how many orphans."""
    remove_unfinished_folders(artifacts, older_than=days * DAY_SECONDS)
    with store.begin() as tx:
        found = find_orphans(tx, artifacts, older_than=days * DAY_SECONDS)
    return sum(remove_orphan(artifacts, file, older_than=days * DAY_SECONDS) for file in found)


TRASH_SECONDS = 86_400.0
"""How long a file lies in the trash: longer than any process takes from a file to the row that names it."""

_AT_ONCE = 100
"""Files that go after one look at the rows."""
_OURS = re.compile(r"(?:.*/)?([0-9a-f]{2})/\1[0-9a-f]{62}")


class Sweep(NamedTuple):
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
    """Return the unfinished uploads of files of the store: others may use the bucket, and names beside the store's."""
    return list(_ours(artifacts))


def _ours(artifacts: RemoteArtifactStore) -> Iterator[Unfinished]:
    for one in unfinished(filesystem(artifacts.address.protocol), artifacts.key()):
        with contextlib.suppress(ValueError):  # of another place that begins with the same letters
            if _OURS.fullmatch(str(artifacts.inner(one.key))):
                yield one


def find_in_bucket(store: Store, artifacts: RemoteArtifactStore, *, older_than: float) -> Sweep:
    """Look through an object store."""
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
    return Sweep(orphans_among(old, named, ended), gone, needed, late)


def is_trash(file: StoredFile) -> bool:
    """Whether a file was put aside."""
    inner = file.inner
    return len(inner) == 3 and inner[0] == TRASH and inner[2].startswith(inner[1])


def _is_named(file: StoredFile, named: Set[NamedFile]) -> bool:
    reference = f"sha256:{file.inner[2]}"
    if file.tenant is None:
        return any(one.reference == reference for one in named)
    return NamedFile(file.tenant, reference) in named


def clear_bucket(store: Store, artifacts: RemoteArtifactStore, found: Sweep) -> Sweep:
    """Do what a sweep has to do; return what was done."""
    files = filesystem(artifacts.address.protocol)
    done = Sweep([], [], [], found.uploads)
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

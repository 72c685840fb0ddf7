"""Files under their content hash: models and the open parts of data. Nothing that is whole is ever overwritten."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, NamedTuple

from easeml_core.errors import ArtifactError, is_put_off, reason_of
from easeml_core.files.local import is_there, rename_new, scratch_folder
from easeml_core.settings.limits import NAME
from easeml_core.store import callers
from easeml_core.store.artifacts.location import MARKER, identity_in, write_marker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, BufferedWriter

    from easeml_core.files.remote_file import OnProgress

LARGEST_BYTES = 32 << 30
"""A larger file is no artifact: reading it would block the process."""

LARGEST_COPIED_BYTES = 8 << 30
"""Of one copy for one use, such as a model that the referee runs (``services/evaluation/model_runs.py``)."""

_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
_UNFINISHED = "new-"
_UNFINISHED_FOLDER = f".{_UNFINISHED}"
"""Begins like no tenant's name, nor any other name that is looked for."""
_FOLDER_NAME = re.compile(rf"{re.escape(_UNFINISHED_FOLDER)}[0-9a-f]{{32}}")
_PIECE = 1 << 20
_REPLACED = 3
"""How often a file is put anew where a folder was replaced meanwhile, as by makers without ``renameat2``."""

MOVED = "easeml-moved"
"""File in the root of a store whose files were moved into their tenants' folders: what is left is given to none."""

TENANTS_FOLDER = "tenants"
"""Folder in the root of a store with a folder for each tenant, named as the tenant is."""

_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""To pass through a folder, which this account need not be able to list."""
_FOLDER = _PASS | os.O_NOFOLLOW
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Staged(NamedTuple):
    """A file that is on this machine for the length of a block.

    Attributes:
        path: Where it is; its content was checked.
        seconds: What that took, waiting for others included.
        fetched: Bytes that came over the network for it.
    """

    path: Path
    seconds: float
    fetched: int = 0


def is_unfinished(path: PurePath, *, is_folder: bool = False) -> bool:
    """Whether a file of a store's folder lacks its content and its name as yet, or a folder its mode and its name."""
    if is_folder:
        return _FOLDER_NAME.fullmatch(path.name) is not None
    return path.name.startswith(_UNFINISHED)


@contextlib.contextmanager
def _asked(root: Path) -> Iterator[None]:
    """End the block where a file or folder is not there, or not for this account."""
    try:
        yield
    except OSError as error:
        if is_put_off(error):
            message = f"the artifacts at {root} cannot be read: {reason_of(error)}"
            raise ArtifactError(message) from error


class ArtifactStore:
    """A folder that all workers and the referee can reach, or a folder inside it.

    No link is followed below ``root``: a tenant that may write into one folder cannot lead a process that may read all
    of them elsewhere.

    Args:
        root: The folder; made on the first ``put``. Folders inside get its mode, so that several accounts can share it.
        inside: Names of the folders from there to the one that is meant.
        earlier: Where files are looked for that are not here: the place of an earlier version.
        identity: As of ``expect``; None where it is not known.
    """

    def __init__(
        self,
        root: str | Path,
        inside: tuple[str, ...] = (),
        *,
        earlier: ArtifactStore | None = None,
        identity: str | None = None,
    ) -> None:
        self._base = Path(root).absolute()  # children of ours that open its files have another working directory
        self._inside, self._earlier, self._identity = inside, earlier, identity
        self.root = self._base.joinpath(*inside)

    def expect(self, identity: str) -> None:
        """Take the root for a store that is away, and not for an empty one, while its marker has another identity."""
        self._identity = identity

    def _inner(self, *inside: str, earlier: ArtifactStore | None = None) -> ArtifactStore:
        return ArtifactStore(self._base, inside, earlier=earlier, identity=self._identity)

    def of_tenant(self, tenant: str) -> ArtifactStore:
        """Return the files of a tenant: a folder by itself, whose rights keep other tenants out.

        What lies in the root, where an earlier version has kept the files of all tenants, is read where the tenant's
        folder lacks it, until they were moved (``note_moved``). The tenant is that of the study whose row names the
        file, never one that a caller states.

        Raises:
            ConfigError: It is no name of a tenant, and might lead elsewhere.
            NotFoundError: A page asks for a person who may not see the tenant.
        """
        NAME.check("tenant", tenant)
        callers.require_files_of(tenant)
        return self._inner(TENANTS_FOLDER, tenant, earlier=self._inner())

    def tenants(self) -> list[str]:
        """Names of the tenants that have a folder here; of what is there, names that no tenant has are left out."""
        return [name for name in self._inner().parts(TENANTS_FOLDER) if NAME.holds(name)]

    @property
    def place(self) -> str:
        """The folder's real path, or the address: what is stored of the place, and shown."""
        return str(self.root.resolve())

    def identity(self) -> str | None:
        """The identity in the store's marker; None where there is none, as in a folder that is not mounted.

        Raises:
            ArtifactError: This account may not read it, or the store has a fault: not the same as no marker.
        """
        with _asked(self.root):
            try:
                return identity_in(self.root)
            except PermissionError as error:
                message = (
                    f"{self.root / MARKER} cannot be read ({error.strerror}); put this account in the group of the "
                    "folder, with mode 2770 (docs/install.md, Two accounts)"
                )
                raise ArtifactError(message) from error
        return None

    def mark(self, identity: str, *, replaces: bool = False) -> str:
        """Write the marker unless there is one, whole or not at all; the identity that it has.

        Args:
            identity: 32 hex digits.
            replaces: Whether to write it also where there is one.

        Raises:
            ArtifactError: It cannot be written, or what is there is no marker.
        """
        try:
            write_marker(self.root, identity, prefix=_UNFINISHED, replaces=replaces)
        except OSError as error:
            message = f"the marker {self.root / MARKER} cannot be written: {error}; may this account write there?"
            raise ArtifactError(message) from error
        return self._marked()

    def is_moved(self) -> bool:
        """Whether what lies here is no tenant's any more.

        Raises:
            ArtifactError: The store cannot be asked.
        """
        with _asked(self.root), self._folder() as folder:
            return stat.S_ISREG(os.stat(MOVED, dir_fd=folder).st_mode)
        return False

    def note_moved(self) -> None:
        """Let no tenant read what lies in the root from now on: who writes a hash into a row would be given any file.

        Raises:
            ArtifactError: This account may not write there.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / MOVED).touch()
        except OSError as error:
            message = f"{self.root / MOVED} cannot be written: {error}; run it as the owner of the store"
            raise ArtifactError(message) from error

    def is_writable(self) -> bool:
        """Whether this account may add files, as far as the operating system tells beforehand."""
        there = next((p for p in (self.root, *self.root.parents) if p.exists()), self.root)
        return os.access(there, os.W_OK)

    def holds(self, reference: str) -> bool:
        """Whether there is a file under this reference that this account may look at; its content is not read.

        Raises:
            ArtifactError: The reference is malformed, or the store cannot be asked.
        """
        return self.holds_itself(reference) or (
            self._earlier is not None and not self._earlier.is_moved() and self._earlier.holds(reference)
        )

    def holds_itself(self, reference: str) -> bool:
        """As ``holds``, without the earlier place."""
        digest = digest_of(reference)
        with _asked(self.root), self._folder(digest[:2]) as folder:
            return stat.S_ISREG(os.stat(digest, dir_fd=folder, follow_symlinks=False).st_mode)
        return False

    def fault_of(self, reference: str) -> str | None:
        """Say what is wrong with the file of a reference, after it was read whole; None where nothing is.

        Raises:
            ArtifactError: The reference is malformed, or the store cannot be asked.
        """
        digest = digest_of(reference)
        if not self.holds(reference):
            return "it is missing"
        try:
            with self._opened(reference) as (file, _):
                size = os.fstat(file.fileno()).st_size
                return None if _sha256(file) == digest else changed(size)
        except (ArtifactError, OSError) as error:
            return f"it cannot be read: {error}"

    def _marked(self) -> str:
        found = self.identity()
        if found is None:
            message = f"{self.place}/{MARKER} is not the marker of an artifact store; remove it and try again"
            raise ArtifactError(message)
        return found

    def put(self, path: str | Path) -> str:
        """Keep a copy of the file; its reference ``sha256:<hex>``. The same content is kept once.

        A stored file that was changed is replaced: the same model, trained again, is stored again.

        Raises:
            ArtifactError: The file cannot be read, or the folder cannot be written.
        """
        try:
            return self._put(Path(path))
        except OSError as error:
            message = (
                f"{path} cannot be kept under {self.root}: {error}; "
                "the accounts of the workers and of the referee must be able to write there"
            )
            raise ArtifactError(message) from error

    def path(self, reference: str) -> Path:
        """The file of a reference, after its content was checked.

        Raises:
            ArtifactError: The reference is malformed, the file is missing, or its content is another one.
        """
        with self._opened(reference) as (file, target):
            self._require(reference, _sha256(file))
            return target

    def part(self, *names: str) -> ArtifactStore:
        """Return a store in a folder inside this one, with separate references; the folder has the same mode."""
        found = self.within(*names)
        try:
            with found._folder(makes=True):
                return found
        except OSError as error:
            message = (
                f"the folder {found.root} cannot be made: {error}; the accounts of the workers must be able to write "
                "there"
            )
            raise ArtifactError(message) from error

    def within(self, *names: str) -> ArtifactStore:
        """As ``part``, and nothing is made."""
        earlier = None if self._earlier is None else self._earlier.within(*names)
        return self._inner(*self._inside, *names, earlier=earlier)

    def parts(self, name: str) -> list[str]:
        """Names of the parts inside the part of this name; none where there is none, or this account may not look.

        Raises:
            ArtifactError: The store cannot be asked.
        """
        found = [] if self._earlier is None else self._earlier.parts(name)
        with _asked(self.root), self._folder(name) as folder:
            listed = os.open(".", _LISTED, dir_fd=folder)
            try:
                found += os.listdir(listed)
            finally:
                os.close(listed)
        return sorted(set(found))

    def remove_part(self, *names: str) -> None:
        """Remove a part with all that is in it, as far as this account may."""
        with contextlib.suppress(OSError), self._folder(*names[:-1]) as folder:
            shutil.rmtree(names[-1], ignore_errors=True, dir_fd=folder)
        if self._earlier is not None:
            self._earlier.remove_part(*names)

    def discard(self, reference: str) -> None:
        """Remove the file of a reference that is not needed any more; a missing or protected file is no error.

        Only for a ``part`` whose references have one owner: equal content is stored once and may have other owners.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is not None:
            with contextlib.suppress(OSError), self._folder(match[1][:2]) as folder:
                os.unlink(match[1], dir_fd=folder)

    @contextlib.contextmanager
    def staged(self, reference: str, on_progress: OnProgress | None = None) -> Iterator[Staged]:
        """The file on this machine, checked, for the block; for those who count what bringing it here costs.

        Args:
            reference: Of the artifact.
            on_progress: Hears once a second how far it is, and may raise to end it.

        Raises:
            ArtifactError: As for ``path``.
        """
        began = time.monotonic()
        if self._inside[:1] != (TENANTS_FOLDER,):
            yield Staged(self.path(reference), time.monotonic() - began)  # a shared folder: nothing is copied
            return
        # A copy: its tenant may put a link in the place of the file that was checked.
        with self._copied(reference, LARGEST_BYTES) as path:
            yield Staged(path, time.monotonic() - began)

    @contextlib.contextmanager
    def copy(self, reference: str) -> Iterator[Path]:
        """Yield a private copy whose content was checked, so that no process can replace it between check and use.

        Raises:
            ArtifactError: As for ``path``; also for more than ``LARGEST_COPIED_BYTES``.
        """
        with self._copied(reference, LARGEST_COPIED_BYTES) as path:
            yield path

    @contextlib.contextmanager
    def _copied(self, reference: str, most: int) -> Iterator[Path]:
        with scratch_folder("artifact") as folder:
            private = Path(folder) / "artifact"
            with self._opened(reference) as (file, _), private.open("wb") as writer:
                require_bytes(reference, os.fstat(file.fileno()).st_size, most)
                # Checked before it is copied too: a file of holes costs its maker nothing, its copy fills the disk.
                self._require(reference, _sha256(file))
                _copy_checked(file, writer)
            with private.open("rb") as copied:
                self._require(reference, _sha256(copied))
            yield private

    @contextlib.contextmanager
    def _opened(self, reference: str) -> Iterator[tuple[BufferedReader, Path]]:
        """Open the regular file of a reference; another account may have left a pipe, a device or a link there."""
        digest, errors = digest_of(reference), list[OSError]()
        # The own folder once more at the end: a file may be moved there from the earlier place between two looks.
        for store in (self, self._earlier, self):
            if store is None or (store is self._earlier and store.is_moved()):
                continue
            try:
                with store._folder(digest[:2]) as folder:
                    file = _open_plain(digest, folder)
            except OSError as error:
                errors.append(error)
                continue
            with file:
                yield file, store._place(digest)
            return
        cause = next(filter(is_put_off, errors), errors[0])  # it may lie where a look has met a fault
        found = "cannot be read under" if is_put_off(cause) else "is missing under"
        message = (
            f"artifact {reference} {found} {self.root} ({cause.strerror}); "
            "is this the folder that the workers use, and may this account read it?"
        )
        raise ArtifactError(message) from cause

    @contextlib.contextmanager
    def _folder(self, *names: str, makes: bool = False) -> Iterator[int]:
        """Open this folder, or one inside it, step by step from the root, and follow no link below that.

        Args:
            names: From this folder to the one that is meant.
            makes: Whether what is missing is made.

        Raises:
            OSError: A folder is missing or a link, or this account may not open it. ESTALE: the store is not there, so
                what it lacks is not missing, and nothing is made.
        """
        if makes and self._identity is None:
            self._base.mkdir(parents=True, exist_ok=True)
        base = None
        with contextlib.ExitStack() as held:
            try:
                folder = base = os.open(self._base, _PASS)
                held.callback(os.close, base)
                if makes:
                    self._require_identity(base)
                for name in (*self._inside, *names):
                    folder = _step(folder, name, makes=makes)
                    held.callback(os.close, folder)
                yield folder
            except FileNotFoundError:
                self._require_identity(base)
                raise

    def _require_identity(self, base: int | None) -> None:
        """Raise ESTALE where the open root lacks the marker that is expected, or there is no root."""
        if self._identity is not None and (base is None or identity_in(base) != self._identity):
            raise OSError(errno.ESTALE, "it is not the installation's store: is it mounted?", str(self._base))

    def _require(self, reference: str, digest: str) -> None:
        if reference != f"sha256:{digest}":
            message = f"artifact {reference} was changed after it was stored; train the model again"
            raise ArtifactError(message)

    def _place(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _put(self, path: Path) -> str:
        for _ in range(_REPLACED):
            try:
                return self._put_once(path)
            except OSError as error:  # another process may have put its folder in the place of an empty one
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    raise
        return self._put_once(path)

    def _put_once(self, path: Path) -> str:
        name = f"{_UNFINISHED}{uuid.uuid4().hex}"
        with self._folder(makes=True) as folder:
            try:
                # Through descriptors: who shares the folder may have put a link in the place of a name.
                handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
                with open(handle, "w+b") as copy:
                    with _open_plain(path) as reader:  # a training may have put a link in its place
                        shutil.copyfileobj(reader, copy)
                    os.fchmod(copy.fileno(), 0o644)  # the referee may run under another account
                    copy.flush()  # fsync does not know this buffer
                    os.fsync(copy.fileno())  # the database will soon say for good that this file exists
                    digest = _sha256(copy)  # the original may be changing
                place = _step(folder, digest[:2], makes=True)
                try:
                    if not _is_renewed(place, digest):
                        if _is_folder(place, digest):  # a file cannot take the place of a folder
                            os.rename(digest, name + "-", src_dir_fd=place, dst_dir_fd=place)
                        os.replace(name, digest, src_dir_fd=folder, dst_dir_fd=place)  # whole or not at all
                finally:
                    os.close(place)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        return f"sha256:{digest}"


def _step(folder: int, name: str, *, makes: bool = False) -> int:
    """Open a folder in an open one, and follow no link; one that is made gets the mode of the one that it lies in."""
    if makes and not is_there(folder, name):
        with contextlib.suppress(FileExistsError):  # another process may be faster
            _make_folder(folder, name)
    return os.open(name, _FOLDER, dir_fd=folder)


def _make_folder(folder: int, name: str) -> None:
    """Make a folder, which has its mode before it has its name: others use it at once, and give its mode to theirs.

    Its mode is set only where umask and the folder above have not given it the right one already: systemd's
    ``RestrictSUIDSGID`` and some file systems refuse to set it.
    """
    unfinished = f"{_UNFINISHED_FOLDER}{uuid.uuid4().hex}"
    wanted = stat.S_IMODE(os.fstat(folder).st_mode)
    os.mkdir(unfinished, wanted & 0o777, dir_fd=folder)
    try:
        made = os.open(unfinished, _LISTED, dir_fd=folder)
        try:
            found = os.fstat(made)
            # Another's: put in the place of ours, or a file system that gives root's folders to another account.
            if stat.S_IMODE(found.st_mode) != wanted and found.st_uid == os.geteuid():
                os.fchmod(made, wanted)
        finally:
            os.close(made)
        rename_new(folder, unfinished, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.rmdir(unfinished, dir_fd=folder)
        raise


def require_bytes(reference: str, size: int, most: int) -> None:
    """Refuse a file that is too large for its use."""
    if size > most:
        message = f"artifact {reference} has {size:,} bytes, at most {most:,} are copied for one use"
        raise ArtifactError(message)


def changed(size: int | None) -> str:
    """Say that a file holds something else than its reference says."""
    there = "" if size is None else f", {size:,} bytes of it are there"
    return f"its content is another one: it was truncated or corrupted{there}"


def digest_of(reference: str) -> str:
    """The content hash in a reference, 64 hex digits."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"an artifact's reference must be sha256:<64 hex digits>, got {reference!r}"
        raise ArtifactError(message)
    return match[1]


def _is_renewed(folder: int, digest: str) -> bool:
    """Whether the file is there, whole and young by now: the removal of orphans leaves it until its row is written."""
    try:
        with _open_plain(digest, folder) as file:
            # A removal that is under way ends first, or is not waited for: its owner could hold the lock for ever.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _sha256(file) != digest:
                return False
            os.utime(file.fileno())
            return os.path.samestat(os.fstat(file.fileno()), os.stat(digest, dir_fd=folder, follow_symlinks=False))
    except OSError:
        return False  # nothing there, no plain file, or another account's: the copy takes its place


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _sha256(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file, of at most as many bytes as it has now: its owner may let it grow without end.

    A file that grew meanwhile gives another hash than what it had.
    """
    left, seen = min(os.fstat(file.fileno()).st_size, LARGEST_BYTES), hashlib.sha256()
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, _PIECE))):
        seen.update(chunk)
        left -= len(chunk)
    place = file.tell()
    seen.update(file.read(1))
    file.seek(place)
    return seen.hexdigest()


def _copy_checked(file: BufferedReader, writer: BufferedWriter) -> None:
    """Copy what was just read to its end, and no byte that was appended since."""
    left = file.tell()
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, _PIECE))):
        writer.write(chunk)
        left -= len(chunk)


def _open_plain(path: str | Path, folder: int | None = None) -> BufferedReader:
    """Open a plain file for reading, never a link, and without waiting for the other end of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file, or too large", str(path))
    return os.fdopen(descriptor, "rb")

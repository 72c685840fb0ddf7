"""Files under their content hash: models and the open parts of data. Nothing that is whole is ever overwritten."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import ArtifactError
from easeml_core.files import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, BufferedWriter

    from easeml_core.remote.files import OnProgress

LARGEST_BYTES = 8 << 30
"""A larger file is no artifact: reading it would block the process."""

_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
_UNFINISHED = "new-"

MARKER = "easeml-store.json"
"""File in the root of a store that holds its identity."""

MARKER_BYTES = 4096
_IDENTITY = re.compile(r"[0-9a-f]{32}")


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


def is_unfinished(path: Path) -> bool:
    """Whether a file of a store's folder has not got its content and its name yet."""
    return path.name.startswith(_UNFINISHED)


class ArtifactStore:
    """A folder that all workers and the referee can reach.

    Args:
        root: The folder; made on the first ``put``. Folders inside get its mode, so that several accounts can share it.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()  # children of ours that open its files have another working directory

    @property
    def place(self) -> str:
        """The folder's real path, or the address: what is stored of the place, and shown."""
        return str(self.root.resolve())

    def identity(self) -> str | None:
        """The identity in the store's marker; None where none can be read, as in a folder that is not mounted."""
        try:
            with _open_plain(self.root / MARKER) as file:
                return identity_of(file.read(MARKER_BYTES))
        except OSError:
            return None

    def mark(self, identity: str) -> str:
        """Write the marker unless there is one, whole or not at all; the identity that it has.

        Raises:
            ArtifactError: It cannot be written, or what is there is no marker.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.root, prefix=_UNFINISHED)
            try:
                with open(handle, "w", encoding="utf-8") as writer:
                    writer.write(marker_text(identity))
                    os.fchmod(writer.fileno(), 0o644)
                    writer.flush()  # fsync does not know this buffer
                    os.fsync(writer.fileno())
                _put_in_place(Path(name), self.root / MARKER)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            message = f"the marker {self.root / MARKER} cannot be written: {error}; may this account write there?"
            raise ArtifactError(message) from error
        return self._marked()

    def is_writable(self) -> bool:
        """Whether this account may add files, as far as the operating system tells beforehand."""
        there = next((p for p in (self.root, *self.root.parents) if p.exists()), self.root)
        return os.access(there, os.W_OK)

    def holds(self, reference: str) -> bool:
        """Whether there is a file under this reference; its content is not read."""
        return self._place(digest_of(reference)).is_file()

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
            self._require(reference, hashlib.file_digest(file, "sha256").hexdigest())
            return target

    def part(self, *names: str) -> ArtifactStore:
        """Return a store in a folder inside this one, with separate references; the folder has the same mode."""
        folder = self.root
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in names:
                folder = folder / name
                self._make(folder)
        except OSError as error:
            message = (
                f"the folder {folder} cannot be made: {error}; the accounts of the workers must be able to write there"
            )
            raise ArtifactError(message) from error
        return ArtifactStore(folder)

    def parts(self, name: str) -> list[str]:
        """Names of the parts inside the part of this name; none where it cannot be looked into."""
        folder = self.root / name
        if folder.is_symlink() or not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir())

    def remove_part(self, *names: str) -> None:
        """Remove a part with all that is in it, as far as this account may."""
        shutil.rmtree(self.root.joinpath(*names), ignore_errors=True)

    def discard(self, reference: str) -> None:
        """Remove the file of a reference that is not needed any more; a missing or protected file is no error.

        Only for a ``part`` whose references have one owner: equal content is stored once and may have other owners.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is not None:
            with contextlib.suppress(OSError):
                self._place(match[1]).unlink()

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
        path = self.path(reference)  # a shared folder: nothing is copied
        yield Staged(path, time.monotonic() - began)

    @contextlib.contextmanager
    def copy(self, reference: str) -> Iterator[Path]:
        """Yield a private copy whose content was checked, so that no process can replace it between check and use.

        Raises:
            ArtifactError: As for ``path``.
        """
        with scratch_folder("artifact") as folder:
            private = Path(folder) / "artifact"
            with self._opened(reference) as (file, _), private.open("wb") as writer:
                # Checked before it is copied too: a file of holes costs its maker nothing, its copy fills the disk.
                self._require(reference, hashlib.file_digest(file, "sha256").hexdigest())
                _copy_checked(file, writer)
            self._require(reference, _digest(private))
            yield private

    @contextlib.contextmanager
    def _opened(self, reference: str) -> Iterator[tuple[BufferedReader, Path]]:
        """Open the regular file of a reference; another account may have left a pipe, a device or a link there."""
        target = self._place(digest_of(reference))
        try:
            file = _open_plain(target)
        except OSError as error:
            message = (
                f"artifact {reference} is missing under {self.root} ({error.strerror}); "
                "is this the folder that the workers use, and may this account read it?"
            )
            raise ArtifactError(message) from error
        with file:
            yield file, target

    def _require(self, reference: str, digest: str) -> None:
        if reference != f"sha256:{digest}":
            message = f"artifact {reference} was changed after it was stored; train the model again"
            raise ArtifactError(message)

    def _place(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _put(self, path: Path) -> str:
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix=_UNFINISHED)
        copy = Path(name)
        try:
            with open(handle, "wb") as writer, path.open("rb") as reader:
                shutil.copyfileobj(reader, writer)
                # Through the descriptor: who shares the folder may have put a link in the place of the name.
                os.fchmod(writer.fileno(), 0o644)  # the referee may run under another account
                writer.flush()  # fsync does not know this buffer
                os.fsync(writer.fileno())  # the database will soon say for good that this file exists
            digest = _digest(copy)  # of the copy: the original may be changing
            target = self._place(digest)
            if not _is_intact(target, digest):
                self._make(target.parent)
                if target.is_dir() and not target.is_symlink():  # a file cannot take the place of a folder
                    target.rename(target.with_name(copy.name))
                copy.replace(target)  # whole or not at all
        finally:
            copy.unlink(missing_ok=True)
        return f"sha256:{digest}"

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir(exist_ok=True)  # another process may be faster
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():  # else it is another's, who sets its mode
                    os.fchmod(descriptor, self.root.stat().st_mode & 0o7777)
            finally:
                os.close(descriptor)


def _put_in_place(whole: Path, target: Path) -> None:
    """Give a file its name unless the name is taken; the row in the database lets one writer in at a time."""
    try:
        os.link(whole, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not target.exists():
            whole.rename(target)


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


def digest_of(reference: str) -> str:
    """The content hash in a reference, 64 hex digits.

    Raises:
        ArtifactError: The reference is malformed.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"an artifact's reference must be sha256:<64 hex digits>, got {reference!r}"
        raise ArtifactError(message)
    return match[1]


def _is_intact(path: Path, digest: str) -> bool:
    try:
        return _digest(path) == digest
    except OSError:
        return False  # nothing there, or no plain file: the copy takes its place


def _digest(path: Path) -> str:
    with _open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_checked(file: BufferedReader, writer: BufferedWriter) -> None:
    """Copy what was just read to its end, and no byte that was appended since."""
    left = file.tell()
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, 1 << 20))):
        writer.write(chunk)
        left -= len(chunk)


def _open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading, never a link, and without waiting for the other end of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file, or too large", str(path))
    return os.fdopen(descriptor, "rb")

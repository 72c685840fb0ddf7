"""Artifacts in an object store: the same references, every file checked, and each brought to a machine once."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from easeml_core.errors import ArtifactError, InvalidInputError, is_put_off, reason_of
from easeml_core.files.cache import FileCache, Wanted
from easeml_core.files.local import scratch_folder
from easeml_core.files.object_stores import (
    PIECE,
    MissingBucketError,
    ObjectFile,
    as_os_errors,
    filesystem,
    patiently,
    upload,
)
from easeml_core.files.remote_file import Teller
from easeml_core.files.urls import WEB, Address, parse_url
from easeml_core.settings.limits import NAME
from easeml_core.store import callers
from easeml_core.store.artifacts.local import (
    LARGEST_BYTES,
    LARGEST_COPIED_BYTES,
    MOVED,
    TENANTS_FOLDER,
    ArtifactStore,
    Staged,
    changed,
    digest_of,
    require_bytes,
)
from easeml_core.store.artifacts.location import MARKER, MARKER_BYTES, identity_of, marker_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.files.remote_file import About, OnProgress, RemoteFile


TRASH = "trash"
"""Folder beside the files of a place with those that no row named (``orphans.py``); readers look there, too."""

_WRITTEN = ("LastModified", "mtime", "updated", "last_modified", "created")
"""What file systems of fsspec call the time at which a file was written."""


def artifact_store(root: str | Path, cache: FileCache | None = None) -> ArtifactStore:
    """The artifacts at a place: the path of a folder, or an address such as ``s3://bucket/easeml``."""
    return RemoteArtifactStore(str(root), cache) if "://" in str(root) else ArtifactStore(root)


class RemoteArtifactStore(ArtifactStore):
    """A bucket, or a part of one, that all workers and the referee can reach.

    A key appears when its file is whole there. Paths that were handed out stay in the cache until ``close``.

    Args:
        url: ``PROTOCOL://BUCKET/PATH``.
        cache: What files are read through; None for the cache of this account.
        earlier: Where files are looked for that are not here. With it the cache gives out only what this place or that
            one holds: another tenant's file may be in the cache under its hash.
    """

    def __init__(self, url: str, cache: FileCache | None = None, *, earlier: RemoteArtifactStore | None = None) -> None:
        self.address = parse_url(url)
        if self.address.protocol in WEB:
            message = f"artifacts cannot be kept at {self.address}: a web server takes no files; name an object store"
            raise InvalidInputError(message)
        filesystem(self.address.protocol)  # a missing package is an error now, not in the first trial
        self.cache = cache or FileCache()
        super().__init__(self.cache.folder)
        self._before = earlier
        self._held = contextlib.ExitStack()

    def of_tenant(self, tenant: str) -> ArtifactStore:
        """As of a folder: a prefix, which the policies of a bucket can keep other tenants from."""
        NAME.check("tenant", tenant)
        callers.require_files_of(tenant)
        whole = self if self._before is None else self._root()
        return RemoteArtifactStore(str(whole._at(TENANTS_FOLDER, tenant)), self.cache, earlier=whole)

    def tenants(self) -> list[str]:
        """As of a folder."""
        return [name for name in self._root().parts(TENANTS_FOLDER) if NAME.holds(name)]

    def _root(self) -> RemoteArtifactStore:
        return self if self._before is None else self._before._root()

    def expect(self, identity: str) -> None:
        """Nothing: an object store that is away does not look empty."""

    def close(self) -> None:
        """Let the cache evict what ``path`` has handed out."""
        self._held.close()

    @property
    def place(self) -> str:
        """As of a folder."""
        return str(self.address)

    def identity(self) -> str | None:
        """As of a folder; None where there is no marker."""
        with self._asked(), as_os_errors():
            found = filesystem(self.address.protocol).cat_file(_key(self._at(MARKER)), start=0, end=MARKER_BYTES)
            return identity_of(found)
        return None

    def mark(self, identity: str, *, replaces: bool = False) -> str:
        """As of a folder. An object store has no exclusive creation: the row in the database lets one writer in."""
        key, files = _key(self._at(MARKER)), filesystem(self.address.protocol)
        try:
            if replaces or not _is_there(self._at(MARKER)):
                with as_os_errors():
                    files.pipe_file(key, marker_text(identity).encode())
        except OSError as error:
            message = f"the marker {self.address}/{MARKER} cannot be written: {reason_of(error)}"
            raise ArtifactError(message) from error
        return self._marked()

    def is_moved(self) -> bool:
        """As of a folder."""
        return _is_there(self._at(MOVED))

    def note_moved(self) -> None:
        """As of a folder."""
        try:
            with as_os_errors():
                filesystem(self.address.protocol).pipe_file(_key(self._at(MOVED)), b"")
        except OSError as error:
            message = f"{self.address}/{MOVED} cannot be written: {reason_of(error)}"
            raise ArtifactError(message) from error

    def is_writable(self) -> bool:
        """Only an attempt tells."""
        return True

    def holds(self, reference: str) -> bool:
        """As of a folder."""
        digest = digest_of(reference)
        with self._asked(), contextlib.suppress(PermissionError):
            return self._where(digest) is not None
        return False

    def holds_itself(self, reference: str) -> bool:
        """As of a folder."""
        digest = digest_of(reference)
        with self._asked(), contextlib.suppress(PermissionError):
            return self._own(digest) is not None
        return False

    def fault_of(self, reference: str) -> str | None:
        """As of a folder; the file is read from the object store, past the cache."""
        digest = digest_of(reference)
        with self._asked():
            place = patiently(lambda: self._where(digest))
            if place is None:
                return "it is missing"
            found = patiently(lambda: sha256_of(place))
            return None if found == digest else changed(ObjectFile(place).about().size)
        return "it is missing"

    def listed(self) -> Iterator[tuple[PurePosixPath, int, float]]:
        """Yield path, bytes and time of the last write of each file, as far as the object store says when that was."""
        whole = self.key()
        with as_os_errors():
            found = filesystem(self.address.protocol).find(whole, detail=True)
        for key, about in found.items():
            modified = _modified(about)
            if modified is not None:
                yield self.inner(str(key)), int(about.get("size") or 0), modified

    def modified(self, path: PurePosixPath) -> float | None:
        """Return when a file was written last, as of ``listed``; None where it is gone."""
        with contextlib.suppress(FileNotFoundError), as_os_errors():
            return _modified(filesystem(self.address.protocol).info(self.key(path)))
        return None

    def put(self, path: str | Path) -> str:
        """As of a folder. What is there already under the same hash is read, and made good if it was changed.

        An upload that was interrupted goes on where it stopped (``files/object_stores.py``), also in another process.
        While the object store is away it is tried again for a minute.
        """
        try:
            with scratch_folder("artifact") as folder:
                copy = Path(folder) / "artifact"
                digest = _copied(Path(path), copy)  # the original may be changing
                patiently(lambda: self._upload(copy, digest))
        except OSError as error:
            message = f"{path} cannot be kept under {self.address}: {reason_of(error)}; may this account write there?"
            raise ArtifactError(message) from error
        return f"sha256:{digest}"

    def path(self, reference: str) -> Path:
        """The file in the cache, after its content was checked."""
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(self.staged(reference)).path
            self._held.push(stack.pop_all())
        return path

    def part(self, *names: str) -> ArtifactStore:
        """Return a part of this store with separate references, read through the same cache."""
        return self.within(*names)

    def within(self, *names: str) -> ArtifactStore:
        """As ``part``: an object store has no folders to make."""
        earlier = None if self._before is None else RemoteArtifactStore(str(self._before._at(*names)), self.cache)
        return RemoteArtifactStore(str(self._at(*names)), self.cache, earlier=earlier)

    def parts(self, name: str) -> list[str]:
        """As of a folder."""
        found = [] if self._before is None else self._before.parts(name)
        with self._asked(), contextlib.suppress(PermissionError), as_os_errors():
            keys = filesystem(self.address.protocol).ls(_key(self._at(name)), detail=False)
            found += [str(key).rstrip("/").rpartition("/")[2] for key in keys]
        return sorted(set(found))

    def remove_part(self, *names: str) -> None:
        """As of a folder."""
        with contextlib.suppress(OSError), as_os_errors():
            filesystem(self.address.protocol).rm(_key(self._at(*names)), recursive=True)
        if self._before is not None:
            self._before.remove_part(*names)

    def discard(self, reference: str) -> None:
        """As of a folder."""
        with contextlib.suppress(ArtifactError, OSError):
            digest = digest_of(reference)
            with as_os_errors():
                filesystem(self.address.protocol).rm_file(_key(self._at(digest[:2], digest)))

    @contextlib.contextmanager
    def copy(self, reference: str) -> Iterator[Path]:
        """A private copy, for the block."""
        with scratch_folder("artifact") as folder:
            private = Path(folder) / "artifact"
            with self._staged(reference, None, LARGEST_COPIED_BYTES) as found:
                require_bytes(reference, found.path.stat().st_size, LARGEST_COPIED_BYTES)
                shutil.copyfile(found.path, private)
            yield private

    @contextlib.contextmanager
    def staged(self, reference: str, on_progress: OnProgress | None = None) -> Iterator[Staged]:
        """The file in the cache for the block, brought there if it was not."""
        with self._staged(reference, on_progress, LARGEST_BYTES) as found:
            yield found

    @contextlib.contextmanager
    def _staged(self, reference: str, on_progress: OnProgress | None, most: int) -> Iterator[Staged]:
        digest = digest_of(reference)
        teller = Teller(f"artifact {digest[:12]}", on_progress)
        # Of this place: else who puts an empty object at the hash here is served another tenant's file.
        key = hashlib.sha256(f"{self.address}\n{digest}".encode()).hexdigest()
        wanted = Wanted(key, lambda: self._found(digest), most=most, sha256=digest)
        with contextlib.ExitStack() as stack:
            try:
                if self._before is not None:
                    patiently(lambda: self._found(digest))
                path = patiently(lambda: stack.enter_context(self.cache.entry(wanted, teller)))
            except OSError as error:
                message = (
                    f"artifact {reference} cannot be had from {self.address}: {reason_of(error)}; "
                    "is this the place that the workers use, and may this account read it?"
                )
                raise ArtifactError(message) from error
            yield Staged(path, teller.seconds, teller.fetched)

    def _found(self, digest: str) -> tuple[RemoteFile, About]:
        remote = ObjectFile(self._where(digest) or self._at(digest[:2], digest))
        return remote, remote.about()

    def _where(self, digest: str) -> Address | None:
        """Return where the file of a hash is: here, in the earlier place, or moved here meanwhile."""
        found = self._own(digest)
        if found is not None or self._before is None:
            return found
        with contextlib.suppress(PermissionError):  # a tenant's account need not see the earlier place
            if not self._before.is_moved():
                found = self._before._where(digest)
        return found or self._own(digest)

    def _own(self, digest: str) -> Address | None:
        places = [(digest[:2], digest), (TRASH, digest[:2], digest)]
        return next((place for one in places if _is_there(place := self._at(*one))), None)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """End the block where there is no such file."""
        try:
            yield
        except OSError as error:
            if not _is_missing(error):
                message = f"the artifacts at {self.address} cannot be read: {reason_of(error)}"
                raise ArtifactError(message) from error

    def key(self, path: PurePosixPath | None = None) -> str:
        """Bucket and name of a file, by its path from the store's root; without one those of the root."""
        whole = self._root()
        return _key(whole.address if path is None else whole._at(*path.parts))

    def inner(self, key: str) -> PurePosixPath:
        """Return the path from the store's root of a file below it, by bucket and name."""
        return PurePosixPath(key.lstrip("/")).relative_to(self.key().strip("/"))

    def _at(self, *segments: str) -> Address:
        return self.address._replace(segments=(*self.address.segments, *segments))

    def _upload(self, copy: Path, digest: str) -> None:
        files, began = filesystem(self.address.protocol), time.monotonic()
        place = self._at(digest[:2], digest)
        with as_os_errors():
            if self._is_intact(files, place, digest):
                return
        done = upload(files, copy, _key(place))
        self.cache.count(
            sent_bytes=done.sent, resumed_bytes=done.kept, send_seconds=time.monotonic() - began if done.sent else 0.0
        )

    def _is_intact(self, files: Any, place: Address, digest: str) -> bool:
        with contextlib.suppress(FileNotFoundError):  # a sweep has just put it aside
            return bool(files.exists(_key(place))) and sha256_of(place) == digest
        return False


def is_of_store(error: BaseException) -> bool:
    """Whether an error says nothing about a file: its store, or this machine, could not read it.

    Example:
        >>> lost, away = ArtifactError("it was changed"), ArtifactError("it cannot be read")
        >>> away.__cause__ = TimeoutError(110, "Connection timed out")
        >>> is_of_store(lost), is_of_store(away)
        (False, True)
    """
    cause = error.__cause__
    # Without a number: what an object store answers is none of the errors that are known.
    is_unknown = type(cause) is OSError and cause.errno is None
    return is_put_off(error) or is_unknown or isinstance(cause, PermissionError | MissingBucketError)


def _is_missing(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) and not isinstance(error, MissingBucketError)


def _is_there(place: Address) -> bool:
    """Whether an object store has a file: ``exists`` of most packages takes any error for a no."""
    try:
        with as_os_errors():
            filesystem(place.protocol).info(_key(place))
    except OSError as error:
        if _is_missing(error):
            return False
        raise
    return True


def _modified(about: dict[str, Any]) -> float | None:
    """Seconds since 1970 at which a file was written, by what the object store says of it; None where it does not."""
    written = next((about[name] for name in _WRITTEN if about.get(name) is not None), None)
    if written is None:
        return None
    return written.timestamp() if hasattr(written, "timestamp") else float(written)


def sha256_of(place: Address) -> str:
    """Return the SHA-256 (hex) of what an object store has at a place; empty for more bytes than an artifact has."""
    remote, seen = ObjectFile(place), hashlib.sha256()
    about = remote.about()
    if about.size is None or about.size > LARGEST_BYTES:
        return ""
    with remote.opened(0, about) as (_, reader):
        while piece := reader.read(PIECE):
            seen.update(piece)
    return seen.hexdigest()


def _copied(path: Path, copy: Path) -> str:
    """Copy a file; the SHA-256 (hex) of the copy."""
    seen = hashlib.sha256()
    with path.open("rb") as reader, copy.open("wb") as writer:
        while piece := reader.read(PIECE):
            seen.update(piece)
            writer.write(piece)
    return seen.hexdigest()


def _key(address: Address) -> str:
    return f"{address.host}/{address.path}"

"""A cache folder for remote files: bounded in size, shared by processes, and consistent after a kill.

An entry is a file named by a key of 64 hex digits. During the download it is named ``KEY.SIZE.part`` and locked; a
killed download resumes. A reader holds a shared lock on its entry, and locked entries are never evicted. The folder
belongs to one account, which does not check its files again.

Beside the entries lie the sums of what has gone through the cache: bytes, seconds and hits, over all processes, in a
file that is replaced as a whole under a lock. They are figures for people: one that is damaged begins anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import ArtifactError, counted
from easeml_core.files.download import download
from easeml_core.formats.encoding import typed_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedRandom, BufferedReader

    from easeml_core.files.remote_file import About, RemoteFile, Teller


_SUMS, _LOCK = "traffic.json", ".traffic.lock"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sums since the folder was made, or since its figures were lost.

    Attributes:
        hits: Uses of files that were in the cache.
        misses: Uses of files that were brought here first.
        fetched_bytes: Came over the network.
        fetch_seconds: That took, waiting included.
        sent_bytes: Went to object stores.
        send_seconds: That took, reading what is there included.
        resumed_bytes: Of uploads that were interrupted, which did not have to be sent again.
    """

    hits: int = 0
    misses: int = 0
    fetched_bytes: int = 0
    fetch_seconds: float = 0.0
    sent_bytes: int = 0
    send_seconds: float = 0.0
    resumed_bytes: int = 0


def traffic_of(folder: Path) -> Traffic:
    """Return the sums of a cache; zeros where there are none, or none that can be read."""
    try:
        found = json.loads((folder / _SUMS).read_text())
        none = asdict(Traffic())
        return Traffic(**{name: type(zero)(found[name]) for name, zero in none.items()})
    except (OSError, ValueError, TypeError, KeyError):
        return Traffic()


def count(folder: Path, **more: float) -> None:
    """Add to the sums of a cache; a full disk loses figures and never a transfer."""
    with contextlib.suppress(OSError), open(folder / _LOCK, "w", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = traffic_of(folder)
        after = replace(before, **{name: getattr(before, name) + value for name, value in more.items()})
        whole = folder / f"{_SUMS}.new"  # one writer at a time
        whole.write_text(json.dumps(asdict(after)))
        whole.replace(folder / _SUMS)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


LIMIT_MB = 20_000
WAIT_SECONDS = 0.2

_ENTRY = re.compile(r"(?P<key>[0-9a-f]{64})(?:\.(?P<size>\d{1,15})\.part)?")
_LEDGER = ".lock"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def default_folder() -> Path:
    """``EASEML_CACHE``, else the folder that the system keeps for caches of this account."""
    given = os.environ.get("EASEML_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "easeml"
    except RuntimeError:
        message = "this account has no home folder for a cache; name a folder in EASEML_CACHE"
        raise ArtifactError(message) from None


def default_limit_mb() -> int:
    """``EASEML_CACHE_LIMIT_MB``, else 20,000."""
    given = os.environ.get("EASEML_CACHE_LIMIT_MB") or str(LIMIT_MB)
    if not re.fullmatch(r"[1-9]\d{0,9}", given):
        message = f"EASEML_CACHE_LIMIT_MB must be a whole number of megabytes above 0, got {given!r}"
        raise ArtifactError(message)
    return int(given)


class CacheEntry(NamedTuple):
    """One file of the cache.

    Attributes:
        path: Where it is.
        size: Bytes that it takes, or will take once it is whole.
        used: When it was used last, seconds since 1970.
        is_whole: Whether its download has ended.
    """

    path: Path
    size: int
    used: float
    is_whole: bool


@typed_record
class EntryReport:
    """An entry for people and programs.

    Attributes:
        key: Its 64 hex digits.
        megabytes: Its size.
        used: When it was used last.
        state: ``whole``, ``in use``, or ``unfinished`` while it is downloaded.
    """

    key: str
    megabytes: float
    used: datetime
    state: str


@typed_record
class TrafficReport:
    """What has gone through the cache of this machine.

    Attributes:
        hits: Uses of files that were there.
        misses: Uses of files that were brought here first.
        fetched_megabytes: Came over the network.
        fetched_megabytes_per_second: How fast, waiting included; None where nothing came.
        sent_megabytes: Went to object stores.
        sent_megabytes_per_second: How fast; None where nothing went.
        resumed_megabytes: Of interrupted uploads, which did not have to be sent again.
    """

    hits: int
    misses: int
    fetched_megabytes: float
    fetched_megabytes_per_second: float | None
    sent_megabytes: float
    sent_megabytes_per_second: float | None
    resumed_megabytes: float

    def __str__(self) -> str:
        """Say it in one line."""
        down, up = (
            "" if speed is None else f" at {speed:,.1f} MB/s"
            for speed in (self.fetched_megabytes_per_second, self.sent_megabytes_per_second)
        )
        resumed = f", {self.resumed_megabytes:,.1f} MB resumed" if self.resumed_megabytes else ""
        return (
            f"{counted(self.hits, 'hit')}, {counted(self.misses, 'miss', 'misses')}; {self.fetched_megabytes:,.1f} MB "
            f"fetched{down}, {self.sent_megabytes:,.1f} MB sent{up}{resumed}"
        )


@typed_record
class CacheReport:
    """The answer of ``easeml cache show``; sizes in megabytes.

    Attributes:
        folder: The cache.
        megabytes: All entries together.
        limit_megabytes: What they may take.
        entries: The entries, the longest unused first.
        traffic: Hits, misses, bytes and seconds since the folder was made.
    """

    folder: Path
    megabytes: float
    limit_megabytes: float
    entries: list[EntryReport]
    traffic: TrafficReport


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an entry should hold.

    Attributes:
        key: 64 hex digits; of the place and the name there, so that one place's file never stands for another's.
        find: Gives the remote file; asked only if the cache has no such entry.
        most: Bytes at most.
        sha256: Of the content, which is then checked at every use; None where it is not known.
    """

    key: str
    find: Callable[[], tuple[RemoteFile, About]]
    most: int
    sha256: str | None


class FileCache:
    """The cache in a folder.

    Args:
        folder: Made when first needed, for this account alone; None for ``default_folder``.
        limit_mb: Megabytes that all entries together may take; None for ``default_limit_mb``.
    """

    def __init__(self, folder: str | Path | None = None, limit_mb: float | None = None) -> None:
        self.folder = (default_folder() if folder is None else Path(folder)).absolute()
        self.limit = int((default_limit_mb() if limit_mb is None else limit_mb) * 1_000_000)

    @contextlib.contextmanager
    def entry(self, wanted: Wanted, teller: Teller) -> Iterator[Path]:
        """The path of an entry, which is downloaded if it must be, and is not evicted during the block."""
        self._make()
        is_hit = True
        while (file := self._opened(wanted)) is None:
            is_hit = False
            self._fill(wanted, teller)
        self.count(hits=int(is_hit), misses=int(not is_hit))
        with file:
            os.utime(file.fileno())
            yield self.folder / wanted.key

    def entries(self) -> list[CacheEntry]:
        """What is there, the longest unused first."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as listing:
            for item in listing:
                match = _ENTRY.fullmatch(item.name)
                with contextlib.suppress(FileNotFoundError):  # just evicted, or just whole
                    if match is not None and item.is_file(follow_symlinks=False):
                        status = item.stat(follow_symlinks=False)
                        size = max(status.st_size, int(match["size"] or 0))
                        found.append(CacheEntry(Path(item.path), size, status.st_mtime, match["size"] is None))
        return sorted(found, key=lambda entry: (entry.used, entry.path))

    def report(self) -> CacheReport:
        """The entries with their sizes and states."""
        entries = [
            EntryReport(
                key=entry.path.name.partition(".")[0],
                megabytes=entry.size / 1e6,
                used=datetime.fromtimestamp(int(entry.used), UTC),
                state=("in use" if self.is_used(entry) else "whole") if entry.is_whole else "unfinished",
            )
            for entry in self.entries()
        ]
        megabytes = sum(entry.megabytes for entry in entries)
        return CacheReport(self.folder, megabytes, self.limit / 1e6, entries, self.traffic())

    def traffic(self) -> TrafficReport:
        """Return what has gone through the cache."""
        found = traffic_of(self.folder)
        return TrafficReport(
            hits=found.hits,
            misses=found.misses,
            fetched_megabytes=found.fetched_bytes / 1e6,
            fetched_megabytes_per_second=_speed(found.fetched_bytes, found.fetch_seconds),
            sent_megabytes=found.sent_bytes / 1e6,
            sent_megabytes_per_second=_speed(found.sent_bytes, found.send_seconds),
            resumed_megabytes=found.resumed_bytes / 1e6,
        )

    def count(self, **more: float) -> None:
        """Add to the figures of ``traffic``, by the names of ``Traffic``; they are lost where it has no folder.

        Who only sends files needs no cache: its file system may be read-only.
        """
        with contextlib.suppress(OSError, ArtifactError):
            self._make()
            count(self.folder, **more)

    def is_used(self, entry: CacheEntry) -> bool:
        """Whether some process uses or downloads an entry."""
        return not _if_unused(entry.path, lambda: None)

    def clear(self) -> list[CacheEntry]:
        """Remove the entries that are not in use, and return them."""
        with self._ledger() if self.folder.exists() else contextlib.nullcontext():
            return [entry for entry in self.entries() if _if_unused(entry.path, entry.path.unlink)]

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.folder.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            message = (
                f"the cache folder {self.folder} must be a folder of this account alone (mode 0700), since what lies "
                "there is trusted; remove it, or name another"
            )
            raise ArtifactError(message)

    def _opened(self, wanted: Wanted) -> BufferedReader | None:
        """The entry, open and locked for use; None if it is not there. One that was damaged is removed."""
        path = self.folder / wanted.key
        try:
            file = os.fdopen(os.open(path, _READ), "rb")
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if _is_at(file, path):
            if wanted.sha256 in (None, hashlib.file_digest(file, "sha256").hexdigest()):
                return file
            path.unlink(missing_ok=True)
        file.close()
        return None

    def _fill(self, wanted: Wanted, teller: Teller) -> None:
        """Download an entry, or wait while another process does; whether it is there then is looked at anew."""
        remote, about = wanted.find()
        size = wanted.most if about.size is None else about.size
        if size > wanted.most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, at most {wanted.most:,} are allowed")
        teller.total = about.size
        path = self.folder / f"{wanted.key}.{size}.part"
        with self._part(path, size, teller) as part:
            if part is None:
                return
            if (self.folder / wanted.key).exists():  # it became whole between our look and this new, empty part
                path.unlink()
                return
            resumed, began, before = part.seek(0, 2) > 0, time.monotonic(), teller.fetched
            try:
                download(remote, about, part, most=wanted.most, teller=teller)
            finally:
                self.count(fetched_bytes=teller.fetched - before, fetch_seconds=time.monotonic() - began)
            part.seek(0)
            if wanted.sha256 not in (None, hashlib.file_digest(part, "sha256").hexdigest()):
                part.truncate(0)
                if not resumed:
                    message = f"artifact sha256:{wanted.sha256} was changed after it was stored; train the model again"
                    raise ArtifactError(message)
                return  # what was there of it was damaged: once more, from its beginning
            os.fsync(part.fileno())
            path.replace(self.folder / wanted.key)

    @contextlib.contextmanager
    def _part(self, path: Path, size: int, teller: Teller) -> Iterator[BufferedRandom | None]:
        """The unfinished file, locked; None if another process has brought it to its end, or given up."""
        with self._ledger():  # admitted one after the other, so that together they stay within the limit
            if not path.exists():
                self._make_room(size)
            part = os.fdopen(os.open(path, _WRITE, 0o600), "r+b")
            is_ours = _locked(part)
        with part:
            while not is_ours:
                teller.tell(os.fstat(part.fileno()).st_size)
                time.sleep(WAIT_SECONDS)
                is_ours = _locked(part)
            yield part if _is_at(part, path) else None

    def _make_room(self, size: int) -> None:
        entries = self.entries()
        used = sum(entry.size for entry in entries)
        for entry in entries:
            if used + size <= self.limit:
                break
            if _if_unused(entry.path, entry.path.unlink):
                used -= entry.size
        if used + size > self.limit:
            what = f"{size / 1e6:,.1f} MB do not fit into the cache {self.folder}"
            limits = f"of {self.limit / 1e6:,.0f} MB, of which {used / 1e6:,.1f} are in use"
            number = errno.EFBIG if size > self.limit else errno.ENOSPC  # the latter passes: others are in use
            raise OSError(number, f"{what} {limits}; raise its limit (EASEML_CACHE_LIMIT_MB)")

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[None]:
        with os.fdopen(os.open(self.folder / _LEDGER, _WRITE, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _speed(size: int, seconds: float) -> float | None:
    """Megabytes a second; None where nothing went."""
    return size / 1e6 / seconds if size and seconds else None


def _locked(file: BufferedRandom) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: BufferedReader | BufferedRandom, path: Path) -> bool:
    """Whether an open file is still the plain one of that name."""
    ours = os.fstat(file.fileno())
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(ours.st_mode) and (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _if_unused(path: Path, act: Callable[[], object]) -> bool:
    """Do something to an entry that no process has locked; whether it was done."""
    try:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(file, path):  # another one took its place, which others may use
                return False
            act()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True

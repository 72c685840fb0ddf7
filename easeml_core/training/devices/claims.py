"""Exclusive claims of the GPUs of a host, among all its processes and accounts.

A claim is a lock of the kernel (of an open file description, fcntl(2)) on bytes of a file that stands for one GPU, or
for one partition of it. A whole GPU is all ``UNITS`` bytes, a part of 1/N an N-th of them from a multiple of it. So the
kernel refuses a whole GPU beside a part, and more parts than there are. The claim ends when its holder unlocks the file
or ends, however it ends; after a restart of the host there is none. No process needs to clean up, and no clock matters.

The files lie in a folder that all accounts of the host share, ``/dev/shm`` unless ``EASEML_DEVICE_CLAIMS`` names
another one, and are named by the UUID of the GPU. Containers have a /dev/shm each: where several of them see the same
GPUs, they need a common folder. What a file says of its holders is for messages alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import random
import re
import secrets
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import DevicesHeldError, StateError, counted, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from easeml_core.training.devices.detection import DetectedDevice

FOLDER_VARIABLE = "EASEML_DEVICE_CLAIMS"
"""Environment variable: the folder of the files."""

SHARED_FOLDER = "/dev/shm"  # noqa: S108 - shared by all accounts on purpose; files are opened as such
"""The folder without it: in memory, writable for all accounts, and not hidden by systemd's PrivateTmp=."""

WAIT_SECONDS = 60.0
"""How long a training waits for devices that others hold."""

UNITS = 720_720
"""Bytes that stand for a whole GPU: the least common multiple of 1 to 16, so that each part is a number of bytes."""

_LOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of Linux on 64 bits: type, whence, start, length, process."""

_RECORDS, _RECORD_BYTES = 16, 256
"""Two parts that do not overlap begin in different sixteenths: each sixteenth has a record of its holder."""

_PAUSE_SECONDS = (0.1, 0.4)  # a random one: two that want several devices each do not take turns for ever
_CLOCK = time.CLOCK_BOOTTIME
"""One clock for all processes of the host, which no process sets."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a training holds.

    Attributes:
        devices: The GPUs; empty where it needs none, or there is none.
    """

    devices: tuple[DetectedDevice, ...] = ()

    @property
    def gpus(self) -> tuple[str, ...]:
        """Their UUIDs, the value of CUDA_VISIBLE_DEVICES for whatever trains under the claim."""
        return tuple(device.uuid for device in self.devices)


NO_CLAIM = Claim()


@contextlib.contextmanager
def claimed(
    devices: Sequence[DetectedDevice],
    *,
    count: int = 1,
    parts: int = 1,
    holder: str,
    should_stop: Callable[[], bool],
    log: Callable[[str], object],
    wait_seconds: float | None = None,
) -> Iterator[Claim | None]:
    """Hold ``count`` of some GPUs within the block, all of them or none.

    Args:
        devices: GPUs to choose from, in the order in which they are tried. A part is taken from one that is shared
            already, if possible.
        count: How many at once, from 1 to ``len(devices)``.
        parts: 1 for whole GPUs; N for an N-th of one, with ``count`` of 1.
        holder: What holds them, for the messages of others, such as ``trial 12``.
        should_stop: Asked while it waits; True ends the wait.
        log: Receives a line where it must wait.
        wait_seconds: How long at most, >= 0; None for ``WAIT_SECONDS``.

    Yields:
        The claim; None where ``should_stop`` ended the wait.

    Raises:
        DevicesHeldError: Too few were free all the time; it names who holds which.
        StateError: The folder of the files cannot hold them.
    """
    wait_seconds = WAIT_SECONDS if wait_seconds is None else wait_seconds
    with contextlib.ExitStack() as stack:
        deadline, has_said = time.monotonic() + wait_seconds, False
        while (claim := _attempt(devices, count, parts, holder, stack)) is None and not should_stop():
            what = f"{counted(count, 'GPU')}" if parts == 1 else f"1/{parts} of a GPU"
            if time.monotonic() >= deadline:
                message = f"{what} for {holder}: not free within {wait_seconds:g} s; {described(devices)}"
                raise DevicesHeldError(message)
            if not has_said:
                log(f"waiting up to {wait_seconds:g} s for {what}: {described(devices)}")
                has_said = True
            time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - no secret
        yield claim


@contextlib.contextmanager
def shown(claim: Claim) -> Iterator[None]:
    """Show CUDA the GPUs of a claim alone, in this process, for code that trains in it."""
    if not claim.gpus:
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claim.gpus)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _attempt(
    devices: Sequence[DetectedDevice], count: int, parts: int, holder: str, stack: contextlib.ExitStack
) -> Claim | None:
    """Take them now, or none; what is taken is given back as the stack is left."""
    ordered = devices if parts == 1 else sorted(devices, key=lambda device: not _is_shared(device))
    taken: list[DetectedDevice] = []
    with contextlib.ExitStack() as own:
        for device in ordered:
            if _take(device, parts, holder, own):
                taken.append(device)
            if len(taken) == count:
                stack.push(own.pop_all())
                return Claim(tuple(taken))
    return None


def _take(device: DetectedDevice, parts: int, holder: str, stack: contextlib.ExitStack) -> bool:
    path, length = path_of(device), UNITS // parts
    with contextlib.ExitStack() as own:
        file = own.enter_context(_opened(path))
        if file is None:
            return False
        start = next((n * length for n in range(parts) if _lock(file, n * length, length)), None)
        if start is None or not _is_in_place(file, path):
            return False
        _write_holder(file, start, holder)
        stack.push(own.pop_all())
        return True


def path_of(device: DetectedDevice) -> Path:
    """Return the file that stands for a GPU."""
    folder = os.environ.get(FOLDER_VARIABLE) or SHARED_FOLDER
    return Path(folder) / f"easeml-{re.sub('[^A-Za-z0-9-]', '_', device.uuid)}.claim"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The open file, which is made where there is none; None where another account keeps it to itself, or it is none.

    Raises:
        StateError: The folder cannot hold it.
    """
    file = _open(path)
    try:
        yield file
    finally:
        if file is not None:
            # Not by its end alone: a process that was forked meanwhile has the same open file.
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
            os.close(file)


def _open(path: Path) -> int | None:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        if not os.path.lexists(path):
            _make(path)
        file = os.open(path, flags)
    except OSError as error:
        if os.path.lexists(path):
            return None
        message = (
            f"{path.parent} cannot hold the claims of this host's GPUs ({reason_of(error)}): name a folder that every "
            f"account which trains here may write to with {FOLDER_VARIABLE}"
        )
        raise StateError(message) from error
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def _make(path: Path) -> None:
    """Make the file, from the first moment with the rights that every account needs, unless another one has."""
    unnamed = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    made = os.open(unnamed, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(made, 0o666)
        with contextlib.suppress(FileExistsError):
            os.link(unnamed, path)
    finally:
        os.close(made)
        unnamed.unlink()


def _is_in_place(file: int, path: Path) -> bool:
    """Whether others still find this file under its name: a lock on a file that was removed claims nothing."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _lock(file: int, start: int, length: int) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _locked(file: int, start: int, end: int, most: int = 2 * _RECORDS) -> list[tuple[int, int]]:
    """Ranges of these bytes that others have locked, at most so many."""
    if start >= end or most <= 0:
        return []
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    kind, _, begin, length, _ = _LOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return []
    stop = begin + length if length else end
    found = [(begin, stop)]
    for low, high in ((start, begin), (stop, end)):
        found += _locked(file, low, high, most - len(found))
    return found


def _write_holder(file: int, start: int, holder: str) -> None:
    said = {"pid": os.getpid(), "account": _account(), "for": holder[:40], "since": int(time.clock_gettime(_CLOCK))}
    record = json.dumps(said).encode()[:_RECORD_BYTES].ljust(_RECORD_BYTES)
    with contextlib.suppress(OSError):  # no room is left; the lock is held all the same, and messages name no holder
        os.pwrite(file, record, start * _RECORDS // UNITS * _RECORD_BYTES)


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name[:32]
    except KeyError:  # of a container
        return str(os.geteuid())


def _is_shared(device: DetectedDevice) -> bool:
    with _opened(path_of(device)) as file:
        return file is not None and bool(_locked(file, 0, UNITS))


def described(devices: Sequence[DetectedDevice]) -> str:
    """Return who holds which of some GPUs now, for a sentence.

    Raises:
        StateError: The folder of the files cannot hold them.
    """
    return "; ".join(f"{device.name} {_state_of(path_of(device))}" for device in devices)


def _state_of(path: Path) -> str:
    with _opened(path) as file:
        if file is None:
            return f"cannot be claimed: {path} is not a file that this account may lock"
        found = [(stop - start, _holder_at(file, start)) for start, stop in _locked(file, 0, UNITS)]
    if not found:
        return "is free"
    return "is held " + ", ".join(f"{_share_of(length)}by {name}" for length, name in sorted(found))


def _share_of(length: int) -> str:
    return "" if length == UNITS else f"to {length / UNITS:.0%} "


def _holder_at(file: int, start: int) -> str:
    """Who wrote the record; any account can write it, so that it is shown only as far as it has the form of one."""
    record = os.pread(file, _RECORD_BYTES, start * _RECORDS // UNITS * _RECORD_BYTES)
    try:
        said = json.loads(record)
        pid, since = int(said["pid"]), int(said["since"])
        account, purpose = (_printable(str(said[name])) for name in ("account", "for"))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return "a process that left no name"
    age = max(0, int(time.clock_gettime(_CLOCK)) - since)
    return f"process {pid} of the account {account} for {purpose}, since {age:,} s"


def _printable(text: str) -> str:
    """Return a text of a record as a log may show it."""
    return "".join(c for c in text if c.isprintable())[:40]

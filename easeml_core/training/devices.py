"""The devices of a host: GPUs by the driver's own tool, else the processor; and the exclusive claims of its GPUs.

``CUDA_VISIBLE_DEVICES`` restricts the GPUs, as it does for every program of CUDA. A GPU in MIG mode is the partitions
that it has, each a device. Nothing is imported that opens a GPU: a process that has done so cannot be forked.

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
import platform
import pwd
import random
import re
import secrets
import shutil
import socket
import stat
import struct
import subprocess
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from easeml_core.errors import DevicesHeldError, StateError, counted, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


_FIELDS = "index,uuid,name,memory.total,driver_version"
_MIG_MODE = "mig.mode.current"
_FORMAT = "--format=csv,noheader,nounits"
_LIST = "--list-gpus"
_QUERY_SECONDS = 10.0
_GPU_LINE = re.compile(r"GPU (\d+): ")
_PARTITION_LINE = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d{1,2}): \(UUID: (MIG-[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class DetectedDevice:
    """A device of this host.

    Attributes:
        host: Name of the host.
        name: ``cpu``, ``cuda:N`` by the host's own numbers, or ``cuda:N:M`` for partition M of a GPU in MIG mode.
        model: Name of the GPU or processor; None where that is unknown.
        memory_mb: Its memory in MiB, > 0; None where that is unknown.
        driver: Version of the GPU's driver, or of the kernel.
        slots: How many trials it takes at once: the processor one a core, a GPU one.
        uuid: By which CUDA_VISIBLE_DEVICES names the GPU or partition; empty for a processor.
    """

    host: str
    name: str
    model: str | None
    memory_mb: int | None
    driver: str | None
    slots: int
    uuid: str = ""

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, or a partition of one."""
        return self.name != "cpu"

    @property
    def is_partition(self) -> bool:
        """Whether it is a partition of a GPU, of which CUDA shows a process one at most."""
        return self.name.count(":") > 1


def detected_devices(slot: str | None = None) -> tuple[DetectedDevice, ...]:
    """Return the devices that a training in this slot may use; at least one."""
    gpus = () if slot == "cpu" else _visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    number = (slot or "").partition(":")[2]
    if number:
        gpus = gpus[int(number) : int(number) + 1]
    return gpus or (_processor(),)


def host_name() -> str:
    """Return the name under which this host announces its devices."""
    return socket.gethostname()[:253] or "localhost"


def _processor() -> DetectedDevice:
    return DetectedDevice(
        host=host_name(),
        name="cpu",
        model=_processor_model(),
        memory_mb=max(1, psutil.virtual_memory().total >> 20),
        driver=platform.release()[:100] or None,
        slots=min(1024, len(os.sched_getaffinity(0))),
    )


def _processor_model() -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()[:200]
    return platform.machine()[:200] or None


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A GPU, and what a process may use of it: itself, or its partitions."""

    number: str
    uuid: str
    devices: tuple[DetectedDevice, ...]


@cache
def _gpus() -> tuple[_Gpu, ...]:
    """The GPUs of this host; none where the driver's tool is missing, fails, hangs, or says something else.

    Asked once in a process: a stream would ask before each of its trials.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    answer = _asked(tool, f"--query-gpu={_FIELDS},{_MIG_MODE}", _FORMAT)
    if answer is None:  # drivers before 450 have no such field
        answer = _asked(tool, f"--query-gpu={_FIELDS}", _FORMAT)
    lines = (answer or "").splitlines()
    found = [gpu for line in lines if (gpu := _gpu_of(line)) is not None]
    if not any(line.endswith("Enabled") for line in lines):
        return tuple(found)
    partitions = _partitions_of(_asked(tool, _LIST) or "")
    modes = {line.partition(",")[0].strip(): line.endswith("Enabled") for line in lines}
    return tuple(_divided(gpu, partitions.get(gpu.number, [])) if modes[gpu.number] else gpu for gpu in found)


def _asked(tool: str, *arguments: str) -> str | None:
    """What the tool answers; None where it ends with an error, nothing where it cannot be started or hangs."""
    try:
        asked = subprocess.Popen(
            [tool, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return ""
    try:
        answer, _ = asked.communicate(timeout=_QUERY_SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()  # not waited for: a process that hangs in the driver cannot end
        return ""
    return None if asked.returncode else answer


def _gpu_of(line: str) -> _Gpu | None:
    """A GPU from a line of the tool's answer.

    Example:
        >>> _gpu_of("0, GPU-5a1c, NVIDIA H100 80GB HBM3, 81559, 550.54.15, Disabled").devices[0].memory_mb
        81559
        >>> _gpu_of("No devices were found") is None
        True
    """
    fields = [field.strip() for field in line.split(",")]
    if len(fields) not in (5, 6) or not fields[0].isdecimal() or int(fields[0]) > 999:
        return None
    index, uuid, model, memory, driver = fields[:5]
    megabytes = int(memory) if memory.isdecimal() and int(memory) > 0 else None  # "[N/A]" with unified memory
    found = DetectedDevice(host_name(), f"cuda:{index}", model[:200] or None, megabytes, driver[:100] or None, 1, uuid)
    return _Gpu(index, uuid, (found,))


def _partitions_of(listed: str) -> dict[str, list[tuple[str, str, str]]]:
    r"""Profile, number and UUID of each partition, by the number of its GPU.

    Example:
        >>> _partitions_of("GPU 0: NVIDIA A100 (UUID: GPU-5a)\n  MIG 3g.20gb     Device  1: (UUID: MIG-c7)")
        {'0': [('3g.20gb', '1', 'MIG-c7')]}
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    number = ""
    for line in listed.splitlines():
        if gpu := _GPU_LINE.match(line):
            number = gpu[1]
        elif partition := _PARTITION_LINE.match(line):
            found.setdefault(number, []).append((partition[1], partition[2], partition[3]))
    return found


def _divided(gpu: _Gpu, partitions: list[tuple[str, str, str]]) -> _Gpu:
    """A GPU in MIG mode: CUDA can use its partitions alone."""
    (whole,) = gpu.devices
    devices = []
    for profile, number, uuid in partitions:
        size = re.search(r"(\d+)gb", profile)  # such as 1c.3g.20gb or 1g.10gb+me
        devices.append(
            replace(
                whole,
                name=f"{whole.name}:{number}",
                model=f"{whole.model or 'GPU'} MIG {profile}"[:200],
                memory_mb=int(size[1]) << 10 if size and int(size[1]) else None,
                uuid=uuid,
            )
        )
    return replace(gpu, devices=tuple(devices))


def _visible(gpus: tuple[_Gpu, ...], names: str | None) -> tuple[DetectedDevice, ...]:
    """The GPUs that CUDA shows to a process with this CUDA_VISIBLE_DEVICES, in its order.

    A name is a number, or the beginning of the UUID of a GPU or of a partition; CUDA stops at the first that it does
    not know. The name of a GPU in MIG mode stands for all its partitions here, for CUDA for the first one.
    """
    if names is None:
        return tuple(device for gpu in gpus for device in gpu.devices)
    shown: list[DetectedDevice] = []
    for name in (name.strip() for name in names.split(",")):
        fits = _named(gpus, name) if name else []
        if len(fits) != 1:
            break
        shown += fits[0]
    return tuple(dict.fromkeys(shown))


def _named(gpus: tuple[_Gpu, ...], name: str) -> list[tuple[DetectedDevice, ...]]:
    """What a name may stand for: the devices of a GPU, or one partition."""
    of_gpus = [gpu.devices for gpu in gpus if gpu.number == name or gpu.uuid.startswith(name)]
    return of_gpus + [(d,) for gpu in gpus for d in gpu.devices if d.is_partition and d.uuid.startswith(name)]


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
    """Hold ``count`` of some GPUs within the block, all of them or none."""
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
    """The open file, made where there is none; None where another account keeps it to itself, or it is no file."""
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
    """Return who holds which of some GPUs now, for a sentence."""
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

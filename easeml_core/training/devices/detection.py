"""The devices that this process may use: GPUs by the driver's own tool, else the processor.

``CUDA_VISIBLE_DEVICES`` restricts the GPUs, as it does for every program of CUDA. A GPU in MIG mode is the partitions
that it has, each a device. Nothing is imported that opens a GPU: a process that has done so cannot be forked.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psutil

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
    """Return the devices that a training in this slot may use; at least one.

    Args:
        slot: ``cpu``, ``cuda``, ``cuda:N`` of the GPUs that this process sees, or None for its GPUs where it has any.
    """
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

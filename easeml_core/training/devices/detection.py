"""The devices that this process may use: GPUs by the driver's own tool, else the processor.

``CUDA_VISIBLE_DEVICES`` restricts the GPUs, as it does for every program of CUDA. Nothing is imported that opens a GPU:
a process that has done so cannot be forked.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_QUERY = ("--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits")
_QUERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DetectedDevice:
    """A device of this host.

    Attributes:
        host: Name of the host.
        name: ``cpu``, or ``cuda:N`` by the host's own numbers.
        model: Name of the GPU or processor; None where that is unknown.
        memory_mb: Its memory in MiB, > 0; None where that is unknown.
        driver: Version of the GPU's driver, or of the kernel.
        slots: How many trials it takes at once: the processor one a core, a GPU one.
    """

    host: str
    name: str
    model: str | None
    memory_mb: int | None
    driver: str | None
    slots: int

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.name != "cpu"


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
    uuid: str
    device: DetectedDevice


@cache
def _gpus() -> tuple[_Gpu, ...]:
    """The GPUs of this host; none where the driver's tool is missing, fails, hangs, or says something else.

    Asked once in a process: a stream would ask before each of its trials.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        asked = subprocess.Popen(
            [tool, *_QUERY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return ()
    try:
        answer, _ = asked.communicate(timeout=_QUERY_SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()  # not waited for: a process that hangs in the driver cannot end
        return ()
    if asked.returncode:
        return ()
    return tuple(found for line in answer.splitlines() if (found := _gpu_of(line)) is not None)


def _gpu_of(line: str) -> _Gpu | None:
    """A GPU from a line of the tool's answer.

    Example:
        >>> _gpu_of("0, GPU-5a1c, NVIDIA H100 80GB HBM3, 81559, 550.54.15").device.memory_mb
        81559
        >>> _gpu_of("No devices were found") is None
        True
    """
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 5 or not fields[0].isdecimal() or int(fields[0]) > 999:
        return None
    index, uuid, model, memory, driver = fields
    megabytes = int(memory) if memory.isdecimal() and int(memory) > 0 else None  # "[N/A]" with unified memory
    found = DetectedDevice(host_name(), f"cuda:{index}", model[:200] or None, megabytes, driver[:100] or None, 1)
    return _Gpu(uuid, found)


def _visible(gpus: tuple[_Gpu, ...], names: str | None) -> tuple[DetectedDevice, ...]:
    """The GPUs that CUDA shows to a process with this CUDA_VISIBLE_DEVICES, in its order.

    A name is a number or the beginning of a UUID; CUDA stops at the first that it does not know.
    """
    if names is None:
        return tuple(gpu.device for gpu in gpus)
    shown = []
    for name in (name.strip() for name in names.split(",")):
        fits = [g.device for g in gpus if name and (g.device.name == f"cuda:{name}" or g.uuid.startswith(name))]
        if len(fits) != 1:
            break
        shown.append(fits[0])
    return tuple(shown)

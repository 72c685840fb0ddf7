"""What a training job is, how its network is trained, and what it gave. Who runs one is ``supervisor``."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import StateError
from easeml_core.metrics.metric import check_metric_name
from easeml_core.settings.config import require
from easeml_core.training.distributed import ALONE, Group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.entities import JsonObject, Parameters


END = "end"
"""File in the folder of the job: a training that finds it after an epoch ends."""


_CHECKPOINT = "checkpoint-"


def checkpoint_name(step: int) -> str:
    """Name of the file, in the folder of the job, of the checkpoint after this step (epoch)."""
    return f"{_CHECKPOINT}{step}"


def remove_older(folder: Path) -> None:
    """Remove all checkpoints but the last two: a reader may not have taken the one before the last yet."""
    found = [path for path in folder.glob(f"{_CHECKPOINT}*") if path.name.removeprefix(_CHECKPOINT).isdecimal()]
    for old in sorted(found, key=lambda path: int(path.name.removeprefix(_CHECKPOINT)))[:-2]:
        old.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Run:
    """One training of a network.

    Attributes:
        device: ``cpu``, ``cuda``, or None for a GPU if one is visible. Which GPU it is, is decided outside: the process
            sees no other.
        folder: Where checkpoints are written; None for none.
        resume: Checkpoint to go on from; None for the beginning.
        checkpoint_seconds: Time from one checkpoint to the next, at least; 0 for one after each epoch.
        patience: Epochs without a better loss on held-out rows after which training ends, >= 1; None to train all
            epochs on all rows.
        mixed_precision: ``auto`` (on a GPU only), ``on`` or ``off``.
        group: This process among those that train together; alone by default.
        memory_parts: Into how many parts the memory of a GPU is divided, of which this process may use one.
        distributed_backend: What joins the processes: ``auto``, ``nccl`` or ``gloo``.
        halved: Whether batches have half the size: memory did not suffice before.
        metric: Of the quality reported after each epoch; None for accuracy, or r2 where numbers are predicted.
        files: Those of the job (``TrainingJob.files``).
        memory_limit_mb: Of the job, for what is run outside of its processes.
        threads: Likewise.
    """

    device: str | None = None
    folder: Path | None = None
    resume: Path | None = None
    checkpoint_seconds: float = 30.0
    patience: int | None = None
    mixed_precision: str = "auto"
    group: Group = ALONE
    memory_parts: int = 1
    distributed_backend: str = "auto"
    halved: bool = False
    metric: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    memory_limit_mb: int = 4096
    threads: int = 1


_SLOT = re.compile(r"cpu|cuda(:[0-9]{1,3})?")


def check_slot(name: str) -> str:
    """The name itself, if it can be that of a device's slot.

    Example:
        >>> check_slot("cuda:1")
        'cuda:1'
    """
    require(_SLOT.fullmatch(name) is not None, "slot", name, "cpu, cuda or cuda:N")
    return name


_GPU_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Device files of the drivers that torch knows: NVIDIA on Linux and on WSL, AMD."""


def require_slot(name: str, *, devices: int = 1) -> str:
    """The name itself, if it is that of a slot and this machine can have one of that kind."""
    check_slot(name)
    _check_holds(name, devices)
    is_gpu = name.startswith("cuda")
    if is_gpu and shutil.which("nvidia-smi") is None and not any(Path(device).exists() for device in _GPU_DEVICES):
        message = f"slot {name}: there is no GPU on this machine; name the slot cpu, or run this where there is one"
        raise StateError(message)
    return name


def _check_holds(slot: str, devices: int) -> None:
    is_one = devices > 1 and ":" in slot
    require(not is_one, "slot", slot, f"cpu or cuda: this trial trains on {devices} devices")


_OF_SUPERVISOR = ("time_limit_seconds", "gpus")
"""Fields of a job that its child has no use for: the time is kept outside, and the GPUs are those that it sees."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One candidate to be trained on one version of the data.

    Attributes:
        kind: A key of ``trainers.TRAINERS``.
        parameters: The trainer's parameters; what is absent takes its default.
        data_path: The open parts, as written by ``parts.save_open_parts``.
        output_dir: Folder of this job alone; made if absent.
        seed: Seed of everything random, in [0, 2^32).
        time_limit_seconds: Wall seconds of the whole child, > 0.
        memory_limit_mb: Resident megabytes of the child and its children, >= 64.
        threads: Threads of the numerical libraries, >= 1; 1 keeps the measured cost comparable between trials.
        metric: Name of what the validation part is scored by (``metric.metric_of``); None for accuracy where classes
            are predicted, r2 where numbers are.
        device: ``cpu``, ``cuda`` or ``cuda:N``, the N-th of those that this process may use; None for a GPU if there is
            one. The child sees no other.
        gpus: UUIDs of the GPUs that the child sees, whatever ``device`` says: those that were claimed for it. Empty for
            those of ``device``.
        resume: Checkpoint of an earlier attempt to go on from; None for the beginning.
        checkpoint_seconds: Time from one checkpoint to the next, at least; 0 for one after each epoch.
        patience: Epochs without a better loss on held-out rows that end the training of a network, >= 1; None for all.
        mixed_precision: ``auto`` (on a GPU only), ``on`` or ``off``; of networks.
        devices: How many devices train at once, >= 1: the ranks of a network; programs start their own.
        memory_parts: Into how many parts the memory of the device is divided, >= 1; the job may use one.
        distributed_backend: What joins the ranks: ``auto``, ``nccl`` or ``gloo``.
        halved: Whether batches are half as large as asked for, since memory did not suffice before.
        files: Name of a parameter that is an artifact's reference to the file, for kinds that bring their own code.

    Raises:
        ConfigError: If a limit or the seed is outside its range.
        NotFoundError: If the metric's name has no form that is known.
    """

    kind: str
    parameters: Parameters
    data_path: Path
    output_dir: Path
    seed: int = 0
    time_limit_seconds: float = 600.0
    memory_limit_mb: int = 4096
    threads: int = 1
    metric: str | None = None
    device: str | None = None
    gpus: tuple[str, ...] = ()
    resume: Path | None = None
    checkpoint_seconds: float = 30.0
    patience: int | None = None
    mixed_precision: str = "auto"
    devices: int = 1
    memory_parts: int = 1
    distributed_backend: str = "auto"
    halved: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, ">= 0 and < 2^32")
        require(0 < self.time_limit_seconds < math.inf, "time_limit_seconds", self.time_limit_seconds, "> 0 and finite")
        require(self.memory_limit_mb >= 64, "memory_limit_mb", self.memory_limit_mb, ">= 64")
        require(self.threads >= 1, "threads", self.threads, ">= 1")
        require(self.devices >= 1, "devices", self.devices, ">= 1")
        require(self.memory_parts >= 1, "memory_parts", self.memory_parts, ">= 1")
        if self.device is not None:
            check_slot(self.device)
            _check_holds(self.device, self.devices)
        if self.metric is not None:
            check_metric_name(self.metric)

    def to_json(self) -> JsonObject:
        """What the child needs to know; its limits are kept by the supervisor, a container's by its runtime."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OF_SUPERVISOR}
        return values | {
            "parameters": dict(self.parameters),
            "data_path": str(self.data_path),
            "output_dir": str(self.output_dir),
            "resume": None if self.resume is None else str(self.resume),
            "files": {name: str(path) for name, path in self.files.items()},
        }

    @classmethod
    def from_json(cls, values: JsonObject) -> TrainingJob:
        """The job as the child sees it."""
        paths = {
            "data_path": Path(values["data_path"]),
            "output_dir": Path(values["output_dir"]),
            "resume": None if values["resume"] is None else Path(values["resume"]),
            "files": {name: Path(path) for name, path in values["files"].items()},
        }
        return cls(**{**values, **paths})


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """A job that ended with a model.

    Attributes:
        quality: Of the metric's score on the validation part, in [0, 1]; higher is better.
        cost_seconds: Wall seconds of the child from its libraries' import on, > 0: load, fit, validate, save and end.
        artifact_path: The saved model, inside the job's output folder.
        format: A key of ``formats.FORMATS``.
        validation_predictions: int64 labels, or float64 numbers, shape (validation_rows,); or several numbers a row,
            (validation_rows, numbers).
        score: Of the metric, in its own unit; None where it was not reported.
        start_seconds: Wall seconds before the cost begins, >= 0: starting the process and importing libraries. None
            where they are part of the cost.
        processor_seconds: Of the process in the time of its cost, >= 0; None where it was not reported.
    """

    quality: float
    cost_seconds: float
    artifact_path: Path
    format: str
    validation_predictions: NDArray[Any]
    score: float | None = None
    start_seconds: float | None = None
    processor_seconds: float | None = None

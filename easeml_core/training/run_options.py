"""How a network is trained, beside what its user chose: device, checkpoints, early stopping, mixed precision.

Standard library only: a trainer of another family never needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easeml_core.training.devices.distributed import ALONE, Group

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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

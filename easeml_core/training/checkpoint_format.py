"""Checkpoints of networks: weights and the optimiser's moments as safetensors, the rest as JSON in the header.

Nothing in a file is ever run. Randomness needs no place in it: each epoch draws from a generator that is seeded by the
job's seed and the epoch's number, so that a training which goes on makes the very numbers it would have made.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from easeml_core.errors import ArtifactError
from easeml_core.files.local import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Tensors = dict[str, torch.Tensor]

_HEADER = "checkpoint"
_HEADER_LENGTH = 10_000
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint says beside its tensors.

    Attributes:
        training: Names the training it belongs to: another one must not go on from it.
        epoch: Epochs that are done, >= 1.
        batch_size: Rows of a batch, >= 1; less than the parameter where memory did not suffice.
        seconds: Wall seconds of the work so far, >= 0; for people.
        best_epoch: The epoch with the least held-out loss, 0 where nothing is held out.
        best_loss: That loss; None where nothing is held out.
        scaler: State of the gradient scaler; empty without one.
    """

    training: str
    epoch: int
    batch_size: int
    seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float | None = None
    scaler: Mapping[str, float] = field(default_factory=dict)

    def is_sound(self) -> bool:
        """Whether each field has its type and lies in its range."""
        whole = all(type(n) is int for n in (self.epoch, self.batch_size, self.best_epoch))
        numbers = [self.seconds, *([] if self.best_loss is None else [self.best_loss])]
        if not whole or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            return False
        scaler = isinstance(self.scaler, dict) and all(isinstance(v, int | float) for v in self.scaler.values())
        return scaler and self.epoch >= 1 and self.batch_size >= 1 and 0 <= self.best_epoch <= self.epoch


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after one of its epochs.

    Attributes:
        header: Everything that is no tensor.
        weights: Of the network, by name.
        moments: Of the optimiser (Adam): number of the weight to ``step``, ``exp_avg`` and ``exp_avg_sq``.
        best: Weights of the best epoch; empty where that is the last one, or nothing is held out.
    """

    header: Header
    weights: Tensors
    moments: Mapping[int, Tensors]
    best: Tensors


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all; the one that was there stays until then."""
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in checkpoint.best.items()}
    for number, moments in checkpoint.moments.items():
        tensors |= {f"moments/{number}/{name}": moments[name] for name in _MOMENTS}
    with written_whole(path) as temporary:
        own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(own, temporary, metadata={_HEADER: json.dumps(asdict(checkpoint.header))})


def load_checkpoint(path: Path, *, training: str, weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """The checkpoint in a file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, LookupError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        message = f"the checkpoint cannot be read: {error}"
        raise ArtifactError(message) from error
    if header.training != training:
        message = "the checkpoint belongs to another training: candidate, data, seed or version differ"
        raise ArtifactError(message)
    found = Checkpoint(header, _under("weights/", tensors), _moments(tensors), _under("best/", tensors))
    if not (_fits(found.weights, weights) and (not found.best or _fits(found.best, weights))):
        message = "the weights in the checkpoint are not those of the network"
        raise ArtifactError(message)
    return found


def _header(metadata: Mapping[str, str] | None) -> Header:
    text = (metadata or {}).get(_HEADER, "null")
    fields: Any = json.loads(text) if len(text) <= _HEADER_LENGTH else None
    if not isinstance(fields, dict) or not (header := Header(**fields)).is_sound():
        message = "it does not say which epoch it was made after"
        raise ValueError(message)
    return header


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _moments(tensors: Tensors) -> dict[int, Tensors]:
    found: dict[int, Tensors] = {}
    for path, tensor in _under("moments/", tensors).items():
        number, _, name = path.partition("/")
        if not number.isdecimal() or len(number) > 9 or name not in _MOMENTS:
            message = f"the checkpoint has the moments {path[:100]!r}, which no optimiser of ours has"
            raise ArtifactError(message)
        found.setdefault(int(number), {})[name] = tensor
    return found


def _fits(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> bool:
    same_names = found.keys() == wanted.keys()
    return same_names and all(
        found[name].shape == tensor.shape and found[name].dtype == tensor.dtype for name, tensor in wanted.items()
    )


def moments_of(optimizer: torch.optim.Optimizer) -> dict[int, Tensors]:
    """The moments of an Adam optimiser, by the number of the weight; weights that took no step have none."""
    state: dict[int, Tensors] = optimizer.state_dict()["state"]
    return state


def restore_moments(optimizer: torch.optim.Optimizer, moments: Mapping[int, Tensors]) -> None:
    """Go on with these moments."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, found in moments.items():
        shapes = {name: tensor.shape for name, tensor in found.items()}
        wanted = weights[number].shape if number < len(weights) else None
        if shapes != {"step": torch.Size(()), "exp_avg": wanted, "exp_avg_sq": wanted}:
            message = "the moments in the checkpoint are not those of the network's optimiser"
            raise ArtifactError(message)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(moments), "param_groups": groups})

"""Torch networks, and their files: weights as safetensors, the architecture in its header.

An architecture is a few bounded numbers and words (``architecture.py``), so a file decides sizes but never code.
Inputs are scaled inside the network; a missing value becomes the mean, but where the layers tell it from one. How
networks are trained is in ``training/network_training.py``; their layers are in the other modules of this package.
"""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from easeml_core.data.layout import KINDS, LINKS
from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.models.networks.architecture import NETWORKS, Architecture, architecture_for
from easeml_core.models.networks.layers import Layer, shaped_loss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "Architecture",
    "Network",
    "NetworkPredictor",
    "architecture_for",
    "build_network",
    "load_network",
    "rows_of_block",
]

MOST_WEIGHTS = 150_000_000
"""Of a network: enough for all that are trained here at the width that was published."""

_BLOCK_ROWS = 256
_BLOCK_NUMBERS = 2**20
_BITS = 8  # scores of a number, at most
_LEAST_SCALE, _ROUNDING = 1e-30, 1e-12


class Network(Layer):
    """Scaling of inputs and targets, and a body of layers that gives one score (logit) per class, or numbers.

    A body whose answers are images, series or the like says how numbers are read off its outputs
    (``structured.Structured``).

    Attributes:
        architecture: What it is built of.
        body: The layers; they take scaled inputs of shape (rows, features).
        mean: Subtracted from each column, shape (features,).
        scale: Divides each column, > 0, shape (features,).
        low: Least pixel of the training part, shape (); only with a normalisation, and so is ``high``.
        high: Greatest pixel, > low.
        target_mean: float64, shape (), or (numbers,) of several; only where numbers are given, and so is
            ``target_scale``.
        target_scale: Of the targets of the training part, > 0.
    """

    def __init__(self, architecture: Architecture, body: Any) -> None:
        super().__init__()
        self.architecture, self.body = architecture, body
        self.register_buffer("mean", torch.zeros(architecture.features))
        self.register_buffer("scale", torch.ones(architecture.features))
        if architecture.normalisation != "identity":
            self.register_buffer("low", torch.tensor(0.0))
            self.register_buffer("high", torch.tensor(1.0))
        if architecture.classes == 1:
            shape = (math.prod(architecture.wanted),) if architecture.wanted else ()
            self.register_buffer("target_mean", torch.zeros(shape, dtype=torch.float64))
            self.register_buffer("target_scale", torch.ones(shape, dtype=torch.float64))

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes); or the number in units of its deviation, shape (rows, 1)."""
        return self.body(self.scaled(inputs))

    def scaled(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the layers take, shape (rows, features); only some are given NaN for what is missing."""
        scaled = (self.normalised(inputs) - self.mean) / self.scale
        return scaled if NETWORKS[self.architecture.network].takes_missing else torch.nan_to_num(scaled, nan=0.0)

    def normalised(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pixels x in [0, 1] as x^k - x^2k: the smaller k, the better are small values told apart (ease.ml, 2018)."""
        if self.architecture.normalisation == "identity":
            return inputs
        power = ((inputs - self.low) / (self.high - self.low)).clamp(0, 1) ** float(self.architecture.normalisation)
        return power - power**2

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch: cross-entropy, or the squared error in units of the targets' variance."""
        if self.architecture.classes > 1:
            return nn.functional.cross_entropy(outputs.float(), targets)
        scaled = (targets.double() - self.target_mean) / self.target_scale
        if self.architecture.wanted:
            return shaped_loss(self.body.numbers(outputs.float()), scaled.float())
        return nn.functional.mse_loss(outputs.float()[:, 0], scaled.float())

    def numbers(self, outputs: torch.Tensor) -> torch.Tensor:
        """What outputs stand for in the unit of the targets: float64, shape (rows,), or (rows, numbers) of several."""
        scaled = self.body.numbers(outputs.float()) if self.architecture.wanted else outputs[:, 0]
        return scaled.double() * self.target_scale + self.target_mean

    def learn_scale(self, inputs: NDArray[np.float32], targets: NDArray[Any]) -> None:
        """Take mean and deviation from the training part.

        They are those of each column of a table; of all pixels of images together, since a border pixel that is always
        0 has none; of each channel of series over all steps, and of trees over all nodes, but for their links; and of
        the targets where they are numbers, those of images and series likewise.
        """
        if self.architecture.normalisation != "identity":
            known = torch.from_numpy(np.array(inputs))
            finite = known[known.isfinite()]
            low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
            self.low.fill_(low)
            self.high.fill_(high if high > low else low + 1)
            inputs = self.normalised(known).numpy()
        columns = self._columns()
        mean, scale = _mean_and_scale(inputs.reshape(-1, columns))
        if NETWORKS[self.architecture.network].layout == "tree":
            mean[-LINKS:], scale[-LINKS:] = 0, 1
        repeated = self.architecture.features // columns
        self.mean.copy_(torch.from_numpy(np.tile(mean, repeated)))
        self.scale.copy_(torch.from_numpy(np.tile(scale, repeated)))
        if self.architecture.classes == 1:
            self._learn_target_scale(targets)

    def _learn_target_scale(self, targets: NDArray[Any]) -> None:
        shape = self.architecture.wanted or (1,)
        own = 1 if len(shape) == KINDS["image"] else shape[-1]
        found = _mean_and_scale(np.asarray(targets, dtype=np.float64).reshape(-1, own))
        for buffer, values in zip((self.target_mean, self.target_scale), found, strict=True):
            repeated = np.tile(values, math.prod(shape) // own)
            buffer.copy_(torch.from_numpy(repeated.reshape(tuple(buffer.shape))))

    def _columns(self) -> int:
        """Return how many numbers of a row are scaled separately."""
        if self.architecture.height:
            return 1
        return self.architecture.channels if self.architecture.steps else self.architecture.features

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that was learnt, by name."""
        return {name: tensor.contiguous() for name, tensor in self.state_dict().items()}


def _mean_and_scale(table: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the finite values of each column; the deviation is 1 where it would be 0. The table is never copied whole."""
    rows = max(1, _BLOCK_NUMBERS // table.shape[1])
    blocks = [table[start : start + rows] for start in range(0, len(table), rows)]
    count = np.maximum(np.sum([np.isfinite(block).sum(axis=0) for block in blocks], axis=0), 1)
    mean = np.sum([_known(block, 0.0).sum(axis=0) for block in blocks], axis=0) / count
    scale = np.sqrt(np.sum([(_known(block, mean) ** 2).sum(axis=0) for block in blocks], axis=0) / count)
    return mean, np.where(scale > np.maximum(_LEAST_SCALE, _ROUNDING * np.abs(mean)), scale, 1.0)


def _known(block: NDArray[Any], center: Any) -> NDArray[np.float64]:
    """Distances from the center; 0 where nothing is known."""
    return np.where(np.isfinite(block), block - np.float64(center), 0.0)


@dataclass(frozen=True, slots=True)
class NetworkPredictor:
    """A trained network on the CPU."""

    network: Network
    format: str = "safetensors"

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """Logits, shape (rows, classes); or what numbers are read off, shape (rows, ...)."""
        return self._asked(inputs, self.network.logits)

    def _asked(self, inputs: NDArray[np.float32], ask: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[Any]:
        """What ``ask`` gives for the rows.

        Rows are asked in blocks of one size, the last filled up: so the sums of a row are made in the same order
        whatever comes with it, and a row that is all but even between two labels keeps its label.
        """
        architecture = self.network.architecture
        if inputs.ndim != 2 or inputs.shape[1] != architecture.features:
            message = f"the network was trained on {architecture.features} features, got inputs of shape {inputs.shape}"
            raise TrainingError(message)
        self.network.eval()
        size = rows_of_block(architecture)
        block, found = torch.zeros(size, architecture.features), np.zeros(0)
        with torch.inference_mode():
            for start in range(0, max(1, len(inputs)), size):
                rows = torch.from_numpy(inputs[start : start + size])
                block[: len(rows)] = rows
                answers = ask(block).numpy()
                if not start:
                    found = np.zeros((len(inputs), *answers.shape[1:]), answers.dtype)
                found[start : start + size] = answers[: len(rows)]
        return found

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The label with the highest score (int64), or the number (float64), shape (rows,); or (rows, numbers)."""
        if self.network.architecture.classes > 1:
            return np.asarray(self.scores(inputs).argmax(axis=1), dtype=np.int64)
        return self._asked(inputs, lambda block: self.network.numbers(self.network.logits(block)))

    def probabilities(self, inputs: NDArray[np.float32], *, classes: int) -> NDArray[np.float64] | None:
        """What the softmax makes of the scores, float64, shape (rows, classes); None where a number is given."""
        if self.network.architecture.classes != classes or classes < 2:
            return None
        scores = self.scores(inputs).astype(np.float64)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def save(self, path: Path) -> None:
        """Write weights and architecture."""
        header = {"architecture": json.dumps(asdict(self.network.architecture))}
        save_file(self.network.tensors(), path, metadata=header)


def rows_of_block(architecture: Architecture) -> int:
    """How many rows are asked at once: 256, or fewer where they are large.

    Example:
        >>> rows_of_block(Architecture("mlp", features=2**14, classes=2, width=8))
        64
    """
    numbers = max(architecture.features, architecture.size**2, _BITS * math.prod(architecture.wanted))
    return max(1, min(_BLOCK_ROWS, _BLOCK_NUMBERS // numbers))


def load_network(path: Path) -> NetworkPredictor:
    """The network in a file."""
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads((file.metadata() or {}).get("architecture", "null"))
        architecture = Architecture(**fields)
        architecture = replace(architecture, wanted=tuple(architecture.wanted))  # a list in JSON
        if not architecture.is_sound():
            message = f"the model file {path.name} describes a network that we do not build: {fields}"
            raise ArtifactError(message)
        network = build_network(architecture)
        network.load_state_dict(load_file(path))
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, SafetensorError, TrainingError) as error:
        message = f"the model file {path.name} is no readable network: {error}"
        raise ArtifactError(message) from error
    return NetworkPredictor(network)


def build_network(architecture: Architecture) -> Network:
    """A network with random weights, and inputs taken as they are."""
    with torch.device("meta"):
        weights = sum(tensor.numel() for tensor in _body(architecture).state_dict().values())
    if weights > MOST_WEIGHTS:
        message = f"{architecture.network} would have {weights:,} weights; at most {MOST_WEIGHTS:,} are allowed"
        message += ": make it narrower"
        raise TrainingError(message)
    return Network(architecture, _body(architecture))


def _body(architecture: Architecture) -> nn.Module:
    module, _, name = NETWORKS[architecture.network].maker.partition(":")
    return getattr(importlib.import_module(f"easeml_core.models.networks.{module}"), name)(architecture)

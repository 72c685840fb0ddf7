"""Two small torch networks for classification, and their files: weights as safetensors, the architecture in its header.

An architecture is a few bounded numbers, so a file decides sizes but never code. Inputs are scaled inside the network;
a missing value becomes the mean. How they are trained is in ``network_training``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from easeml_core.errors import ArtifactError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_BATCH_ROWS = 2048
_BOUNDS = {"features": 1_000_000, "classes": 1000, "width": 4096, "height": 4096, "breadth": 4096}
_LEAST_SIDE = 4


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network is, but for its weights.

    Attributes:
        network: ``mlp`` or ``cnn``.
        features: Columns of the input.
        classes: Number of labels, >= 2.
        width: Units of a hidden layer, or channels of the first convolution.
        height: Rows of the image; 0 for a table.
        breadth: Columns of the image; 0 for a table.
    """

    network: str
    features: int
    classes: int
    width: int
    height: int = 0
    breadth: int = 0

    def is_sound(self) -> bool:
        """Whether the numbers are whole, in bounds, and make a network."""
        sizes = {name: value for name, value in asdict(self).items() if name != "network"}
        whole = all(type(v) is int and 0 <= v <= _BOUNDS[name] for name, v in sizes.items())
        if not whole or self.features < 1 or self.classes < 2 or self.width < 1:
            return False
        is_image = min(self.height, self.breadth) >= _LEAST_SIDE and self.height * self.breadth == self.features
        return self.network == "mlp" or (self.network == "cnn" and is_image)


@dataclass(slots=True)
class Network:
    """Scaling of the inputs, and a body of layers that gives one score (logit) per class.

    Attributes:
        architecture: What it is built of.
        body: The layers; they take scaled inputs of shape (rows, features).
        mean: Subtracted from each column, shape (features,).
        scale: Divides each column, > 0, shape (features,).
    """

    architecture: Architecture
    body: Any
    mean: torch.Tensor
    scale: torch.Tensor

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes); a missing input counts as the mean."""
        return self.body(torch.nan_to_num((inputs - self.mean) / self.scale, nan=0.0))

    def to(self, device: torch.device) -> Network:
        """The network on a device."""
        return Network(self.architecture, self.body.to(device), self.mean.to(device), self.scale.to(device))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that was learnt, by name."""
        weights = {f"body.{name}": tensor.contiguous() for name, tensor in self.body.state_dict().items()}
        return {**weights, "mean": self.mean, "scale": self.scale}


@dataclass(frozen=True, slots=True)
class NetworkPredictor:
    """A trained network on the CPU."""

    network: Network
    format: str = "safetensors"

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """Logits, shape (rows, classes)."""
        expected, classes = self.network.architecture.features, self.network.architecture.classes
        if inputs.ndim != 2 or inputs.shape[1] != expected:
            message = f"the network was trained on {expected} features, got inputs of shape {inputs.shape}"
            raise TrainingError(message)
        self.network.body.eval()
        blocks = [np.zeros((0, classes), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(inputs), _BATCH_ROWS):
                blocks.append(self.network.logits(torch.from_numpy(inputs[start : start + _BATCH_ROWS])).numpy())
        return np.concatenate(blocks)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """The label with the highest score, shape (rows,)."""
        return np.asarray(self.scores(inputs).argmax(axis=1), dtype=np.int64)

    def save(self, path: Path) -> None:
        """Write weights and architecture."""
        header = {"architecture": json.dumps(asdict(self.network.architecture))}
        save_file(self.network.tensors(), path, metadata=header)


def load_network(path: Path) -> NetworkPredictor:
    """The network in a file.

    Raises:
        ArtifactError: If the file is no safetensors file, its architecture is not one of ours or out of bounds, or the
            weights do not fit it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads((file.metadata() or {}).get("architecture", "null"))
        architecture = Architecture(**fields)
        if not architecture.is_sound():
            message = f"the model file {path.name} describes a network that we do not build: {fields}"
            raise ArtifactError(message)
        return NetworkPredictor(_filled(build_network(architecture), load_file(path)))
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        message = f"the model file {path.name} is no readable network: {error}"
        raise ArtifactError(message) from error


def build_network(architecture: Architecture) -> Network:
    """A network with random weights, and inputs taken as they are."""
    body = _mlp(architecture) if architecture.network == "mlp" else _cnn(architecture)
    return Network(architecture, body, torch.zeros(architecture.features), torch.ones(architecture.features))


def architecture_for(
    kind: str, parameters: Mapping[str, Any], *, features: int, classes: int, image_shape: tuple[int, int] | None
) -> Architecture:
    """The architecture of a kind of ``trainers``.

    Raises:
        TrainingError: If the images are too small for two poolings, or the sizes are beyond what a file may hold.
    """
    height, breadth = image_shape or (0, 0)
    name, width = ("cnn", parameters["channels"]) if kind == "torch_cnn" else ("mlp", parameters["hidden_width"])
    architecture = Architecture(name, features, classes, width, height, breadth)
    if not architecture.is_sound():
        message = f"{kind} cannot take {features:,} features as {height} x {breadth} pixels; at least 4 x 4 are needed"
        raise TrainingError(message)
    return architecture


def _filled(network: Network, tensors: dict[str, torch.Tensor]) -> Network:
    for name in ("mean", "scale"):
        getattr(network, name).copy_(tensors.pop(name))  # RuntimeError if the shapes differ
    network.body.load_state_dict({name.removeprefix("body."): tensor for name, tensor in tensors.items()})
    return network


def _mlp(a: Architecture) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(a.features, a.width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a.width, a.width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a.width, a.classes),
    )  # fmt: skip


def _cnn(a: Architecture) -> nn.Sequential:
    left = math.floor(a.height / 4) * math.floor(a.breadth / 4)  # after two poolings by 2, each rounding down
    return nn.Sequential(
        nn.Unflatten(1, (1, a.height, a.breadth)),
        nn.Conv2d(1, a.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a.width, 2 * a.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(2 * a.width * left, a.classes),
    )  # fmt: skip

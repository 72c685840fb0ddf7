"""Train a small network: Adam on the cross-entropy, a few epochs, the same weights for the same seed on one machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from easeml_core.errors import TrainingError
from easeml_core.training.networks import Network, NetworkPredictor, architecture_for, build_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.training.parts import OpenParts
    from easeml_core.training.progress import Report


def fit_network(
    kind: str, parts: OpenParts, parameters: Mapping[str, Any], *, seed: int, report: Report
) -> NetworkPredictor:
    """Train the network of a kind on the training part; after each epoch tell its validation accuracy.

    The accuracy is told for people to see; the last epoch's weights are kept whatever it was, so that the validation
    part chooses between candidates only.

    Raises:
        TrainingError: If the loss stops being finite; the message names the learning rate.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = parts.train_inputs.shape[1]
    architecture = architecture_for(
        kind, parameters, features=features, classes=parts.classes, image_shape=parts.image_shape
    )
    network = build_network(architecture)
    _set_scale(network, parts.train_inputs, is_image=parts.image_shape is not None)
    network = network.to(device)
    inputs, labels = torch.from_numpy(parts.train_inputs).to(device), torch.from_numpy(parts.train_labels).to(device)
    optimizer = torch.optim.Adam(network.body.parameters(), lr=parameters["learning_rate"])
    shuffle = torch.Generator().manual_seed(seed)
    epochs = parameters["epochs"]
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(labels), generator=shuffle).to(device)
        loss = _one_epoch(network, optimizer, inputs[order], labels[order], batch_size=parameters["batch_size"])
        if not math.isfinite(loss):
            rate = parameters["learning_rate"]
            message = f"{kind} diverged: the loss of epoch {epoch} is {loss}; lower learning_rate (now {rate:g})"
            raise TrainingError(message)
        quality = _accuracy(network, parts, device)
        report(0.1 + 0.7 * epoch / epochs, f"epoch {epoch} of {epochs}", quality)
    return NetworkPredictor(network.to(torch.device("cpu")))


def _set_scale(network: Network, inputs: NDArray[np.float32], *, is_image: bool) -> None:
    """Mean and deviation of each column, or of all pixels together (a border pixel that is always 0 has none)."""
    axis = None if is_image else 0
    with np.errstate(invalid="ignore"):
        known = np.isfinite(inputs)
        count = np.maximum(known.sum(axis=axis), 1)
        mean = np.where(known, inputs, 0).sum(axis=axis, dtype=np.float64) / count
        square = np.where(known, (inputs - mean) ** 2, 0).sum(axis=axis, dtype=np.float64) / count
    scale = np.sqrt(square)
    scale = np.where(scale > 1e-8, scale, 1.0)
    features = inputs.shape[1]
    network.mean.copy_(torch.from_numpy(np.broadcast_to(mean, features).astype(np.float32)))
    network.scale.copy_(torch.from_numpy(np.broadcast_to(scale, features).astype(np.float32)))


def _one_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    batch_size: int,
) -> float:
    """Mean loss of one pass in the order given."""
    network.body.train()
    total = 0.0
    for start in range(0, len(labels), batch_size):
        batch = slice(start, start + batch_size)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network.logits(inputs[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(labels[batch])
    return total / len(labels)


def _accuracy(network: Network, parts: OpenParts, device: torch.device) -> float:
    network.body.eval()
    with torch.inference_mode():
        scores = network.logits(torch.from_numpy(parts.validation_inputs).to(device))
    return float((scores.argmax(dim=1).cpu().numpy() == parts.validation_labels).mean())

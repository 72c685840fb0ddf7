"""How good a network is while it is trained: its loss on held-out rows, its quality on validation rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easeml_core.entities import Task
from easeml_core.errors import EasemlError
from easeml_core.metrics.metric import metric_of
from easeml_core.models.networks.network import rows_of_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.models.networks.network import Network

_MOST_ROWS = 5000
"""Validation rows looked at after each epoch: the first ones, as drawn; where rows were added later, the old ones."""


def loss_on(network: Network, inputs: NDArray[np.float32], targets: NDArray[Any], device: torch.device) -> float:
    """Mean loss on rows, in full precision and without dropout."""
    network.eval()
    total = 0.0
    with torch.inference_mode():
        for start, outputs in _outputs(network, inputs, device):
            block = torch.from_numpy(targets[start : start + len(outputs)]).to(device)
            total += float(network.loss(outputs, block)) * len(outputs)
    return total / len(inputs)


def quality_on_validation(
    network: Network, parts: OpenParts, device: torch.device, metric: str | None = None
) -> float | None:
    """Quality on at most 5,000 validation rows, or None where the metric has no value on them.

    It is told for people to see, and at a rung it decides whether a training is worth its rest; it never decides which
    epoch is kept. A network whose answers are broken is refused when it is done.
    """
    is_classes = parts.task == Task.CLASSIFICATION
    inputs, targets = parts.validation_inputs[:_MOST_ROWS], parts.validation_labels[:_MOST_ROWS]
    network.eval()
    with torch.inference_mode():
        told = [_told(network, outputs, is_classes) for _, outputs in _outputs(network, inputs, device)]
    answers = np.concatenate(told)
    try:
        chosen = metric_of(metric or ("accuracy" if is_classes else "r2"))
        if is_classes:
            score = chosen.score(targets, answers.argmax(axis=1), _shares(answers))
        else:
            score = chosen.score(targets, answers)
        return chosen.quality(score, chosen.scale_of(targets))
    except EasemlError:
        return None  # such as an area under the curve of one class, or scores that are not finite


def _told(network: Network, outputs: torch.Tensor, is_classes: bool) -> NDArray[np.float64]:
    """Scores of classes, or the numbers that are answered."""
    told: NDArray[np.float64] = (outputs if is_classes else network.numbers(outputs)).double().cpu().numpy()
    return told


def _outputs(network: Network, inputs: NDArray[np.float32], device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Where a block of rows begins, and the network's outputs for it."""
    size = rows_of_block(network.architecture)
    for start in range(0, len(inputs), size):
        yield start, network.logits(torch.from_numpy(inputs[start : start + size]).to(device)).float()


def _shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))

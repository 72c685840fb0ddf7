"""Small networks: a perceptron for rows of any layout, and convolutions for images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from easeml_core.models.networks.layers import PatientBatchNorm, Pixels

if TYPE_CHECKING:
    from easeml_core.models.networks.architecture import Architecture


def mlp(a: Architecture) -> nn.Sequential:
    """Two hidden layers with dropout."""
    return nn.Sequential(
        nn.Linear(a.features, a.width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a.width, a.width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a.width, a.classes),
    )  # fmt: skip


def cnn(a: Architecture) -> nn.Sequential:
    """Two convolutions, each with a pooling by 2 that rounds down: no longer trained, but there are files of it."""
    left = (a.height // 4) * (a.breadth // 4)
    return nn.Sequential(
        Pixels(a),
        nn.Conv2d(a.channels, a.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a.width, 2 * a.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(2 * a.width * left, a.classes),
    )  # fmt: skip


def cnn_blocks(a: Architecture) -> nn.Sequential:
    """Three convolutions, each twice as wide as the one before, with a batch norm and a pooling by 2 that rounds up."""
    layers: list[nn.Module] = [Pixels(a)]
    height, breadth, given = a.height, a.breadth, a.channels
    for made in (a.width, 2 * a.width, 4 * a.width):
        layers += [
            nn.Conv2d(given, made, 3, padding=1, bias=False), PatientBatchNorm(made), nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        ]  # fmt: skip
        height, breadth, given = math.ceil(height / 2), math.ceil(breadth / 2), made
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(given * height * breadth, a.classes))

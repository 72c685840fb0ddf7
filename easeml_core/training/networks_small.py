"""Two small networks: a perceptron for rows of any layout, and two convolutions for images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from easeml_core.training.networks_layers import Pixels

if TYPE_CHECKING:
    from easeml_core.training.networks_architecture import Architecture


def mlp(a: Architecture) -> nn.Sequential:
    """Two hidden layers with dropout."""
    return nn.Sequential(
        nn.Linear(a.features, a.width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a.width, a.width), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a.width, a.classes),
    )  # fmt: skip


def cnn(a: Architecture) -> nn.Sequential:
    """Two convolutions, each with a pooling by 2 that rounds down."""
    left = (a.height // 4) * (a.breadth // 4)
    return nn.Sequential(
        Pixels(a),
        nn.Conv2d(a.channels, a.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a.width, 2 * a.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(2 * a.width * left, a.classes),
    )  # fmt: skip

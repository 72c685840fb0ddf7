"""Layers that several networks share, and small networks of them: a perceptron for any rows, convolutions for images.

Rows are shown as images, or as series with their lengths; batch norm is patient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from easeml_core.models.networks.architecture import Architecture


class Layer(nn.Module):  # type: ignore[misc]  # torch's types are not read
    """A layer of our own."""


class Pixels(Layer):
    """Flattened rows as images, (rows, channels, height, breadth), brought to ``size`` x ``size`` if that is set."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.shape = (architecture.height, architecture.breadth, architecture.channels)
        self.size = architecture.size

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Images, (rows, channels, height, breadth)."""
        images = rows.unflatten(1, self.shape).permute(0, 3, 1, 2)
        if self.size and self.shape[:2] != (self.size, self.size):
            sides = (self.size, self.size)
            return nn.functional.interpolate(images, sides, mode="bilinear", align_corners=False, antialias=True)
        return images.contiguous()


class PatientBatchNorm(nn.BatchNorm2d):  # type: ignore[misc]  # torch's types are not read
    """Batch norm that uses its running statistics for a batch of one value per channel.

    The last batch of an epoch may be one row, which has no variance.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images, of the same shape."""
        if self.training and images.numel() == images.shape[1]:
            learnt = self.running_mean, self.running_var, self.weight, self.bias
            return nn.functional.batch_norm(images, *learnt, training=False, eps=self.eps)
        return super().forward(images)


def as_series(rows: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Flattened rows as series; what is missing becomes 0, the mean."""
    series = rows.unflatten(1, (-1, channels))
    numbers = torch.arange(1, series.shape[1] + 1, device=rows.device)
    known = ~series.isnan().all(dim=2)
    lengths = (known * numbers).amax(dim=1).clamp(min=1)
    return torch.nan_to_num(series, nan=0.0), lengths


def valid_steps(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """Which steps belong to the series, bool, shape (rows, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def shaped_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error over all numbers that are known; a NaN target, as behind the end of a series, is not."""
    known = ~targets.isnan()
    errors = torch.where(known, outputs - torch.nan_to_num(targets), 0.0)
    return (errors**2).sum() / known.sum().clamp(min=1)


def initialise(body: Any) -> Any:
    """Weights as He et al. (2015) draw them, so that deep networks without batch norm learn as well; biases are 0.

    The last layer, which no rectifier follows, begins at half the variance.
    """
    layers = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is layers[-1] else "relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return body


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

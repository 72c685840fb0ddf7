"""A recurrent network over the bits of a row, whatever the row stands for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from easeml_core.models.networks.layers import Layer

if TYPE_CHECKING:
    from easeml_core.models.networks.architecture import Architecture

MOST_STEPS = 128
_FURTHEST = 4.0
"""Deviations from the mean that a byte can tell; what is beyond counts as that."""

_LEVELS = 254 / (2 * _FURTHEST)


class Bits(Layer):
    """Each scaled number as a byte, and a row as steps of as many bytes as needed to be through in 128 of them.

    Byte 0 says that the value is missing; 1 to 255 stand for -4 to 4 deviations from the mean.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bytes_of_step = math.ceil(features / MOST_STEPS)
        self.steps = math.ceil(features / self.bytes_of_step)

    @property
    def width(self) -> int:
        """Bits of a step."""
        return 8 * self.bytes_of_step

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Bits as -1 and 1, shape (rows, steps, width); the highest bit of a byte comes first."""
        levels = (rows.clamp(-_FURTHEST, _FURTHEST) + _FURTHEST) * _LEVELS
        whole = torch.where(rows.isnan(), 0.0, levels.round() + 1).to(torch.int64)
        filled = nn.functional.pad(whole, (0, self.steps * self.bytes_of_step - rows.shape[1]))
        bits = filled[:, :, None] >> torch.arange(7, -1, -1, device=rows.device) & 1
        return (2 * bits - 1).to(rows.dtype).reshape(len(rows), self.steps, self.width)


def numbers_of(chances: torch.Tensor) -> torch.Tensor:
    """The mean of the scaled numbers that bytes stand for, given the chance of each bit to be set.

    Args:
        chances: Shape (..., 8), the highest bit first.
    """
    values = 2.0 ** torch.arange(7, -1, -1, device=chances.device)
    return ((chances * values).sum(dim=-1) - 1).clamp(min=0) / _LEVELS - _FURTHEST


class BitRnn(Layer):
    """Gated recurrent units over the bits, and a linear layer on the mean of their states and the last one."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.bits = Bits(a.features)
        self.layer = nn.GRU(self.bits.width, a.width, batch_first=True)
        self.last = nn.Linear(2 * a.width, a.classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes)."""
        states = self.layer(self.bits(rows))[0]
        return self.last(torch.cat([states.mean(dim=1), states[:, -1]], dim=1))

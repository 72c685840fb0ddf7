"""Networks for series: recurrent ones that answer at the last step, and convolutions over time.

A series ends with its last step that has a value. What follows it changes nothing: recurrent layers are asked there,
and convolutions see zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from easeml_core.models.networks.layers import Layer, as_series, valid_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.models.networks.architecture import Architecture


class Recurrent(Layer):
    """One recurrent layer, or two in opposite directions, and a linear one on the last state of each."""

    def __init__(self, a: Architecture, layer: Callable[..., nn.Module], *, directions: int = 1) -> None:
        super().__init__()
        self.channels = a.channels
        self.layers = nn.ModuleList(layer(a.channels, a.width, batch_first=True) for _ in range(directions))
        self.last = nn.Linear(directions * a.width, a.classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes)."""
        series, lengths = as_series(rows, self.channels)
        ways = (series, backwards(series, lengths))[: len(self.layers)]
        ends = [at_step(layer(way)[0], lengths) for layer, way in zip(self.layers, ways, strict=True)]
        return self.last(torch.cat(ends, dim=1))


def backwards(series: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each series from its own end to its beginning, shape (rows, steps, channels); what follows is of no account."""
    steps = torch.arange(series.shape[1], device=series.device)
    back = (lengths[:, None] - 1 - steps).clamp(min=0)
    return series.gather(1, back[:, :, None].expand_as(series))


def at_step(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """States (rows, steps, width) at the last step of each series, shape (rows, width)."""
    index = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, index)[:, 0]


def rnn(a: Architecture) -> nn.Module:
    """Elman's network: the state is a hyperbolic tangent of input and state."""
    return Recurrent(a, nn.RNN)


def lstm(a: Architecture) -> nn.Module:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997)."""
    return Recurrent(a, nn.LSTM)


def bi_lstm(a: Architecture) -> nn.Module:
    """Two of them, one from the end to the beginning."""
    return Recurrent(a, nn.LSTM, directions=2)


def gru(a: Architecture) -> nn.Module:
    """Gated recurrent units (Cho et al., 2014)."""
    return Recurrent(a, nn.GRU)


class ConvolutionsOverTime(Layer):
    """Three convolutions of 7, 5 and 3 steps, and the mean over all steps (like the FCN of Wang et al., 2017)."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.channels = a.channels
        widths = (a.channels, a.width, 2 * a.width, a.width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(given, made, side, padding="same"), nn.BatchNorm1d(made), nn.ReLU())
            for given, made, side in zip(widths[:-1], widths[1:], (7, 5, 3), strict=True)
        )
        self.last = nn.Linear(a.width, a.classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes)."""
        series, lengths = as_series(rows, self.channels)
        within = valid_steps(lengths, series.shape[1])[:, None, :]
        states = series.transpose(1, 2)
        for layer in self.layers:
            states = layer(states) * within
        return self.last(states.sum(dim=2) / lengths[:, None])


def cnn_1d(a: Architecture) -> nn.Module:
    """Convolutions over time."""
    return ConvolutionsOverTime(a)

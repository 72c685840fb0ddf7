"""Networks for series: recurrent ones that answer at the last step, convolutions over time, and MiniRocket.

A series ends with its last step that has a value. What follows it changes nothing: recurrent layers are asked there,
and convolutions see zeros.

MiniRocket is the share of a series' steps at which fixed convolutions pass thresholds, and a ridge on these shares.
After Dempster, Schmidt and Webb, "MiniRocket" (KDD 2021), the quick form of ROCKET (2020): the 84 kernels of nine
weights of which three are 2 and six are -1, spread over time. Ours differs in details: the spreads are powers of two
(the paper's are finer), thresholds are quantiles over several training series, every convolution is padded, and several
channels are summed, each kernel over its own share of them, the same at every spread.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from easeml_core.entities import Parameters, Task
from easeml_core.models.networks.layers import Layer, as_series, valid_steps
from easeml_core.models.networks.network import NetworkPredictor, architecture_for, build_network, rows_of_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.models.networks.architecture import Architecture
    from easeml_core.models.networks.network import Network
    from easeml_core.sandbox.child_protocol import Report


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


_SIDE = 9
_KERNELS = tuple(combinations(range(_SIDE), 3))
_SERIES_FOR_THRESHOLDS = 64
_PENALTIES = np.logspace(-3, 3, 13)


class Rocket(Layer):
    """The shares, and a linear layer.

    ``kernels`` has shape (84, channels, 9), ``thresholds`` (dilations, 84, thresholds of each).
    """

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.channels = a.channels
        self.dilations = _dilations(a.steps, a.width)
        weights = torch.full((len(_KERNELS), 1, _SIDE), -1.0)
        weights[torch.arange(len(_KERNELS))[:, None], 0, torch.tensor(_KERNELS)] = 2.0
        each = a.width // len(self.dilations)
        self.register_buffer("kernels", weights.repeat(1, a.channels, 1))
        self.register_buffer("thresholds", torch.zeros(len(self.dilations), len(_KERNELS), each))
        self.last = nn.Linear(self.thresholds.numel(), a.classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes)."""
        return self.last(self.shares(rows))

    def shares(self, rows: torch.Tensor) -> torch.Tensor:
        """Of the steps of each series at which a kernel is above a threshold, in [0, 1], shape (rows, thresholds)."""
        series, lengths = as_series(rows, self.channels)
        within = valid_steps(lengths, series.shape[1])
        found = []
        for number, dilation in enumerate(self.dilations):
            answers = self.answers(series, dilation)
            for threshold in self.thresholds[number].unbind(dim=1):
                above = (answers > threshold[:, None]) & within[:, None]
                found.append(above.sum(dim=2) / lengths[:, None])
        return torch.cat(found, dim=1)

    def answers(self, series: torch.Tensor, dilation: int) -> torch.Tensor:
        """Of each kernel at each step, shape (rows, 84, steps)."""
        return nn.functional.conv1d(series.transpose(1, 2), self.kernels, padding="same", dilation=dilation)


def _dilations(steps: int, features_per_kernel: int) -> list[int]:
    """Powers of two by which a kernel is spread without being longer than the series."""
    most = max(1.0, (steps - 1) / (_SIDE - 1))
    return [2**power for power in range(int(math.log2(most)) + 1)][:features_per_kernel]


def fit_rocket(kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report) -> NetworkPredictor:
    """Draw channels and thresholds, then find the linear layer, with the penalty of the least leave-one-out error.

    Scores are those of a ridge on -1 and 1: good for ranks, not for probabilities.
    """
    architecture = architecture_for(kind, parameters, layout=parts.layout, classes=parts.classes, task=parts.task)
    network = build_network(architecture)
    network.learn_scale(parts.train_inputs, parts.train_labels)
    rng = np.random.default_rng(seed)
    with torch.inference_mode():
        _draw(network, parts.train_inputs, rng)
        report(0.1, f"fitting {kind} on at most {parameters['max_rows']:,} series")
        rows = _rows(len(parts.train_labels), parameters["max_rows"], rng)
        shares = _shares(network, parts.train_inputs[rows])
        report(0.5, f"{shares.shape[1]:,} features a series")
        weights, offset = _ridge(shares, _wanted(network, parts)[rows])
        network.body.last.weight.copy_(torch.from_numpy(weights))
        network.body.last.bias.copy_(torch.from_numpy(offset))
    report(0.8, "fitted")
    return NetworkPredictor(network)


def _rows(available: int, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.sort(rng.permutation(available)[:most])


def _draw(network: Network, inputs: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Which channels a kernel sums, and thresholds: quantiles of its answers to some training series."""
    body, channels = network.body, network.architecture.channels
    for kernel in body.kernels:
        summed = rng.permutation(channels)[: int(2 ** rng.uniform(0, math.log2(min(channels, _SIDE) + 1)))]
        unused = np.setdiff1d(np.arange(channels), summed)
        kernel[torch.from_numpy(unused)] = 0.0
    rows = rng.permutation(len(inputs))[:_SERIES_FOR_THRESHOLDS]
    series, lengths = as_series(network.scaled(torch.from_numpy(inputs[rows])), channels)
    within = valid_steps(lengths, series.shape[1]).numpy()
    for number, dilation in enumerate(body.dilations):
        answers = body.answers(series, dilation).numpy().transpose(1, 0, 2)[:, within]
        each = body.thresholds.shape[2]
        shares = (np.arange(1, each + 1) - rng.uniform(0, 1)) / each
        body.thresholds[number] = torch.from_numpy(np.quantile(answers, shares, axis=1).T.astype(np.float32))


def _shares(network: Network, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    size = rows_of_block(network.architecture)
    blocks = [torch.from_numpy(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return np.concatenate([network.body.shares(network.scaled(block)).numpy() for block in blocks])


def _wanted(network: Network, parts: OpenParts) -> NDArray[np.float64]:
    """Targets in units of their deviation, shape (rows, 1); or -1 and 1 for each class, shape (rows, classes)."""
    if parts.task == Task.REGRESSION:
        center, spread = network.target_mean.item(), network.target_scale.item()
        return np.asarray((parts.train_labels.astype(np.float64)[:, None] - center) / spread)
    return np.where(parts.train_labels[:, None] == np.arange(parts.classes), 1.0, -1.0)


def _ridge(
    features: NDArray[np.float32], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (targets, features) and offsets (targets,) for the features as they are; fitted on scaled ones."""
    from sklearn.linear_model import RidgeCV

    table = features.astype(np.float64)
    mean, scale = table.mean(axis=0), table.std(axis=0)
    scale[scale < 1e-8] = 1.0
    ridge = RidgeCV(alphas=_PENALTIES).fit((table - mean) / scale, targets)
    weights = np.atleast_2d(ridge.coef_) / scale
    return weights.astype(np.float32), (np.atleast_1d(ridge.intercept_) - weights @ mean).astype(np.float32)

"""Networks whose answers are images, series or rows of numbers, or whose rows are trees: layers and losses.

Inputs and targets are scaled (``network.Network``), and flattened in C order.

A recurrent network over the bits of a row, whatever the row stands for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from easeml_core.data.layout import LINKS
from easeml_core.models.networks.layers import Layer, as_series
from easeml_core.models.networks.series import at_step

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
    """The mean of the scaled numbers that bytes stand for, given the chance of each bit to be set."""
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


Shape = tuple[int, int, int]
"""Height, breadth and channels of an image."""

_CODE = 4
"""So many units of a hidden layer come to one number of an auto-encoder's code."""


class Structured(Layer):
    """A body that answers with several numbers a row; if nothing else is said, its outputs are these numbers."""

    def numbers(self, outputs: torch.Tensor) -> torch.Tensor:
        """The scaled numbers that outputs stand for, shape (rows, numbers)."""
        return outputs


class AutoEncoder(Structured):
    """Images of one shape from images of another (or the same), through a quarter of the pixels each way."""

    def __init__(self, given: Shape, wanted: Shape, width: int) -> None:
        super().__init__()
        self.given, self.wanted = given, wanted
        self.encoder = nn.Sequential(
            nn.Conv2d(given[2], width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(width, wanted[2], 4, stride=2, padding=1),
        )  # fmt: skip

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Flattened images, shape (rows, height * breadth * channels) of the wanted shape."""
        return _flat(self.decoder(self.encoder(_images(rows, self.given))), self.wanted)


class UNet(Structured):
    """The same, but each level of the way down is also given to the same level of the way up (Ronneberger, 2015)."""

    def __init__(self, given: Shape, wanted: Shape, width: int) -> None:
        super().__init__()
        self.given, self.wanted = given, wanted
        self.first = nn.Sequential(nn.Conv2d(given[2], width, 3, padding=1), nn.ReLU())
        self.lower = nn.Sequential(
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, wanted[2], 1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Flattened images of the wanted shape."""
        upper = self.first(_images(rows, self.given))
        lower = nn.functional.interpolate(self.lower(upper), upper.shape[2:], mode="nearest")
        return _flat(self.last(torch.cat([upper, lower], dim=1)), self.wanted)


def _images(rows: torch.Tensor, shape: Shape) -> torch.Tensor:
    return torch.nan_to_num(rows).unflatten(1, shape).permute(0, 3, 1, 2).contiguous()


def _flat(images: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Rows of images brought to a shape."""
    if tuple(images.shape[2:]) != shape[:2]:
        images = nn.functional.interpolate(images, shape[:2], mode="bilinear", align_corners=False)
    return images.permute(0, 2, 3, 1).flatten(1)


class Seq2Seq(Structured):
    """A series from a series: one recurrent layer reads, another writes, beginning with the state of the first."""

    def __init__(self, channels: int, wanted: tuple[int, int], width: int) -> None:
        super().__init__()
        self.channels, (self.steps, self.wanted_channels) = channels, wanted
        self.reader = nn.GRU(channels, width, batch_first=True)
        self.writer = nn.GRUCell(self.wanted_channels, width)
        self.last = nn.Linear(width, self.wanted_channels)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Flattened series, shape (rows, steps * channels) of the wanted shape; each step sees the one before."""
        series, lengths = as_series(rows, self.channels)
        state = at_step(self.reader(series)[0], lengths)
        step, written = torch.zeros(len(rows), self.wanted_channels, device=rows.device), []
        for _ in range(self.steps):
            state = self.writer(step, state)
            step = self.last(state)
            written.append(step)
        return torch.stack(written, dim=1).flatten(1)


class BitAutoEncoder(Structured):
    """The bits of any row, such as the one that is read, from a few numbers that are read off its bits.

    It learns the numbers that the bits make, and not the bits: equally likely mistakes of the highest and the lowest
    bit are not equally bad. (With cross-entropy of bits, R2 on 240 rows of two numbers given four times each was 0.5 to
    0.7 after 60 epochs; so it is 0.99 after 10.)
    """

    def __init__(self, features: int, wanted: int, width: int) -> None:
        super().__init__()
        self.bits = Bits(features)
        self.reader = nn.GRU(self.bits.width, width, batch_first=True)
        self.code = nn.Linear(2 * width, math.ceil(width / _CODE))
        self.writer = nn.Sequential(
            nn.Linear(self.code.out_features, width), nn.ReLU(), nn.Linear(width, 8 * wanted), nn.Unflatten(1, (-1, 8))
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores of the bits, shape (rows, numbers, 8): above 0 for one that is set, the highest bit first."""
        states = self.reader(self.bits(rows))[0]
        return self.writer(self.code(torch.cat([states.mean(dim=1), states[:, -1]], dim=1)))

    def numbers(self, outputs: torch.Tensor) -> torch.Tensor:
        """The mean of what each byte may stand for."""
        return numbers_of(outputs.sigmoid())


class TreeRnn(Layer):
    """The state of a node comes from its values and the states of its two children; the root's is asked.

    A row is a list of nodes, children before parents, the root last; a node is its values and the numbers of its left
    and its right child, -1 (or NaN) for none. Rows of fewer nodes end in nodes of which nothing is known.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.own = nn.Linear(channels, width)
        self.below = nn.Linear(2 * width, width, bias=False)
        self.last = nn.Linear(width, classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores, shape (rows, classes)."""
        nodes, (known, lengths) = rows.unflatten(1, (-1, self.channels + LINKS)), as_series(rows, self.channels + LINKS)
        own = self.own(known[..., : self.channels])
        states = [torch.zeros_like(own[:, 0])]  # of a child that is not there
        for number in range(own.shape[1]):
            child = torch.nan_to_num(nodes[:, number, self.channels :], nan=-1.0).long() + 1
            index = child.clamp(0, number)[:, :, None].expand(-1, -1, own.shape[2])
            of_children = torch.stack(states, dim=1).gather(1, index).flatten(1)
            states.append(torch.tanh(own[:, number] + self.below(of_children)))
        return self.last(at_step(torch.stack(states[1:], dim=1), lengths))


def auto_encoder(a: Architecture) -> nn.Module:
    """Images from images, through a quarter of the pixels each way."""
    return AutoEncoder((a.height, a.breadth, a.channels), _image(a.wanted), a.width)


def u_net(a: Architecture) -> nn.Module:
    """The same, with shortcuts."""
    return UNet((a.height, a.breadth, a.channels), _image(a.wanted), a.width)


def seq2seq(a: Architecture) -> nn.Module:
    """Series from series (Sutskever et al., 2014)."""
    steps, channels = a.wanted
    return Seq2Seq(a.channels, (steps, channels), a.width)


def tree_rnn(a: Architecture) -> nn.Module:
    """A class or a number from a tree (Socher et al., 2011)."""
    return TreeRnn(a.channels - LINKS, a.classes, a.width)


def bit_auto_encoder(a: Architecture) -> nn.Module:
    """Anything from anything."""
    return BitAutoEncoder(a.features, math.prod(a.wanted), a.width)


def _image(sides: tuple[int, ...]) -> Shape:
    height, breadth, channels = sides
    return height, breadth, channels

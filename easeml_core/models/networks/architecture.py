"""What a network is, but for its weights: a few bounded numbers and words. Standard library only.

A model file brings its architecture as JSON, so nothing here may lead to code: a name is looked up in the table
``NETWORKS``, sizes are checked against bounds, and ``network.build_network`` counts the weights before it makes any.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.data.layout import KINDS, LINKS, MAX_TARGET_NUMBERS
from easeml_core.entities import Parameters, Task
from easeml_core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.data.layout import Layout

NORMALISATIONS = ("identity", "0.2", "0.4", "0.6", "0.8")
"""What is done to pixels first: nothing, or f(x) = x^k - x^2k on [0, 1] for this k."""

EIGHTHS = 8
"""An image network's width is in eighths of the channels that were published."""

_BOUNDS = {
    "features": 1_000_000,
    "classes": 1000,
    "width": 4096,
    "height": 4096,
    "breadth": 4096,
    "channels": 1_000_000,
    "steps": 1_000_000,
    "size": 512,
}
_LEAST_SIDE = 4
_ANY = "any"
_SIDES = {
    "image": ("height", "breadth", "channels"),
    "series": ("steps", "channels"),
    "tree": ("steps", "channels"),
}
_NAMES = {"torch_cnn": "cnn_blocks"}
_WIDTHS = ("hidden_width", "channels", "width_eighths", "features_per_kernel")


class Kind(NamedTuple):
    """How a network is built.

    Attributes:
        maker: ``module:function`` of this package, from an architecture to the layers.
        layout: ``image``, ``series`` or ``tree`` where a row has that shape; empty where it is taken flattened.
        takes_missing: Whether the layers tell a missing value from the mean.
        most_width: The greatest width.
        least_size: Images are brought to ``size`` x ``size`` pixels first, at least this; 0 where they are not.
        answer: Layout of what it answers with, or ``any``; empty for one class or number.
    """

    maker: str
    layout: str = ""
    takes_missing: bool = False
    most_width: int = 4096
    least_size: int = 0
    answer: str = ""


def _image(maker: str, least_size: int = 32) -> Kind:
    return Kind(f"images:{maker}", "image", most_width=EIGHTHS, least_size=least_size)


def _series(maker: str) -> Kind:
    return Kind(f"series:{maker}", "series", takes_missing=True)


NETWORKS: Mapping[str, Kind] = {
    "mlp": Kind("layers:mlp"),
    "cnn": Kind("layers:cnn", "image"),
    "cnn_blocks": Kind("layers:cnn_blocks", "image"),
    "alexnet": _image("alexnet", 64),
    "alexnet_batch_norm": _image("alexnet_batch_norm", 64),
    "resnet": _image("resnet"),
    "googlenet": _image("googlenet"),
    "squeezenet": _image("squeezenet"),
    "vgg": _image("vgg"),
    "network_in_network": _image("network_in_network"),
    "mobilenet": _image("mobilenet"),
    "efficientnet": _image("efficientnet"),
    "rnn": _series("rnn"),
    "lstm": _series("lstm"),
    "bi_lstm": _series("bi_lstm"),
    "gru": _series("gru"),
    "cnn_1d": _series("cnn_1d"),
    "rocket": Kind("series:Rocket", "series", takes_missing=True),
    "bit_rnn": Kind("structured:BitRnn", takes_missing=True),
    "auto_encoder": Kind("structured:auto_encoder", "image", answer="image"),
    "u_net": Kind("structured:u_net", "image", answer="image"),
    "seq2seq": Kind("structured:seq2seq", "series", takes_missing=True, answer="series"),
    "bit_auto_encoder": Kind("structured:bit_auto_encoder", takes_missing=True, answer=_ANY),
    "tree_rnn": Kind("structured:tree_rnn", "tree", takes_missing=True),
}
"""Name of a network to how it is built."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network is, but for its weights.

    Attributes:
        network: A key of ``NETWORKS``.
        features: Columns of the input.
        classes: Number of labels, >= 2; or 1 for a network that gives a number, or several.
        width: Units of a hidden layer, channels of the first convolution, eighths of the published channels, or
            features of each kernel, as the network has it.
        height: Of the image in pixels; 0 where a row is none.
        breadth: Of the image in pixels; 0 where a row is none.
        channels: Colours of the image, or numbers of a step or node.
        steps: Of the series, or nodes of the tree; 0 where a row is none.
        size: Pixels of each side that images are brought to first; 0 where they are taken as they are.
        normalisation: One of ``NORMALISATIONS``.
        wanted: Shape of an answer of several numbers, as of a layout; empty for one class or number.
    """

    network: str
    features: int
    classes: int
    width: int
    height: int = 0
    breadth: int = 0
    channels: int = 1
    steps: int = 0
    size: int = 0
    normalisation: str = "identity"
    wanted: tuple[int, ...] = ()

    def is_sound(self) -> bool:
        """Whether the numbers are whole, in bounds, and make a network; how many weights it has is not asked here."""
        sizes = {name: value for name, value in asdict(self).items() if name in _BOUNDS}
        whole = all(type(v) is int and 0 <= v <= _BOUNDS[name] for name, v in sizes.items())
        if not whole or min(self.features, self.classes, self.width, self.channels) < 1:
            return False
        if self.normalisation not in NORMALISATIONS or not isinstance(self.network, str):
            return False
        kind = NETWORKS.get(self.network)
        return kind is not None and self.width <= kind.most_width and self._has_shape(kind) and self._answers(kind)

    def _has_shape(self, kind: Kind) -> bool:
        if kind.layout in ("series", "tree"):
            least = LINKS + 1 if kind.layout == "tree" else 1
            return self.channels >= least and self.steps * self.channels == self.features
        if kind.layout == "image":
            least = 1 if kind.least_size else _LEAST_SIDE
            is_sized = self.size >= kind.least_size if kind.least_size else self.size == 0
            pixels = self.height * self.breadth * self.channels
            return is_sized and min(self.height, self.breadth) >= least and pixels == self.features
        return True

    def _answers(self, kind: Kind) -> bool:
        """Whether an answer has a shape that the network can give."""
        if not isinstance(self.wanted, tuple) or not all(type(side) is int and side >= 1 for side in self.wanted):
            return False
        if not self.wanted or not kind.answer:
            return not self.wanted and not kind.answer
        fits = len(self.wanted) in (KINDS.values() if kind.answer == _ANY else (KINDS[kind.answer],))
        return fits and self.classes == 1 and math.prod(self.wanted) <= MAX_TARGET_NUMBERS


def architecture_for(
    kind: str, parameters: Parameters, *, layout: Layout, classes: int, task: Task, target: Layout | None = None
) -> Architecture:
    """The architecture of a kind of ``trainers``.

    Example:
        >>> from easeml_core.data.layout import Layout
        >>> series, task = Layout("series", (20, 2)), Task.CLASSIFICATION
        >>> architecture_for("gru", {"hidden_width": 8}, layout=series, classes=3, task=task).steps
        20
    """
    name = _NAMES.get(kind, kind.removeprefix("torch_"))
    outputs = classes if task == Task.CLASSIFICATION else 1
    width = next(parameters[word] for word in _WIDTHS if word in parameters)
    words = {word: parameters[word] for word in ("size", "normalisation") if word in parameters}
    fields: dict[str, Any] = {**_shape(layout), **words, "wanted": target.shape if target else ()}
    architecture = Architecture(name, layout.features, outputs, width, **fields)
    if not architecture.is_sound():
        shape = " x ".join(f"{side:,}" for side in layout.shape)
        message = f"{kind} cannot take a row of {shape} ({layout.kind}) and {outputs:,} classes; allowed are up to "
        message += (
            f"{_BOUNDS['features']:,} features and {_BOUNDS['classes']:,} classes, images of at least 4 x 4 pixels"
        )
        raise TrainingError(message)
    return architecture


def _shape(layout: Layout) -> dict[str, int]:
    names = _SIDES.get(layout.kind, ())
    return dict(zip(names, layout.shape, strict=True)) if names else {}

"""What a row of a data set stands for before it was flattened. Standard library only, so that a form may import it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from easeml_core.entities import JsonObject

    pass

KINDS = {"table": 1, "image": 3, "series": 2, "tree": 2}
"""Kind of layout to the number of its dimensions."""

LINKS = 2
"""Numbers of a tree's node that are no values of it, but name its children."""

MAX_TARGET_NUMBERS = 2**14
"""In the target of a row: the answers to a whole sealed set are kept for every model that is judged on it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a row. Inputs are kept flattened in C order, so ``row.reshape(layout.shape)`` gives it back.

    Attributes:
        kind: ``table``, ``image``, ``series`` or ``tree``.
        shape: ``(features,)``, ``(height, width, channels)``, ``(steps, channels)`` or ``(nodes, channels + 2)``, each
            at least 1. A series shorter than the longest ends in NaN. So does a tree of fewer nodes; a node is its
            values, and the numbers of its left and its right child, -1 for none. Children come before their parents,
            the root last.

    Raises:
        InvalidInputError: If the kind is not known, or the shape is none of that kind.

    Example:
        >>> Layout("image", (28, 28, 1)).features
        784
    """

    kind: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != KINDS.get(self.kind) or min(self.shape) < 1:
            allowed = "table (features,), image (height, width, channels), series (steps, channels), "
            allowed += "tree (nodes, channels + 2)"
            message = f"layout {self.kind!r} of shape {self.shape} is not known; allowed: {allowed}, each at least 1"
            raise InvalidInputError(message)

    @property
    def features(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) of an image, else None."""
        return (self.shape[0], self.shape[1]) if self.kind == "image" else None

    def to_json(self) -> JsonObject:
        """As plain JSON: ``{"kind", "shape"}``."""
        return {"kind": self.kind, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: JsonObject) -> Layout:
        """From what ``to_json`` gave."""
        return cls(str(values["kind"]), tuple(int(side) for side in values["shape"]))


def table_layout(features: int) -> Layout:
    """The layout of a table of so many columns."""
    return Layout("table", (features,))


TARGET = "target"
"""Key of a stored layout: what the answers of models stand for, where they are not one class or number a row."""


def stored_layout(layout: Layout, target: Layout | None = None) -> JsonObject:
    """The layout of the rows, and of their targets where these are several numbers each, as JSON.

    Example:
        >>> stored_layout(Layout("series", (9, 2)), Layout("series", (4, 1)))["target"]
        {'kind': 'series', 'shape': [4, 1]}
    """
    return layout.to_json() if target is None else {**layout.to_json(), TARGET: target.to_json()}


def stored_target(stored: JsonObject | None) -> Layout | None:
    """What the targets stand for of a row with this stored layout; None for one class or number."""
    target = (stored or {}).get(TARGET)
    return None if target is None else Layout.from_json(target)

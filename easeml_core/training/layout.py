"""What a row of a data set stands for before it was flattened. Standard library only, so that a form may import it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from easeml_core.errors import InvalidInputError

KINDS = {"table": 1, "image": 3, "series": 2}
"""Kind of layout to the number of its dimensions."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a row. Inputs are kept flattened in C order, so ``row.reshape(layout.shape)`` gives it back.

    Attributes:
        kind: ``table``, ``image`` or ``series``.
        shape: ``(features,)``, ``(height, width, channels)`` or ``(steps, channels)``, each at least 1. A series
            shorter than the longest ends in NaN.

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
            allowed = "table (features,), image (height, width, channels), series (steps, channels)"
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


def table_layout(features: int) -> Layout:
    """The layout of a table of so many columns."""
    return Layout("table", (features,))

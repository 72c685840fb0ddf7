"""Models of boosted trees in memory, of any library: their trees' sums as labels, numbers and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AnyStr, Generic

import numpy as np

from easeml_core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BoostedModel(Generic[AnyStr]):
    """A checked model.

    Attributes:
        text: What the library reads, and what is saved; ASCII.
        classes: Number of labels, >= 2; 0 where it gives numbers.
        features: Columns of the input, >= 1.
    """

    text: AnyStr
    classes: int
    features: int


@dataclass(frozen=True, slots=True)
class BoostedPredictor:
    """Boosted trees in memory.

    Attributes:
        model: What they were read from.
        ask: The library's own prediction for float32 inputs, shape (rows, features): (rows, classes), or (rows,).
        library: Its name in words, for errors.
        format: A key of ``formats.FORMATS``.
    """

    model: BoostedModel[Any]
    ask: Callable[[NDArray[np.float32]], Any]
    library: str
    format: str

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, shape (rows, classes), or numbers, shape (rows, 1).

        Raises:
            TrainingError: If the inputs are of another width than those of training.
        """
        features = self.model.features
        if inputs.ndim != 2 or inputs.shape[1] != features:
            message = f"the {self.library} model was trained on {features} features, got inputs of shape {inputs.shape}"
            raise TrainingError(message)
        if not len(inputs):
            return np.zeros((0, max(1, self.model.classes)))
        return columns(self.ask(np.ascontiguousarray(inputs, dtype=np.float32)), self.model.classes)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The most probable label (int64; the first of several), or the number itself (float64), shape (rows,)."""
        scores = self.scores(inputs)
        return scores.argmax(axis=1).astype(np.int64) if self.model.classes else scores[:, 0]

    def probabilities(self, inputs: NDArray[np.float32], *, classes: int) -> NDArray[np.float64] | None:
        """Probabilities, shape (rows, classes); None where the model gives numbers, or has other classes."""
        return self.scores(inputs) if classes and classes == self.model.classes else None

    def save(self, path: Path) -> None:
        """Write the text."""
        text = self.model.text
        path.write_bytes(text.encode("ascii") if isinstance(text, str) else text)


def columns(raw: Any, classes: int) -> NDArray[np.float64]:
    """A column for each class, or one of numbers.

    Args:
        raw: Shape (rows, classes), or (rows,): the probability of class 1 of two, or numbers.
        classes: 0 for numbers.

    Example:
        >>> columns([0.25, 1.0], 2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    values = np.asarray(raw, dtype=np.float64)
    if classes == 2 and values.ndim == 1:
        return np.column_stack([1 - values, values])
    return values.reshape(len(values), -1)

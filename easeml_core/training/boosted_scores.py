"""What the trees of every boosting library give, as labels, numbers and probabilities in our form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def checked_inputs(kind: str, inputs: NDArray[np.float32], features: int) -> NDArray[np.float32]:
    """The inputs themselves; TrainingError if they are of another width than those of training."""
    if inputs.ndim != 2 or inputs.shape[1] != features:
        message = f"the {kind} model was trained on {features} features, got inputs of shape {inputs.shape}"
        raise TrainingError(message)
    return np.ascontiguousarray(inputs, dtype=np.float32)


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


def answers(scores: NDArray[np.float64], classes: int) -> NDArray[Any]:
    """The most probable label (int64; the first of several), or the number itself (float64), shape (rows,)."""
    return scores.argmax(axis=1).astype(np.int64) if classes else scores[:, 0]

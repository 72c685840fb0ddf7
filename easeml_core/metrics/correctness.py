"""Right or wrong: the one form in which gate and meter take the answers of models, whatever they predict.

Answers that are classes are compared as they are. Of numbers, one that is at most T off (``within:T``) is right; labels
and predictions are turned into two classes then: 0 is right, 1 is wrong. Two models that are both right, or both wrong,
count as equal, as far as their numbers may be from each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.metrics.metric import metric_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = "accuracy"
"""What counts as right where classes are predicted: the class itself."""


def wrong(hit: str, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.bool_]:
    """Which predictions are wrong, shape (examples,).

    Args:
        hit: ``accuracy``, or ``within:T`` with T > 0 in the unit of the targets.
        labels: Shape (examples,): classes, or finite numbers.
        predictions: Shape (examples,), likewise.

    Raises:
        ShapeError: If the arrays do not fit together.
        TrainingError: If predictions are not finite.

    Example:
        >>> wrong("within:0.5", np.array([1.0, 7.0]), np.array([1.5, 6.0])).tolist()
        [False, True]
    """
    if hit == CLASSES:
        return np.asarray(labels != predictions)
    return ~metric_of(hit).hits(labels, predictions)


def as_classes(hit: str, labels: NDArray[Any], *predictions: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """Labels, and the predictions of each model, as classes that are equal exactly where a prediction is right.

    Example:
        >>> labels, new = as_classes("within:0.5", np.array([1.0, 7.0]), np.array([1.5, 6.0]))
        >>> labels.tolist(), new.tolist()
        ([0, 0], [0, 1])
    """
    if hit == CLASSES:
        return (labels.astype(np.int64), *predictions)
    coded = (wrong(hit, labels, answers).astype(np.int64) for answers in predictions)
    return (np.zeros(len(labels), dtype=np.int64), *coded)

"""Checks of what a metric is given: labels, numbers and probabilities of validation rows.

Targets that are wrong are the caller's mistake (InvalidInputError); predictions that are not finite mean that the model
is broken (TrainingError), as everywhere in training. numpy is imported when something is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, ShapeError, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUM_TOLERANCE = 1e-3
"""Rows of probabilities from float32 or printed text sum to 1 within this."""


def checked_labels(name: str, values: Any, rows: int | None = None) -> NDArray[np.int64]:
    """Labels as int64, shape (rows,), each >= 0; whole numbers of another type are taken.

    Args:
        name: ``targets`` or ``predictions``.
        values: What was given.
        rows: How many there must be; None for the targets, which say so.
    """
    import numpy as np

    array = _checked_shape(name, values, rows)
    if array.dtype.kind in "biu":
        labels = array.astype(np.int64)
    else:
        numbers = checked_numbers(name, array, rows)
        with np.errstate(invalid="ignore"):
            labels = numbers.astype(np.int64)
        if not np.array_equal(labels, numbers):
            message = f"{name} must be labels, whole numbers >= 0, got {numbers[labels != numbers][0]:g}"
            raise InvalidInputError(message)
    if labels.min() < 0:
        message = f"{name} must be labels, whole numbers >= 0, got {labels.min()}"
        raise InvalidInputError(message)
    return labels


def checked_numbers(name: str, values: Any, rows: int | None = None) -> NDArray[np.float64]:
    """Finite numbers as float64, shape (rows,); arguments as for ``checked_labels``."""
    import numpy as np

    numbers = _numbers(name, _checked_shape(name, values, rows))
    broken = len(numbers) - int(np.count_nonzero(np.isfinite(numbers)))
    if broken:
        message = f"{broken:,} of {len(numbers):,} {name} are not finite (NaN or infinite)"
        raise (InvalidInputError if name == "targets" else TrainingError)(message)
    return numbers


def checked_targets(values: Any) -> NDArray[np.float64]:
    """Numbers to predict as float64: finite, shape (rows,); or (rows, numbers), NaN where one is not known."""
    import numpy as np

    if getattr(values, "ndim", 1) != 2:
        return checked_numbers("targets", values)
    array = _numbers("targets", values)
    if not array.size:
        message = "there are no targets: a score needs at least one validation row"
        raise InvalidInputError(message)
    if np.isinf(array).any() or np.isnan(array).all(axis=1).any():
        message = "some rows of targets have infinite numbers, or none that is known"
        raise InvalidInputError(message)
    return array


def checked_rows(targets: Any, predictions: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets and predictions of several numbers a row, float64, shape (rows, numbers); predictions are all finite."""
    import numpy as np

    true, found = checked_targets(targets), _numbers("predictions", predictions)
    if found.shape != true.shape:
        name = "predictions"
        raise ShapeError(name, found.shape, str(true.shape))
    broken = int(np.count_nonzero(~np.isfinite(found).all(axis=1)))
    if broken:
        message = f"{broken:,} of {len(found):,} rows of predictions are not finite (NaN or infinite)"
        raise TrainingError(message)
    return true, found


def checked_probabilities(metric: str, values: Any, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities as float64, shape (rows, classes), each row summing to 1 exactly but for rounding.

    Args:
        metric: Its name, for the message where there are none.
        values: What was given; rows may sum to 1 within ``_SUM_TOLERANCE``.
        labels: The checked targets, each less than the number of classes.
    """
    import numpy as np

    if values is None:
        message = (
            f"{metric} needs the probabilities of the classes, and this model gives none; use accuracy, "
            "balanced_accuracy or f1, or leave such models out of the candidates"
        )
        raise InvalidInputError(message)
    array = _array("probabilities", values)
    if array.ndim != 2 or len(array) != len(labels) or array.shape[1] < 2:
        name = "probabilities"
        raise ShapeError(name, array.shape, f"({len(labels)}, classes), with classes >= 2")
    if labels.max() >= array.shape[1]:
        message = f"there are probabilities of {array.shape[1]} classes, but label {labels.max()} among the targets"
        raise InvalidInputError(message)
    if array.dtype.kind not in "biuf":
        message = f"probabilities must be numbers, got an array of {array.dtype}"
        raise InvalidInputError(message)
    chances = array.astype(np.float64)
    sums = chances.sum(axis=1)
    fits = np.isfinite(chances).all(axis=1) & (chances >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)
    if not fits.all():
        message = (
            f"{np.count_nonzero(~fits):,} of {len(chances):,} rows of probabilities are none: they must be finite, "
            "not negative, and sum to 1"
        )
        raise TrainingError(message)
    return np.asarray(chances / sums[:, None], dtype=np.float64)


def _checked_shape(name: str, values: Any, rows: int | None) -> NDArray[Any]:
    if values is None:
        message = f"{name} are missing"
        raise InvalidInputError(message)
    array = _array(name, values)
    if array.ndim != 1 or (rows is not None and len(array) != rows):
        raise ShapeError(name, array.shape, "(rows,)" if rows is None else f"({rows},)")
    if not len(array):
        message = f"there are no {name}: a score needs at least one validation row"
        raise InvalidInputError(message)
    return array


def _numbers(name: str, values: Any) -> NDArray[np.float64]:
    import numpy as np

    array = _array(name, values)
    if array.dtype.kind not in "biuf":
        message = f"{name} must be numbers, got an array of {array.dtype}"
        raise InvalidInputError(message)
    return array.astype(np.float64)


def _array(name: str, values: Any) -> NDArray[Any]:
    """The values as an array; rows of different lengths make none."""
    import numpy as np

    try:
        return np.asarray(values)
    except ValueError as error:
        message = f"{name} must have rows of one length: {error}"
        raise InvalidInputError(message) from error

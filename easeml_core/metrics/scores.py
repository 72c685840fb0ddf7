"""Compute the metrics by scikit-learn, and check their inputs.

Each metric takes targets, predictions and probabilities of shapes (rows,), (rows,), (rows, classes). Targets and
predictions of several numbers a row, such as images, have the shape (rows, numbers), NaN where the target is unknown;
``deviations`` compares every number with those at the same place of other rows. Wrong targets raise InvalidInputError;
predictions that are not finite raise TrainingError. scikit-learn and numpy are imported on the first use.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, NumericalError, ShapeError, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_FLOAT32, _OF_TOLERANCE = 2.0**-22, 1 / 20
"""Room for rounding: a label is kept in 32 bits, an answer may be, and each is off by up to 2^-24 of its size then.
Twice the sum of both is let through, but no more than this share of the tolerance where targets are large beside it."""


def near(targets: NDArray[np.float64], predictions: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Which predictions are at most the tolerance off, shape (rows,); of several numbers by the root mean square.

    What is exactly the tolerance off before numbers are rounded to 32 bits is not off by more.
    """
    import numpy as np

    with np.errstate(over="ignore"):  # too far apart for a number is not within any tolerance
        if targets.ndim == 2:
            off, size = (np.sqrt(np.nanmean(values**2, axis=1)) for values in (predictions - targets, targets))
        else:
            off, size = np.abs(predictions - targets), np.abs(targets)
        room = np.minimum(_FLOAT32 * (size + tolerance), _OF_TOLERANCE * tolerance)
        return np.asarray(off <= tolerance + room, dtype=np.bool_)


def equal(targets: NDArray[np.int64], predictions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which predictions are right, shape (rows,)."""
    import numpy as np

    return np.asarray(predictions == targets, dtype=np.bool_)


def accuracy(targets: Any, predictions: Any, _: Any) -> float:
    """Share of predictions that are right."""
    return float(equal(targets, predictions).mean())


def balanced_accuracy(targets: Any, predictions: Any, _: Any) -> float:
    """Mean recall of the classes that there are in the targets."""
    import numpy as np
    from sklearn.metrics import recall_score

    present = np.unique(targets)
    return float(recall_score(targets, predictions, labels=present, average="macro", zero_division=0.0))


def macro_f1(targets: Any, predictions: Any, _: Any) -> float:
    """Mean over the classes that there are in targets or predictions of 2 tp / (2 tp + fp + fn)."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, predictions, average="macro", zero_division=0.0))


def log_loss_mean(targets: Any, _: Any, probabilities: Any) -> float:
    """Mean of -ln(probability of the true class), which counts as at least 2e-16."""
    import numpy as np
    from sklearn.metrics import log_loss

    return float(log_loss(targets, probabilities, labels=np.arange(probabilities.shape[1])))


def macro_auc(targets: Any, _: Any, probabilities: Any) -> float:
    """One class against the rest, mean over the classes that there are in the targets."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    present = np.unique(targets)
    if len(present) < 2:
        message = "auc needs two classes in the validation rows, there is one: take more rows, or another metric"
        raise InvalidInputError(message)
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(targets, probabilities[:, 1]))
    return float(np.mean([roc_auc_score(targets == label, probabilities[:, label]) for label in present]))


def rmse(targets: Any, predictions: Any, _: Any) -> float:
    """Square root of the mean squared error."""
    import numpy as np
    from sklearn.metrics import root_mean_squared_error

    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused afterwards, in words
        return float(root_mean_squared_error(*known_pairs(targets, predictions)))


def mae(targets: Any, predictions: Any, _: Any) -> float:
    """Mean absolute error."""
    import numpy as np
    from sklearn.metrics import mean_absolute_error

    with np.errstate(over="ignore", invalid="ignore"):
        return float(mean_absolute_error(*known_pairs(targets, predictions)))


def r2(targets: Any, predictions: Any, _: Any) -> float:
    """1 - (mean squared error / variance of the targets); needs targets that differ."""
    import numpy as np
    from sklearn.metrics import r2_score

    need_spread("r2", targets)
    with np.errstate(over="ignore", invalid="ignore"):
        if targets.ndim == 2:
            errors = np.subtract(*known_pairs(targets, predictions))
            return float(1 - (errors**2).sum() / (deviations("std", targets) ** 2).sum())
        return float(r2_score(targets, predictions))


def known_pairs(targets: Any, predictions: Any) -> tuple[Any, Any]:
    """Each number that is known of the targets, with what was predicted for it; shape (numbers,) both."""
    import numpy as np

    if targets.ndim == 1:
        return targets, predictions
    known = ~np.isnan(targets)
    return targets[known], predictions[known]


def deviations(kind: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each known number of targets, shape (rows, numbers), is from the best constant answer.

    That is the mean (``std``) or the median (``deviation``) of its place in the row: the best answer that is the same
    for all rows is itself an image, or a series.
    """
    import numpy as np

    there = values[:, ~np.isnan(values).all(axis=0)]
    center = np.nanmean(there, axis=0) if kind == "std" else np.nanmedian(there, axis=0)
    from_center = there - center
    return np.asarray(from_center[~np.isnan(from_center)], dtype=np.float64)


def need_spread(name: str, values: NDArray[np.float64]) -> None:
    """Refuse targets that are all the same; not told by their deviation, which rounding may make 1e-17."""
    import numpy as np

    if not (np.fmin.reduce(values) < np.fmax.reduce(values)).any():
        shown = f"{values[0]:g}" if values.ndim == 1 else "the same"
        message = (
            f"{name}: all {len(values):,} validation targets are {shown}, so there is nothing to predict and no "
            "scale for errors; take more rows"
        )
        raise InvalidInputError(message)


def spread(kind: str, values: NDArray[np.float64]) -> float:
    """Standard deviation (``std``), or mean distance from the median (``deviation``)."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        if values.ndim == 2:
            away = deviations(kind, values)
            found = float(np.sqrt((away**2).mean()) if kind == "std" else np.abs(away).mean())
        else:
            found = float(values.std() if kind == "std" else np.abs(values - np.median(values)).mean())
    if not 0 < found < math.inf:
        message = f"the spread of the validation targets came out as {found:g}; give them in another unit"
        raise NumericalError(message)
    return found


_SUM_TOLERANCE = 1e-3
"""Rows of probabilities from float32 or printed text sum to 1 within this."""


def checked_labels(name: str, values: Any, rows: int | None = None) -> NDArray[np.int64]:
    """Labels as int64, shape (rows,), each >= 0; whole numbers of another type are taken."""
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
    """Probabilities as float64, shape (rows, classes), each row summing to 1 exactly but for rounding."""
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

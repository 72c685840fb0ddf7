"""Infer the target column where none is given, and whether it holds classes or numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import Target, target_of
from easeml_core.data.inference.result import shown
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column

TARGET_NAMES = ("target", "label", "class", "y")
"""Names of columns that say what they are, in any case of letters; the first of these wins."""

MOST_NUMBERS = 20
"""Different whole numbers that are taken as classes."""

_LARGEST = float(np.finfo(np.float32).max)


def choose_target(columns: Sequence[str], target: str | None) -> tuple[str, str]:
    """The target, and a note of what decided.

    Args:
        columns: At least one, those that may be predicted.
        target: What was asked for.
    """
    if target:
        return target, f"target {shown(target)}: as asked for"
    for name in TARGET_NAMES:
        for column in columns:
            if column.lower() == name:
                return column, f"target {shown(column)}: by its name; --target COLUMN names another"
    rule = f"the last column, since none is called {', '.join(TARGET_NAMES)}; --target COLUMN names another"
    return columns[-1], f"target {shown(columns[-1])}: {rule}"


def infer_target(columns: Mapping[str, Column], target: str, task: Task | None) -> tuple[Target, str]:
    """Labels of all rows, and a note of what decided between classes and numbers.

    Without a task, text and thresholds are classes; so are at most 20 different numbers, all of them whole, each of
    which comes twice or more on average. All other numbers are a regression.

    Args:
        columns: As for ``targets.target_of``.
        target: As for ``targets.target_of``.
        task: What was asked for.

    Raises:
        InvalidInputError: As ``targets.target_of``.

    Example:
        >>> infer_target({"y": np.array([0.0, 1, 1, 0])}, "y", None)[1]
        'task classification: the target has 2 different numbers, all whole; --task regression takes it as numbers'
        >>> infer_target({"y": np.array([0.0, 1, 1, 0.5])}, "y", None)[1]
        'task regression: the target has numbers that are not whole; --task classification makes classes of them'
    """
    if task is not None:
        return target_of(columns, target, task), f"task {task}: as asked for"
    if target not in columns:
        return target_of(columns, target), "task classification: the target is a threshold"
    column = columns[target]
    if column.dtype == object:
        return target_of(columns, target), "task classification: the target holds words"
    why_not = _why_no_classes(column[~np.isnan(column)])
    if why_not:
        note = f"task regression: the target has {why_not}; --task classification makes classes of them"
        return target_of(columns, target, Task.REGRESSION), note
    found = target_of(columns, target)
    what = f"the target has {len(found.class_names)} different numbers, all whole"
    return found, f"task classification: {what}; --task regression takes it as numbers"


def sizes_of_classes(found: Target, labels: NDArray[Any], *, partial: bool) -> tuple[tuple[str, int], ...]:
    """Each class and how many labels it has; none for regression.

    Args:
        found: What the labels are.
        labels: Those that are there.
        partial: Whether only a part of the data was looked at.

    Raises:
        InvalidInputError: If the labels are all the same, or a number is too large.
    """
    if found.task == Task.REGRESSION and bool((np.abs(labels) > _LARGEST).any()):
        message = f"target {shown(found.column)} holds a number that is infinite or beyond 3.4e38"
        raise InvalidInputError(message)
    if len(np.unique(labels)) < 2:
        read = "in the part that was read" if partial else "in all rows"
        message = (
            f"target {shown(found.column)} has {'the same value' if len(labels) else 'no value'} {read}; there is "
            "nothing to predict, name another column with --target"
        )
        raise InvalidInputError(message)
    counts = np.bincount(labels, minlength=len(found.class_names)).tolist() if found.class_names else []
    return tuple(zip(found.class_names, counts, strict=True))


def _why_no_classes(numbers: NDArray[Any]) -> str:
    """Why numbers are not taken as classes; empty if they are."""
    if not bool((numbers == np.round(numbers)).all()):
        return "numbers that are not whole"
    different = len(np.unique(numbers))
    if different > MOST_NUMBERS:
        return f"{different:,} different numbers, more than {MOST_NUMBERS}"
    return f"{different} different numbers in {len(numbers)} rows" if 2 * different > len(numbers) else ""

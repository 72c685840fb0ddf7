"""What is to be predicted, from a column: classes of its values, two classes by a threshold, or its numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data.table import MAX_CLASSES
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column
    from easeml_core.data.table import Labels

_THRESHOLD = re.compile(r"\s*(?P<column>.+?)\s*>\s*(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*")


class Target(NamedTuple):
    """Labels of all rows, also of those without one.

    Attributes:
        column: Name of the column they come from, which is no input.
        labels: Shape (rows,): int64 classes, or float64 numbers for regression; anything where ``present`` is false.
        present: Whether a row has a label, shape (rows,).
        class_names: Name of each class; empty for regression.
        task: What the labels are.
    """

    column: str
    labels: Labels
    present: NDArray[np.bool_]
    class_names: tuple[str, ...]
    task: Task


def target_of(columns: Mapping[str, Column], target: str, task: Task | None = None) -> Target:
    """The target that a text names: a column, or ``COLUMN>NUMBER`` for the two classes of a numeric column.

    Args:
        columns: Name to column, all of one length.
        target: Whose column; a column called like a threshold is the column.
        task: ``regression`` takes the numbers of the column as they are; otherwise its values are classes.

    Raises:
        InvalidInputError: If there is no such column, it has too many values for classes, or words for regression.

    Example:
        >>> columns = {"price": np.array([5.0, np.nan, 500.0])}
        >>> target_of(columns, "price>20").class_names
        ('price <= 20', 'price > 20')
        >>> target_of(columns, "price", Task.REGRESSION).present.tolist()
        [True, False, True]
    """
    if target in columns:
        return target_of_column(target, columns[target], task)
    match = _THRESHOLD.fullmatch(target)
    if match is None or match["column"] not in columns:
        # The columns are not listed: whoever names a file learns nothing of its content from an error.
        message = f"there is no column {target!r} to predict among the {len(columns)} columns"
        raise InvalidInputError(message)
    name, text = match["column"], match["number"]
    column = columns[name]
    if task == Task.REGRESSION:
        message = f"target {target!r} makes two classes; regression needs a column of numbers, such as {name!r}"
        raise InvalidInputError(message)
    if column.dtype == object:
        message = f"target {target!r}: {name!r} is a column of words; only numbers can be compared"
        raise InvalidInputError(message)
    labels = (column > float(text)).astype(np.int64)
    return Target(name, labels, ~np.isnan(column), (f"{name} <= {text}", f"{name} > {text}"), Task.CLASSIFICATION)


def target_of_column(name: str, column: Column, task: Task | None = None) -> Target:
    """The target that a whole column is; see ``target_of``."""
    is_text = column.dtype == object
    if task == Task.REGRESSION:
        if is_text:
            message = (
                f"target {name!r} is a column of words; regression needs numbers, or set the task to classification"
            )
            raise InvalidInputError(message)
        return Target(name, column, ~np.isnan(column), (), Task.REGRESSION)
    values: Sequence[Any] = sorted({v for v in column if v is not None}) if is_text else _distinct_numbers(column)
    if len(values) > MAX_CLASSES:
        numbers = f"make two classes of it: '{name}>NUMBER', or set the task to regression"
        remedy = "choose a column of fewer words" if is_text else numbers
        message = f"target {name!r} has {len(values):,} different values, at most {MAX_CLASSES} classes; {remedy}"
        raise InvalidInputError(message)
    index = {value: label for label, value in enumerate(values)}
    labels = np.array([index.get(value, -1) for value in column.tolist()], dtype=np.int64)
    names = tuple(value if is_text else f"{value:g}" for value in values)
    return Target(name, labels, labels >= 0, names, Task.CLASSIFICATION)


def _distinct_numbers(column: Column) -> list[float]:
    distinct: list[float] = np.unique(column[~np.isnan(column)]).tolist()
    return distinct

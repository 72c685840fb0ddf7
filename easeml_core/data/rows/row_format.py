"""The form of a study's rows, and rows that are given in this form as numbers, words or JSON.

Rows with labels are fed to the study; rows without are predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.rows.row_tables import (
    ExampleFile,
    class_indices,
    encode,
    input_columns,
    number_targets,
    refused,
    shown,
)
from easeml_core.data.table import MAX_CELLS
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.data.layout import Layout
    from easeml_core.data.table import Labels

LABEL = "label"
"""Default name of the column with the labels."""


@dataclass(frozen=True, slots=True)
class RowForm:
    """How the rows of a study are encoded.

    Attributes:
        features: Numbers in a row.
        feature_names: Their names; None where they were not kept.
        class_names: By label; empty where numbers are predicted.
        layout: What a row stands for.
        target: What an answer stands for; None for one class or number.
    """

    features: int
    feature_names: Sequence[str] | None
    class_names: Sequence[str]
    layout: Layout
    target: Layout | None = None

    @property
    def task(self) -> Task:
        """What the labels are."""
        return Task.CLASSIFICATION if self.class_names else Task.REGRESSION


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows in a study's form.

    Attributes:
        origin: Where they come from, for messages.
        inputs: float32, shape (rows, features), rows >= 1; NaN is missing.
        labels: Shape (rows,), or (rows, numbers) where answers are several; None where there are none.
        columns: What the rows came with, by name, text as it was; empty where they came without names.
    """

    origin: str
    inputs: NDArray[np.float32]
    labels: Labels | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def rows_of_cells(file: ExampleFile, form: RowForm, *, label: str | None) -> Rows:
    """The rows of a table of words."""
    columns = dict(file.columns)
    if label is not None and label not in columns:
        raise _without_labels(file, form, label)
    if form.feature_names is not None:
        used = input_columns(file, form.feature_names)
        extra = [name for name in columns if name not in used and name != label]
        if extra and label is not None:
            listed = ", ".join(shown(name) for name in extra[:8])
            raise refused(file, f"the columns {listed} are none of the study's inputs; leave them out")
        columns = {name: cells for name, cells in columns.items() if name not in extra}
    narrow = ExampleFile(file.path, file.keys, file.lines, columns)
    inputs = encode(narrow, feature_names=form.feature_names, features=form.features, beside=label)
    labels = None if label is None else labels_of_words(narrow, form, label)
    return Rows(str(file.path), inputs, labels, file.columns)


def _without_labels(file: ExampleFile, form: RowForm, label: str) -> InvalidInputError:
    """Return the error; it suggests a column, since labels often have the target's name in the study's file."""
    inputs = set(file.columns) if form.feature_names is None else input_columns(file, form.feature_names)
    spare = [name for name in file.columns if name not in inputs]
    perhaps = f", here perhaps {shown(spare[0])}" if len(spare) == 1 else ""
    fault = f"there is no column {shown(label)} with the label of every row"
    return refused(file, f"{fault}; `--label NAME` (`label_column`) names another{perhaps}")


def labels_of_words(file: ExampleFile, form: RowForm, column: str = LABEL) -> Labels:
    """The labels in a column: names or numbers of classes, or numbers to predict."""
    if form.target is not None:
        fault = f"an answer of the study is {form.target.features:,} numbers ({form.target.kind}), which no cell holds"
        raise refused(file, f"{fault}; bring a folder of inputs.npy and targets.npy, or pairs whose label is a list")
    if form.class_names:
        return class_indices(file, column, form.class_names)
    return number_targets(file, column)


def labels_of_numbers(values: Any, target: Layout, origin: str) -> Labels:
    """Answers of several numbers, flattened, shape (rows, numbers); None or NaN is an unknown number."""
    wanted = f"labels of {target.features:,} numbers each ({target.kind} {target.shape})"
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _unlike(origin, f"{wanted}; {error}") from error
    if numbers.ndim < 2 or numbers.shape[1:] not in (target.shape, (target.features,)):
        raise _unlike(origin, f"{wanted}, got shape {numbers.shape}")
    flat = numbers.reshape(len(numbers), -1)
    if (np.abs(flat) > np.finfo(np.float32).max).any() or np.isnan(flat).all(axis=1).any():
        raise _unlike(origin, f"{wanted}, finite, with at least one that is known in every row")
    return flat.astype(np.float32)


def table_of_words(origin: str, columns: Mapping[str, Sequence[str]]) -> ExampleFile:
    """Columns of words as if they stood in a file; the first row is line 1."""
    rows = len(next(iter(columns.values()), ()))
    numbers = tuple(range(1, rows + 1))
    cells = {name: tuple(column) for name, column in columns.items()}
    return ExampleFile(Path(origin), tuple(map(str, numbers)), numbers, cells)


def rows_of_json(items: Sequence[Any], form: RowForm, *, labelled: bool, origin: str = "rows") -> Rows:
    """Rows given as plain JSON."""
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise _unlike(origin, "a list of at least one row")
    given, labels = list(items), None
    if labelled:
        if not all(isinstance(item, Mapping) and set(item) == {"inputs", LABEL} for item in items):
            raise _unlike(origin, 'a list of {"inputs": ..., "label": ...}')
        labels, given = _labels_of_json([item[LABEL] for item in items], form, origin), [i["inputs"] for i in items]
    if isinstance(given[0], Mapping):
        rows = rows_of_cells(_table_of_mappings(given, origin), form, label=None)
        return Rows(origin, rows.inputs, labels, rows.columns)
    return Rows(origin, table_of_numbers(given, form.features), labels)


def _labels_of_json(values: Sequence[Any], form: RowForm, origin: str) -> Labels:
    if form.target is not None:
        return labels_of_numbers(values, form.target, origin)
    return labels_of_words(table_of_words(origin, {LABEL: [_cell(value, origin) for value in values]}), form)


def table_of_numbers(values: Any, features: int) -> NDArray[np.float32]:
    """Rows of numbers as inputs, shape (n >= 1, features); None or NaN is missing."""
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        message = f"inputs must be rows of numbers, all of the same length; {error}"
        raise InvalidInputError(message) from error
    if (np.abs(table) > np.finfo(np.float32).max).any():
        message = "inputs must be numbers of at most 3.4e38 in size (models work with 32 bits); None or NaN is missing"
        raise InvalidInputError(message)
    if table.ndim != 2 or len(table) == 0 or table.shape[1] != features:
        raise ShapeError(name="inputs", got=table.shape, expected=f"(n >= 1, {features})")
    if table.size > MAX_CELLS:
        message = f"inputs must be at most {MAX_CELLS:,} numbers, got {table.size:,}"
        raise InvalidInputError(message)
    return table.astype(np.float32) + np.float32(0)  # -0.0 + 0 is 0.0


def _table_of_mappings(items: Sequence[Any], origin: str) -> ExampleFile:
    names = list(items[0])
    if not all(isinstance(item, Mapping) and list(item) == names for item in items):
        raise _unlike(origin, "rows with the same columns in the same order")
    return table_of_words(origin, {str(name): [_cell(item[name], origin) for item in items] for name in names})


def _cell(value: Any, origin: str) -> str:
    """A JSON value as the cell of a table; null is an empty one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float | str):
        return str(value)
    raise _unlike(origin, "rows whose values are words, numbers or null")


def _unlike(origin: str, allowed: str) -> InvalidInputError:
    return InvalidInputError(f"{origin}: must be {allowed}")

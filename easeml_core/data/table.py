"""A whole data set in memory, before it is split into parts: numbers in, class indices or numbers out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from easeml_core.data import mapped
from easeml_core.data.layout import MAX_TARGET_NUMBERS, Layout, table_layout
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from easeml_core.programs.data_type import Program

Labels: TypeAlias = "NDArray[Any]"
"""int64 class indices, or float32 numbers for regression; shape (rows,), or (rows, numbers) with a target layout."""

MAX_CELLS = 100_000_000
MAX_FEATURES = 1_000_000
MAX_CLASSES = 50
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class RawTable:
    """Rows whose inputs are pairwise different, so that parts cut from them share none.

    Attributes:
        inputs: float32, shape (rows, features): each row flattened in C order; NaN where a value is missing, never
            infinite.
        labels: Shape (rows,): int64 in [0, classes) for classification, finite float32 for regression. With a target
            layout float32, shape (rows, numbers), where NaN is an unknown number.
        class_names: Name of each class; empty for regression.
        feature_names: Name of each column.
        layout: What a row stands for.
        duplicates: How many rows were left out because another one has the same inputs.
        task: What the labels are.
        split_values: Groups or times that rows are divided by (``splits``), shape (rows,); None for chance.
        target_layout: What a row of labels stands for; None for one class or number a row.
        program: What goes in and what comes out, in the names of the data; None where these have none.
        columns: The columns that the inputs were made of, by name, as they were before they were encoded, and the one
            that rows are divided by; the target is not among them. Empty where the source has no columns.
    """

    inputs: NDArray[np.float32]
    labels: Labels
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    layout: Layout
    duplicates: int = 0
    task: Task = Task.CLASSIFICATION
    split_values: NDArray[Any] | None = None
    target_layout: Layout | None = None
    program: Program | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) when a row is an image, else None."""
        return self.layout.image_shape


def make_table(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    class_names: tuple[str, ...] = (),
    feature_names: tuple[str, ...],
    layout: Layout | None = None,
    task: Task = Task.CLASSIFICATION,
    split_values: NDArray[Any] | None = None,
    target_layout: Layout | None = None,
    program: Program | None = None,
    columns: Mapping[str, NDArray[Any]] | None = None,
) -> RawTable:
    """A table of checked arrays; of rows with the same inputs one is kept, drawn with a fixed seed.

    So no part of the table can show another what it will be asked. Were rows with the same inputs but another label
    kept, a label seen in training would be the one label that does not occur again; and which row is kept must not
    depend on the order of the file, which is often sorted by label.

    Example:
        >>> table = make_table([[1.0], [1.0], [2.0]], [0, 0, 1], class_names=("no", "yes"), feature_names=("x",))
        >>> len(table.inputs)
        2
    """
    with np.errstate(over="ignore"):  # an overflow becomes infinite here and is refused below, with a sentence
        values = np.asarray(inputs, dtype=np.float32) + np.float32(0)  # -0.0 + 0 is 0.0, so that equal rows are equal
        targets = _targets(labels, task if target_layout is None else Task.REGRESSION)
    width = values.shape[1] if values.ndim == 2 else 0
    _check_shapes(values, names=len(feature_names), layout_width=layout.features if layout else width)
    _check_target_shape(targets, len(values), task, target_layout)
    if split_values is not None and split_values.shape != targets.shape[:1]:
        name = "split_values"
        raise ShapeError(name, split_values.shape, f"({len(targets)},)")
    _check_inputs(values)
    _check_targets(targets, class_names)
    if target_layout is not None:
        targets[np.isnan(targets)] = np.nan
    values[np.isnan(values)] = np.nan  # one bit pattern for every NaN, for the same reason
    kept = _one_of_each(values)
    _check_variety(targets[kept])
    return RawTable(
        values[kept],
        targets[kept],
        class_names,
        feature_names,
        layout or table_layout(width),
        duplicates=len(values) - len(kept),
        task=task,
        split_values=_rows_of(split_values, kept),
        target_layout=target_layout,
        program=program,
        columns={name: column[kept] for name, column in (columns or {}).items()},
    )


def table_of_mapped(
    values: NDArray[np.float32],
    labels: ArrayLike,
    *,
    class_names: tuple[str, ...],
    feature_names: tuple[str, ...],
    task: Task,
    split_values: NDArray[Any] | None,
    program: Program | None,
) -> RawTable:
    """As ``make_table``, of rows in a mapped file (``mapped.py``), which become those of the table; none is copied."""
    targets = _targets(labels, task)
    _check_shapes(values, names=len(feature_names), layout_width=values.shape[1])
    _check_target_shape(targets, len(values), task, None)
    _check_targets(targets, class_names)
    has_value = np.zeros(values.shape[1], dtype=bool)
    for part in mapped.blocks(values):
        block = values[part] + np.float32(0)
        missing = np.isnan(block)
        block[missing] = np.nan
        _check_inputs(block, before=part.start)
        has_value |= ~missing.all(axis=0)
        values[part] = block
    if not has_value.all():
        message = f"column {int(has_value.argmin()) + 1} of the inputs has no value in any row; leave the column out"
        raise InvalidInputError(message)
    rows = len(values)
    order = np.random.default_rng(_SEED).permutation(rows)
    kept = np.sort(order[np.unique(mapped.fingerprints(values)[order], return_index=True)[1]])
    if len(kept) < rows:
        values, targets = mapped.kept_in_place(values, kept), targets[kept]
        split_values = _rows_of(split_values, kept)
    _check_variety(targets)
    layout = table_layout(values.shape[1])
    return RawTable(
        values, targets, class_names, feature_names, layout, duplicates=rows - len(kept), task=task,
        split_values=split_values, program=program,
    )  # fmt: skip


def rows_of(table: RawTable, kept: NDArray[np.intp]) -> RawTable:
    """The table with these rows alone, in their order."""
    return replace(
        table,
        inputs=mapped.taken(table.inputs, kept),
        labels=table.labels[kept],
        split_values=_rows_of(table.split_values, kept),
        columns={name: column[kept] for name, column in table.columns.items()},
    )


def sample_rows(table: RawTable, rows: int) -> RawTable:
    """The table cut to ``rows`` rows drawn without replacement, always the same ones, in their order."""
    if rows >= len(table.labels):
        return table
    drawn = np.random.default_rng(_SEED).choice(len(table.labels), size=rows, replace=False)
    kept = np.sort(drawn)
    _check_variety(table.labels[kept])
    return rows_of(table, kept)


def content_hash(table: RawTable) -> str:
    """SHA-256 (hex) of everything a table says: values, labels, names, layout, task, and what divides its rows.

    The same rows give the same hash on any machine; two versions of a data set differ in it. Classes of a table or of
    images keep the hash that they had before there were layouts and tasks; the channels of images follow from the rest.
    """
    names: list[object] = [table.inputs.shape, table.class_names, table.feature_names, table.image_shape]
    if table.layout.kind in ("series", "tree") or table.task != Task.CLASSIFICATION:
        names += [str(table.task), table.layout.kind, table.layout.shape]
    if table.target_layout is not None:
        names += [table.target_layout.kind, table.target_layout.shape]
    digest = hashlib.sha256(json.dumps(names).encode())
    for part in mapped.blocks(table.inputs):
        digest.update(np.ascontiguousarray(table.inputs[part], dtype="<f4").data)
    number = "<i8" if table.task == Task.CLASSIFICATION else "<f4"
    digest.update(np.ascontiguousarray(table.labels, dtype=number).tobytes())
    if table.split_values is not None:
        digest.update(np.ascontiguousarray(table.split_values, dtype="<f8").tobytes())
    return digest.hexdigest()


def _rows_of(values: NDArray[Any] | None, kept: NDArray[np.intp]) -> NDArray[Any] | None:
    return None if values is None else values[kept]


def _targets(labels: ArrayLike, task: Task) -> Labels:
    if task == Task.CLASSIFICATION:
        return np.asarray(labels, dtype=np.int64)
    return np.asarray(labels, dtype=np.float32) + np.float32(0)


def _check_shapes(values: NDArray[np.float32], *, names: int, layout_width: int) -> None:
    features = values.shape[1] if values.ndim == 2 else 0
    for name, got, fits, expected in (
        ("inputs", values.shape, features > 0, "(rows, features) with at least one feature"),
        ("feature_names", (names,), names == features, f"({features},)"),
        ("layout", (layout_width,), layout_width == features, f"with product {features}"),
    ):
        if not fits:
            raise ShapeError(name, got, expected)


def _check_target_shape(labels: Labels, rows: int, task: Task, target_layout: Layout | None) -> None:
    wanted = (rows,) if target_layout is None else (rows, target_layout.features)
    if labels.shape != wanted:
        name = "labels"
        raise ShapeError(name, labels.shape, f"({rows},)" if target_layout is None else str(wanted))
    if target_layout is None:
        return
    if task != Task.REGRESSION:
        message = f"targets of {target_layout.features:,} numbers a row are no classes; set the task to regression"
        raise InvalidInputError(message)
    if target_layout.features > MAX_TARGET_NUMBERS:
        message = (
            f"a target has {target_layout.features:,} numbers, at most {MAX_TARGET_NUMBERS:,} are allowed; bring "
            "smaller images or shorter series as targets"
        )
        raise InvalidInputError(message)


def _check_inputs(values: NDArray[np.float32], before: int = 0) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        row, column = np.argwhere(infinite)[0] + (before, 0)
        message = f"row {row + 1}, column {column + 1} is infinite or beyond 3.4e38; leave missing values empty"
        raise InvalidInputError(message)


def _check_targets(labels: Labels, class_names: tuple[str, ...]) -> None:
    if labels.dtype == np.int64:
        if len(labels) and (labels.min() < 0 or labels.max() >= len(class_names)):
            message = f"labels must be from 0 to {len(class_names) - 1}, got {labels.min()} to {labels.max()}"
            raise InvalidInputError(message)
        return
    if class_names:
        message = f"regression predicts numbers and has no classes, got {len(class_names)} class names"
        raise InvalidInputError(message)
    bad = ~np.isfinite(labels) if labels.ndim == 1 else np.isinf(labels).any(axis=1) | np.isnan(labels).all(axis=1)
    wrong = np.flatnonzero(bad)
    if len(wrong):
        message = (
            f"the target of row {wrong[0] + 1} is missing, infinite or beyond 3.4e38 (so it is in {len(wrong):,} rows, "
            "counting it); regression needs a number in each row, leave out the others"
        )
        raise InvalidInputError(message)


def _check_variety(labels: Labels) -> None:
    if not _varies(labels):
        needs = "a classifier needs at least two classes" if labels.dtype == np.int64 else "there is nothing to predict"
        message = f"the labels are all the same; {needs}"
        raise InvalidInputError(message)


def _varies(labels: Labels) -> bool:
    """Whether any number differs between two rows that both know it."""
    if labels.ndim == 1:
        return len(np.unique(labels)) >= 2
    unknown = np.isnan(labels)
    highest = np.where(unknown, -np.inf, labels).max(axis=0, initial=-np.inf)
    return bool((np.where(unknown, np.inf, labels).min(axis=0, initial=np.inf) < highest).any())


def _one_of_each(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indices, rising, of one row of each group of rows that are equal bit by bit; which one is left to chance."""
    if not len(values):
        return np.zeros(0, dtype=np.intp)
    order = np.random.default_rng(_SEED).permutation(len(values))
    shuffled = np.ascontiguousarray(values[order])
    keys = shuffled.view(np.dtype((np.void, shuffled.dtype.itemsize * shuffled.shape[1]))).ravel()
    return np.sort(order[np.unique(keys, return_index=True)[1]])

"""A whole data set in memory, before anybody's part is cut from it: numbers in, class indices out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_CELLS = 100_000_000
MAX_CLASSES = 50
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class RawTable:
    """Rows whose inputs are pairwise different, so that parts cut from them share none.

    Attributes:
        inputs: float32, shape (rows, features); NaN where a value is missing, never infinite.
        labels: int64, shape (rows,), in [0, classes).
        class_names: Name of each label.
        feature_names: Name of each column.
        image_shape: (height, width) when a row is an image, else None.
        duplicates: How many rows were left out because another one has the same inputs.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    image_shape: tuple[int, int] | None = None
    duplicates: int = 0


def make_table(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    class_names: tuple[str, ...],
    feature_names: tuple[str, ...],
    image_shape: tuple[int, int] | None = None,
) -> RawTable:
    """A table of checked arrays; of rows with the same inputs one is kept, drawn with a fixed seed.

    So no part of the table can show another what it will be asked. Were rows with the same inputs but another label
    kept, a label seen in training would be the one label that does not occur again; and which row is kept must not
    depend on the order of the file, which is often sorted by label.

    Args:
        inputs: Numbers, shape (rows, features); NaN is a missing value.
        labels: Whole numbers in [0, classes), shape (rows,).
        class_names: One per class.
        feature_names: One per column.
        image_shape: (height, width) with height * width = features.

    Raises:
        ShapeError: If shapes do not fit together.
        InvalidInputError: If a value is infinite (as float32), a label is no class, or fewer than two classes occur.

    Example:
        >>> table = make_table([[1.0], [1.0], [2.0]], [0, 0, 1], class_names=("no", "yes"), feature_names=("x",))
        >>> len(table.inputs)
        2
    """
    with np.errstate(over="ignore"):  # an overflow becomes infinite here and is refused below, with a sentence
        values = np.asarray(inputs, dtype=np.float32) + np.float32(0)  # -0.0 + 0 is 0.0, so that equal rows are equal
    classes = np.asarray(labels, dtype=np.int64)
    _check(values, classes, class_names=class_names, feature_names=feature_names, image_shape=image_shape)
    values[np.isnan(values)] = np.nan  # one bit pattern for every NaN, for the same reason
    kept = _one_of_each(values)
    _check_classes(classes[kept])
    left_out = len(values) - len(kept)
    return RawTable(values[kept], classes[kept], class_names, feature_names, image_shape, left_out)


def sample_rows(table: RawTable, rows: int) -> RawTable:
    """The table cut to ``rows`` rows drawn without replacement, always the same ones, in their order.

    Raises:
        InvalidInputError: If they are all of one class.
    """
    if rows >= len(table.labels):
        return table
    drawn = np.random.default_rng(_SEED).choice(len(table.labels), size=rows, replace=False)
    kept = np.sort(drawn)
    _check_classes(table.labels[kept])
    return replace(table, inputs=table.inputs[kept], labels=table.labels[kept])


def content_hash(table: RawTable) -> str:
    """SHA-256 (hex) of everything a table says: values, labels, names, image shape.

    The same rows give the same hash on any machine; two versions of a data set differ in it.
    """
    names = [table.inputs.shape, table.class_names, table.feature_names, table.image_shape]
    digest = hashlib.sha256(json.dumps(names).encode())
    digest.update(np.ascontiguousarray(table.inputs, dtype="<f4").tobytes())
    digest.update(np.ascontiguousarray(table.labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def _check(
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    class_names: tuple[str, ...],
    feature_names: tuple[str, ...],
    image_shape: tuple[int, int] | None,
) -> None:
    _check_shapes(values, labels, names=len(feature_names), image_shape=image_shape)
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        row, column = infinite[0]
        message = f"row {row + 1}, column {column + 1} is infinite or beyond 3.4e38; leave missing values empty"
        raise InvalidInputError(message)
    if len(labels) and (labels.min() < 0 or labels.max() >= len(class_names)):
        message = f"labels must be from 0 to {len(class_names) - 1}, got {labels.min()} to {labels.max()}"
        raise InvalidInputError(message)


def _check_classes(labels: NDArray[np.int64]) -> None:
    if len(np.unique(labels)) < 2:
        message = "the labels are all the same; a classifier needs at least two classes"
        raise InvalidInputError(message)


def _check_shapes(
    values: NDArray[np.float32], labels: NDArray[np.int64], *, names: int, image_shape: tuple[int, int] | None
) -> None:
    features = values.shape[1] if values.ndim == 2 else 0
    height, width = image_shape or (1, features)
    for name, got, fits, expected in (
        ("inputs", values.shape, features > 0, "(rows, features) with at least one feature"),
        ("labels", labels.shape, labels.shape == values.shape[:1], f"({len(values)},)"),
        ("feature_names", (names,), names == features, f"({features},)"),
        ("image_shape", (height, width), height * width == features, f"(height, width) with product {features}"),
    ):
        if not fits:
            raise ShapeError(name, got, expected)


def _one_of_each(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indices, rising, of one row of each group of rows that are equal bit by bit; which one is left to chance."""
    if not len(values):
        return np.zeros(0, dtype=np.intp)
    order = np.random.default_rng(_SEED).permutation(len(values))
    shuffled = np.ascontiguousarray(values[order])
    keys = shuffled.view(np.dtype((np.void, shuffled.dtype.itemsize * shuffled.shape[1]))).ravel()
    return np.sort(order[np.unique(keys, return_index=True)[1]])

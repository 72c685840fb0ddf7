"""Labelled pairs as a file: what is fed, and what a training part leaves out. Written plainly, trusted in nothing.

A file is two arrays in an archive without compression. Who reads one that a tenant has written looks at the headers
before a value: it cannot grow, and nothing in it is unpickled.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data.sources.arrays import read_header
from easeml_core.data.table import MAX_CELLS
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.files import ARCHIVE_FAULTS, written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.data.table import Labels

_NAMES = ["inputs.npy", "labels.npy"]
_MOST_BYTES = 8 * MAX_CELLS


class Pairs(NamedTuple):
    """Rows with their labels.

    Attributes:
        inputs: float32, shape (rows, features); NaN where a value is missing, never infinite.
        labels: Shape (rows,): int64 classes, or float32 numbers for regression; (rows, numbers) where many are
            predicted of a row, NaN for an unknown one.
    """

    inputs: NDArray[np.float32]
    labels: Labels


def write_pairs(path: Path, pairs: Pairs) -> None:
    """Write pairs to ``path``, whole or not at all; the same pairs give the same bytes."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, inputs=np.ascontiguousarray(pairs.inputs), labels=np.ascontiguousarray(pairs.labels))


def read_pairs(path: Path, *, features: int, classes: int, task: Task, label_shape: tuple[int, ...] = ()) -> Pairs:
    """Read what ``write_pairs`` wrote.

    Args:
        path: The file.
        features: Columns that the inputs must have.
        classes: Labels must lie in [0, classes); 0 for regression.
        task: What the labels are.
        label_shape: Of one label; empty for a class or one number.

    Raises:
        InvalidInputError: If it is anything else: other arrays, another width, a label that is no class, a value that
            is not finite.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            inputs, labels = (_array(packed, name, path) for name in _checked_entries(packed))
    except ARCHIVE_FAULTS as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _refused(more=str(error)) from error
    _check(inputs, labels, features=features, classes=classes, task=task, label_shape=label_shape)
    values = inputs + np.float32(0)  # -0.0 + 0 is 0.0: equal rows must be equal bit by bit
    values[np.isnan(values)] = np.nan
    return Pairs(values, labels.copy())


def pairs_like(path: Path, parts: OpenParts) -> Pairs:
    """Read pairs that look as the rows of these open parts do; errors as of ``read_pairs``."""
    return read_pairs(
        path,
        features=parts.layout.features,
        classes=parts.classes,
        task=parts.task,
        label_shape=parts.train_labels.shape[1:],
    )


def _checked_entries(packed: zipfile.ZipFile) -> list[str]:
    """The names of the two arrays, once it is certain that they are what the archive holds, and as they stand."""
    entries = packed.infolist()
    is_plain = all(e.compress_type == zipfile.ZIP_STORED and e.file_size <= _MOST_BYTES for e in entries)
    _require(sorted(e.filename for e in entries) == _NAMES, "must hold the arrays inputs and labels, nothing else")
    _require(is_plain, f"must hold arrays of at most {_MOST_BYTES:,} bytes that are not compressed")
    return _NAMES


def _array(packed: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    content = packed.read(name)
    header = read_header(path.with_name(name), content, size=len(content), kinds="if", what="numbers")
    values = np.frombuffer(content, header.dtype, offset=header.start)
    return values.reshape(header.shape, order="F" if header.is_fortran else "C")


def _check(
    inputs: NDArray[Any],
    labels: NDArray[Any],
    *,
    features: int,
    classes: int,
    task: Task,
    label_shape: tuple[int, ...],
) -> None:
    got = f"got {inputs.dtype} of shape {inputs.shape} and {labels.dtype} of shape {labels.shape}"
    fits = inputs.dtype == np.float32 and inputs.ndim == 2 and inputs.shape[1] == features
    _require(fits, f"must have float32 inputs of shape (rows, {features})", got)
    is_classes = task == Task.CLASSIFICATION
    shape = (len(inputs), *label_shape)
    fits = labels.dtype == (np.int64 if is_classes else np.float32) and labels.shape == shape
    _require(fits, f"must have a label for each of its rows, shape {shape}", got)
    _require(not np.isinf(inputs).any(), "must have finite inputs, or NaN where one is missing")
    if is_classes:
        is_known = labels.min() >= 0 and labels.max() < classes
        _require(bool(is_known), f"must have labels from 0 to {classes - 1}")
    else:
        is_known = np.isfinite(labels).all() if not label_shape else _is_known(labels)
        _require(bool(is_known), "must have a finite number as the label of every row")


def _is_known(labels: NDArray[Any]) -> bool:
    """Whether several numbers are finite or unknown, but not all of a row unknown."""
    return not np.isinf(labels).any() and not np.isnan(labels).all(axis=1).any()


def _require(holds: bool, what: str, more: str = "") -> None:
    if not holds:
        raise _refused(what, more)


def _refused(what: str = "cannot be read", more: str = "") -> InvalidInputError:
    remedy = "feed them with `easeml feed`, its operator or its service"
    return InvalidInputError(f"a file of pairs {what}{more and ', '}{more}; {remedy}")

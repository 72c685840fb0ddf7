"""Two arrays in a folder that somebody names: inputs.npy and targets.npy, never unpickled.

A file's header is read first: an array is made only if its shape is allowed and its bytes are there.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.training.layout import Layout
from easeml_core.training.named_files import opened_folder, read_bytes
from easeml_core.training.raw_table import MAX_CELLS, MAX_FEATURES, RawTable, make_table
from easeml_core.training.targets import Target, target_of_column

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_BYTES = 1024**3
_MAX_WORD = 1000  # characters of a target that is text
_MAX_HEADER = 20_000  # bytes; numpy itself reads headers of 10,000
_KIND_OF_DIMENSIONS = {2: "table", 3: "series", 4: "image"}


def read_arrays(folder: Path, task: Task | None = None, *, kind: str | None = None) -> RawTable:
    """The table of ``inputs.npy`` and ``targets.npy``.

    Args:
        folder: An absolute path.
        task: ``regression`` predicts the numbers of the targets; None makes classes of them.
        kind: What a row of the inputs is: ``table`` (any shape, flattened), ``series`` (steps, channels) or ``image``
            (height, width) or (height, width, channels). None for what the dimensions suggest: 2 a table, 3 series,
            4 images.

    Returns:
        A table of the inputs as they are, but bytes of images are divided by 255. Targets are whole numbers, text or
        numbers, shape (rows,), or one-hot rows, shape (rows, classes).

    Raises:
        InvalidInputError: If a file is missing, too large, damaged or of Python objects, or the arrays do not fit.
    """
    if not folder.is_absolute():
        raise _refused(folder, "must be named by an absolute path (it is read by another process)")
    with opened_folder(folder, _refused) as inside:
        inputs = _array(folder / "inputs.npy", inside, kinds="biuf", what="numbers")
        targets = _array(folder / "targets.npy", inside, kinds="biufU", what="numbers or text")
    layout = _layout(folder, inputs.shape, kind)
    if len(targets) != len(inputs):
        raise _refused(folder, f"has {len(inputs):,} inputs and {len(targets):,} targets; there must be as many")
    target = _target(folder, targets, task)
    rows = inputs.reshape(len(inputs), -1)
    _check_values(folder, rows)
    if layout.kind == "image" and inputs.dtype == np.uint8:
        rows = rows / np.float32(255)
    names = tuple(f"input_{i}" for i in range(layout.features))
    return make_table(
        rows, target.labels, class_names=target.class_names, feature_names=names, layout=layout, task=target.task
    )


def _array(path: Path, folder: int, *, kinds: str, what: str) -> NDArray[Any]:
    content = read_bytes(path, _refused, most=MAX_BYTES, folder=folder)
    shape, is_fortran, dtype, start = _header(path, content)
    cells = math.prod(shape)
    if dtype.kind not in kinds or dtype.itemsize > 4 * _MAX_WORD:
        raise _refused(path, f"holds {str(dtype)[:40]}; allowed: {what}")
    if not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise _refused(path, f"has {len(shape)} dimensions and {max(cells, 0):,} values; 1 to 4 that are not empty")
    if cells > MAX_CELLS:
        raise _refused(path, f"has {cells:,} values, at most {MAX_CELLS:,} are allowed")
    if len(content) - start != cells * dtype.itemsize:
        raise _refused(path, "is damaged: its header and its length do not fit together")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")


def _header(path: Path, content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and type that a file claims, and where its values begin."""
    file = io.BytesIO(content[:_MAX_HEADER])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of headers that look like Python 2
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(version)
            is_first = version == (1, 0)
            header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
            return (*header(file), file.tell())
    except (
        ValueError, TypeError, KeyError, AttributeError, SyntaxError, RecursionError, MemoryError, OverflowError,
        tokenize.TokenError, Warning,
    ) as error:  # fmt: skip
        raise _refused(path, "is no .npy file") from error


def _layout(folder: Path, shape: tuple[int, ...], kind: str | None) -> Layout:
    row = shape[1:]
    found = kind or _KIND_OF_DIMENSIONS.get(len(shape), "")
    if found == "image" and len(row) == 2:
        row = (*row, 1)
    if found == "table" and row:
        row = (math.prod(row),)
    if len(row) != {"table": 1, "series": 2, "image": 3}.get(found) or math.prod(row) > MAX_FEATURES:
        what = f"has inputs of shape {shape}, which are no {found or 'table'} of at most {MAX_FEATURES:,} numbers a row"
        raise _refused(folder, what + "; allowed: (rows, features), (rows, steps, channels), (rows, height, width, "
                                      "channels), or ?layout=image for (rows, height, width)")  # fmt: skip
    return Layout(found, row)


def _target(folder: Path, targets: NDArray[Any], task: Task | None) -> Target:
    if targets.ndim == 2:
        targets = _classes_of_one_hot(folder, targets, task)
    if targets.ndim != 1:
        raise _refused(folder, f"has targets of shape {targets.shape}; allowed: (rows,), or one-hot (rows, classes)")
    try:
        column = targets.astype(object) if targets.dtype.kind == "U" else targets.astype(np.float64)
    except ValueError as error:  # four bytes that are no character
        raise _refused(folder, "has targets that are no text") from error
    if column.dtype != object and task == Task.REGRESSION:
        return Target(
            "targets", column, np.ones(len(column), dtype=bool), (), Task.REGRESSION
        )  # make_table refuses NaN
    target = target_of_column("targets", column, task)
    if not target.present.all():
        raise _refused(folder, f"has no target in row {int(target.present.argmin()) + 1}; leave such rows out")
    return target


def _classes_of_one_hot(folder: Path, targets: NDArray[Any], task: Task | None) -> NDArray[np.int64]:
    is_one_hot = targets.dtype.kind != "U" and bool(((targets == 0) | (targets == 1)).all())
    if task == Task.REGRESSION or not is_one_hot or bool((targets.sum(axis=1) != 1).any()):
        raise _refused(folder, f"has targets of shape {targets.shape} that are not one-hot; allowed: one number a row")
    classes: NDArray[np.int64] = targets.argmax(axis=1)
    return classes


def _check_values(folder: Path, rows: NDArray[Any]) -> None:
    if rows.dtype.kind != "f":
        return
    empty = np.isnan(rows).all(axis=0)
    # Series shorter than the longest end in NaN, but the longest has a value at every step.
    if empty.any():
        raise _refused(folder, f"has no value in column {int(empty.argmax()) + 1} of the inputs; leave the column out")


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"source of arrays: {str(path)[-200:]!r} {what}")

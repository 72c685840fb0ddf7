"""Two arrays in an untrusted folder: inputs.npy and targets.npy, never unpickled.

A file's header is read first: an array is made only if its shape is allowed and its bytes are there.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data.columns import Target, target_of_column
from easeml_core.data.layout import KINDS, LINKS, Layout
from easeml_core.data.program import program_of_data
from easeml_core.data.sources.files import opened_folder, read_bytes
from easeml_core.data.table import MAX_CELLS, MAX_FEATURES, RawTable, make_table
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_BYTES = 1024**3
TARGETS = "targets"
"""What a program calls the one class or number of a row: the name of its file."""

_MAX_WORD = 1000  # characters of a target that is text
_MAX_HEADER = 20_000  # bytes; numpy itself reads headers of 10,000
_KIND_OF_DIMENSIONS = {2: "table", 3: "series", 4: "image"}


def read_arrays(
    folder: Path, task: Task | None = None, *, kind: str | None = None, to_itself: bool = False
) -> RawTable:
    """The table of ``inputs.npy`` and ``targets.npy``."""
    if not folder.is_absolute():
        raise refused_array(folder, "must be named by an absolute path (it is read by another process)")
    with opened_folder(folder, refused_array) as inside:
        inputs = read_array(folder / "inputs.npy", inside, kinds="biuf", what="numbers")
        targets = None
        if not to_itself:
            targets = read_array(folder / "targets.npy", inside, kinds="biufU", what="numbers or text")
    layout = layout_of(folder, inputs.shape, kind)
    if targets is not None and len(targets) != len(inputs):
        raise refused_array(folder, f"has {len(inputs):,} inputs and {len(targets):,} targets; there must be as many")
    _check_values(folder, inputs.reshape(len(inputs), -1))
    if layout.kind == "tree":
        require_links(folder, inputs)
    rows = _flat(inputs, layout)
    names = tuple(f"input_{i}" for i in range(layout.features))
    target_layout = layout if targets is None else layout_of_targets(folder, targets, task)
    if target_layout is not None:
        labels = rows if targets is None else _flat(targets, target_layout)
        wanted = task or Task.CLASSIFICATION
        return make_table(rows, labels, feature_names=names, layout=layout, task=wanted, target_layout=target_layout)
    assert targets is not None
    target = target_of_array(folder, targets, task)
    return make_table(
        rows,
        target.labels,
        class_names=target.class_names,
        feature_names=names,
        layout=layout,
        task=target.task,
        program=program_of_data(layout, target.task, len(target.class_names), name=TARGETS),
    )


def _flat(values: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Rows in C order; the bytes of images as shares of 255."""
    rows = values.reshape(len(values), -1)
    return rows / np.float32(255) if layout.kind == "image" and values.dtype == np.uint8 else rows


def layout_of_targets(folder: Path, targets: NDArray[Any], task: Task | None) -> Layout | None:
    """What a row of targets of several numbers stands for; None for one class or number a row."""
    if targets.ndim <= 2 and task != Task.REGRESSION:
        return None  # classes, or one-hot rows of them
    if targets.ndim == 1 or math.prod(targets.shape[1:]) == 1:
        return None
    if task != Task.REGRESSION or targets.dtype.kind == "U":
        what = f"has targets of shape {targets.shape}; they must be numbers, and the task regression"
        raise refused_array(folder, what + "; for classes (rows,), or one-hot (rows, classes)")
    return Layout(_KIND_OF_DIMENSIONS[targets.ndim], targets.shape[1:])


def read_array(path: Path, folder: int, *, kinds: str, what: str) -> NDArray[Any]:
    """The array in a file, without a copy of its values."""
    content = read_bytes(path, refused_array, most=MAX_BYTES, folder=folder)
    header = read_header(path, content, size=len(content), kinds=kinds, what=what)
    values = np.frombuffer(content, header.dtype, offset=header.start)
    return values.reshape(header.shape, order="F" if header.is_fortran else "C")


class Header(NamedTuple):
    """What a file claims.

    Attributes:
        shape: 1 to 4 dimensions, none of them empty.
        is_fortran: Whether the first index runs fastest.
        dtype: Type of a value.
        start: Bytes before the first value.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    start: int


def read_header(path: Path, content: bytes, *, size: int, kinds: str, what: str) -> Header:
    """The header of a file, checked against the file's size; no value is looked at."""
    header = _claimed(path, content)
    cells = math.prod(header.shape)
    if header.dtype.kind not in kinds or header.dtype.itemsize > 4 * _MAX_WORD:
        raise refused_array(path, f"holds {str(header.dtype)[:40]}; allowed: {what}")
    if not 1 <= len(header.shape) <= 4 or min(header.shape) < 1:
        shape = f"has {len(header.shape)} dimensions and {max(cells, 0):,} values"
        raise refused_array(path, f"{shape}; 1 to 4 that are not empty")
    if cells > MAX_CELLS:
        raise refused_array(path, f"has {cells:,} values, at most {MAX_CELLS:,} are allowed")
    if size - header.start != cells * header.dtype.itemsize:
        raise refused_array(path, "is damaged: its header and its length do not fit together")
    return header


def _claimed(path: Path, content: bytes) -> Header:
    file = io.BytesIO(content[:_MAX_HEADER])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of headers that look like Python 2
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(version)
            is_first = version == (1, 0)
            header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
            return Header(*header(file), file.tell())
    except (
        ValueError, TypeError, KeyError, AttributeError, SyntaxError, RecursionError, MemoryError, OverflowError,
        tokenize.TokenError, Warning,
    ) as error:  # fmt: skip
        raise refused_array(path, "is no .npy file") from error


def layout_of(folder: Path, shape: tuple[int, ...], kind: str | None) -> Layout:
    """What a row of inputs of this shape is: of the kind asked for, or what the number of dimensions suggests."""
    row = shape[1:]
    found = kind or _KIND_OF_DIMENSIONS.get(len(shape), "")
    if found == "image" and len(row) == 2:
        row = (*row, 1)
    if found == "table" and row:
        row = (math.prod(row),)
    if len(row) != KINDS.get(found) or math.prod(row) > MAX_FEATURES or (found == "tree" and row[1] <= LINKS):
        what = f"has inputs of shape {shape}, which are no {found or 'table'} of at most {MAX_FEATURES:,} numbers a row"
        allowed = (
            "(rows, features), (rows, steps, channels), (rows, height, width, channels), or ?layout=image for (rows, "
            "height, width), ?layout=tree for (rows, nodes, channels + 2)"
        )
        raise refused_array(folder, f"{what}; allowed: {allowed}")
    return Layout(found, row)


def target_of_array(folder: Path, targets: NDArray[Any], task: Task | None) -> Target:
    """The target that an array of targets is: shape (rows,), or one-hot (rows, classes)."""
    if task == Task.REGRESSION and math.prod(targets.shape[1:]) == 1:
        targets = targets.reshape(-1)
    if targets.ndim == 2:
        targets = _classes_of_one_hot(folder, targets, task)
    if targets.ndim != 1:
        raise refused_array(
            folder, f"has targets of shape {targets.shape}; allowed: (rows,), or one-hot (rows, classes)"
        )
    try:
        column = targets.astype(object) if targets.dtype.kind == "U" else targets.astype(np.float64)
    except (ValueError, SystemError) as error:  # four bytes that are no character; Python says so in either way
        raise refused_array(folder, "has targets that are no text") from error
    if column.dtype != object and task == Task.REGRESSION:
        return Target(
            "targets", column, np.ones(len(column), dtype=bool), (), Task.REGRESSION
        )  # make_table refuses NaN
    target = target_of_column(TARGETS, column, task)
    if not target.present.all():
        raise refused_array(folder, f"has no target in row {int(target.present.argmin()) + 1}; leave such rows out")
    return target


def _classes_of_one_hot(folder: Path, targets: NDArray[Any], task: Task | None) -> NDArray[np.int64]:
    is_one_hot = targets.dtype.kind != "U" and bool(((targets == 0) | (targets == 1)).all())
    if task == Task.REGRESSION or not is_one_hot or bool((targets.sum(axis=1) != 1).any()):
        raise refused_array(
            folder, f"has targets of shape {targets.shape} that are not one-hot; allowed: one number a row"
        )
    classes: NDArray[np.int64] = targets.argmax(axis=1)
    return classes


def require_links(folder: Path, trees: NDArray[Any]) -> None:
    """Require nodes that name nodes before them as their children, and are the child of one node at most."""
    links = trees[:, :, -LINKS:].astype(np.float64)
    unused = np.asarray(np.isnan(trees.astype(np.float64)).all(axis=2))
    own = np.arange(trees.shape[1])[None, :, None]
    fits = (links == np.floor(links)) & (links >= -1) & (links < own) | unused[:, :, None]
    named = np.where(fits & ~unused[:, :, None], links, -1).reshape(len(trees), -1)
    sorted_names = np.sort(named, axis=1)
    twice = (sorted_names[:, 1:] == sorted_names[:, :-1]) & (sorted_names[:, 1:] >= 0)
    wrong = ~fits.all(axis=(1, 2)) | twice.any(axis=1) | unused[:, 0]
    if wrong.any():
        what = f"has no tree in row {int(wrong.argmax()) + 1}; the last two numbers of a node name its children"
        raise refused_array(folder, what + ", which are nodes before it and of no other node, or -1 for none")


def _check_values(folder: Path, rows: NDArray[Any]) -> None:
    if rows.dtype.kind != "f":
        return
    empty = np.isnan(rows).all(axis=0)
    # Series shorter than the longest end in NaN, but the longest has a value at every step.
    if empty.any():
        raise refused_array(
            folder, f"has no value in column {int(empty.argmax()) + 1} of the inputs; leave the column out"
        )


def refused_array(path: Path, what: str) -> InvalidInputError:
    """The error that names a file or folder; ``what`` is the rest of the sentence."""
    return InvalidInputError(f"source of arrays: {str(path)[-200:]!r} {what}")

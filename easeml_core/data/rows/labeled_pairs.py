"""Labelled pairs as a file, and all pairs that a training part ever had: what is in it, left out, and new.

A file, of what is fed or of what a training part leaves out, is two arrays in an archive without compression. Who reads
one that a tenant has written looks at the headers before a value: it cannot grow, and nothing in it is unpickled.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data.sources.arrays import read_header
from easeml_core.data.table import MAX_CELLS
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.files.local import ARCHIVE_FAULTS, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.data.table import Labels

    Hashes = Callable[[NDArray[np.float32]], list[bytes]]


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
    """Read what ``write_pairs`` wrote."""
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


class Pool:
    """Rows by the hash of their inputs, each in the training part or left out of it.

    Args:
        hashes: Gives the hash of each row's inputs.
        validation_inputs: Of the validation part, shape (rows, features): none of these rows comes in.

    Attributes:
        hashes: As given.
        validated: Hashes of the validation part.
        fed: Hash of each row that has come, or whose label was put right, to its feed.
    """

    def __init__(self, hashes: Hashes, validation_inputs: NDArray[np.float32]) -> None:
        self.hashes, self.validated = hashes, frozenset(hashes(validation_inputs))
        self.fed: dict[bytes, int] = {}
        self._place: dict[bytes, int] = {}
        self._inputs: list[Any] = []
        self._labels: list[Any] = []
        self._on: list[bool] = []
        self._was: list[bool] = []

    def __len__(self) -> int:
        """How many rows there are, left out or not."""
        return len(self._on)

    def __contains__(self, example: bytes) -> bool:
        """Whether there is such a row, left out or not."""
        return example in self._place

    @property
    def changed(self) -> bool:
        """Whether the training part is another one by now."""
        return bool(self.fed) or self._on != self._was

    def add(self, pairs: Pairs, *, is_on: bool) -> None:
        """The rows of the training part as it was, or those that it has left out."""
        for inputs, label, example in zip(*pairs, self.hashes(pairs.inputs), strict=True):
            self._append(example, inputs, label, is_on=is_on, was_on=is_on)

    def switch(self, example: bytes, *, is_on: bool) -> None:
        """Switch a row off or on; an unknown one stays unknown."""
        place = self._place.get(example)
        if place is not None:
            self._on[place] = is_on

    def feed(self, feed_id: int, pairs: Pairs, hashes: Sequence[bytes], *, closed: Collection[bytes]) -> None:
        """Add what is new and not closed. A pair may also put right the label of a row that is left out."""
        for inputs, label, example in zip(*pairs, hashes, strict=True):
            place = self._place.get(example)
            if example in self.validated or example in closed:
                continue
            if place is None:
                self._append(example, inputs, label, is_on=True, was_on=False)
            elif not self._on[place] and not np.array_equal(self._labels[place], label, equal_nan=True):
                self._labels[place], self._on[place] = label, True
            else:
                continue
            self.fed[example] = feed_id

    def pairs(self, *, is_on: bool) -> Pairs | None:
        """The rows that are in the training part, or left out, in their order; None for none."""
        chosen = [place for place, on in enumerate(self._on) if on == is_on]
        if not chosen:
            return None
        return Pairs(np.stack([self._inputs[p] for p in chosen]), np.stack([self._labels[p] for p in chosen]))

    def _append(self, example: bytes, inputs: Any, label: Any, *, is_on: bool, was_on: bool) -> None:
        self._place[example] = len(self._on)
        self._inputs.append(inputs)
        self._labels.append(label)
        self._on.append(is_on)
        self._was.append(was_on)

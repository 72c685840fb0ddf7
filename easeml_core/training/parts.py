"""Cut a table into parts that share no row, and keep the two open ones in a file.

The sealed parts are a uniform random sample, drawn first: the guarantees of gate and meter rest on independent rows of
the population, so they are not stratified. Where sealed parts are kept is not decided here.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.training.atomic import written_whole
from easeml_core.training.raw_table import content_hash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.training.raw_table import RawTable

__all__ = [
    "OpenParts",
    "Part",
    "Parts",
    "content_hash",
    "load_open_parts",
    "save_open_parts",
    "split_parts",
    "write_open_parts",
]

PART_NAMES = ("gate", "meter", "joint", "direct", "validation")
TRAIN_ROWS_PER_CLASS = 2
_FIELDS = ("train_inputs", "train_labels", "validation_inputs", "validation_labels", "image_shape", "classes")


class Part(NamedTuple):
    """Some rows of a table.

    Attributes:
        inputs: float32, shape (rows, features).
        labels: int64, shape (rows,).
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A whole table in parts without a common row; only ``train`` and ``validation`` are never empty."""

    train: Part
    validation: Part
    gate: Part
    meter: Part
    joint: Part
    direct: Part
    image_shape: tuple[int, int] | None
    classes: int


@dataclass(frozen=True, slots=True, eq=False)
class OpenParts:
    """What a training job may see.

    Attributes:
        train_inputs: float32, shape (train_rows, features); NaN is missing.
        train_labels: int64, shape (train_rows,), in [0, classes).
        validation_inputs: float32, shape (validation_rows, features).
        validation_labels: int64, shape (validation_rows,).
        image_shape: (height, width), or None for a table.
        classes: Number of classes.
    """

    train_inputs: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    validation_inputs: NDArray[np.float32]
    validation_labels: NDArray[np.int64]
    image_shape: tuple[int, int] | None
    classes: int


def split_parts(raw: RawTable, *, sizes: Mapping[str, int], rng: np.random.Generator) -> Parts:
    """Cut a table at random into parts of the given sizes; the rest is ``train``.

    Args:
        raw: The table; the inputs of its rows are pairwise different.
        sizes: Rows of ``gate``, ``meter``, ``joint``, ``direct`` (absent or 0: none) and ``validation`` (at least 1).
        rng: Decides which row goes where; the same state gives the same parts.

    Returns:
        Parts that share no row and together are the table.

    Raises:
        InvalidInputError: If a size is not known or negative, or fewer training rows are left than two per class; the
            message has the figures.
    """
    wanted = {name: _size(name, sizes.get(name, 0)) for name in PART_NAMES}
    unknown = sorted(set(sizes) - set(PART_NAMES))
    if unknown:
        message = f"there is no part {unknown[0]!r}; allowed: {', '.join(PART_NAMES)}"
        raise InvalidInputError(message)
    _check_rows(len(raw.labels), wanted, classes=len(raw.class_names))
    order = rng.permutation(len(raw.labels))
    ends = np.cumsum([wanted[name] for name in PART_NAMES])
    cut = zip((*PART_NAMES, "train"), np.split(order, ends), strict=True)
    parts = {name: Part(raw.inputs[rows], raw.labels[rows]) for name, rows in cut}
    return Parts(**parts, image_shape=raw.image_shape, classes=len(raw.class_names))


def save_open_parts(path: Path, parts: Parts) -> None:
    """Write the train and the validation part to ``path``: see ``write_open_parts``."""
    write_open_parts(path, OpenParts(*parts.train, *parts.validation, parts.image_shape, parts.classes))


def write_open_parts(path: Path, parts: OpenParts) -> None:
    """Write what everybody may see to ``path`` (.npz), whole or not at all.

    The same parts give the same bytes, so that the file can be stored under its hash.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            train_inputs=parts.train_inputs,
            train_labels=parts.train_labels,
            validation_inputs=parts.validation_inputs,
            validation_labels=parts.validation_labels,
            image_shape=np.array(parts.image_shape or (), dtype=np.int64),
            classes=np.array(parts.classes, dtype=np.int64),
        )


def load_open_parts(path: Path) -> OpenParts:
    """Read what ``save_open_parts`` wrote; nothing in the file is unpickled.

    Raises:
        ArtifactError: If the file is missing, damaged, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _FIELDS}
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        message = f"the data file {path.name} cannot be read: {error}; register the study's data again"
        raise ArtifactError(message) from error
    if not _fit_together(arrays):
        message = f"the data file {path.name} holds arrays that do not fit together; register the study's data again"
        raise ArtifactError(message)
    height_width = tuple(int(side) for side in arrays["image_shape"])
    return OpenParts(
        train_inputs=arrays["train_inputs"],
        train_labels=arrays["train_labels"],
        validation_inputs=arrays["validation_inputs"],
        validation_labels=arrays["validation_labels"],
        image_shape=(height_width[0], height_width[1]) if height_width else None,
        classes=int(arrays["classes"]),
    )


def _size(name: str, size: int) -> int:
    if size < (1 if name == "validation" else 0):
        message = f"the {name} part must have at least {1 if name == 'validation' else 0} rows, got {size}"
        raise InvalidInputError(message)
    return int(size)


def _check_rows(rows: int, wanted: Mapping[str, int], *, classes: int) -> None:
    asked = sum(wanted.values())
    needed = TRAIN_ROWS_PER_CLASS * classes
    if rows - asked < needed:
        listed = ", ".join(f"{name} {size:,}" for name, size in wanted.items() if size)
        message = (
            f"the data have {rows:,} distinct rows; {listed} leave {rows - asked:,} for training, at least {needed:,} "
            f"are needed ({TRAIN_ROWS_PER_CLASS} per class); bring more rows or ask for smaller parts"
        )
        raise InvalidInputError(message)


def _fit_together(arrays: Mapping[str, NDArray[Any]]) -> bool:
    for part in ("train", "validation"):
        inputs, labels = arrays[f"{part}_inputs"], arrays[f"{part}_labels"]
        if inputs.ndim != 2 or inputs.dtype != np.float32 or labels.dtype != np.int64:
            return False
        if labels.shape != inputs.shape[:1] or not len(labels):
            return False
    same_features = arrays["train_inputs"].shape[1] == arrays["validation_inputs"].shape[1]
    image_shape = arrays["image_shape"]
    is_table = image_shape.shape == (0,)
    is_image = image_shape.shape == (2,) and int(image_shape.prod()) == arrays["train_inputs"].shape[1]
    return same_features and (is_table or is_image) and arrays["classes"].shape == () and int(arrays["classes"]) >= 2

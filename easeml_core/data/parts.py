"""Cut a table into parts that share no row, and keep the two open ones in a file.

Unless a study says otherwise (``splits``), the sealed parts are a uniform random sample, drawn first: the guarantees of
gate and meter rest on independent rows of the population, so they are not stratified. Where sealed parts are kept is
not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data import mapped
from easeml_core.data.layout import Layout
from easeml_core.data.mapped import mapped_arrays, write_arrays
from easeml_core.data.split_spec import ROWS
from easeml_core.data.splits import TRAIN, divided, with_known
from easeml_core.data.table import content_hash
from easeml_core.entities import Task
from easeml_core.errors import ArtifactError, InvalidInputError, counted
from easeml_core.files.local import ARCHIVE_FAULTS, written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.split_spec import Split
    from easeml_core.data.splits import Rows
    from easeml_core.data.table import Labels, RawTable

__all__ = [
    "Layout",
    "OpenParts",
    "Part",
    "Parts",
    "content_hash",
    "load_open_parts",
    "save_open_parts",
    "split_parts",
    "write_open_parts",
]

LARGE_CELLS = 25_000_000
"""Training inputs of more cells (100 MB) are mapped into the processes that use them, and not read."""

MOST_CHANGED_CELLS = 200_000_000
"""Twice the largest table that is held in memory: such a study may be fed as much again."""

PART_NAMES = ("gate", "meter", "joint", "direct", "validation")
TRAIN_ROWS_PER_CLASS = 2
TRAIN_ROWS_OF_NUMBERS = 4
"""Regression has no classes to count; as many rows as for two of them."""

_FIELDS = ("train_inputs", "train_labels", "validation_inputs", "validation_labels", "classes")


class Part(NamedTuple):
    """Some rows of a table.

    Attributes:
        inputs: float32, shape (rows, features).
        labels: Shape (rows,): int64 classes, or float32 numbers for regression; (rows, numbers) with a target layout.
    """

    inputs: NDArray[np.float32]
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A whole table in parts without a common row; only ``train`` and ``validation`` are never empty.

    ``classes`` is 0 for regression. ``target_layout`` is what a row of labels stands for; None for one class or number.
    """

    train: Part
    validation: Part
    gate: Part
    meter: Part
    joint: Part
    direct: Part
    classes: int
    layout: Layout
    task: Task = Task.CLASSIFICATION
    target_layout: Layout | None = None

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) when a row is an image, else None."""
        return self.layout.image_shape


@dataclass(frozen=True, slots=True, eq=False)
class OpenParts:
    """What a training job may see.

    Attributes:
        train_inputs: float32, shape (train_rows, features), rows flattened in C order of ``layout``; NaN is missing.
        train_labels: Shape (train_rows,): int64 in [0, classes), or finite float32 for regression. With a target
            layout float32, shape (train_rows, numbers), where NaN is an unknown number.
        validation_inputs: float32, shape (validation_rows, features).
        validation_labels: The same of the validation rows.
        classes: Number of classes; 0 for regression.
        layout: What a row stands for.
        task: What the labels are.
        target_layout: What a row of labels stands for; None for one class or number a row.
    """

    train_inputs: NDArray[np.float32]
    train_labels: Labels
    validation_inputs: NDArray[np.float32]
    validation_labels: Labels
    classes: int
    layout: Layout
    task: Task = Task.CLASSIFICATION
    target_layout: Layout | None = None

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) when a row is an image, else None."""
        return self.layout.image_shape


def split_parts(raw: RawTable, *, sizes: Mapping[str, int], rng: np.random.Generator, split: Split = ROWS) -> Parts:
    """Cut a table into parts of the given sizes; the rest is ``train``: ``parts_of`` the rows of ``divided_rows``."""
    return parts_of(raw, divided_rows(raw, sizes=sizes, rng=rng, split=split))


def divided_rows(
    raw: RawTable,
    *,
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    split: Split = ROWS,
    hidden: NDArray[np.bool_] | None = None,
    shown: NDArray[np.bool_] | None = None,
) -> Rows:
    """The rows of each part of the given sizes; the rest is ``train``."""
    wanted = {name: _size(name, sizes.get(name, 0)) for name in PART_NAMES}
    unknown = sorted(set(sizes) - set(PART_NAMES))
    if unknown:
        message = f"there is no part {unknown[0]!r}; allowed: {', '.join(PART_NAMES)}"
        raise InvalidInputError(message)
    _check_rows(len(raw.labels), wanted, raw)
    found = divided(split, raw.split_values, wanted, len(raw.labels), rng)
    if hidden is not None and shown is not None and (hidden | shown).any():
        shown = shown & ~hidden
        found = with_known(found, hidden=hidden, shown=shown, split=split, values=raw.split_values, rng=rng)
        _check_rows(len(raw.labels), {name: len(found[name]) for name in wanted}, raw)
    if split.column:
        _check_rows(len(raw.labels), {name: len(found[name]) for name in wanted}, raw)
        _check_classes(raw, found["train"], split)
    return found


def parts_of(raw: RawTable, found: Rows) -> Parts:
    """The parts of a table that have these rows.

    The training part of a mapped table takes the place of the table, in the order of its rows: what the table held is
    lost, and no second file of its size is written.
    """
    in_place = {TRAIN} if mapped.is_mapped(raw.inputs) else set()
    parts = {
        name: Part(mapped.taken(raw.inputs, rows), raw.labels[rows])
        for name, rows in found.items()
        if name not in in_place
    }
    for name in in_place:  # last: it overwrites the rows of the others
        rows = np.sort(found[name])
        parts[name] = Part(mapped.kept_in_place(raw.inputs, rows), raw.labels[rows])
    return Parts(
        **parts, classes=len(raw.class_names), layout=raw.layout, task=raw.task, target_layout=raw.target_layout
    )


def save_open_parts(path: Path, parts: Parts) -> None:
    """Write the train and the validation part to ``path``: see ``write_open_parts``."""
    opened = OpenParts(*parts.train, *parts.validation, parts.classes, parts.layout, parts.task, parts.target_layout)
    write_open_parts(path, opened)


def write_open_parts(path: Path, parts: OpenParts) -> None:
    """Write the open parts to ``path`` (.npz), atomically.

    The same parts give the same bytes, so that the file can be stored under its hash. ``image_shape`` serves readers
    from before layouts existed; they refuse numbers as labels and images in colour.
    """
    target = parts.target_layout
    of_targets: dict[str, Any] = {}
    if target is not None:
        of_targets = {"target_kind": np.array(target.kind), "target_shape": _sides(target)}
    arrays: dict[str, NDArray[Any]] = {
        "train_inputs": parts.train_inputs,
        "train_labels": parts.train_labels,
        "validation_inputs": parts.validation_inputs,
        "validation_labels": parts.validation_labels,
        "image_shape": np.array(parts.image_shape or (), dtype=np.int64),
        "classes": np.array(parts.classes, dtype=np.int64),
        "task": np.array(str(parts.task)),
        "layout_kind": np.array(parts.layout.kind),
        "layout_shape": _sides(parts.layout),
        **of_targets,
    }
    with written_whole(path) as temporary, temporary.open("wb") as file:
        if parts.train_inputs.size > LARGE_CELLS:
            write_arrays(file, arrays)
        else:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # none has the name of its option


def _sides(layout: Layout) -> NDArray[np.int64]:
    return np.array(layout.shape, dtype=np.int64)


def require_in_memory(rows: int, features: int) -> None:
    """Refuse to change a training part that is too large to be held in memory, as feeds and switches do."""
    if rows * features > MOST_CHANGED_CELLS:
        message = (
            f"the training part has {rows * features:,} numbers; only one of at most {MOST_CHANGED_CELLS:,} can be "
            "changed: register the whole table anew"
        )
        raise InvalidInputError(message)


def load_validation_labels(path: Path) -> Labels:
    """Only the labels of the validation part, of a file that ``load_open_parts`` can read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels: Labels = file["validation_labels"]
            return labels
    except (*ARCHIVE_FAULTS, TypeError) as error:
        raise _unfit(path) from error


def load_open_parts(path: Path) -> OpenParts:
    """Read what ``save_open_parts`` wrote, now or before there were layouts; nothing in the file is unpickled.

    Inputs of more than ``LARGE_CELLS`` cells stay in the file, which is mapped: such arrays are read-only, and their
    rows come to memory when they are read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = mapped_arrays(path, file.zip) if path.stat().st_size > LARGE_CELLS * 4 else {}
            arrays = {name: found[name] if name in found else file[name] for name in _FIELDS}
            layout, task = _layout_in(file, arrays["train_inputs"]), _task_in(file)
            target = _stated_layout(file, "target")
    except (*ARCHIVE_FAULTS, TypeError) as error:
        if isinstance(error, InvalidInputError):
            raise _unfit(path) from error
        message = f"the data file {path.name} cannot be read: {error}; register the study's data again"
        raise ArtifactError(message) from error
    if not _fit_together(arrays, layout, task, target):
        raise _unfit(path)
    return OpenParts(
        train_inputs=arrays["train_inputs"],
        train_labels=arrays["train_labels"],
        validation_inputs=arrays["validation_inputs"],
        validation_labels=arrays["validation_labels"],
        classes=int(arrays["classes"]),
        layout=layout,
        task=task,
        target_layout=target,
    )


def _unfit(path: Path) -> ArtifactError:
    return ArtifactError(
        f"the data file {path.name} holds arrays that do not fit together; register the study's data again"
    )


def _layout_in(file: Mapping[str, NDArray[Any]], inputs: NDArray[Any]) -> Layout:
    """The layout that the file states; files without one hold a table, or grey images by their height and width."""
    stated = _stated_layout(file, "layout")
    if stated is not None:
        return stated
    sides = tuple(int(n) for n in file["image_shape"].ravel())
    return Layout("image", (*sides, 1)) if sides else Layout("table", inputs.shape[1:])


def _stated_layout(file: Mapping[str, NDArray[Any]], name: str) -> Layout | None:
    if f"{name}_kind" not in file:
        return None
    return Layout(str(file[f"{name}_kind"]), tuple(int(n) for n in file[f"{name}_shape"].ravel()))


def _task_in(file: Mapping[str, NDArray[Any]]) -> Task:
    if "task" not in file:
        return Task.CLASSIFICATION
    said = str(file["task"])
    if said not in list(Task):
        message = f"the file has the task {said!r}"
        raise InvalidInputError(message)
    return Task(said)


def _size(name: str, size: int) -> int:
    if size < (1 if name == "validation" else 0):
        message = f"the {name} part must have at least {'1 row' if name == 'validation' else '0 rows'}, got {size}"
        raise InvalidInputError(message)
    return int(size)


def _check_rows(rows: int, wanted: Mapping[str, int], raw: RawTable) -> None:
    asked = sum(wanted.values())
    is_classes = raw.task == Task.CLASSIFICATION
    needed = TRAIN_ROWS_PER_CLASS * len(raw.class_names) if is_classes else TRAIN_ROWS_OF_NUMBERS
    if rows - asked < needed:
        listed = ", ".join(f"{name} {size:,}" for name, size in wanted.items() if size)
        why = f" ({TRAIN_ROWS_PER_CLASS} per class)" if is_classes else ""
        message = (
            f"the data have {rows:,} distinct rows; {listed} leave {rows - asked:,} for training, at least {needed:,} "
            f"are needed{why}; bring more rows or ask for smaller parts"
        )
        raise InvalidInputError(message)


def _check_classes(raw: RawTable, train: NDArray[np.intp], split: Split) -> None:
    """Chance gives a class to every part sooner or later; groups and times may keep it from training altogether."""
    there = set(raw.labels[train].tolist()) if raw.task == Task.CLASSIFICATION else set()
    missing = [name for label, name in enumerate(raw.class_names) if label not in there]
    if missing:
        message = (
            f"split {str(split)!r} leaves no training row of class {missing[0]!r}"
            + (f" and {counted(len(missing) - 1, 'other')}" if len(missing) > 1 else "")
            + "; bring more rows of it, leave it out, or split otherwise"
        )
        raise InvalidInputError(message)


def _fit_together(arrays: Mapping[str, NDArray[Any]], layout: Layout, task: Task, target: Layout | None) -> bool:
    is_classes = task == Task.CLASSIFICATION
    for part in ("train", "validation"):
        inputs, labels = arrays[f"{part}_inputs"], arrays[f"{part}_labels"]
        if inputs.ndim != 2 or inputs.dtype != np.float32 or inputs.shape[1] != layout.features:
            return False
        if labels.dtype != (np.int64 if is_classes else np.float32) or not _are_known(labels):
            return False
        if labels.shape != (len(inputs), *((target.features,) if target else ())) or not len(labels):
            return False
    classes = arrays["classes"]
    return classes.shape == () and (int(classes) >= 2 if is_classes else int(classes) == 0)


def _are_known(labels: NDArray[Any]) -> bool:
    """Whether each is a number; of targets of several numbers, whether a row has one at least, and none is infinite."""
    if labels.ndim == 1:
        return bool(np.isfinite(labels).all())
    return not np.isinf(labels).any() and not np.isnan(labels).all(axis=1).any()

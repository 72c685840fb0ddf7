"""The program of a folder: of images in a folder per class, or of ``inputs.npy`` and ``targets.npy``.

Of an image only the header is read, and of many images only some; of the inputs only what the file says of itself.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.inference.result import Inferred, class_note, note_of_source
from easeml_core.data.inference.target import infer_target, sizes_of_classes
from easeml_core.data.layout import Layout
from easeml_core.data.program import program_of_data
from easeml_core.data.sources.arrays import (
    TARGETS,
    layout_of,
    layout_of_targets,
    read_array,
    read_header,
    refused,
    target_of,
)
from easeml_core.data.sources.files import first_bytes, opened_folder
from easeml_core.data.sources.images import CLASS, GREY, folder_contents, listed_images, opened_image
from easeml_core.data.sources.optional import optional_package
from easeml_core.data.sources.spec import MAX_SIDE, Source
from easeml_core.data.table import MAX_CELLS
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

MOST_IMAGES = 1000
"""Images that are looked at; of more, one in so many, evenly chosen in the order of their names."""

_MOST_HEADER = 20_000  # bytes, as in npy_source


def infer_images(path: Path, report: Callable[[str], None]) -> Inferred:
    """The program of a folder whose sub-folders hold images.

    Images are as large as most of those looked at, or smaller where the sources would refuse that.

    Args:
        path: An absolute path.
        report: Hears how far it is after each image.

    Raises:
        InvalidInputError: As ``image_source.read_images``, but no image is decoded.
    """
    optional_package("PIL", "PIL", extra="images")
    class_names, files = listed_images(path)
    if len(class_names) < 2:
        message = f"source of images: {str(path)[-200:]!r} has one sub-folder; a classifier needs at least two classes"
        raise InvalidInputError(message)
    looked = files[:: math.ceil(len(files) / MOST_IMAGES)]
    sizes: Counter[tuple[int, int]] = Counter()
    has_colour = False
    for count, (file, content) in enumerate(folder_contents(path, looked), start=1):
        image = opened_image(path, file.path, content)
        sizes[(image.height, image.width)] += 1
        has_colour |= image.mode not in GREY
        report(f"{count:,} of {len(looked):,} images looked at")
    size = min(sizes, key=lambda found: (-sizes[found], found))
    channels = 3 if has_colour else 1
    fitting = _fitting(size, channels, len(files))
    options = ("size", f"{fitting[0]}x{fitting[1]}"), ("colour", "rgb" if has_colour else "grey")
    source = Source("images", path.name, options)
    counts = Counter(file.label for file in files)
    classes = tuple((name, counts[label]) for label, name in enumerate(class_names))
    program = program_of_data(Layout("image", (*fitting, channels)), Task.CLASSIFICATION, len(classes), name=CLASS)
    notes = (
        note_of_source(source, "", Task.CLASSIFICATION),
        f"read: {len(looked):,} of {len(files):,} images, of each the header; none was decoded",
        f"size: {size[0]:,} x {size[1]:,} pixels (height x width) have {sizes[size]:,} of them"
        + ("" if fitting == size else f", made {fitting[0]} x {fitting[1]}, since larger ones are refused")
        + ("" if len(sizes) == 1 else f"; there are {len(sizes):,} sizes, and all become this one"),
        class_note(CLASS, classes),
    )
    return Inferred(source, "", Task.CLASSIFICATION, program, len(files), len(looked) < len(files), classes, notes)


def infer_arrays(path: Path, task: Task | None) -> Inferred:
    """The program of a folder with ``inputs.npy`` and ``targets.npy``.

    Args:
        path: An absolute path.
        task: What was asked for.

    Raises:
        InvalidInputError: As ``npy_source.read_arrays``, but the values of the inputs are not looked at.
    """
    with opened_folder(path, refused) as folder:
        shape = _claimed_shape(path / "inputs.npy", folder)
        targets = read_array(path / "targets.npy", folder, kinds="biufU", what="numbers or text")
    layout = layout_of(path, shape, None)
    if len(targets) != shape[0]:
        raise refused(path, f"has {shape[0]:,} inputs and {len(targets):,} targets; there must be as many")
    target = layout_of_targets(path, targets, task or (Task.REGRESSION if targets.ndim > 2 else None))
    if target is not None:
        return _several(path, layout, target, targets, asked=task is not None)
    is_words = targets.ndim != 1 or targets.dtype.kind == "U"
    if is_words or task is not None:
        found = target_of(path, targets, task)
        why = f"task {task}: as asked for" if task else "task classification: the targets are words or one-hot"
    else:
        found, why = infer_target({TARGETS: targets.astype(np.float64)}, TARGETS, None)
    if not bool((found.present & (np.isfinite(found.labels) if found.task == Task.REGRESSION else True)).all()):
        raise refused(path, "has no target in some row, or an infinite one; leave such rows out")
    classes = sizes_of_classes(found, found.labels, partial=False)
    program = program_of_data(layout, found.task, len(classes), name=TARGETS)
    source = Source("npy", path.name)
    notes = (
        note_of_source(source, "", found.task),
        why,
        f"read: the header of inputs.npy and all {len(targets):,} targets",
        f"inputs of shape {shape} are {_MEANING[layout.kind]}; ?layout=table, image, series or tree says otherwise",
        *([class_note(TARGETS, classes)] if classes else []),
    )
    return Inferred(source, "", found.task, program, len(targets), False, classes, notes)


def _several(path: Path, layout: Layout, target: Layout, targets: NDArray[Any], *, asked: bool) -> Inferred:
    """Answers of several numbers, of which some may be unknown, but not all of a row."""
    flat = targets.reshape(len(targets), -1).astype(np.float64)
    if np.isinf(flat).any() or np.isnan(flat).all(axis=1).any():
        raise refused(path, "has an infinite target, or none that is known in some row; leave such rows out")
    source, task = Source("npy", path.name), Task.REGRESSION
    notes = (
        note_of_source(source, "", task),
        f"task {task}: " + ("as asked for" if asked else "a target is several numbers"),
        f"read: the header of inputs.npy and all {len(targets):,} targets",
        f"inputs are {_MEANING[layout.kind]}; ?layout=table, image, series or tree says otherwise",
        f"targets of shape {targets.shape} are {_MEANING[target.kind]}",
    )
    program = program_of_data(layout, task, 0, target)
    return Inferred(source, "", task, program, len(targets), False, (), notes)


_MEANING = {
    "table": "(rows, features)",
    "series": "(rows, steps, channels)",
    "image": "(rows, height, width, channels)",
}


def _fitting(size: tuple[int, int], channels: int, images: int) -> tuple[int, int]:
    """The size itself, or the largest of its shape that the source of images takes."""
    most = math.sqrt(MAX_CELLS / (images * size[0] * size[1] * channels))
    scale = min(1.0, MAX_SIDE / max(size), most)
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def _claimed_shape(path: Path, folder: int) -> tuple[int, ...]:
    """Shape of an array by its header, which must fit the size of the file."""
    content, size = first_bytes(path, _MOST_HEADER, folder=folder)
    return read_header(path, content, size=size, kinds="biuf", what="numbers").shape

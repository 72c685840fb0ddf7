"""Rows in an untrusted file: a table, an array, an image, or a folder (or zip file) of arrays or images.

Where the labels are: a column of a table, ``targets.npy`` beside ``inputs.npy``, a sub-folder for each class of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.csv_text import without_guard
from easeml_core.data.rows.encoding import KEY, ExampleFile
from easeml_core.data.rows.row_format import (
    LABEL,
    Rows,
    labels_of_numbers,
    labels_of_words,
    rows_of_cells,
    table_of_numbers,
    table_of_words,
)
from easeml_core.data.rows.row_tables import read_text_table, text_blocks
from easeml_core.data.rows.step_lines import joined_steps
from easeml_core.data.sources.arrays import read_array, refused, require_links
from easeml_core.data.sources.files import ARRAYS, entries, opened_folder, read_bytes
from easeml_core.data.sources.images import (
    ENDINGS,
    MAX_BYTES,
    MAX_FILES,
    decoded_image,
    folder_contents,
    listed_images,
)
from easeml_core.data.sources.optional import optional_package
from easeml_core.data.sources.zip_upload import unpacked
from easeml_core.data.table import MAX_CELLS
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.rows.row_format import RowForm
    from easeml_core.data.rows.row_tables import TextTable
    from easeml_core.data.table import Labels

_BLOCK_CELLS = 2_000_000
"""Cells of a table that are in memory at a time: some 100 MB as text."""


def read_rows(path: Path, form: RowForm, *, label: str | None = None) -> Rows:
    """The rows of a file or folder, in a study's form.

    Args:
        path: A table (``read_text_table``) with the study's columns; ``.npy``; an image; a folder with ``inputs.npy``
            (and ``targets.npy``); a folder of images, with a sub-folder for each class where they are labelled; a zip
            file of such a folder.
        form: What a row looks like.
        label: Read labels too, in a table from this column; None for rows without labels.

    Raises:
        InvalidInputError: It is none of these, or does not fit the study; the message says where.
    """
    with unpacked(path.absolute()) as place:  # absolute, as files in folders are opened
        if place.is_dir():
            is_arrays = (place / ARRAYS[0]).exists()
            return _folder_of_arrays(place, form, label) if is_arrays else _folder_of_images(place, form, label)
        if not is_table(place):
            if label is not None:
                message = f"{place}: one file has no labels; bring a folder of inputs.npy and targets.npy, or of images"
                raise InvalidInputError(message)
            return _array(place, form) if place.suffix.lower() == ".npy" else _images(place.parent, [place.name], form)
        return rows_of_cells(_named(place, joined_steps(place, read_text_table(place), form)), form, label=label)


def rows_in_blocks(path: Path, form: RowForm) -> Iterator[Rows]:
    """The rows of a path without labels: of a table of any size some at a time, of anything else all at once.

    A table of series is read at once, since a series may be a line for each step.

    Args:
        path: As of ``read_rows``.
        form: What a row looks like.

    Raises:
        InvalidInputError: As of ``read_rows``, where the block that is wrong is read.
    """
    if path.suffix.lower() == ".zip" or not is_table(path) or form.layout.kind == "series":
        yield read_rows(path, form)
        return
    before = 0
    for table in text_blocks(path.absolute(), most_cells=_BLOCK_CELLS, width=form.features):
        file = _named(path, table, before)
        before += len(file.keys)
        yield rows_of_cells(file, form, label=None)


def is_table(path: Path) -> bool:
    """Whether a path is read as a table: no folder, and neither an array nor an image by its ending."""
    return not path.is_dir() and path.suffix.lower() not in (".npy", *ENDINGS)


def has_labels(folder: Path) -> bool:
    """Whether an unpacked folder tells the labels of its rows: by targets.npy, or by sub-folders of images."""
    if (folder / ARRAYS[0]).exists():
        return (folder / ARRAYS[1]).exists()
    with opened_folder(folder, _refused_image) as inside:
        return bool(entries(folder, _refused_image, folder=inside, most=MAX_FILES)[0])


def _named(path: Path, table: TextTable, before: int = 0) -> ExampleFile:
    """Rows that are named by a column ``example`` where there is one, else by their number after so many others."""
    columns = dict(table.columns)
    numbers = range(before + 1, before + len(next(iter(columns.values()))) + 1)
    keys = columns.pop(KEY, tuple(map(str, numbers)))
    return ExampleFile(path, tuple(map(without_guard, keys)), table.lines, columns)


def _folder_of_arrays(folder: Path, form: RowForm, label: str | None) -> Rows:
    with opened_folder(folder, refused) as inside:
        inputs = read_array(folder / ARRAYS[0], inside, kinds="biuf", what="numbers")
        rows = _rows_of_array(folder, inputs, form)
        if label is None:
            return Rows(str(folder), rows)
        targets = read_array(folder / ARRAYS[1], inside, kinds="biufU", what="numbers or text")
    if len(targets) != len(rows):
        raise refused(folder, f"has {len(rows):,} inputs and {len(targets):,} targets; there must be as many")
    return Rows(str(folder), rows, _labels_of_array(folder, targets, form))


def _array(path: Path, form: RowForm) -> Rows:
    with opened_folder(path.parent, refused) as inside:
        return Rows(str(path), _rows_of_array(path, read_array(path, inside, kinds="biuf", what="numbers"), form))


def _rows_of_array(path: Path, inputs: NDArray[Any], form: RowForm) -> NDArray[np.float32]:
    """Rows of any shape that has as many numbers; one row may come without the first dimension."""
    is_one = inputs.shape in (form.layout.shape, form.layout.shape[:2]) and inputs.size == form.features
    flat = inputs.reshape(1 if is_one else len(inputs), -1)
    rows = table_of_numbers(flat, form.features)
    if form.layout.kind == "tree":
        require_links(path, rows.reshape(-1, *form.layout.shape))
    return rows / np.float32(255) if inputs.dtype == np.uint8 and form.layout.kind == "image" else rows


def _labels_of_array(folder: Path, targets: NDArray[Any], form: RowForm) -> Labels:
    if form.target is not None:
        is_grey = form.target.kind == "image" and targets.dtype == np.uint8
        numbers = targets / np.float32(255) if is_grey else targets
        return labels_of_numbers(numbers, form.target, str(folder / ARRAYS[1]))
    if targets.dtype.kind == "b":
        targets = targets.astype(np.uint8)  # whose classes are 0 and 1, as at registration
    if form.class_names and targets.ndim == 2 and targets.shape[1] == len(form.class_names):
        if not (np.isin(targets, (0, 1)).all() and (targets.sum(axis=1) == 1).all()):
            raise refused(folder, "has targets of several columns that are not one-hot")
        return np.asarray(targets.argmax(axis=1), dtype=np.int64)
    if targets.ndim != 1:
        raise refused(folder, f"has targets of shape {targets.shape}; one a row is wanted")
    words = [str(value) for value in targets.tolist()]
    return labels_of_words(table_of_words(str(folder / ARRAYS[1]), {LABEL: words}), form)


def _folder_of_images(folder: Path, form: RowForm, label: str | None) -> Rows:
    if label is None:
        with opened_folder(folder, _refused_image) as inside:
            _, names = entries(folder, _refused_image, folder=inside, most=MAX_FILES)
        return _images(folder, [name for name in names if name.lower().endswith(ENDINGS)], form)
    _require_images(folder, 1, form)
    class_names, files = listed_images(folder)
    _require_images(folder, len(files), form)
    paths = tuple(str(file.path.relative_to(folder)) for file in files)
    words = tuple(class_names[file.label] for file in files)
    labels = labels_of_words(ExampleFile(folder, paths, (), {LABEL: words}), form)
    pixels = [
        decoded_image(folder, file.path, content, form.layout) for file, content in folder_contents(folder, files)
    ]
    return Rows(str(folder), np.stack(pixels), labels, {"file": paths})


def _images(folder: Path, names: Sequence[str], form: RowForm) -> Rows:
    """Images of one folder, without labels."""
    _require_images(folder, len(names), form)
    pixels = []
    with opened_folder(folder, _refused_image) as inside:
        for name in names:
            content = read_bytes(folder / name, _refused_image, most=MAX_BYTES, folder=inside)
            pixels.append(decoded_image(folder, folder / name, content, form.layout))
    return Rows(str(folder), np.stack(pixels), None, {"file": tuple(names)})


def _require_images(folder: Path, count: int, form: RowForm) -> None:
    if form.layout.kind != "image":
        raise _refused_image(folder, f"holds images, but a row of the study is a {form.layout.kind}")
    if not count:
        raise _refused_image(folder, f"holds no image; allowed are {', '.join(ENDINGS)}")
    if count * form.features > MAX_CELLS:
        raise _refused_image(folder, f"holds more than {MAX_CELLS:,} numbers; bring fewer images at once")
    optional_package("PIL", "PIL", extra="images")


def _refused_image(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"images: {str(path)[-200:]!r} {what}")

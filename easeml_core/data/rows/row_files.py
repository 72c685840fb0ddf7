"""New rows in an untrusted file: a table, an array, an image, or a folder (or zip file) of arrays or images.

Where the labels are: a column of a table, ``targets.npy`` beside ``inputs.npy``, a sub-folder for each class of images.
A table of series has a line for each step, as those of a study were registered: a row is made of each series. Rows that
are sealed, fed or validated on have a name each: the cell ``example`` in a table, the path of the image within the
folder, or the number in an array, from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import column_of_texts, nearest
from easeml_core.data.rows.row_format import (
    LABEL,
    Rows,
    labels_of_numbers,
    labels_of_words,
    rows_of_cells,
    table_of_numbers,
    table_of_words,
)
from easeml_core.data.rows.row_tables import (
    KEY,
    ExampleFile,
    TextTable,
    encode,
    examples_of,
    read_examples,
    read_text_table,
    refused,
    text_blocks,
    with_distinct_keys,
)
from easeml_core.data.sources.arrays import read_array, refused_array, require_links
from easeml_core.data.sources.files import ARRAYS, entries, opened_folder, read_bytes, unpacked
from easeml_core.data.sources.images import (
    ENDINGS,
    MAX_BYTES,
    MAX_FILES,
    decoded_image,
    folder_contents,
    listed_images,
)
from easeml_core.data.sources.spec import optional_package
from easeml_core.data.table import MAX_CELLS
from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.csv_text import without_guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.rows.row_format import RowForm
    from easeml_core.data.table import Labels


STEP = "step"
"""Column with the place of a line in its series, whose gaps do not count."""


def joined_steps(path: Path, table: TextTable, form: RowForm) -> TextTable:
    """A table with one row for each series, of columns such as ``heat_0``, ``heat_1``, as an encoded study has them."""
    channels = _channels(form)
    if not channels or STEP in channels or not {KEY, STEP, *channels} <= set(table.columns):
        return table
    file = ExampleFile(path, tuple(key.strip() for key in table.columns[KEY]), table.lines, table.columns)
    lines_of: dict[str, list[int]] = {}
    for line, key in enumerate(file.keys):
        lines_of.setdefault(key, []).append(line)
    if len(lines_of) * form.features > MAX_CELLS:
        raise refused(file, f"has more than {MAX_CELLS:,} cells; bring fewer examples")
    steps = _steps(file)
    rows = []
    for lines in lines_of.values():
        lines.sort(key=steps.__getitem__)
        twice = next((line for before, line in pairwise(lines) if steps[before] == steps[line]), None)
        if twice is not None:
            raise refused(file, "repeats a step of its series; each step occurs once", twice)
        if len(lines) > form.layout.shape[0]:
            most = form.layout.shape[0]
            raise refused(file, f"the series has {len(lines):,} steps, one of the study has at most {most:,}", lines[0])
        cells = [table.columns[channel][line] for line in lines for channel in channels]
        rows.append(cells + [""] * (form.features - len(cells)))
    kept = [name for name in table.columns if name not in (KEY, STEP, *channels)]
    columns = {KEY: tuple(lines_of)} | {name: _of_series(file, name, lines_of) for name in kept}
    places = tuple(table.lines[min(lines)] for lines in lines_of.values()) if table.lines else ()
    return TextTable(places, columns | dict(zip(form.feature_names or (), zip(*rows, strict=True), strict=True)))


def _channels(form: RowForm) -> list[str]:
    """Names of a step's values, from those of the features; empty where the features are called otherwise."""
    names = form.feature_names
    if names is None or form.layout.kind != "series":
        return []
    steps, width = form.layout.shape
    channels = [name.removesuffix("_0") for name in names[:width]]
    is_so = list(names) == [f"{channel}_{step}" for step in range(steps) for channel in channels]
    return channels if is_so else []


def _steps(file: ExampleFile) -> list[float]:
    cells = file.columns[STEP]
    steps = column_of_texts(cells)
    if steps.dtype == object or np.isnan(steps).any():
        wrong = (column_of_texts([cell]) for cell in cells)
        row = next(row for row, cell in enumerate(wrong) if cell.dtype == object or np.isnan(cell[0]))
        raise refused(file, f"column {STEP!r} must be a number in every line", row)
    numbers: list[float] = steps.tolist()
    return numbers


def _of_series(file: ExampleFile, name: str, lines_of: dict[str, list[int]]) -> tuple[str, ...]:
    """The one value that each series has in a column; empty where it has none."""
    cells = [cell.strip() for cell in file.columns[name]]
    found = []
    for lines in lines_of.values():
        known = [line for line in lines if cells[line]]
        other = next((line for line in known if cells[line] != cells[known[0]]), None)
        if other is not None:
            raise refused(file, f"column {name!r} has another value than in a line of the same series", other)
        found.append(cells[known[0]] if known else "")
    return tuple(found)


_BLOCK_CELLS = 2_000_000
"""Cells of a table that are in memory at a time: some 100 MB as text."""


def read_rows(path: Path, form: RowForm, *, label: str | None = None) -> Rows:
    """The rows of a file or folder, in a study's form."""
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
    with opened_folder(folder, refused_array) as inside:
        inputs = read_array(folder / ARRAYS[0], inside, kinds="biuf", what="numbers")
        rows = _rows_of_array(folder, inputs, form)
        if label is None:
            return Rows(str(folder), rows)
        targets = read_array(folder / ARRAYS[1], inside, kinds="biufU", what="numbers or text")
    if len(targets) != len(rows):
        raise refused_array(folder, f"has {len(rows):,} inputs and {len(targets):,} targets; there must be as many")
    return Rows(str(folder), rows, _labels_of_array(folder, targets, form))


def _array(path: Path, form: RowForm) -> Rows:
    with opened_folder(path.parent, refused_array) as inside:
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
            raise refused_array(folder, "has targets of several columns that are not one-hot")
        return np.asarray(targets.argmax(axis=1), dtype=np.int64)
    if targets.ndim != 1:
        raise refused_array(folder, f"has targets of shape {targets.shape}; one a row is wanted")
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


@dataclass(frozen=True, slots=True, eq=False)
class NamedRows:
    """Rows in a study's form.

    Attributes:
        file: Their names, and the cells of a table.
        inputs: float32, shape (rows, features), rows >= 1; NaN is missing.
        labels: As of ``row_format.Rows``; None where there are none.
    """

    file: ExampleFile
    inputs: NDArray[np.float32]
    labels: Labels | None


def read_named_rows(inputs: Path, labels: Path | None, form: RowForm, *, beside: str | None = None) -> NamedRows:
    """The rows of a file or folder, with their labels where there are any."""
    rows = _read(inputs, form, beside)
    if labels is None:
        return rows
    if rows.labels is not None:
        message = f"tells the label of each row already; leave out {labels}, or bring rows without labels"
        raise refused(rows.file, message)
    return NamedRows(rows.file, rows.inputs, _labels_of(read_examples(labels), rows.file, form))


def _read(path: Path, form: RowForm, beside: str | None) -> NamedRows:
    if path.suffix.lower() != ".zip" and is_table(path):
        file = examples_of(path, joined_steps(path, read_text_table(path), form))
        if beside is not None and beside not in file.columns:
            raise refused(file, f"there is no column {beside!r}{nearest(beside, file.columns)}")
        inputs = encode(file, feature_names=form.feature_names, features=form.features, beside=beside)
        return NamedRows(file, inputs, None)
    if beside is not None:
        message = f"{path} has no columns, so there is no {beside!r} in it; only a CSV or Parquet file has"
        raise InvalidInputError(message)
    with unpacked(path.absolute()) as place:
        rows = read_rows(place, form, label=LABEL if place.is_dir() and has_labels(place) else None)
    keys = rows.columns.get("file") or tuple(str(number) for number in range(1, len(rows.inputs) + 1))
    return NamedRows(with_distinct_keys(ExampleFile(path, keys, (), {})), rows.inputs, rows.labels)


def _labels_of(file: ExampleFile, inputs: ExampleFile, form: RowForm) -> Labels:
    """The label of every row of ``inputs``; both files must name the same examples."""
    require_label_columns(file)
    row_of = {key: row for row, key in enumerate(inputs.keys)}
    for row, key in enumerate(file.keys):
        if key not in row_of:
            raise refused(file, f"there is no such example in {inputs.path}", row)
    given = labels_of_words(file, form)
    missing = sorted(set(row_of) - set(file.keys), key=row_of.__getitem__)
    if missing:
        more = f" and {counted(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        raise refused(inputs, f"there is no label for this example{more} in {file.path}", row_of[missing[0]])
    labels = np.empty(len(inputs.keys), dtype=given.dtype)
    labels[[row_of[key] for key in file.keys]] = given
    return labels


def require_label_columns(file: ExampleFile) -> None:
    """Require the columns ``example`` and ``label``."""
    if list(file.columns) != [LABEL]:
        raise refused(file, "a file of labels has the columns example and label, and no other")

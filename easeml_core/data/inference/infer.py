"""Infer the program of a data set: its inputs, its output, and the properties of the data that decided them.

    a CSV file             a table; series if it has the columns id and step, or others are named for them
    a Parquet file         a table
    a folder of folders    images, a folder for each class
    a folder of .npy       inputs.npy and targets.npy: a table, series or images by their shape

The data are read by ``sources``, with the same bounds and refusals. The program describes the table that the source
makes of the data, so it selects candidates that can be trained on it. In a table of series, the columns ``id`` and
``step`` say which series and step a line belongs to.

A text column of few words is a category, one of more is as many numbers as it is hashed to, everything else is one
number. Of an image only the header is read, and of many images only some; of arrays only what the file says of itself.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import split_values_of, target_of
from easeml_core.data.inference.column_stats import (
    ColumnSummary,
    check_inputs,
    choose_target,
    csv_blocks,
    infer_target,
    most_rows,
    note_of_reading,
    notes_of_columns,
    notes_of_names,
    parquet_blocks,
    see_table,
    sizes_of_classes,
)
from easeml_core.data.inference.result import Asked, Inferred, class_note, listed, note_of_source, shown
from easeml_core.data.layout import Layout
from easeml_core.data.program import InputColumn, field_names, program_of_data, program_of_table
from easeml_core.data.sources.arrays import (
    TARGETS,
    layout_of,
    layout_of_targets,
    read_array,
    read_header,
    refused_array,
    target_of_array,
)
from easeml_core.data.sources.csv_files import (
    places_of_steps,
    series_key,
    series_of_lines,
    split_values_of_series,
    target_of_series,
)
from easeml_core.data.sources.files import ARRAYS, first_bytes, kind_of, opened_folder
from easeml_core.data.sources.images import CLASS, GREY, folder_contents, listed_images, opened_image
from easeml_core.data.sources.spec import MAX_SIDE, Source, check_source, checked_split, checked_task, optional_package
from easeml_core.data.table import MAX_CELLS
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.data.columns import Target
    from easeml_core.data.inference.column_stats import Block, SeenTable
    from easeml_core.data.split_spec import Split


MOST_IMAGES = 1000
"""Images that are looked at; of more, one in so many, evenly chosen in the order of their names."""

_MOST_HEADER = 20_000  # bytes, as in npy_source


def infer_images(path: Path, report: Callable[[str], None]) -> Inferred:
    """The program of a folder whose sub-folders hold images.

    Images are as large as most of those looked at, or smaller where the sources would refuse that.
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
    """The program of a folder with ``inputs.npy`` and ``targets.npy``."""
    with opened_folder(path, refused_array) as folder:
        shape = _claimed_shape(path / "inputs.npy", folder)
        targets = read_array(path / "targets.npy", folder, kinds="biufU", what="numbers or text")
    layout = layout_of(path, shape, None)
    if len(targets) != shape[0]:
        raise refused_array(path, f"has {shape[0]:,} inputs and {len(targets):,} targets; there must be as many")
    target = layout_of_targets(path, targets, task or (Task.REGRESSION if targets.ndim > 2 else None))
    if target is not None:
        return _several(path, layout, target, targets, asked=task is not None)
    is_words = targets.ndim != 1 or targets.dtype.kind == "U"
    if is_words or task is not None:
        found = target_of_array(path, targets, task)
        why = f"task {task}: as asked for" if task else "task classification: the targets are words or one-hot"
    else:
        found, why = infer_target({TARGETS: targets.astype(np.float64)}, TARGETS, None)
    if not bool((found.present & (np.isfinite(found.labels) if found.task == Task.REGRESSION else True)).all()):
        raise refused_array(path, "has no target in some row, or an infinite one; leave such rows out")
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
        raise refused_array(path, "has an infinite target, or none that is known in some row; leave such rows out")
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


KEYS = ("id", "step")
"""Columns that make a table one of series: which one, and when; also the options that name others."""


def program_of_series(source: Source, seen: SeenTable, found: Target, asked: Asked, why: tuple[str, str]) -> Inferred:
    """The program of lines that were seen; the values of a step are one tensor, and a link leads to the next step."""
    ids, steps = (series_key(seen.columns, name) for name in asked.keys)
    if steps.dtype == object:
        message = f"source of series: step column {asked.keys[1]!r} has words; steps are numbers"
        raise InvalidInputError(message)
    words = next((column for column in seen.inputs if column.is_text), None)
    if words is not None:
        message = (
            f"source of series: column {words.number} holds words; the values of a series are numbers. "
            "Leave it out, or if it is the target, name it with --target"
        )
        raise InvalidInputError(message)
    series, starts = series_of_lines(ids)
    lengths = places_of_steps(series, steps, len(starts))[2]
    split_values_of_series(seen.columns, asked.split, found, series, starts)
    labels, present = target_of_series(series, found.labels, found.present, len(starts))
    classes = sizes_of_classes(found, labels[present], partial=seen.partial)
    check_inputs(seen, seen.rows)
    names, kept = field_names([found.column]), int(present.sum())
    layout = Layout("series", (int(lengths.max()), len(seen.inputs)))
    program = program_of_data(layout, found.task, len(classes), name=found.column)
    notes = (
        note_of_source(source, asked.target or "", found.task, asked.split),
        *why,
        f"series, since there are columns {' and '.join(asked.keys)}: {len(starts):,} series of {lengths.min():,} to "
        f"{lengths.max():,} steps",
        note_of_reading(seen, kept=kept, whole=len(starts), what="series"),
        *([class_note(names[found.column], classes)] if classes else []),
        f"numbers of a step ({len(seen.inputs):,}): {listed([shown(column.name) for column in seen.inputs])}",
        *notes_of_columns(seen, {}),
        *notes_of_names(names),
    )
    target = asked.target or ""
    return Inferred(source, target, found.task, program, kept, seen.partial, classes, notes, asked.split)


def infer_csv(path: Path, asked: Asked, report: Callable[[str], None]) -> Inferred:
    """The program of a CSV file: of a table, or of series where keys are named, or it has ``id`` and ``step``."""
    header, blocks = csv_blocks(path)
    keys = asked.keys or (KEYS if set(KEYS) <= set(header) else ())
    others = tuple((option, key) for option, key in zip(KEYS, keys, strict=False) if key != option)
    source = Source("series" if keys else "csv", path.name, others)
    return _infer(source, header, blocks, asked._replace(keys=keys), report)


def infer_parquet(path: Path, asked: Asked, report: Callable[[str], None]) -> Inferred:
    """The program of a Parquet file, which is always a table."""
    header, blocks = parquet_blocks(path)
    return _infer(Source("parquet", path.name), header, blocks, asked, report)


def _infer(
    source: Source, header: Sequence[str], blocks: Iterator[Block], asked: Asked, report: Callable[[str], None]
) -> Inferred:
    # Of columns without rows, everything is found, and what is wrong refused, before anything is read.
    empty = dict.fromkeys(header, np.zeros(0))
    for key in asked.keys:
        series_key(empty, key)
    others = {*asked.keys, "" if asked.split.keep else asked.split.column}
    chosen, rule = choose_target(_free(header, others), asked.target)
    target = target_of({c: empty[c] for c in header if c not in asked.keys}, chosen, asked.task)
    split_values_of(empty, asked.split, target)
    others.add(target.column)
    inputs = tuple(ColumnSummary(c, number) for number, c in enumerate(header, start=1) if c not in others)
    seen = see_table(
        blocks,
        inputs,
        target=target.column,
        keys=asked.keys,
        split=asked.split,
        most=most_rows(len(header)),
        report=report,
    )
    found, why = infer_target({target.column: seen.columns[target.column]}, chosen, asked.task)
    program_of = program_of_series if asked.keys else _program_of_table
    return program_of(source, seen, found, asked._replace(target=chosen), (rule, why))


def _free(header: Sequence[str], others: set[str]) -> list[str]:
    """The columns that may be predicted; at least two, since one of them is, and is predicted from the rest."""
    free = [name for name in header if name not in others]
    if len(free) < 2:
        beside = [name for name in header if name in others]
        least = "a target and at least one more are needed"
        message = f"it has {counted(len(free), 'column')}{' beside ' if beside else ''}{' and '.join(beside)}; {least}"
        raise InvalidInputError(message)
    return free


def _program_of_table(source: Source, seen: SeenTable, found: Target, asked: Asked, why: tuple[str, str]) -> Inferred:
    split_values_of(seen.columns, asked.split, found)
    labels = found.labels[found.present]
    classes = sizes_of_classes(found, labels, partial=seen.partial)
    check_inputs(seen, len(labels))
    columns = [InputColumn(c.name, c.width, frozenset(c.words) if c.is_category else frozenset()) for c in seen.inputs]
    program, names, shared = program_of_table(columns, found.column, len(classes))
    target = asked.target or ""
    notes = (
        note_of_source(source, target, found.task, asked.split),
        *why,
        note_of_reading(seen, kept=len(labels), whole=seen.rows, what="rows"),
        *([class_note(names[found.column], classes)] if classes else []),
        *([] if classes else ["its rows are numbers: easeml program match FILE --targets numbers"]),
        *notes_of_columns(seen, names),
        *([f"columns of the same words have the same classes: {listed(_groups(shared))}"] if shared else []),
        *notes_of_names(names),
    )
    return Inferred(source, target, found.task, program, len(labels), seen.partial, classes, notes, asked.split)


def _groups(shared: Mapping[str, str]) -> list[str]:
    firsts = dict.fromkeys(shared.values())
    return [" and ".join(shown(name) for name in shared if shared[name] == first) for first in firsts]


def infer_program(
    path: Path,
    *,
    target: str | None = None,
    task: Task | str | None = None,
    split: Split | str | None = None,
    id_column: str | None = None,
    step_column: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Inferred:
    r"""Infer the program of a file or folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.csv").write_text("size,colour,kind\n1,red,x\n2,blue,y\n3,red,y\n")
        >>> print(infer_program(folder / "a.csv").program)
        {input: {[size :: Tensor[1], colour :: Category[2]], []}, output: {[kind :: Category[2]], []}}
    """
    where = Path(os.path.abspath(path))
    asked = Asked(
        (target or "").strip() or None, checked_task(task), checked_split(split), _keys(id_column, step_column)
    )
    kind = kind_of(where)
    if kind == "npy" and where.name in ARRAYS and not where.is_dir():
        where = where.parent
    if asked.keys and kind != "csv":
        message = f"--id and --step are columns of series in a CSV file; {where.name!r} holds {kind}, leave them out"
        raise InvalidInputError(message)
    spec = Source(kind, where.name).at(Path(where.name))  # refuses a name that no source can be called by
    if kind in ("images", "npy"):
        check_source(spec, asked.target, asked.task, split=asked.split)
        return infer_images(where, report) if kind == "images" else infer_arrays(where, asked.task)
    return (infer_csv if kind == "csv" else infer_parquet)(where, asked, report)


def _keys(*named: str | None) -> tuple[str, ...]:
    """The columns of series, the usual name for one that is not named; none where neither is."""
    if not any(named):
        return ()
    found = tuple((name or "").strip() or usual for name, usual in zip(named, KEYS, strict=True))
    for option, name in zip(KEYS, found, strict=True):
        if not name.isprintable() or set(name) & set("?&"):
            message = f"--{option} must be a column without ?, & and what cannot be printed, got {name[:80]!r}"
            raise InvalidInputError(message)
    if found[0] == found[1]:
        message = f"--id and --step must be two columns, got {found[0]!r} for both"
        raise InvalidInputError(message)
    return found

"""Columns of an untrusted CSV file: a regular file, UTF-8, one header line, bounded; and series in such a file.

The referee reads the file with its account's rights. An error therefore never repeats content of the file, only lines,
counts and the caller's arguments: naming another user's file must not show its content. Series have a line for each
step of each, and a target for each series.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import column_of_texts, nearest, require_values, split_values_of, target_of
from easeml_core.data.layout import Layout
from easeml_core.data.program import program_of_data
from easeml_core.data.sources.files import opened_file, read_bytes
from easeml_core.data.split_spec import ROWS
from easeml_core.data.table import MAX_CELLS, MAX_FEATURES, RawTable, make_table
from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.csv_text import MAX_BYTES, numbered_rows, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column, Target
    from easeml_core.data.sources.files import Refusal
    from easeml_core.data.split_spec import Split
    from easeml_core.entities import Task


MAX_COLUMNS = 2000
MAX_CELL = 131_072
"""Characters of a cell. The limit of ``csv`` belongs to the whole process; this one does not."""


def read_table(
    path: Path, refused: Refusal, *, is_streamed: bool = False
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV file, and number and cells of every further line that is not blank."""
    said = partial(refused, path)
    text = _lines_of(path, refused) if is_streamed else text_of(read_bytes(path, refused, most=MAX_BYTES), said)
    lines = (line for line in numbered_rows(text, said, most_columns=MAX_COLUMNS) if line[1])
    header = [name.strip() for _, name in zip(range(MAX_COLUMNS + 1), next(lines, (0, []))[1], strict=False)]
    if len(header) > MAX_COLUMNS:
        raise refused(path, f"has more than {MAX_COLUMNS:,} columns")
    if not header or "" in header or len(set(header)) < len(header):
        raise refused(path, "needs a first line of column names, each different and none empty")
    return header, lines


def _lines_of(path: Path, refused: Refusal) -> Iterator[str]:
    """The lines of a file, each with its end; none of them is longer than a file that is read at once."""
    with opened_file(path, refused) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        try:
            while line := file.readline(MAX_BYTES):
                if len(line) == MAX_BYTES or "\0" in line:
                    raise refused(path, "is not text: it holds a zero byte, or a line without an end")
                yield line
        except UnicodeDecodeError as error:
            raise refused(path, "is not UTF-8") from error


def read_csv(path: Path) -> dict[str, Column]:
    """The columns of a CSV file, by the names of its header."""
    if not path.is_absolute():
        raise _refused(path, "must be named by an absolute path (it is read by another process)")
    header, lines = read_table(path, _refused)
    rows: list[list[str]] = []
    for number, row in lines:
        if max(map(len, row), default=0) > MAX_CELL:
            raise _refused(path, f"is not well-formed CSV at line {number}: field larger than {MAX_CELL:,} characters")
        if len(row) != len(header):
            raise _refused(path, f"line {number} has {len(row)} cells, the header has {len(header)}")
        rows.append(row)
    if len(rows) < 2:
        raise _refused(path, f"has {counted(len(rows), 'row')} below the header; at least 2 are needed")
    return {name: column_of_texts(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"source 'csv:{path}': the file {what}")


def read_series(
    path: Path,
    target: str,
    task: Task | None = None,
    *,
    id_column: str = "id",
    step_column: str = "step",
    split: Split = ROWS,
) -> RawTable:
    """One row for each series, of layout (steps, channels); the channels are the remaining columns, all numeric.

    Steps are put in the order of the step column, whose gaps do not count; series shorter than the longest end in NaN.
    """
    columns = read_csv(path)
    keys = series_key(columns, id_column), series_key(columns, step_column)
    if keys[1].dtype == object:
        raise _wrong(what=f"step column {step_column!r} has words; steps are numbers")
    series, starts = series_of_lines(keys[0])
    order, position, lengths = places_of_steps(series, keys[1], len(starts))
    targets = {name: column for name, column in columns.items() if name not in (id_column, step_column)}
    found = target_of(targets, target, task)
    labels, present = target_of_series(series, found.labels, found.present, len(starts))
    divided_by = split_values_of_series(columns, split, found, series, starts)
    no_channels = {id_column, step_column, found.column} | (set() if split.keep else {split.column})
    channels = [(n, c) for n, c in enumerate(columns, start=1) if c not in no_channels]
    if not channels:
        raise _wrong(what=f"no column is left beside {id_column!r}, {step_column!r} and the target {found.column!r}")
    steps = int(lengths[present].max(initial=1))
    layout = Layout("series", (steps, len(channels)))
    if int(present.sum()) * layout.features > MAX_CELLS or layout.features > MAX_FEATURES:
        what = f"{int(present.sum()):,} series of up to {steps:,} steps and {len(channels):,} values a step"
        most = f"{MAX_CELLS:,} numbers once they are padded, or {MAX_FEATURES:,} in one of them"
        raise _wrong(what=f"{what} are more than {most}; cut the longest")
    kept = present[series[order]]
    place = (np.cumsum(present) - 1)[series[order][kept]], position[kept]
    padded = np.full((int(present.sum()), *layout.shape), np.nan, dtype=np.float32)
    for channel, (number, name) in enumerate(channels):
        padded[(*place, channel)] = _values(columns[name], number)[order][kept]
    names = tuple(f"{name}_{step}" for step in range(steps) for _, name in channels)
    return make_table(
        padded.reshape(len(padded), layout.features),
        labels[present],
        class_names=found.class_names,
        feature_names=names,
        layout=layout,
        task=found.task,
        split_values=None if divided_by is None else divided_by[present],
        program=program_of_data(layout, found.task, len(found.class_names), name=found.column),
    )


def series_key(columns: Mapping[str, Column], name: str) -> Column:
    """The column that names series or steps."""
    if name not in columns:
        near = nearest(name, columns)
        raise _wrong(what=f"there is no column {name!r}{near}; name the columns with ?id=COLUMN&step=COLUMN")
    column = columns[name]
    missing = np.array([v is None for v in column]) if column.dtype == object else np.isnan(column)
    if missing.any():
        raise _wrong(what=f"column {name!r} is empty in row {int(missing.argmax()) + 1} below the header")
    return column


def series_of_lines(ids: Column) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each line the number of its series, and for each series its first line; numbers rise with first lines."""
    _, firsts, inverse = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), dtype=np.intp)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    return rank[inverse], np.sort(firsts)


def places_of_steps(
    series: NDArray[np.intp], steps: Column, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Lines by series and step; position of each of them in its series; length of each series."""
    order = np.lexsort((steps, series))
    same = (np.diff(series[order]) == 0) & (np.diff(steps[order]) == 0)
    if same.any():
        line = int(order[1:][same].min()) + 1
        raise _wrong(what=f"row {line} below the header repeats a step of its series; each step occurs once")
    lengths = np.bincount(series, minlength=count)
    begins = np.cumsum(lengths) - lengths
    return order, np.arange(len(order)) - begins[series[order]], lengths


def target_of_series(
    series: NDArray[np.intp], labels: NDArray[Any], present: NDArray[np.bool_], count: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Label of each series, and whether it has one."""
    lines = np.flatnonzero(present)
    of_series = np.zeros(count, dtype=labels.dtype)
    of_series[series[lines][::-1]] = labels[lines][::-1]  # the first line wins
    differs = of_series[series[lines]] != labels[lines]
    if differs.any():
        raise _wrong(
            what=f"row {int(lines[differs][0]) + 1} below the header has another target than its series before"
        )
    has_one = np.zeros(count, dtype=bool)
    has_one[series[lines]] = True
    return of_series, has_one


def split_values_of_series(
    columns: Mapping[str, Column], split: Split, target: Target, series: NDArray[np.intp], starts: NDArray[np.intp]
) -> NDArray[Any] | None:
    """Group or time of each series; None where chance divides them."""
    lines = split_values_of(columns, split, target._replace(present=np.ones(len(series), dtype=bool)))
    if lines is None:
        return None
    differs = lines != lines[starts][series]
    if differs.any():
        row = int(differs.argmax()) + 1
        raise _wrong(what=f"row {row} below the header has another {split.kind} than its series before")
    return lines[starts]


def _values(column: Column, number: int) -> NDArray[np.float32]:
    if column.dtype == object:
        raise _wrong(what=f"column {number} holds words; the values of a series are numbers")
    require_values(column, number)
    with np.errstate(over="ignore"):  # make_table refuses what became infinite
        return column.astype(np.float32)


def _wrong(*, what: str) -> InvalidInputError:
    return InvalidInputError(f"source of series: {what}")

"""New series in a table with a line for each step, as those of a study were registered: a row is made of each."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.columns import column_of_texts
from easeml_core.data.rows.encoding import KEY, ExampleFile, refused
from easeml_core.data.rows.row_tables import TextTable
from easeml_core.data.table import MAX_CELLS

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.rows.row_format import RowForm

STEP = "step"
"""Column with the place of a line in its series, whose gaps do not count."""


def joined_steps(path: Path, table: TextTable, form: RowForm) -> TextTable:
    """A table with one row for each series, of columns such as ``heat_0``, ``heat_1``, as an encoded study has them.

    Args:
        path: Of the file, for messages.
        table: Its cells: ``example`` names the series of a line, ``step`` its place; other columns are kept, and have
            one value in all lines of a series, or none.
        form: Of the study. Where it is none of series with names, or ``table`` has no lines of steps, that is returned.

    Raises:
        InvalidInputError: A step is no number or is there twice, a series is longer than the study's, or a column that
            is kept has two values in one; the message says where.
    """
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

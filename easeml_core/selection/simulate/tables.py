"""Known results of every candidate for every tenant, which a simulation reads in place of training.

The author of a table must turn error rates into 1 - error: in [0, 1] they cannot be distinguished from qualities. A
table in percent is recognised and refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import numpy as np

from easeml_core.errors import InvalidInputError, ShapeError
from easeml_core.selection.simulate.cells import read_cells, shown

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.selection.simulate.cells import Cells
    from easeml_core.selection.surrogate.posterior import Array

    Flags: TypeAlias = NDArray[np.bool_]

LEAST_COST, MOST_COST = 1e-12, 1e12
"""Costs beyond these have no meaning in any unit, and their sums and quotients would overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Quality and cost of every candidate for every tenant.

    Attributes:
        tenants: Key of each row, all different.
        candidates: Name of each column, all different.
        quality: In [0, 1], higher is better; NaN where the candidate is not available; shape
            ``(n_tenants, n_candidates)``. Every tenant has at least one.
        cost: > 0 where there is a quality, same shape; the value elsewhere is not used.

    Raises:
        ShapeError: If the arrays do not fit the names.
    """

    tenants: tuple[str, ...]
    candidates: tuple[str, ...]
    quality: Array
    cost: Array

    def __post_init__(self) -> None:
        wanted = (len(self.tenants), len(self.candidates))
        for name, array in (("quality", self.quality), ("cost", self.cost)):
            if array.shape != wanted:
                raise ShapeError(name, array.shape, f"{wanted}, one row for each tenant, one column for each candidate")

    def with_unit_costs(self) -> Table:
        """The same results where every trial costs 1: a percentage of the cost is one of the number of trials."""
        return replace(self, cost=np.ones_like(self.cost))


def read_table(quality: Path, cost: Path | None = None) -> Table:
    """A table from one or two CSV files.

    First line: a header; first column: the tenant's key; every other column a candidate. Rows and columns of the second
    file may be in another order.

    Args:
        quality: Qualities in [0, 1]; an empty cell where the candidate is not available.
        cost: Costs > 0 in any unit, for the same tenants and candidates; None when all costs are 1.

    Raises:
        InvalidInputError: If a file is not such a table; the message gives file, line, row, column, value and remedy.
    """
    cells = read_cells(quality, called="quality table")
    qualities = _numbers(cells, "leave the cell empty where the candidate is not available")
    _check_qualities(cells, qualities)
    if cost is None:
        return Table(cells.keys, cells.columns, qualities, np.ones_like(qualities))
    priced = read_cells(cost, called="cost table")
    rows = _same_names(priced, priced.keys, cells.keys, "row")
    columns = _same_names(priced, priced.columns, cells.columns, "column")
    costs = _numbers(priced, "give the cost of every trial")
    _check_costs(priced, costs, available=_placed(~np.isnan(qualities), rows, columns))
    return Table(cells.keys, cells.columns, qualities, costs[np.ix_(rows, columns)])


def _placed(flags: Flags, rows: list[int], columns: list[int]) -> Flags:
    """The quality table's flags at the places of the cost table."""
    placed = np.empty_like(flags)
    placed[np.ix_(rows, columns)] = flags
    return placed


def _numbers(cells: Cells, remedy: str) -> Array:
    """The cells as numbers, NaN where they are empty, shape ``(n_rows, n_columns)``."""
    values = np.full((len(cells.rows), len(cells.columns)), math.nan)
    for i, row in enumerate(cells.rows):
        for k, text in enumerate(row):
            if text:
                try:
                    values[i, k] = _number(text)
                except ValueError:
                    cells.refuse(i, k, f"{shown(text)} is not a finite number such as 0.87; {remedy}")
    return values


def _number(text: str) -> float:
    """A finite number in plain writing; Python's own ``1_000`` is none."""
    value = float(text)
    if "_" in text or not math.isfinite(value):
        raise ValueError
    return value


def _check_qualities(cells: Cells, values: Array) -> None:
    above = values > 1
    if above.any() and np.nanmin(values) >= 0 and 1.5 < np.nanmax(values) <= 100:
        row, column = _first(above)
        what = f"{values[row, column]:g} is above 1, and {int(above.sum()):,} of {values.size:,} qualities are"
        cells.refuse(row, column, f"{what}: the table seems to be in percent; divide it by 100")
    wrong = above | (values < 0)
    if wrong.any():
        row, column = _first(wrong)
        remedy = "qualities lie in [0, 1], higher is better: scale the metric, and turn an error rate into 1 - error"
        cells.refuse(row, column, f"{values[row, column]:g} is no quality; {remedy}")
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        row = int(np.argmax(empty))
        where = f"{cells.source}, line {cells.lines[row]} (row {shown(cells.keys[row])})"
        message = f"{where}: it has no quality at all; remove the row"
        raise InvalidInputError(message)


def _check_costs(cells: Cells, values: Array, *, available: Flags) -> None:
    missing = available & np.isnan(values)
    if missing.any():
        cells.refuse(*_first(missing), "it is empty where the quality table has a quality; give the cost of the trial")
    wrong = ~np.isnan(values) & ~((values >= LEAST_COST) & (values <= MOST_COST))
    if wrong.any():
        row, column = _first(wrong)
        remedy = f"costs are positive, from {LEAST_COST:g} to {MOST_COST:g}: use another unit, such as seconds"
        cells.refuse(row, column, f"{values[row, column]:g} is no cost; {remedy}")


def _first(flags: Flags) -> tuple[int, int]:
    """Row and column of the first true cell, in reading order."""
    row, column = np.unravel_index(int(np.argmax(flags)), flags.shape)
    return int(row), int(column)


def _same_names(cells: Cells, found: tuple[str, ...], wanted: tuple[str, ...], kind: str) -> list[int]:
    """Where each wanted name is among those found; the two must be the same sets."""
    place = {name: i for i, name in enumerate(found)}
    for name in wanted:
        if name not in place:
            _refuse_names(cells, f"it has no {kind} {shown(name)}, which the quality table has", kind)
    known = set(wanted)
    for name in found:
        if name not in known:
            _refuse_names(cells, f"its {kind} {shown(name)} is not in the quality table", kind)
    return [place[name] for name in wanted]


def _refuse_names(cells: Cells, what: str, kind: str) -> NoReturn:
    message = f"{cells.source}: {what}; both tables must have the same {kind}s, in any order"
    raise InvalidInputError(message)

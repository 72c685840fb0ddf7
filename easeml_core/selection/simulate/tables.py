"""Known results of every candidate for every tenant, from CSV files or values of Python, in place of training.

The author of a table must turn error rates into 1 - error: in [0, 1] they cannot be distinguished from qualities. A
table in percent is recognised and refused. The files are untrusted: bounded, UTF-8, rectangular.

SYN are synthetic tables in which how alike candidates are, and how much they matter, are two knobs. Source: Li et al.,
Ease.ml (PVLDB 11(5), 2018), section 5, for the structure; the text gives neither all parameters nor their values, so
those below are this product's definition.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from easeml_core.errors import ConfigError, InvalidInputError, ShapeError
from easeml_core.formats.csv_text import numbered_rows, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.formats.csv_text import Refusal
    from easeml_core.selection.surrogate.posterior import Array

    Flags: TypeAlias = NDArray[np.bool_]

MAX_COLUMNS = 5_000
MAX_CELLS = 5_000_000
MAX_CELL = 1_000
"""Characters of one cell; ``csv``'s own limit belongs to the whole process."""
SHOWN = 40
"""Characters of a foreign text that a message repeats."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A rectangular table of texts.

    Attributes:
        source: What the file is called in messages, such as ``quality table q.csv``.
        columns: Names of all columns but the first.
        keys: First cell of each row.
        lines: Line of the file on which each row ends; empty where the table is no file.
        rows: The other cells of each row, stripped.
    """

    source: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]

    def refuse(self, row: int, column: int, what: str) -> NoReturn:
        """Raise InvalidInputError about one cell, with its line, row key and column."""
        message = f"{self.source}, {self.place(row)}, column {shown(self.columns[column])}: {what}"
        raise InvalidInputError(message)

    def place(self, row: int) -> str:
        """Return where a row is, for a message."""
        return f"line {self.lines[row]} (row {shown(self.keys[row])})" if self.lines else f"row {shown(self.keys[row])}"


def shown(text: str) -> str:
    """A foreign text for a message: quoted, control characters escaped, cut where it is long."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def read_cells(path: Path, *, called: str) -> Cells:
    """The cells of a CSV file with a header line; blank lines are skipped."""
    source = f"{called} {path}"

    def refused(what: str) -> InvalidInputError:
        return InvalidInputError(f"{source} {what}; give a CSV file in UTF-8 with the rows and columns that you need")

    lines = _lines(source, read_text(path, refused), refused)
    header = [name.strip() for name in next(lines, (0, []))[1]]
    _check_header(source, header)
    keys: dict[str, int] = {}
    rows: list[tuple[str, ...]] = []
    for number, row in lines:
        if len(row) != len(header):
            _refuse(source, f"line {number}: it has {len(row)} cells, the header has {len(header)}; {_LENGTHS}")
        key, *cells = (cell.strip() for cell in row)
        _check_key(source, key, number, keys)
        keys[key] = number
        rows.append(tuple(cells))
        if len(rows) * len(cells) > MAX_CELLS:
            _refuse(source, f"it has more than {MAX_CELLS:,} cells; keep the rows and columns that you need")
    if not rows:
        _refuse(source, "it has no rows below the header; give one row for each tenant")
    return Cells(source, tuple(header[1:]), tuple(keys), tuple(keys.values()), tuple(rows))


_LENGTHS = "give every row one cell for each column, an empty one for what is not there, and quote names with commas"


def _refuse(source: str, what: str) -> NoReturn:
    message = f"{source}: {what}"
    raise InvalidInputError(message)


def _lines(source: str, text: str, refused: Refusal) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank."""
    for number, row in numbered_rows(text, refused):
        if any(cell.strip() for cell in row):
            if max(map(len, row)) > MAX_CELL:
                _refuse(source, f"line {number}: a cell has more than {MAX_CELL:,} characters; shorten it")
            yield number, row


def _check_header(source: str, header: list[str]) -> None:
    """The first line must name a key column and at least one candidate, each once."""
    names = header[1:]
    if not names:
        other = next((mark for mark in (";", "\t", "|") if header and mark in header[0]), None)
        hint = f"; its cells seem to be separated by {other!r}: save it with commas" if other else ""
        _refuse(source, f"it needs a header line with a key column and at least one candidate{hint}")
    if len(names) > MAX_COLUMNS:
        _refuse(
            source, f"it has {len(names):,} columns, at most {MAX_COLUMNS:,} are possible; keep those that you need"
        )
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=2):
        if not name:
            _refuse(source, f"column {number} has no name in the header; name it, or remove a comma at the line's end")
        if name in seen:
            _refuse(source, f"columns {seen[name]} and {number} are both called {shown(name)}; rename one of them")
        seen[name] = number


def _check_key(source: str, key: str, number: int, keys: dict[str, int]) -> None:
    if not key:
        _refuse(source, f"line {number}: the first column is empty; give every row its key there")
    if key in keys:
        _refuse(source, f"lines {keys[key]} and {number} both have the key {shown(key)}; give every row its own")


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


def results_table(quality: Any, cost: Any = None) -> Table:
    """A table from DataFrames, arrays or lists of lists.

    Args:
        quality: Qualities in [0, 1], shape ``(n_tenants, n_candidates)``; NaN or None where the candidate is not
            available. The index and the columns of a DataFrame are the names, else the rows are tenant_001, ...
        cost: Costs > 0 in any unit, same shape. Two DataFrames are matched by their names, in any order; a DataFrame
            beside a table without names is refused. None when all costs are 1.

    Example:
        >>> results_table([[0.9, 0.5], [0.6, 0.8]]).candidates
        ('model_001', 'model_002')
    """
    cells, qualities = _values("quality", quality)
    _check_qualities(cells, qualities)
    if cost is None:
        return Table(cells.keys, cells.columns, qualities, np.ones_like(qualities))
    priced, costs = _values("cost", cost)
    if costs.shape != qualities.shape:
        raise ShapeError(priced.source, costs.shape, f"{qualities.shape}, as quality has")
    if hasattr(quality, "columns") != hasattr(cost, "columns"):
        message = (
            f"quality is a {type(quality).__name__} and cost a {type(cost).__name__}, so names cannot be matched; give "
            "two DataFrames, or two tables without names that have the same order"
        )
        raise InvalidInputError(message)
    if hasattr(quality, "columns"):
        rows = _same_names(priced, priced.keys, cells.keys, "row")
        columns = _same_names(priced, priced.columns, cells.columns, "column")
        _check_costs(priced, costs, available=_placed(~np.isnan(qualities), rows, columns))
        costs = costs[np.ix_(rows, columns)]
    else:
        _check_costs(priced, costs, available=~np.isnan(qualities))
    return Table(cells.keys, cells.columns, qualities, costs)


def _values(source: str, value: Any) -> tuple[Cells, Array]:
    """The names and numbers of a table that is no file."""
    try:
        array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value, dtype=float)
    except (TypeError, ValueError) as error:
        message = f"{source} must be a table of numbers, one row for each tenant, all of one length: {error}"
        raise InvalidInputError(message) from error
    if array.ndim != 2 or not array.size:
        raise ShapeError(source, array.shape, "(n_tenants, n_candidates), neither of them 0")
    n_rows, n_columns = array.shape
    keys = tuple(f"tenant_{i + 1:03d}" for i in range(n_rows))
    columns = tuple(f"model_{j + 1:03d}" for j in range(n_columns))
    if hasattr(value, "columns") and hasattr(value, "index"):
        keys, columns = tuple(map(str, value.index)), tuple(map(str, value.columns))
    cells = Cells(source, columns, keys, (), ())
    for kind, names in (("row", cells.keys), ("column", cells.columns)):
        twice = next((name for name, many in Counter(names).items() if many > 1), None)
        if twice is not None:
            _refuse(source, f"the {kind} {shown(twice)} is there more than once; give every {kind} its own name")
    infinite = np.isinf(array)
    if infinite.any():
        cells.refuse(*_first(infinite), "it is infinite; give finite numbers")
    return cells, array.copy()


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
        message = f"{cells.source}, {cells.place(row)}: it has no quality at all; remove the row"
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


JITTER = 1e-9
"""On the diagonal of Sigma_M, whose smallest eigenvalues vanish where sigma_M is not small."""

_NUMBER = r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*"
_SYN = re.compile(rf"\s*SYN\({_NUMBER},{_NUMBER}\)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The generator SYN(sigma_M, alpha).

        x_ij = b_i + alpha m_j + eps_ij, clipped to [0, 1]
        b_i ~ N(base_level, base_std^2),  m ~ N(0, Sigma_M),  eps_ij ~ N(0, noise_std^2)
        Sigma_M(j, l) = exp( -(f_j - f_l)^2 / sigma_M^2 ),  f_j ~ U(0, 1)

    m is drawn anew for every group of ``group_size`` tenants: with one m for all, every tenant would have the same best
    candidate up to noise. The locations f are the same for all. The first half of the tenants has the first base
    level, the second half the second. Costs are U(0, 1], independent of everything.

    Attributes:
        correlation_length: sigma_M > 0: the larger, the more alike candidates are.
        model_weight: alpha >= 0: how much the candidate matters.
        tenants: Number of tenants, >= 1.
        candidates: Number of candidates, >= 1.
        group_size: Tenants that share one m, >= 1.
        base_levels: Mean of b in the first and in the second half.
        base_std: sigma_B >= 0.
        noise_std: sigma_W >= 0.

    Raises:
        ConfigError: If a parameter is out of its range.
    """

    correlation_length: float
    model_weight: float
    tenants: int = 200
    candidates: int = 100
    group_size: int = 10
    base_levels: tuple[float, float] = (0.25, 0.75)
    base_std: float = 0.05
    noise_std: float = 0.01

    def __post_init__(self) -> None:
        if not 1e-6 <= self.correlation_length <= 1e6:
            name = "correlation_length"
            raise ConfigError(name, self.correlation_length, "from 1e-6 to 1e6")
        for name in ("model_weight", "base_std", "noise_std"):
            value = getattr(self, name)
            if not 0 <= value <= 1e6:
                raise ConfigError(name, value, "from 0 to 1e6")
        for name in ("tenants", "candidates", "group_size"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), ">= 1")

    def table(self, seed: int) -> Table:
        """A table drawn from the generator; the same seed gives the same table.

        Args:
            seed: >= 0. Qualities and costs have separate streams.
        """
        quality, cost = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
        shape = (self.tenants, self.candidates)
        return Table(
            tuple(f"tenant_{i + 1:03d}" for i in range(self.tenants)),
            tuple(f"model_{j + 1:03d}" for j in range(self.candidates)),
            np.clip(self._qualities(quality), 0.0, 1.0),
            1.0 - cost.random(shape),
        )

    def _qualities(self, rng: np.random.Generator) -> Array:
        """The qualities before they are clipped, shape ``(n_tenants, n_candidates)``."""
        n, k = self.tenants, self.candidates
        groups = math.ceil(n / self.group_size)
        location = rng.random(k)
        apart = (location[:, None] - location) / self.correlation_length
        factor = np.linalg.cholesky(np.exp(-(apart**2)) + JITTER * np.eye(k))
        effects = rng.standard_normal((groups, k)) @ factor.T
        level = np.where(np.arange(n) < n / 2, *self.base_levels)
        base = level + self.base_std * rng.standard_normal(n)
        noise = self.noise_std * rng.standard_normal((n, k))
        return np.asarray(base[:, None] + self.model_weight * effects[np.arange(n) // self.group_size] + noise)


def parse_synthetic(text: str) -> Synthetic:
    """``SYN(sigma_M,alpha)`` as a generator.

    Example:
        >>> parse_synthetic("SYN(0.5, 1.0)").correlation_length
        0.5
    """
    found = _SYN.fullmatch(text)
    if found is None:
        message = f'a synthetic table is written "SYN(sigma_M,alpha)", such as "SYN(0.01,1.0)"; got {text!r}'
        raise InvalidInputError(message)
    return Synthetic(correlation_length=float(found[1]), model_weight=float(found[2]))

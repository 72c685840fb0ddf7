"""A CSV file as a header and numbered rows of texts: bounded, UTF-8, rectangular, and trusted in nothing.

What the cells mean is not known here; see ``tables.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from easeml_core.csv_text import numbered_rows, read_text
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.csv_text import Refusal

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
        lines: Line of the file on which each row ends.
        rows: The other cells of each row, stripped.
    """

    source: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]

    def refuse(self, row: int, column: int, what: str) -> NoReturn:
        """Raise InvalidInputError about one cell, with its line, row key and column."""
        where = f"line {self.lines[row]} (row {shown(self.keys[row])}), column {shown(self.columns[column])}"
        message = f"{self.source}, {where}: {what}"
        raise InvalidInputError(message)


def shown(text: str) -> str:
    """A foreign text for a message: quoted, control characters escaped, cut where it is long."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def read_cells(path: Path, *, called: str) -> Cells:
    """The cells of a CSV file with a header line; blank lines are skipped.

    Args:
        path: A file or a pipe of at most 64 MB.
        called: What the table is, for messages: ``quality table``.

    Raises:
        InvalidInputError: If the file cannot be read, is too large, is not UTF-8, is not a table with a header, has a
            repeated or empty column name or key, or a row of another length; the message gives line and remedy.
    """
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

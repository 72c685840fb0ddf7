"""A table of new rows in an untrusted file, CSV or Parquet: its cells as text, and where each row stands."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from easeml_core.csv_text import without_guard
from easeml_core.data.sources.csv_files import MAX_CELL, read_table
from easeml_core.data.sources.parquet_files import read_parquet
from easeml_core.data.sources.parquet_stream import large_columns
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from easeml_core.data.columns import Column

PARQUET = (".parquet", ".pq")
"""Endings of Parquet files; any other file is CSV."""

_EXACT = 2.0**53


class TextTable(NamedTuple):
    """Cells as text.

    Attributes:
        lines: Line of each row in the file, from 1; empty where rows stand in no line.
        columns: By name, in the file's order, at least one row each.
    """

    lines: tuple[int, ...]
    columns: Mapping[str, tuple[str, ...]]


def read_text_table(path: Path) -> TextTable:
    """The cells of a file.

    Args:
        path: A regular file of at most 64 MB and 2,000 columns: Parquet (numbers and text) if its name ends so, else
            CSV in UTF-8.

    Raises:
        InvalidInputError: It is no such file, a row has another number of cells than the header, or there is none; the
            message says where.
    """
    if path.suffix.lower() in PARQUET:
        columns = read_parquet(path.absolute(), least_rows=1)
        return TextTable((), {name: texts_of(column) for name, column in columns.items()})
    header, lines = _plain_table(path)
    return next(_blocks(path, header, lines, rows=None))


def text_blocks(path: Path, *, most_cells: int, width: int) -> Iterator[TextTable]:
    """The cells of a file of any size, some rows at a time; of Parquet at most 5 billion cells, 512 MB a row group.

    Args:
        path: As of ``read_text_table``.
        most_cells: Of a block, and of what becomes of it; a row is never divided.
        width: Numbers that become of a row.

    Raises:
        InvalidInputError: As of ``read_text_table``, where the block that is wrong is read.
    """

    def rows_of(columns: int) -> int:
        return max(1, most_cells // max(columns, width))

    if path.suffix.lower() in PARQUET:
        _, blocks = large_columns(path, rows_of, least_rows=1)
        for block in blocks:
            yield TextTable((), {name: texts_of(column) for name, column in block.items()})
        return
    header, lines = _plain_table(path, is_streamed=True)
    yield from _blocks(path, header, lines, rows=rows_of(len(header)))


def _blocks(
    path: Path, header: list[str], lines: Iterator[tuple[int, list[str]]], *, rows: int | None
) -> Iterator[TextTable]:
    """The rows of a CSV file, so many at a time, or all at once; at least one."""
    numbers: tuple[int, ...] = ()
    while block := [_checked(path, len(header), *line) for line in islice(lines, rows)]:
        numbers, cells = zip(*block, strict=True)
        yield TextTable(numbers, dict(zip(header, zip(*cells, strict=True), strict=True)))
    if not numbers:
        raise _refused(path, "has no row below the header")


def _checked(path: Path, width: int, line: int, row: list[str]) -> tuple[int, list[str]]:
    if len(row) != width:
        raise _refused(path, f"line {line} has {len(row)} cells, the header has {width}")
    if max(map(len, row)) > MAX_CELL:
        raise _refused(path, f"line {line} has a cell of more than {MAX_CELL:,} characters")
    return line, row


def _plain_table(path: Path, *, is_streamed: bool = False) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header and lines of a CSV file that the product may have written: its columns have their names again."""
    header, lines = read_table(path, _refused, is_streamed=is_streamed)
    names = [without_guard(name) for name in header]
    if len(set(names)) < len(names):
        raise _refused(path, "needs a first line of column names, each different and none empty")
    return names, lines


def texts_of(column: Column) -> tuple[str, ...]:
    """The cells of a column as a CSV file would have them; empty where a value is missing.

    A number has the shortest text that reads back as the same float32 if it is one, else as the same float64.

    Example:
        >>> texts_of(np.array([7.0, 0.25, np.float32(5.1), 5.1, np.nan]))
        ('7', '0.25', '5.1', '5.1', '')
    """
    if column.dtype == object:
        return tuple("" if cell is None else cell for cell in column)
    with np.errstate(over="ignore"):
        short = column.astype(np.float32)
    is_short = short.astype(np.float64) == column
    return tuple(
        "" if value != value
        else str(int(value)) if value.is_integer() and abs(value) < _EXACT
        else str(few) if is_few
        else repr(value)
        for value, few, is_few in zip(column.tolist(), short, is_short.tolist(), strict=True)
    )  # fmt: skip


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{path}: {what}" if what.startswith("line") else f"{path} {what}")

"""Read a CSV or Parquet file in blocks of rows, to describe its columns without keeping them.

It refuses what the sources refuse, with the same messages. At most ``MOST_CELLS`` cells are read.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.data.columns import column_of_texts
from easeml_core.data.sources.csv_files import MAX_CELL, read_table
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from easeml_core.data.columns import Column

MOST_CELLS = 10_000_000
"""Cells of a file that are looked at: some ten seconds of work."""

BLOCK_CELLS = 200_000


class Cells(NamedTuple):
    """One column in one block.

    Attributes:
        column: As the sources would read these cells alone: float64, or text.
        texts: The cells as they stand in a CSV file; empty where the file itself says what a column holds.
    """

    column: Column
    texts: Sequence[str] = ()

    def first(self, rows: int) -> Cells:
        """The first so many cells."""
        return Cells(self.column[:rows], self.texts[:rows])


Block = dict[str, Cells]


def csv_blocks(path: Path) -> tuple[list[str], Iterator[Block]]:
    """The header of a CSV file, and its rows.

    Args:
        path: See ``csv_files.read_table``.

    Raises:
        InvalidInputError: As ``csv_files.read_csv``; a wrong line raises when its block is read.
    """
    header, lines = read_table(path, _refused)
    return header, _blocks_of_lines(path, header, lines)


def parquet_blocks(path: Path) -> tuple[list[str], Iterator[Block]]:
    """The names of the columns of a Parquet file, and its rows.

    Args:
        path: An absolute path, see ``parquet_source.read_parquet``.

    Raises:
        InvalidInputError: As ``read_parquet``.
    """
    from easeml_core.data.sources.parquet_files import read_parquet
    from easeml_core.data.sources.parquet_stream import is_large, large_columns

    if is_large(path):
        names, found = large_columns(path, _block_rows)
        return names, ({name: Cells(column) for name, column in block.items()} for block in found)
    columns = read_parquet(path)
    rows, size = len(next(iter(columns.values()))), _block_rows(len(columns))
    starts = range(0, rows, size)
    return list(columns), (
        {name: Cells(column[start : start + size]) for name, column in columns.items()} for start in starts
    )


def most_rows(columns: int) -> int:
    """Rows of so many columns that are looked at."""
    return max(MOST_CELLS // columns, 2)


def _block_rows(columns: int) -> int:
    return max(BLOCK_CELLS // columns, 1)


def _blocks_of_lines(path: Path, header: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[Block]:
    while rows := [_checked(path, header, *line) for line in islice(lines, _block_rows(len(header)))]:
        texts = zip(*rows, strict=True)
        yield {name: Cells(column_of_texts(cells), cells) for name, cells in zip(header, texts, strict=True)}


def _checked(path: Path, header: list[str], number: int, row: list[str]) -> list[str]:
    if len(row) != len(header):
        raise _refused(path, f"line {number} has {len(row)} cells, the header has {len(header)}")
    if max(map(len, row)) > MAX_CELL:
        raise _refused(path, f"is not well-formed CSV at line {number}: field larger than {MAX_CELL:,} characters")
    return row


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"source 'csv:{path}': the file {what}")

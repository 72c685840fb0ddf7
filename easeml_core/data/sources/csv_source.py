"""Columns of a CSV file somebody names: UTF-8, one header line, bounded, and trusted in nothing.

The file is read by whoever seals the data, with that account's rights. An error therefore never repeats what stands in
the file, only lines, counts and what the caller wrote: naming a foreign file must not show its content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.data.columns import column_of_texts
from easeml_core.data.sources.csv_files import MAX_CELL, read_table
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.columns import Column


def read_csv(path: Path) -> dict[str, Column]:
    """The columns of a CSV file, by the names of its header.

    Args:
        path: An absolute path of a regular file of at most 64 MB.

    Raises:
        InvalidInputError: If the file is not there, too large, not UTF-8, not a table, or a line has another number of
            cells than the header; the message gives the line.
    """
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

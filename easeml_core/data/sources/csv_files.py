"""Columns of an untrusted CSV file: a regular file, UTF-8, one header line, bounded.

The referee reads the file with its account's rights. An error therefore never repeats content of the file, only lines,
counts and the caller's arguments: naming another user's file must not show its content.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

from easeml_core.csv_text import MAX_BYTES, numbered_rows, text_of
from easeml_core.data.columns import column_of_texts
from easeml_core.data.sources.files import opened_file, read_bytes
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.data.columns import Column
    from easeml_core.data.sources.files import Refusal


MAX_COLUMNS = 2000
MAX_CELL = 131_072
"""Characters of a cell. The limit of ``csv`` belongs to the whole process; this one does not."""


def read_table(
    path: Path, refused: Refusal, *, is_streamed: bool = False
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV file, and number and cells of every further line that is not blank.

    Args:
        path: A regular file of at most ``MAX_BYTES``; a pipe is never waited for.
        refused: Makes the error from the path and what is wrong with it, such as ``is not UTF-8 (byte 7)``.
        is_streamed: The file may be of any size, and is read while the lines are taken.

    Raises:
        InvalidInputError: If the file cannot be read or is not well-formed, or the header is empty, repeats a name or
            has more than ``MAX_COLUMNS``; also while the lines are taken.
    """
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

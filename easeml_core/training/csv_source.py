"""Columns of a CSV file somebody names: UTF-8, one header line, bounded, and trusted in nothing.

The file is read by whoever seals the data, with that account's rights. An error therefore never repeats what stands in
the file, only lines, counts and what the caller wrote: naming a foreign file must not show its content.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError
from easeml_core.training.columns import column_of_texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.training.columns import Column

MAX_BYTES = 64 * 1024 * 1024
MAX_COLUMNS = 2000
MAX_CELL = 131_072


def read_csv(path: Path) -> dict[str, Column]:
    """The columns of a CSV file, by the names of its header.

    Args:
        path: An absolute path of a regular file of at most 64 MB.

    Raises:
        InvalidInputError: If the file is not there, too large, not UTF-8, not a table, or a line has another number of
            cells than the header; the message gives the line.
    """
    lines = _lines(path, _text(path))
    header = [name.strip() for _, name in zip(range(MAX_COLUMNS + 1), next(lines, (0, []))[1], strict=False)]
    if len(header) > MAX_COLUMNS:
        raise _refused(path, f"has more than {MAX_COLUMNS:,} columns")
    if not header or "" in header or len(set(header)) < len(header):
        raise _refused(path, "needs a first line of column names, each different and none empty")
    rows: list[list[str]] = []
    for number, row in lines:
        if max(map(len, row), default=0) > MAX_CELL:  # csv's own limit belongs to the whole process; ours does not
            raise _refused(path, f"is not well-formed CSV at line {number}: field larger than {MAX_CELL:,} characters")
        if len(row) != len(header):
            raise _refused(path, f"line {number} has {len(row)} cells, the header has {len(header)}")
        rows.append(row)
    if len(rows) < 2:
        raise _refused(path, f"has {len(rows)} rows below the header; at least 2 are needed")
    return {name: column_of_texts(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"source 'csv:{path}': the file {what}")


def _text(path: Path) -> str:
    if not path.is_absolute():
        raise _refused(path, "must be named by an absolute path (it is read by another process)")
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _refused(path, "is not a regular file")
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InvalidInputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "the path cannot be used"
        raise _refused(path, f"cannot be read: {reason}") from error
    if len(content) > MAX_BYTES:
        raise _refused(path, f"is larger than {MAX_BYTES // 1024**2} MB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path, f"is not UTF-8 (byte {error.start})") from None
    if "\0" in text:
        raise _refused(path, "is not text: it holds a zero byte")
    return text


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise _refused(path, f"is not well-formed CSV at line {reader.line_num}: {error}") from None

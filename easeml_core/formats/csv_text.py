"""Rows of a CSV file named by a user: bounded, UTF-8, numbered by line, and trusted in nothing; and files for people.

What an error may repeat of the file, and how it is worded, is the caller's decision: each function takes a ``Refusal``.

A spreadsheet runs a cell that begins like a formula, of whatever origin. So a file for people is written by
``GuardedWriter``, and where names come back in such a file, ``without_guard`` gives them as they are.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from easeml_core.errors import InvalidInputError

    Refusal = Callable[[str], InvalidInputError]
    """Makes the error from what is wrong with the file, such as ``is not UTF-8 (byte 7)``."""

MAX_BYTES = 64 * 1024 * 1024

_QUOTED = re.compile(r'"[^"]*"')


def read_text(path: Path, refused: Refusal, *, most: int = MAX_BYTES) -> str:
    """The text of a file or a pipe."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "the path cannot be used"
        message = f"cannot be read: {reason}"
        raise refused(message) from error
    if len(content) > most:
        message = f"is larger than {most // 1024**2} MB"
        raise refused(message)
    return text_of(content, refused)


def text_of(content: bytes, refused: Refusal) -> str:
    """The text, without a byte order mark."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (byte {error.start})"
        raise refused(message) from None
    if "\0" in text:
        message = "is not text: it holds a zero byte"
        raise refused(message)
    return text


def numbered_rows(
    text: str | Iterable[str], refused: Refusal, *, most_columns: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row of a text, or of its lines, ends, counted from 1, and its cells.

    Blank lines are rows without cells.
    """
    lines: Iterable[str] = io.StringIO(text, newline="") if isinstance(text, str) else text
    reader = csv.reader(lines if most_columns is None else _narrow(lines, refused, most_columns), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        message = f"is not well-formed CSV at line {reader.line_num}: {error}"
        raise refused(message) from None


def _narrow(lines: Iterable[str], refused: Refusal, most: int) -> Iterator[str]:
    """The lines, but one of far too many cells is refused before a list of them is made.

    A bound on memory and no parser: commas between quotes are left out as if quotes stood around whole cells only.
    """
    is_quoted = False
    for number, line in enumerate(lines, start=1):
        if len(line) > most:
            bare = _QUOTED.sub("", f'"{line}' if is_quoted else line)
            if bare.partition('"')[0].count(",") >= most:
                message = f"has more than {most:,} columns at line {number}"
                raise refused(message)
        is_quoted ^= line.count('"') % 2 == 1
        yield line


_BEGINS_A_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Of spreadsheets; the last four are = + - @ in full width, which some treat alike."""


class GuardedWriter:
    """Writes rows of a CSV file in which a spreadsheet runs nothing of what users wrote.

    Args:
        file: Where to.
        lineterminator: The end of a row.
    """

    def __init__(self, file: TextIO, lineterminator: str = "\n") -> None:
        self._writer = csv.writer(file, lineterminator=lineterminator)

    def row(self, cells: Iterable[object]) -> None:
        """Write a row of ``guarded`` cells."""
        self._writer.writerow([guarded(cell) for cell in cells])


def guarded(value: Any) -> str:
    """Return a value as a cell: an apostrophe stands before text that a spreadsheet would take for a formula.

    A number stays one, also as text; None is empty, and times are in the form of RFC 3339.

    Example:
        >>> guarded("=1+1"), guarded("'=1"), guarded("-1.5"), guarded(None), guarded("why")
        ("'=1+1", "''=1", '-1.5', '', 'why')
    """
    if value is None:
        return ""
    shown = value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
    return f"'{shown}" if _BEGINS_A_FORMULA.match(shown) and not _is_number(shown) else shown


def without_guard(cell: str) -> str:
    """Return the text that ``guarded`` has made a cell of.

    Example:
        >>> without_guard("'=1+1"), without_guard("''=1"), without_guard("'tis")
        ('=1+1', "'=1", "'tis")
    """
    return cell[1:] if cell.startswith("'") and _BEGINS_A_FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

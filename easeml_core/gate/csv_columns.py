"""CSV files of two columns, ``example`` and another, as texts: a million rows in a fraction of a second.

Such a file comes from outside, so everything is bounded and every refusal names file, row and column. Nothing is
trimmed, rounded or guessed: ``1`` and ``1.0`` are two different texts.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES = 256 * 2**20
MAX_ROWS = 10_000_000
_MAX_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file, by example.

    Attributes:
        source: The file's name, for messages.
        name: The column's name.
        examples: Names of the examples, each once, in the file's order.
        values: The texts, one for each example, none empty.
    """

    source: str
    name: str
    examples: list[str]
    values: list[str]


def read_column(path: Path, name: str, *, like: Column | None = None) -> Column:
    """Read the columns ``example`` and ``name`` of a CSV file (RFC 4180, UTF-8, a header, other columns ignored).

    Args:
        path: The file; a pipe will do.
        name: The other column.
        like: A column that was read before. Where the examples are the same, as they mostly are, they are not searched
            for duplicates again, and the list is shared.

    Returns:
        The column.

    Raises:
        InvalidInputError: If the file cannot be read, is too large, lacks a column, has a broken row, an empty value or
            an example twice; names file, row and column.
    """
    source = str(path)
    text = _text(path, source)
    examples, values = _plain_rows(text, name) or _quoted_rows(text, name, source)
    if len(examples) > MAX_ROWS:
        message = f"{source}: {len(examples):,} rows; at most {MAX_ROWS:,} are read"
        raise InvalidInputError(message)
    if not examples:
        message = f"{source}: there are no rows below the header; give one row per example"
        raise InvalidInputError(message)
    if like is not None and examples == like.examples:
        return Column(source, name, like.examples, values)
    if len(set(examples)) < len(examples):
        raise InvalidInputError(_duplicates(examples, source))
    return Column(source, name, examples, values)


def some(names: Iterable[str]) -> str:
    """The first few of several names, quoted and cut, as messages show them.

    Example:
        >>> some(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    known = list(names)
    shown = ", ".join(repr(n if len(n) <= 60 else n[:57] + "...") for n in known[:_MAX_COLUMNS])
    return shown + (f" and {len(known) - _MAX_COLUMNS:,} more" if len(known) > _MAX_COLUMNS else "")


def _text(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"{source} cannot be read: {error.strerror or error}"
        raise InvalidInputError(message) from error
    if len(data) > MAX_BYTES:
        message = f"{source} has more than {MAX_BYTES // 2**20} MiB; give a smaller file"
        raise InvalidInputError(message)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{source} is no UTF-8 text: byte {error.start} cannot be read; write it as UTF-8"
        raise InvalidInputError(message) from error


def _plain_rows(text: str, name: str) -> tuple[list[str], list[str]] | None:
    """Split a file without quotes, all of whose rows have two fields; None for any other file."""
    if '"' in text or not text.startswith(f"example,{name}\n" if "\r" not in text else f"example,{name}\r\n"):
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\r" in text:
        return None
    text = text.removesuffix("\n")
    codes = np.frombuffer(text.encode(), dtype=np.uint8)
    # Commas and line ends must take turns: then every row has exactly two fields.
    marks = codes[(codes == ord(",")) | (codes == ord("\n"))]
    if marks.size % 2 == 0 or (marks[::2] != ord(",")).any() or (marks[1::2] != ord("\n")).any():
        return None
    if marks.size // 2 > MAX_ROWS:
        return None
    fields = text.replace("\n", ",").split(",")
    return None if "" in fields else (fields[2::2], fields[3::2])


def _quoted_rows(text: str, name: str, source: str) -> tuple[list[str], list[str]]:
    """Read any CSV file row by row, or say which row is broken."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    examples: list[str] = []
    values: list[str] = []
    try:
        header = next(rows, [])
        key, value = _position(header, "example", source), _position(header, name, source)
        for row in rows:
            if len(row) != len(header):
                fields = "field" if len(row) == 1 else "fields"
                message = f"{source}, row {rows.line_num}: {len(row)} {fields}, the header has {len(header)}"
                raise InvalidInputError(message)
            if not row[key] or not row[value]:
                column = "example" if not row[key] else name
                message = f"{source}, row {rows.line_num}, column {column}: empty; give every row a value"
                raise InvalidInputError(message)
            examples.append(row[key])
            values.append(row[value])
            if len(examples) > MAX_ROWS:
                break
    except csv.Error as error:
        message = f"{source}, row {rows.line_num}: {error}"
        raise InvalidInputError(message) from error
    return examples, values


def _position(header: list[str], name: str, source: str) -> int:
    if header.count(name) != 1:
        found = some(header) if header else "none"
        message = f"{source}: the header must have the column {name!r} exactly once; its columns: {found}"
        raise InvalidInputError(message)
    return header.index(name)


def _duplicates(examples: list[str], source: str) -> str:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for example in examples:
        if example in seen:
            twice[example] = None
        seen.add(example)
    return f"{source}, column example: {some(twice)} more than once; give one row per example"

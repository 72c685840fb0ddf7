"""Tables of new rows in an untrusted file, CSV or Parquet: read within bounds, and encoded as the study's data was.

The column ``example`` is the key of a row. The caller owns the file, so an error names the wrong line and cell. A cell
is text only: one that begins like a formula stays as it is. Names of columns, keys and classes may come back as the
product writes them for people, with an apostrophe before such a beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from easeml_core.data.columns import column_of_texts, hashed_names, hashed_text, text_column_of
from easeml_core.data.sources.csv_files import MAX_CELL, read_table
from easeml_core.data.sources.parquet_files import large_columns, read_parquet
from easeml_core.data.table import MAX_CELLS
from easeml_core.errors import InvalidInputError
from easeml_core.formats.csv_text import guarded, without_guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

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
    """The cells of a file."""
    if path.suffix.lower() in PARQUET:
        columns = read_parquet(path.absolute(), least_rows=1)
        return TextTable((), {name: texts_of(column) for name, column in columns.items()})
    header, lines = _plain_table(path)
    return next(_blocks(path, header, lines, rows=None))


def text_blocks(path: Path, *, most_cells: int, width: int) -> Iterator[TextTable]:
    """The cells of a file of any size, some rows at a time; of Parquet at most 5 billion cells, 512 MB a row group."""

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


KEY = "example"
"""Name of the column that names the rows."""

LONGEST_KEY = 200


@dataclass(frozen=True, slots=True, eq=False)
class ExampleFile:
    """Rows of a file or folder with a key each.

    Attributes:
        path: The file or folder, for messages.
        keys: Key of each row, all different.
        lines: Line of each row in the file, from 1; empty where rows stand in no line.
        columns: The other columns by name, in the file's order, as text; empty where the rows come without columns.
    """

    path: Path
    keys: tuple[str, ...]
    lines: tuple[int, ...]
    columns: Mapping[str, tuple[str, ...]]

    def place(self, row: int) -> str:
        """Where a row (index from 0) is found, for messages."""
        key = f"example {shown(self.keys[row])}"
        return f"line {self.lines[row]} ({key})" if self.lines else key


def refused(file: ExampleFile, what: str, row: int | None = None) -> InvalidInputError:
    """The error that says what is wrong with a file, or with one row of it (index from 0)."""
    place = "" if row is None else f", {file.place(row)}"
    return InvalidInputError(f"{file.path}{place}: {what}")


def read_examples(path: Path) -> ExampleFile:
    """Read a table with a column ``example``."""
    return examples_of(path, read_text_table(path))


def examples_of(path: Path, table: TextTable) -> ExampleFile:
    """The rows of a table that has been read; as ``read_examples``."""
    columns = dict(table.columns)
    if KEY not in columns:
        what = f"{path} needs a column {KEY!r} with the name of every row; its columns are {_listed(list(columns))}"
        raise InvalidInputError(what)
    keys = tuple(without_guard(key.strip()) for key in columns.pop(KEY))
    return with_distinct_keys(ExampleFile(path, keys, table.lines, columns))


def with_distinct_keys(file: ExampleFile) -> ExampleFile:
    """The same rows, whose keys are what they must be."""
    first: dict[str, int] = {}
    for row, key in enumerate(file.keys):
        if not key or len(key) > LONGEST_KEY or not key.isprintable():
            raise refused(file, f"a key must be 1 to {LONGEST_KEY} printable characters", row)
        if (twin := first.setdefault(key, row)) != row:
            other = f"line {file.lines[twin]}" if file.lines else "an earlier row"
            raise refused(file, f"the key is that of {other} too; every row needs its own", row)
    return file


def encode(
    file: ExampleFile, *, feature_names: Sequence[str] | None, features: int, beside: str | None = None
) -> NDArray[np.float32]:
    """The inputs of the rows, in the encoding of a study's data.

    A column of the study that was numbers is read as numbers; one that was words may come as words, under its own name,
    or as the columns ``NAME=WORD`` of 0 and 1; one of many words under its own name, or as what it was hashed to.
    Unknown words are zeros, as rare ones were in the study's data.
    """
    if len(file.keys) * features > MAX_CELLS:
        raise refused(file, f"has more than {MAX_CELLS:,} cells; bring fewer examples")
    names = [n for n in file.columns if n != beside] if feature_names is None else list(feature_names)
    if len(names) != features:
        raise refused(
            file,
            f"has {len(names)} columns of inputs, the study's data has {features}; the names of its columns were not "
            "kept, so bring its encoded columns, numbers only, in their order",
        )
    sources = [_source_of(name, file.columns) for name in names]
    _check_columns(file, names, sources, beside)
    values = np.empty((len(file.keys), features), dtype=np.float32)
    hashed = _hashed_columns(file, names, sources)
    for place, (name, source) in enumerate(zip(names, sources, strict=True)):
        if source == name:
            values[:, place] = _numbers(file, name)
        elif name in hashed:
            values[:, place] = hashed[name]
        else:
            word = name[len(source or "") + 1 :]
            values[:, place] = [cell.strip() == word for cell in file.columns[source or ""]]
    values += np.float32(0)  # -0.0 + 0 is 0.0, as in the study's table: equal rows must be equal bit by bit
    values[np.isnan(values)] = np.nan
    return values


def input_columns(file: ExampleFile, feature_names: Sequence[str]) -> set[str]:
    """The columns of the file that the study's inputs are read from; others are none of its inputs."""
    return {source for name in feature_names if (source := _source_of(name, file.columns)) is not None}


def class_indices(file: ExampleFile, column: str, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Labels of the rows as indices of classes, shape ``(rows,)``.

    A cell is the name of a class, or its index where no class is named by a number.
    """
    words = _class_words(class_names)
    labels = np.empty(len(file.keys), dtype=np.int64)
    for row, cell in enumerate(file.columns[column]):
        label = words.get(_word(cell))
        if label is None:
            raise refused(file, f"{shown(cell)} is no class of the study; it has {_listed(class_names)}", row)
        labels[row] = label
    return labels


def number_targets(file: ExampleFile, column: str) -> NDArray[np.float32]:
    """Numbers to predict, one a row, shape ``(rows,)``."""
    values = _numbers(file, column)
    missing = np.flatnonzero(np.isnan(values))
    if len(missing):
        raise refused(file, f"column {column!r} must be a number in every row", int(missing[0]))
    return values + np.float32(0)


def shown(text: str) -> str:
    """A cell for a message: quoted, without control characters, and not longer than a line."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _class_words(class_names: Sequence[str]) -> dict[str, int]:
    named = {_word(guarded(name)): label for label, name in enumerate(class_names)}
    named |= {_word(name): label for label, name in enumerate(class_names)}
    by_number = {str(label): label for label in range(len(class_names))}
    return named if any(_is_number(name) for name in class_names) else by_number | named


def _word(cell: str) -> str:
    """The cell without blanks; numbers in one spelling, as class names have them."""
    text = cell.strip()
    return f"{float(text):g}" if _is_number(text) else text


def _is_number(text: str) -> bool:
    return column_of_texts([text]).dtype != object and text.strip() != "" and not np.isnan(column_of_texts([text])[0])


def _source_of(name: str, columns: Mapping[str, tuple[str, ...]]) -> str | None:
    """The file's column that a feature is read from: its own, or the words it was made of; None when neither is there.

    Of two that fit, such as ``a`` and ``a=b`` for ``a=b=c``, the longer one.
    """
    if name in columns:
        return name
    ends = [i for i, character in enumerate(name) if character == "="]
    found = next((name[:end] for end in reversed(ends) if name[:end] in columns), None)
    text = text_column_of(name)
    return text if found is None and text in columns else found


def _hashed_columns(
    file: ExampleFile, names: Sequence[str], sources: Sequence[str | None]
) -> dict[str, NDArray[np.float32]]:
    """The features that a column of text was hashed to, by name, of those that the file has as text."""
    found: dict[str, NDArray[np.float32]] = {}
    for source in dict.fromkeys(sources):
        width = sum(
            name != source and text_column_of(name) is not None and of == source
            for name, of in zip(names, sources, strict=True)
        )
        if source is not None and width:
            # With a word among them the cells stay text, whatever they look like.
            cells = column_of_texts([*file.columns[source], "word"])[:-1]
            found |= dict(zip(hashed_names(source, width), hashed_text(cells, width).T, strict=True))
    return found


def _check_columns(file: ExampleFile, names: Sequence[str], sources: Sequence[str | None], beside: str | None) -> None:
    missing = [name for name, source in zip(names, sources, strict=True) if source is None]
    if missing:
        raise refused(
            file,
            f"the study's columns {_listed(missing)} are missing (a column of words NAME may stand for all its "
            "NAME=WORD)",
        )
    extra = [name for name in file.columns if name not in {*sources, beside}]
    if extra:
        remedy = "leave them out"
        if beside is None:
            remedy += (
                f"; one that tells the slices is named with --slices {_listed(extra) if len(extra) == 1 else 'COLUMN'}"
            )
        raise refused(file, f"the columns {_listed(extra)} are none of the study's inputs; {remedy}")


def _numbers(file: ExampleFile, name: str) -> NDArray[np.float32]:
    column = column_of_texts(file.columns[name])
    if column.dtype == object:
        row = next(i for i, cell in enumerate(file.columns[name]) if column_of_texts([cell]).dtype == object)
        raise refused(file, f"column {name!r} must be a number or empty, got {shown(file.columns[name][row])}", row)
    with np.errstate(over="ignore"):
        values = column.astype(np.float32)
    if np.isinf(values).any():
        raise refused(file, f"column {name!r} is beyond 3.4e38", int(np.argmax(np.isinf(values))))
    return values


def _listed(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

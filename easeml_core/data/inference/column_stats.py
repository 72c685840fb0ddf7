"""What the columns of a table hold, told block by block, and which of them is the target.

A CSV or Parquet file is read in blocks of rows, so that its columns are described without being kept: numbers or text,
how much is missing, which words if they are few. It refuses what the sources refuse, with the same messages. At most
``MOST_CELLS`` cells are read. The target is inferred where none is given, and whether it holds classes or numbers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data.columns import MAX_CATEGORIES, TEXT_WIDTH, WORD_WIDTH, Target, column_of_texts, target_of
from easeml_core.data.inference.result import class_note, listed, shown
from easeml_core.data.sources.csv_files import MAX_CELL, read_table
from easeml_core.data.table import MAX_CELLS
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column
    from easeml_core.data.split_spec import Split


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
    """The header of a CSV file, and its rows."""
    header, lines = read_table(path, _refused)
    return header, _blocks_of_lines(path, header, lines)


def parquet_blocks(path: Path) -> tuple[list[str], Iterator[Block]]:
    """The names of the columns of a Parquet file, and its rows."""
    from easeml_core.data.sources.parquet_files import is_large, large_columns, read_parquet

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


_LARGEST = float(np.finfo(np.float32).max)


@dataclass(slots=True)
class ColumnSummary:
    """What was seen of one column, in the rows that have a target.

    Attributes:
        name: Of the column.
        number: Which one, counted from 1.
        rows: How many were seen.
        missing: In how many of them there is no value.
        is_text: Whether any cell holds something else than a number; also cells of rows without a target count.
        is_too_large: Whether float32 cannot hold some number, which counts only if none of the cells is text.
        blanks: Cells that hold a blank.
        words: Each different cell and how often it comes; never more than ``MAX_CATEGORIES`` + 1 of them.
    """

    name: str
    number: int
    rows: int = 0
    missing: int = 0
    is_text: bool = False
    is_too_large: bool = False
    blanks: int = 0
    words: Counter[str] = field(default_factory=Counter)

    @property
    def is_category(self) -> bool:
        """Whether it is text of so few words that each becomes a column."""
        return self.is_text and 1 <= len(self.words) <= MAX_CATEGORIES

    @property
    def width(self) -> int:
        """Columns of numbers that the sources make of it, as ``columns.table_of_columns`` does."""
        if not self.is_text:
            return 1
        if len(self.words) <= MAX_CATEGORIES:
            return max(len(self.words), 1)
        return TEXT_WIDTH if 2 * self.blanks >= self.rows - self.missing else WORD_WIDTH

    def add(self, cells: Cells, present: NDArray[np.bool_]) -> None:
        """Take the next block."""
        empty = missing_cells(cells.column)
        kept = np.flatnonzero(present & ~empty)
        self.rows += int(present.sum())
        self.missing += int((present & empty).sum())
        is_text = cells.column.dtype == object
        self.is_text |= is_text
        if not is_text:
            self.is_too_large |= bool((np.abs(cells.column[kept]) > _LARGEST).any())
        else:
            self.blanks += sum(any(map(str.isspace, cell)) for cell in cells.column[kept])
        if len(self.words) > MAX_CATEGORIES:
            return
        seen = Counter(
            cells.column[kept].tolist() if is_text else [cells.texts[i].strip() for i in kept.tolist() if cells.texts]
        )
        self.words = Counter(dict(islice((self.words + seen).items(), MAX_CATEGORIES + 1)))


def missing_cells(column: Column) -> NDArray[np.bool_]:
    """Which cells have no value, shape (rows,)."""
    if column.dtype == object:
        return np.array([cell is None for cell in column], dtype=bool)
    return np.isnan(column)


_MOST_NOTES = 20


@dataclass(slots=True)
class SeenTable:
    """What is kept of a table: a few columns whole, of the others what they hold.

    Attributes:
        inputs: The columns that a model is given.
        columns: Those kept whole: the target, the keys of series, and what rows are divided by.
        rows: How many were read.
        partial: Whether there are more, which were not looked at.
    """

    inputs: tuple[ColumnSummary, ...]
    columns: dict[str, Column] = field(default_factory=dict)
    rows: int = 0
    partial: bool = False


def see_table(
    blocks: Iterator[Block],
    inputs: tuple[ColumnSummary, ...],
    *,
    target: str,
    keys: tuple[str, ...],
    split: Split,
    most: int,
    report: Callable[[str], None],
) -> SeenTable:
    """Take blocks until there are no more, or more than ``most`` rows would be looked at."""
    seen = SeenTable(inputs)
    parts: dict[str, list[Any]] = {name: [] for name in (*keys, split.column, target) if name}
    for whole in blocks:
        seen.partial = seen.rows + len(whole[target].column) > most
        block = {name: cells.first(most - seen.rows) for name, cells in whole.items()}
        # In a series any line may bear the target of all.
        present = ~missing_cells(block[target].column) | bool(keys)
        for column in inputs:
            column.add(block[column.name], present)
        for name, kept in parts.items():
            kept.append(block[name])
        seen.rows += len(present)
        report(f"{seen.rows:,} rows read")
        if seen.partial:
            break
    if seen.rows < 2:
        message = f"the table has {counted(seen.rows, 'row')}; at least 2 are needed"
        raise InvalidInputError(message)
    for name, kept in parts.items():
        texts = [text for cells in kept for text in cells.texts]
        seen.columns[name] = column_of_texts(texts) if texts else np.concatenate([cells.column for cells in kept])
    return seen


def check_inputs(seen: SeenTable, rows: int) -> None:
    """As the sources: a column without values, too large a number, and too large a table are refused."""
    for column in seen.inputs:
        if column.is_too_large and not column.is_text:
            fault = "holds a number that is infinite or beyond 3.4e38; leave missing values empty"
            message = f"column {column.number}, {shown(column.name)}, {fault}"
            raise InvalidInputError(message)
        if column.missing == column.rows and not seen.partial:
            fault = "has no value in any row that has a target; leave the column out"
            message = f"column {column.number}, {shown(column.name)}, {fault}"
            raise InvalidInputError(message)
    width = sum(column.width for column in seen.inputs)
    if rows * width > MAX_CELLS:
        message = (
            f"the table has more than {MAX_CELLS:,} cells ({rows:,} rows of {width:,}, after words became columns); "
            "leave out columns of many words, or rows"
        )
        raise InvalidInputError(message)


def note_of_reading(seen: SeenTable, *, kept: int, whole: int, what: str) -> str:
    """How much was read, and how much of it has no target."""
    text = f"read: all {seen.rows:,} rows"
    if seen.partial:
        text = f"read: the first {seen.rows:,} rows, not the rest; classes and words that come later are not counted"
    return text + (f"; {what} without a target, which are left out: {whole - kept:,}" if kept < whole else "")


def notes_of_columns(seen: SeenTable, names: Mapping[str, str]) -> list[str]:
    """Missing values, and what becomes of text."""
    notes = []
    missing = [f"{shown(column.name)} {column.missing:,}" for column in seen.inputs if column.missing]
    if missing:
        notes.append(f"missing values, in {counted(len(missing), 'column')}: {listed(missing)}")
    few = [column for column in seen.inputs if column.is_category]
    for column in few[:_MOST_NOTES]:
        words = sorted(column.words.items(), key=lambda entry: (-entry[1], entry[0]))
        notes.append(f"text of few words, {class_note(names[column.name], words, most=10)}")
    if len(few) > _MOST_NOTES:
        notes.append(f"text of few words, {counted(len(few) - _MOST_NOTES, 'more column')}")
    many = [f"{shown(c.name)} to {c.width}" for c in seen.inputs if c.is_text and not c.is_category]
    if many:
        notes.append(f"text of more than {MAX_CATEGORIES} words, hashed to so many numbers: {listed(many)}")
    return notes


def notes_of_names(names: Mapping[str, str]) -> list[str]:
    """Columns whose name a program does not allow."""
    other = [f"{name} is {shown(column)}" for column, name in names.items() if column != name]
    return [f"names in the program: {listed(other)}"] if other else []


TARGET_NAMES = ("target", "label", "class", "y")
"""Names of columns that say what they are, in any case of letters; the first of these wins."""

MOST_NUMBERS = 20
"""Different whole numbers that are taken as classes."""


def choose_target(columns: Sequence[str], target: str | None) -> tuple[str, str]:
    """The target, and a note of what decided."""
    if target:
        return target, f"target {shown(target)}: as asked for"
    for name in TARGET_NAMES:
        for column in columns:
            if column.lower() == name:
                return column, f"target {shown(column)}: by its name; --target COLUMN names another"
    rule = f"the last column, since none is called {', '.join(TARGET_NAMES)}; --target COLUMN names another"
    return columns[-1], f"target {shown(columns[-1])}: {rule}"


def infer_target(columns: Mapping[str, Column], target: str, task: Task | None) -> tuple[Target, str]:
    """Labels of all rows, and a note of what decided between classes and numbers.

    Without a task, text and thresholds are classes; so are at most 20 different numbers, all of them whole, each of
    which comes twice or more on average. All other numbers are a regression.

    Example:
        >>> infer_target({"y": np.array([0.0, 1, 1, 0])}, "y", None)[1]
        'task classification: the target has 2 different numbers, all whole; --task regression takes it as numbers'
        >>> infer_target({"y": np.array([0.0, 1, 1, 0.5])}, "y", None)[1]
        'task regression: the target has numbers that are not whole; --task classification makes classes of them'
    """
    if task is not None:
        return target_of(columns, target, task), f"task {task}: as asked for"
    if target not in columns:
        return target_of(columns, target), "task classification: the target is a threshold"
    column = columns[target]
    if column.dtype == object:
        return target_of(columns, target), "task classification: the target holds words"
    why_not = _why_no_classes(column[~np.isnan(column)])
    if why_not:
        note = f"task regression: the target has {why_not}; --task classification makes classes of them"
        return target_of(columns, target, Task.REGRESSION), note
    found = target_of(columns, target)
    what = f"the target has {len(found.class_names)} different numbers, all whole"
    return found, f"task classification: {what}; --task regression takes it as numbers"


def sizes_of_classes(found: Target, labels: NDArray[Any], *, partial: bool) -> tuple[tuple[str, int], ...]:
    """Each class and how many labels it has; none for regression."""
    if found.task == Task.REGRESSION and bool((np.abs(labels) > _LARGEST).any()):
        message = f"target {shown(found.column)} holds a number that is infinite or beyond 3.4e38"
        raise InvalidInputError(message)
    if len(np.unique(labels)) < 2:
        read = "in the part that was read" if partial else "in all rows"
        message = (
            f"target {shown(found.column)} has {'the same value' if len(labels) else 'no value'} {read}; there is "
            "nothing to predict, name another column with --target"
        )
        raise InvalidInputError(message)
    counts = np.bincount(labels, minlength=len(found.class_names)).tolist() if found.class_names else []
    return tuple(zip(found.class_names, counts, strict=True))


def _why_no_classes(numbers: NDArray[Any]) -> str:
    """Why numbers are not taken as classes; empty if they are."""
    if not bool((numbers == np.round(numbers)).all()):
        return "numbers that are not whole"
    different = len(np.unique(numbers))
    if different > MOST_NUMBERS:
        return f"{different:,} different numbers, more than {MOST_NUMBERS}"
    return f"{different} different numbers in {len(numbers)} rows" if 2 * different > len(numbers) else ""

"""What a column holds, told block by block: numbers or text, how much is missing, which words if they are few.

What is kept of a table of which a program is to be inferred, and how that is said in notes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import MAX_CATEGORIES, TEXT_WIDTH, WORD_WIDTH, column_of_texts
from easeml_core.data.inference.result import class_note, listed, shown
from easeml_core.data.table import MAX_CELLS
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column
    from easeml_core.data.sources.blocks import Block, Cells
    from easeml_core.data.split_spec import Split


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
        """Take the next block.

        Args:
            cells: Of this column.
            present: Which rows have a target, shape (rows of the block,).
        """
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
    """Take blocks until there are no more, or more than ``most`` rows would be looked at.

    Args:
        blocks: Of rows.
        inputs: Filled here. Of a series every line counts, of a table those that have a target.
        target: Column that is kept whole.
        keys: Columns of series that are kept whole; none for a table.
        split: Whose column is kept whole.
        most: Rows.
        report: Hears how far it is after each block.

    Raises:
        InvalidInputError: If there are less than two rows, or the blocks refuse something.
    """
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
    """Missing values, and what becomes of text.

    Args:
        seen: The table.
        names: In the program, by column.
    """
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

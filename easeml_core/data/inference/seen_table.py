"""What is kept of a table of which a program is to be inferred, and how that is said in notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import MAX_CATEGORIES, column_of_texts
from easeml_core.data.inference.column_stats import missing_cells
from easeml_core.data.inference.result import class_note, listed, shown
from easeml_core.data.table import MAX_CELLS
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from easeml_core.data.columns import Column
    from easeml_core.data.inference.column_stats import ColumnSummary
    from easeml_core.data.sources.blocks import Block
    from easeml_core.data.split_spec import Split

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
            told = "holds a number that is infinite or beyond 3.4e38; leave missing values empty"
            message = f"column {column.number}, {shown(column.name)}, {told}"
            raise InvalidInputError(message)
        if column.missing == column.rows and not seen.partial:
            told = "has no value in any row that has a target; leave the column out"
            message = f"column {column.number}, {shown(column.name)}, {told}"
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

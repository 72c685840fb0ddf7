"""What a column holds, told block by block: numbers or text, how much is missing, which words if they are few."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.columns import MAX_CATEGORIES
from easeml_core.data.text_columns import TEXT_WIDTH, WORD_WIDTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.data.columns import Column
    from easeml_core.data.sources.blocks import Cells

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

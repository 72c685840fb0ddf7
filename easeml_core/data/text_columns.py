"""Columns of words with too many different values for a column each: hashed to a fixed number of columns.

The hashing trick (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning") needs no vocabulary:
the same text gives the same numbers in any file, on any machine and in any order of rows, so nothing is learnt here
that a part of the data could tell another. The hash is scikit-learn's (MurmurHash3, 32 bits, with a sign bit).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORD_WIDTH = 2**6
"""Columns of a column whose cells are single words: each cell as a whole goes to one of them."""

TEXT_WIDTH = 2**8
"""Columns of a column of free text: its words are counted, and a row is scaled to length 1."""

_HASHED = re.compile(r"text_(.+)_[0-9]+")
_TOKEN = r"(?u)\b\w+\b"


def hashed_width(column: NDArray[Any]) -> int:
    """``TEXT_WIDTH`` if at least half of the cells that are not missing hold a blank, else ``WORD_WIDTH``.

    Args:
        column: Text, None for missing, shape (rows,).
    """
    cells = [cell for cell in column if cell is not None]
    spaced = sum(any(map(str.isspace, cell)) for cell in cells)
    return TEXT_WIDTH if cells and 2 * spaced >= len(cells) else WORD_WIDTH


def hashed_text(column: NDArray[Any], width: int) -> NDArray[np.float32]:
    """The column as numbers, shape (rows, width); a missing cell is a row of zeros.

    Args:
        column: Text, None for missing, shape (rows,).
        width: ``TEXT_WIDTH`` counts the words of a cell, any other takes the cell as one word.

    Example:
        >>> block = hashed_text(np.array(["red", "blue", "red", None], dtype=object), WORD_WIDTH)
        >>> np.abs(block).sum(axis=1).tolist(), bool((block[0] == block[2]).all())
        ([1.0, 1.0, 1.0, 0.0], True)
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    rule = {"token_pattern": _TOKEN} if width == TEXT_WIDTH else {"analyzer": _whole_cell}
    vectorizer = HashingVectorizer(n_features=width, dtype=np.float32, **rule)
    block: NDArray[np.float32] = vectorizer.transform(["" if cell is None else cell for cell in column]).toarray()
    return block


def hashed_names(name: str, width: int) -> list[str]:
    """``text_NAME_0`` and so on."""
    return [f"text_{name}_{i}" for i in range(width)]


def text_column_of(name: str) -> str | None:
    """The column of text that ``hashed_names`` gave this name for; None where it has another form.

    Example:
        >>> text_column_of("text_note_17"), text_column_of("note")
        ('note', None)
    """
    found = _HASHED.fullmatch(name)
    return None if found is None else found[1]


def _whole_cell(cell: str) -> list[str]:
    return [cell] if cell else []

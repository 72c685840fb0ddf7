"""Which known rows can be rows of a new table at all: those that have two of the values of a new row.

``matching`` finds no row in a table without such a pair of rows: both of its passes require two columns of the new row
whose values the known row has. Here the pairs are looked for among the values that an index has found
(``store/tables/row_registry.py``), so that tables without any are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Words = NDArray[np.uint64]

_MOST_PAIRS = 2_000_000
"""Pairs of a known row and a new one with a common value that are looked at; with more of them a part may match."""

_MOST_KEPT = 64
"""Sets of common values whose counts are kept: many tables have the same ones."""


class Screen:
    """The values of new rows, and the rows that have each.

    Args:
        tokens: uint64, shape ``(rows, columns)``; 0 for a missing value.

    Attributes:
        values: uint64: the different tokens in order, without 0.

    Example:
        Two new rows, and four parts of known rows. Values of different new rows, values of one new row, values of
        which one may be in any known row, and values of two known rows:

        >>> new = Screen(np.array([[1, 2, 3], [1, 4, 5]], dtype=np.uint64))
        >>> tokens, rows = np.array([2, 4, 4, 5, 4, 1, 4, 5], dtype=np.uint64), np.array([7, 7, 7, 7, 7, 0, 7, 8])
        >>> new.may_match(np.array([0, 0, 1, 1, 2, 2, 3, 3]), tokens, rows).tolist()
        [1, 2]
    """

    def __init__(self, tokens: Words) -> None:
        flat = tokens.ravel()
        order = np.argsort(flat, kind="stable")
        order = order[np.count_nonzero(flat == 0) :]
        ordered = flat[order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=np.uint64(0)) != 0)
        self.values: Words = ordered[self._starts]
        self._counts = np.diff(self._starts, append=len(ordered))
        self._new_rows = len(tokens)
        self._rows = order // max(1, tokens.shape[1])
        repeated = np.flatnonzero((np.diff(ordered) == 0) & (np.diff(self._rows) == 0))
        self._is_repeated = np.zeros(len(self.values), dtype=bool)
        self._is_repeated[np.searchsorted(self.values, ordered[repeated])] = True
        self._in_common: dict[bytes, NDArray[np.uint8]] = {}

    def may_match(self, parts: Ints, tokens: Words, rows: Ints) -> Ints:
        """Return the parts with a row that may have the values of two columns of a new row."""
        places = np.searchsorted(self.values, tokens)
        order = np.lexsort((rows, parts))
        is_same_row = (np.diff(parts[order]) == 0) & (np.diff(rows[order]) == 0)
        # Two values of a known row, one value for two columns, or one value of all rows: the other parts have no pair.
        is_near = (rows == 0) | self._is_repeated[places]
        is_near[order[1:][is_same_row]] = True
        near = np.unique(parts[is_near])
        bounds = zip(np.searchsorted(parts, near, "left"), np.searchsorted(parts, near, "right"), strict=True)
        is_found = [self._has_pair(places[begin:end], rows[begin:end]) for begin, end in bounds]
        found: Ints = near[np.array(is_found, dtype=bool)]
        return found

    def _has_pair(self, places: NDArray[np.intp], rows: Ints) -> bool:
        common = self._common(places[rows == 0])
        if (common > 1).any():
            return True
        places, rows = places[rows > 0], rows[rows > 0]
        counts = self._counts[places]
        if counts.sum() > _MOST_PAIRS:
            return True
        of_cell = np.repeat(np.arange(len(places)), counts)
        offset = np.arange(len(of_cell)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = self._rows[self._starts[places][of_cell] + offset]
        pairs = np.sort(rows[of_cell] * self._new_rows + new)
        return bool((common[new] > 0).any() or (np.diff(pairs) == 0).any())

    def _common(self, places: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Count the columns of each new row whose value is one of these, up to 2."""
        key = np.sort(places).tobytes()
        if key not in self._in_common:
            if len(self._in_common) >= _MOST_KEPT:
                self._in_common.clear()
            blocks = [self._rows[self._starts[i] : self._starts[i] + self._counts[i]] for i in places.tolist()]
            counts = np.bincount(np.concatenate([*blocks, []]).astype(np.int64), minlength=self._new_rows)
            self._in_common[key] = np.minimum(counts, 2).astype(np.uint8)
        return self._in_common[key]

"""Predict some rows again, in a smaller batch and another order: an answer may depend on its row only.

The statistics of gate and meter assume that each example is answered independently. A program sees all rows at once, so
an answer could depend on the others (ranks, means of the batch, the number of rows) or on chance. The check is not a
proof: it misses a dependence that a random part of the rows shows as well as all rows, or that touches few rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 1000
"""How many rows are asked again at most: it bounds what the second run costs."""

ROWS_PER_CHANGE = 500
"""One changed answer is let through for so many full rows.

Rounding may differ with the number of rows and tip an argmax that was all but even. None did in millions of answers of
every kind that is trained here (docs/gate.md), so this is for programs of others. It gives little away: a share of
1 / 500 would have a chance of exp(-2) not to be among 1,000 rows at all.
"""


_ROUNDING, _ROUNDING_NEAR_ZERO = 1e-4, 1e-6
"""Numbers that differ by less count as the same, since models reckon with 32 bits: a share of the number itself, and of
the largest one for those near 0."""

_OF_RIGHT, _FLOAT32 = 1 / 20, 5e-7
"""But by no more than this share of how far off a right number may be: one huge answer, or targets that are large
beside that, would let a program answer as it likes. Four roundings of a number of 32 bits are always let through."""


def rows_to_repeat(labels: NDArray[Any], key: bytes) -> NDArray[np.int64]:
    """Which rows are asked again, in their new order.

    At most half of them: a model that looks at how many there are is asked about another number. And three of four, as
    far as there are, from every other class that it has answered: means and ranks of these rows are not those of all,
    while in a random half of few rows they often are.

    Args:
        labels: What the model has answered: classes or numbers, shape (rows,), or several numbers, (rows, numbers).
        key: Determines which; without it they cannot be predicted. At least 16 bytes for that.

    Returns:
        Different row numbers, int64, shape (min(1000, rows / 2 rounded up),).

    Example:
        >>> [len(rows_to_repeat(np.zeros(rows), b"key")) for rows in (0, 1, 7, 1999, 50_000)]
        [0, 1, 4, 1000, 1000]
    """
    rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint8))
    labels = labels if labels.ndim == 1 else np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    size = min(MOST_ROWS, (len(labels) + 1) // 2)
    order = rng.permutation(len(labels))
    often = rng.permutation(np.unique(labels))[::2]
    is_often = np.isin(labels[order], often)
    many, few = order[is_often], order[~is_often]
    fewer = max(size - len(many), min(size // 4, len(few)))
    return rng.permutation(np.concatenate([many[: size - fewer], few[:fewer]])).astype(np.int64)


def right_within(hit: str) -> float:
    """How far off a right answer may be; infinite where it is a class.

    Example:
        >>> right_within("within:0.5"), right_within("accuracy")
        (0.5, inf)
    """
    return float(hit.partition(":")[2] or math.inf)


def require_same(first: NDArray[Any], again: NDArray[Any], *, right_within: float = math.inf) -> None:
    """Compare the answers to the same rows; numbers may differ by rounding, as the order of sums may.

    Args:
        first: Labels, or numbers, that were given among all rows, shape (rows,) or (rows, numbers).
        again: Those of the second time, of the same shape. A row has changed where any of its numbers has.
        right_within: How far off a right number may be, > 0; infinite where it is not set, or for labels.

    Raises:
        TrainingError: More of them changed than rounding explains: more than one for every 500 rows.
    """
    others = ~_close(first, again, right_within) if first.dtype.kind == "f" else first != again
    changed = int(np.count_nonzero(others.reshape(len(others), -1).any(axis=1)))
    if changed > len(first) // ROWS_PER_CHANGE:
        message = (
            f"its answers depend on which examples it sees, or change from run to run: {changed:,} of {len(first):,} "
            "were others when the same rows came among fewer and in another order"
        )
        raise TrainingError(message)


def _close(first: NDArray[Any], again: NDArray[Any], right_within: float) -> NDArray[np.bool_]:
    size = np.abs(first)
    rounding = _ROUNDING * size + _ROUNDING_NEAR_ZERO * np.max(size, initial=0.0)
    allowed = np.maximum(np.minimum(rounding, _OF_RIGHT * right_within), _FLOAT32 * size)
    with np.errstate(over="ignore"):  # infinitely far from each other is far enough
        return np.asarray(np.abs(again - first) <= allowed)

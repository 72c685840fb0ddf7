r"""Test of the mean of a weighted left side, such as n - 1.1 o, whose value per example is one of a few known numbers.

"The mean is at most c" is rejected by the bound of ``bentkus`` on the sum of v - c, with an upper confidence bound U on
the second moment E (v - c)^2. A tenth of the level pays for U (Berger and Boos 1994), so for every law with mean at
most c

    P(reject) <= P(E (v - c)^2 > U) + P(reject and E (v - c)^2 <= U) <= alpha / 10 + 9 alpha / 10.

U adds up the steps between the sorted squares y_1 <= ... <= y_k, E y = y_1 + sum over j of (y_j - y_(j-1)) P(y >= y_j),
each chance at its exact upper bound (Clopper and Pearson); each step has the part of that tenth that its height is of
all heights. U is also capped, at no cost, where something else bounds it: values in [low, high] with mean at most c
have sums whose f of ``bentkus`` is largest for the law on {low, high} with mean c (f is convex and rising), so (c -
low)(high - c) serves as the second moment; and a clause d < A bounds the share of the examples on which the models
differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.stats.bentkus import log_bentkus_tail
from easeml_core.stats.binomial_bounds import LOG_SHARE, upper_bound

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class AtMost:
    """The hypothesis that the mean of a weighted side is at most c.

    Attributes:
        values: v_k, shape ``(n_values,)``.
        threshold: c, finite.
        differing: Which values examples have on which the models differ.
        disagreement_bound: A in (0, 1], where it is known that the share of those is at most A.
    """

    values: NDArray[np.float64]
    threshold: float
    differing: tuple[int, ...] = ()
    disagreement_bound: float | None = None

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return float(self.values.min()), float(self.values.max())

    @property
    def squares(self) -> NDArray[np.float64]:
        """(v_k - c)^2, shape ``(n_values,)``."""
        return np.asarray((self.values - self.threshold) ** 2)

    @property
    def cap(self) -> float:
        """A number that serves as the second moment for every law, whatever was seen, for low < c < high."""
        low, high = self.reach
        cap = (self.threshold - low) * (high - self.threshold)
        if self.disagreement_bound is None or not self.differing:
            return cap
        apart = np.isin(np.arange(len(self.values)), self.differing)
        agreed = float(self.squares[~apart].max())
        return min(cap, agreed + self.disagreement_bound * max(0.0, float(self.squares[apart].max()) - agreed))


def second_moment_bound(counts: NDArray[np.int64], null: AtMost, *, log_level: float) -> float:
    """Return U with P(E (v - c)^2 > U) <= alpha, or a number that serves as well for every law with mean at most c.

    Args:
        counts: How often each value was seen, shape ``(n_values,)``.
        null: The hypothesis, with low < c < high.
        log_level: ln alpha, finite and < 0.

    Returns:
        U > 0.
    """
    squares, examples = null.squares, int(counts.sum())
    order = np.argsort(squares, kind="stable")
    heights = np.diff(squares[order])
    beyond = np.cumsum(counts[order][::-1])[::-1][1:]
    whole = float(heights.sum())
    bound = float(squares[order][0])
    for height, count in zip(heights.tolist(), beyond.tolist(), strict=True):
        if height > 0:
            bound += height * upper_bound(count, examples, log_level=log_level + math.log(height / whole))
    return min(bound, null.cap)


def log_weighted_p_value(counts: NDArray[np.int64], null: AtMost, *, log_level: float) -> float:
    """Return ln of a p-value against "the mean is at most c", for the level that it is to be compared with.

    Args:
        counts: How often each value was seen, shape ``(n_values,)``, N >= 1 in all.
        null: The hypothesis.
        log_level: ln alpha, finite and < 0: the bound on the second moment is at a tenth of it.

    Returns:
        A number <= 0; 0 where no mean is above c, minus infinity where none is at or below it. At most ``log_level``
        with a chance of at most alpha if the mean is at most c.

    Example:
        >>> null = AtMost(np.array([-0.1, 1.0, -1.1, 0.0]), threshold=0.01)
        >>> log_weighted_p_value(np.array([3900, 550, 10, 540]), null, log_level=-5.3) < -5.3
        True
    """
    (low, high), threshold = null.reach, null.threshold
    if threshold >= high:
        return 0.0
    if threshold < low:
        return -math.inf
    examples = int(counts.sum())
    total = float(counts @ (null.values - threshold))  # values at the threshold add exactly 0
    if total <= 0:
        return 0.0
    if threshold == low:
        return -math.inf  # a mean of at most the smallest value: then no example has another
    share = log_level + LOG_SHARE
    moment = second_moment_bound(counts, null, log_level=share)
    tail = log_bentkus_tail(total, examples, largest=high - threshold, second_moment=moment)
    return min(0.0, float(np.logaddexp(tail, share)))

"""Tests of a mean by betting against it: valid at every moment, for every law, without knowing any variance.

Whoever bets a share l of a growing fortune on each value x being above c wins the factor 1 + l (x - c). If the mean is
at most c, no bet is worth taking: the expected factor is at most 1, so the fortune E_t is a nonnegative
supermartingale, and by Ville's inequality P(E_t >= 1/alpha for any t) <= alpha. That holds at a fixed number of
examples, and at any moment at which somebody likes to stop. The fortune is split over a grid of bets that never change,
so it depends on how often each value was seen, not on the order.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024, section 4 (not
checked against the text); Ville (1939) for the inequality.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BETS = 12
_SMALLEST, _LARGEST = 0.02, 0.95
_LEAST_ROOM = 1e-3
_RESOLUTION = 1e-6


def log_wealth(
    counts: ArrayLike, values: ArrayLike, *, threshold: float, low: float, high: float
) -> NDArray[np.float64]:
    """Give ln E_t, what betting on "the mean is above c" has made of one coin.

        E_t = (1/12) sum_j prod_k (1 + l_j (x_k - c))^(count_k),   l_j log-spaced from 0.02 / (high - low)
                                                                   to 0.95 / (c - low)

    For values -1, 0, 1 the bets go from .01 to .95 / (1 + c). All factors are at least 0.05, so E_t >= 0 for every law
    on [low, high]. E_t falls as c grows: for each l_j so does x - c, and where x < c the bet shrinks more slowly than
    the distance grows. So the thresholds that are not rejected are an interval, which ``betting_lower_bound`` finds.

    Numerics: sums run over values and bets in a fixed order, so that a moment's result does not depend on which other
    moments are computed with it.

    Args:
        counts: How often each value was seen, at each moment: shape ``(n_moments, n_values)`` or ``(n_values,)``.
        values: x_k, each in [low, high], shape ``(n_values,)``.
        threshold: c, finite.
        low: The smallest value that one example can have.
        high: The largest, > low.

    Returns:
        Shape ``(n_moments,)`` or ``()``; plus infinity where c < low, which no law reaches.

    Raises:
        ConfigError: If the range is empty.

    Example:
        >>> counts = [[3, 940, 57], [5, 1880, 115]]  # losses, neither, wins
        >>> log_wealth(counts, [-1, 0, 1], threshold=0.02, low=-1, high=1).round(2)
        array([10.03, 23.74])
    """
    require(low < high, "high", high, f"> {low}, the smallest value")
    seen, worth = np.asarray(counts), np.asarray(values, dtype=np.float64)
    if threshold < low:
        return np.full(seen.shape[:-1], math.inf)
    # With c on the smallest value itself any bet is safe; a small floor keeps the largest one finite.
    room = max(threshold - low, _LEAST_ROOM * (high - low))
    largest = _LARGEST / room
    # Far above the largest value even the smallest bet would lose more than there is.
    bets = np.geomspace(min(_SMALLEST / (high - low), largest), largest, BETS)
    gains = np.log1p(np.multiply.outer(worth - threshold, bets))
    column = (BETS,) + (1,) * (seen.ndim - 1)
    logs = np.zeros((BETS, *seen.shape[:-1]))
    for k in range(len(worth)):
        logs += seen[..., k] * gains[k].reshape(column)
    top = logs.max(axis=0)
    total = reduce(np.add, np.exp(logs - top))
    return np.asarray(top + np.log(total / BETS))


def betting_lower_bound(counts: ArrayLike, values: ArrayLike, *, log_level: float, low: float, high: float) -> float:
    """Give the largest c that ``log_wealth`` rejects: the mean is above it, at any moment, but for the level.

    Args:
        counts: How often each value was seen, shape ``(n_values,)``.
        values: x_k, each in [low, high], shape ``(n_values,)``.
        log_level: Natural logarithm of the level, finite and < 0.
        low: The smallest value that one example can have.
        high: The largest, > low.

    Returns:
        A number in [low, high], from below, to 1e-6 of the range; ``low`` where nothing is rejected.

    Raises:
        ConfigError: If an argument is outside its range.
    """
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    rejected, kept = low, high
    while kept - rejected > _RESOLUTION * (high - low):
        middle = (rejected + kept) / 2
        if float(log_wealth(counts, values, threshold=middle, low=low, high=high)) >= -log_level:
            rejected = middle
        else:
            kept = middle
    return rejected

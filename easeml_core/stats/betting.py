"""Tests of a mean by betting against it: valid at every moment, for every law, without knowing any variance.

A bet of the share l of the wealth on each value x being above c multiplies the wealth by 1 + l (x - c). If the mean is
at most c, the expected factor is at most 1, so the wealth E_t is a nonnegative supermartingale, and by Ville's
inequality P(E_t >= 1/alpha for any t) <= alpha. That holds at a fixed number of examples and at any stopping time. The
wealth is split over a fixed grid of bets, so it depends on how often each value occurred, not on the order.

Where the order of the examples is fixed, ``log_plugin_wealth`` bets better: each bet is the best one against the
threshold for what the examples before have shown of the law's shape, at a mean that lies beyond it by a given gap. It
is chosen before its example is looked at, so the fortune is a supermartingale for the same reason.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024, section 4 (not
checked against the text); Ville (1939) for the inequality.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

BETS = 12
_SMALLEST, _LARGEST = 0.02, 0.95
_LEAST_ROOM = 1e-3
# Parts of the fortune that bet on a mean beyond the threshold by 1, 2, 4 and 8 gaps; fixed bets have the rest.
_PARTS = (0.8, 0.08, 0.05, 0.03)
_GRID_PART = 1 - sum(_PARTS)
# What the plug-in believes before the first example: so many examples, of which this share is at the ends of the range.
_PRIOR_EXAMPLES, _PRIOR_SPREAD = 20.0, 0.1
_GROWTH = 1.1
_FARTHEST = 0.9
_HALVINGS = 36
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


def bet_times(examples: int) -> NDArray[np.int64]:
    """Return the numbers of examples after which ``log_plugin_wealth`` chooses its bets anew: 0, then by a tenth more.

    Example:
        >>> bet_times(25).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24]
    """
    times, now = [], 0
    while now < max(examples, 1):
        times.append(now)
        now = max(now + 1, int(_GROWTH * now))
    return np.array(times, dtype=np.int64)


def log_plugin_wealth(
    moments: ArrayLike,
    counts: ArrayLike,
    counts_before: ArrayLike,
    values: ArrayLike,
    *,
    threshold: float,
    gap: float,
) -> NDArray[np.float64]:
    """Return ln E_t of bets that follow what was seen, on "the mean is above c", for examples in a fixed order.

        E_t = sum_j w_j prod_{i <= t} (1 + l_{j,i} (x_i - c)) + w_grid * (E_t of ``log_wealth``)

    The bet l_{j,i} depends on examples before i only: the law that they and a prior show is tilted to the mean c + 2^j
    gap, and l maximizes the mean logarithm of 1 + l (x - c) under it. All factors are at least 0.05. If the mean is at
    most c, each has conditional expectation at most 1, so P(E_t >= 1/alpha for any t) <= alpha. At a mean of c + gap
    the fortune grows nearly as fast as any can, by the divergence from the laws with mean c.

    Args:
        moments: Numbers of examples t at which to tell the fortune, rising, each >= 1, shape ``(n_moments,)``.
        counts: How often each value was seen by then, shape ``(n_moments, n_values)``.
        counts_before: Likewise at each of ``bet_times`` of the last moment, shape ``(n_bets, n_values)``.
        values: x_k, shape ``(n_values,)``, not all the same.
        threshold: c, finite.
        gap: > 0: how far beyond the threshold a truth is that should be found soonest.

    Returns:
        Shape ``(n_moments,)``; plus infinity where c < low, which no law reaches, and 0 where c >= high, which no law
        exceeds.

    Raises:
        ConfigError: If the gap is not > 0.
    """
    require(0 < gap < math.inf, "gap", gap, "> 0 and finite")
    t, seen, before = np.asarray(moments), np.asarray(counts), np.asarray(counts_before)
    worth = np.asarray(values, dtype=np.float64)
    low, high = float(worth.min()), float(worth.max())
    if threshold < low:
        return np.full(t.shape, math.inf)
    if threshold >= high or not t.size:
        return np.zeros(t.shape)
    excess = worth - threshold
    gains = np.log1p(_plugin_bets(before, excess, gap, high - low)[..., None] * excess)  # (parts, bets, values)
    steps = np.einsum("pbk,bk->pb", gains[:, :-1], np.diff(before, axis=0))
    at_bets = np.concatenate([np.zeros((len(_PARTS), 1)), np.cumsum(steps, axis=1)], axis=1)
    block = np.searchsorted(bet_times(int(t[-1])), t, side="left") - 1
    logs = at_bets[:, block] + np.einsum("pmk,mk->pm", gains[:, block], seen - before[block])
    fixed = log_wealth(seen, worth, threshold=threshold, low=low, high=high)
    parts = np.concatenate([logs + np.log(_PARTS)[:, None], fixed[None] + math.log(_GRID_PART)])
    top = parts.max(axis=0)
    return np.asarray(top + np.log(np.exp(parts - top).sum(axis=0)))


def _plugin_bets(
    before: NDArray[np.int64], excess: NDArray[np.float64], gap: float, reach: float
) -> NDArray[np.float64]:
    """Return the bets of each part after each count, shape ``(n_parts, n_bets)``."""
    prior = np.zeros_like(excess)
    prior[np.abs(excess).argmin()] += 1 - _PRIOR_SPREAD
    prior[excess.argmin()] += _PRIOR_SPREAD / 2
    prior[excess.argmax()] += _PRIOR_SPREAD / 2
    law = (before + _PRIOR_EXAMPLES * prior) / (before.sum(axis=1, keepdims=True) + _PRIOR_EXAMPLES)
    most = _FARTHEST * float(excess.max())
    targets = np.array([min(gap * 2.0**j, most) for j in range(len(_PARTS))])[:, None]
    scaled = excess / reach

    def tilted(tilt: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = law * np.exp(tilt[..., None] * scaled)
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))

    shape = (len(_PARTS), len(before))
    tilt = _last_below(lambda m: tilted(m) @ excess - targets, np.full(shape, -200.0), np.full(shape, 200.0))
    weights = tilted(tilt)
    room = max(-float(excess.min()), _LEAST_ROOM * reach)

    def slope(bet: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(-(weights * excess / (1 + bet[..., None] * excess)).sum(axis=-1))

    return _last_below(slope, np.zeros(shape), np.full(shape, _LARGEST / room))


def _last_below(
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return where a rising function comes up to 0, element by element, from below."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = value(middle) <= 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low

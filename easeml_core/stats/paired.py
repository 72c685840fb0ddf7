"""Exact tests of a paired difference: is the new model right more often than the old one, by more than c?

With S = wins - losses over N examples, q the chance of a win or a loss and c = P(win) - P(loss), the law of S is fixed
by (N, q, c). A test of c must hold for every q that is possible: ``log_paired_p_value`` takes the worst one up to a
known bound, ``log_sign_test`` needs none because it looks at wins and losses only. Everything is a logarithm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.stats.binomial_bounds import log_upper_tail
from easeml_core.stats.trinomial import log_trinomial_tail, log_trinomial_tails

if TYPE_CHECKING:
    from collections.abc import Callable

_GRID_POINTS = 32
_REFINEMENTS = 6
_RESOLUTION = 1e-6


def log_sign_test(wins: int, losses: int) -> float:
    """Give ln of the exact one-sided p-value against "wins are no likelier than losses".

        ln P(Bin(W + L, 1/2) >= W)

    Source: McNemar (1947), in its exact, conditional form. Given the number of decided examples, wins are binomial
    with a chance of at most 1/2, whatever the share of decided examples is.

    Args:
        wins: W >= 0, examples that only the new model has right.
        losses: L >= 0, examples that only the old model has right.

    Returns:
        A number <= 0; 0 when nothing was decided.

    Raises:
        InvalidInputError: If a count is negative.

    Example:
        >>> round(math.exp(log_sign_test(9, 1)), 6)
        0.010742
    """
    if wins < 0 or losses < 0:
        message = f"wins and losses must be >= 0, got {wins} and {losses}"
        raise InvalidInputError(message)
    return log_upper_tail(wins, wins + losses, 0.5) if wins + losses else 0.0


def log_paired_p_value(score: int, examples: int, *, threshold: float, decided_bound: float) -> float:
    """Give ln of the exact p-value against "P(win) - P(loss) is at most c", given q <= p.

        ln sup_{q <= p} P(S >= s | N, q, mean = c)

    The tail rises with the mean, so c itself is the worst mean. In q its slope has the sign of
    P(S' = s - 1) - P(S' = s), S' over N - 1 examples. As long as q <= (1 + c^2) / 2, the generating function of one
    step has real roots only, S' is a shifted sum of independent 0-1 values and its mode lies within 1 of its mean
    (Darroch 1964, not checked). So for s - 1 >= (N - 1) c the tail rises with q up to there, and only larger q, where
    even and odd values of S may differ, are searched: on a grid that is fine near p, then on finer ones. Where s
    is smaller, the observed mean is no evidence against c, and the p-value 1 is given.

    Args:
        score: s = wins - losses, observed.
        examples: N >= 1.
        threshold: c, any finite number.
        decided_bound: p in [0, 1], an upper bound on the chance of a win or a loss.

    Returns:
        A number <= 0. Minus infinity where no law has q <= p and a mean of at most c; 0 where none has a larger mean.

    Raises:
        InvalidInputError: If N < 1 or p is outside [0, 1].

    Example:
        >>> round(math.exp(log_paired_p_value(60, 1000, threshold=0.02, decided_bound=0.1)), 6)
        4.6e-05
    """
    if examples < 1 or not 0 <= decided_bound <= 1:
        message = f"need examples >= 1 and decided_bound in [0, 1], got {examples}, {decided_bound!r}"
        raise InvalidInputError(message)
    return _p_value(score, examples, threshold, decided_bound)


def paired_lower_bound(score: int, examples: int, *, decided_bound: float, log_level: float) -> float:
    """Give the largest c that ``log_paired_p_value`` rejects: a lower bound on P(win) - P(loss).

    Args:
        score: s = wins - losses, observed.
        examples: N >= 1.
        decided_bound: p in [0, 1].
        log_level: Natural logarithm of the level, finite and < 0.

    Returns:
        A number in [-p, p], from below, to 1e-6.

    Raises:
        InvalidInputError: If N < 1 or p is outside [0, 1].

    Example:
        >>> round(paired_lower_bound(60, 1000, decided_bound=0.1, log_level=math.log(0.01)), 4)
        0.0362
    """
    # The tail at q = p alone is quick and nearly always the largest one; the search has the last word.
    quick = _last_rejected(
        lambda c: _p_value(score, examples, c, decided_bound, search=False) <= log_level, -decided_bound, decided_bound
    )

    def rejects(c: float) -> bool:
        return _p_value(score, examples, c, decided_bound) <= log_level

    if rejects(quick):
        return quick
    # The search objects by little: the bound is near, and each look is dear.
    step, high, low = _RESOLUTION, quick, max(-decided_bound, quick - _RESOLUTION)
    while low > -decided_bound and not rejects(low):
        step, high, low = 4 * step, low, max(-decided_bound, quick - 4 * step)
    return _last_rejected(rejects, low, high)


def _p_value(score: int, examples: int, threshold: float, bound: float, *, search: bool = True) -> float:
    """Give the p-value; without the search, the tail at q = p instead of the largest one."""
    if threshold < -bound:
        return -math.inf
    if threshold >= bound or score - 1 < (examples - 1) * threshold:
        return 0.0
    at_bound = log_trinomial_tail(score, examples, decided=bound, mean=threshold)
    monotone_up_to = (1 + threshold**2) / 2
    # A score of N or above can only get likelier with q, one at or below the mean is nothing to search for.
    inside = examples * threshold < score < examples
    if bound <= monotone_up_to or not search or not inside:
        return at_bound
    return max(at_bound, _largest(score, examples, threshold, monotone_up_to, bound))


def _largest(score: int, examples: int, threshold: float, low: float, high: float) -> float:
    """Give the largest tail for q in [low, high]; its bumps, if any, get narrower towards ``high``."""
    grid = high - (high - low) * np.append(np.logspace(0, -7, _GRID_POINTS - 1), 0.0)
    top = -math.inf
    for _ in range(_REFINEMENTS):
        tails = log_trinomial_tails(score, examples, decided=grid, mean=threshold)
        best = int(tails.argmax())
        if best == len(grid) - 1 and tails[best] == top:
            break  # the largest share is the worst, and a finer grid before it has found nothing else
        top = max(top, float(tails[best]))
        grid = np.linspace(grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)], _GRID_POINTS // 2)
    return top


def _last_rejected(rejects: Callable[[float], bool], low: float, high: float) -> float:
    """Give the largest rejected c in [low, high], by bisection from the rejected side."""
    while high - low > _RESOLUTION:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low

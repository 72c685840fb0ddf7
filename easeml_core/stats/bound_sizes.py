"""Sizes from inequalities (Hoeffding, Bennett, Bernstein), one-sided, for tests and for estimates.

They hold always and are never too small for the exact tests, whose p-values are below these bounds. They serve where
no exact law is known (a weighted left side) and where an exact search would be long.

Sources: Hoeffding (1963), Theorems 1 and 2. Bennett (1962), in the form of ``concentration``: values at most 1 with
second moment at most p (not centred), one side, P(mean - truth >= eps) <= exp(-N p h(eps / p)).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy.special import rel_entr

from easeml_core.settings.config import require
from easeml_core.stats.binomial_sizes import check_log_levels, first_at_most
from easeml_core.stats.concentration import bennett_h

if TYPE_CHECKING:
    from collections.abc import Callable


def hoeffding_test_size(*, gap: float, value_range: float, log_level: float, log_miss: float) -> int:
    """Give N so that Hoeffding's test of a mean misses a truth that lies a gap beyond the threshold at most at beta.

        N = ceil( r^2 (sqrt(ln 1/alpha) + sqrt(ln 1/beta))^2 / (2 gap^2) )

    The test rejects when the mean is r sqrt(ln(1/alpha) / (2N)) beyond the threshold; the mean of such a truth is so
    far beyond, but for a deviation of r sqrt(ln(1/beta) / (2N)).

    Args:
        gap: Distance of the truth from the threshold, > 0.
        value_range: r > 0, width of the interval that holds every value.
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> hoeffding_test_size(gap=0.02, value_range=1.0, log_level=math.log(1e-4), log_miss=math.log(1e-4))
        46052
    """
    require(0 < gap < math.inf, "gap", gap, "> 0 and finite")
    require(0 < value_range < math.inf, "value_range", value_range, "> 0 and finite")
    check_log_levels(log_level, log_miss)
    roots = math.sqrt(-log_level) + math.sqrt(-log_miss)
    return max(1, math.ceil((value_range * roots / gap) ** 2 / 2))


def chernoff_test_size(*, null: float, alternative: float, log_level: float, log_miss: float) -> int:
    """Give N so that the test of a mean of values in [0, 1] by its Chernoff bound misses a truth at most at beta.

        N = min over x in (p0, p1) of max( ln(1/alpha) / kl(x, p0), ln(1/beta) / kl(x, p1) )

    kl is the divergence of two 0-1 laws. The test rejects when the mean x has N kl(x, p0) >= ln(1/alpha) (Hoeffding
    1963, Theorem 1, for every law on [0, 1]); a truth with mean p1 or above stays below x at most with exp(-N kl(x,
    p1)). Near the ends this is far less than ``hoeffding_test_size``, and never more.

    Args:
        null: p0 in [0, 1).
        alternative: p1 in (p0, 1].
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> chernoff_test_size(null=0.9, alternative=0.92, log_level=math.log(1e-4), log_miss=math.log(1e-4))
        15036
    """
    require(0 <= null < 1, "null", null, ">= 0 and < 1")
    require(null < alternative <= 1, "alternative", alternative, f"> {null:g} and <= 1")
    check_log_levels(log_level, log_miss)
    certain = alternative == 1  # every value is 1: then no mean is missed, and x may be 1 itself
    return _smallest_at_best_split(
        lambda share: _ratio(-log_level, _divergence(null + share * (alternative - null), null)),
        lambda share: (
            0.0 if certain else _ratio(-log_miss, _divergence(null + share * (alternative - null), alternative))
        ),
    )


def bennett_test_size(*, gap: float, second_moment: float, log_level: float, log_miss: float) -> int:
    """Give N so that Bennett's test of a difference misses a truth a gap beyond the threshold at most at beta.

    The half-widths a and b with N p h(a / p) = ln(1/alpha) and N p h(b / p) = ln(1/beta) must fit into the gap; the
    share of the gap that each gets is found by halving a bracket.

    Args:
        gap: Distance of the truth from the threshold, > 0.
        second_moment: p in (0, 1], for n - o the largest share of examples on which the models differ.
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> bennett_test_size(gap=0.02, second_moment=0.1, log_level=math.log(1e-4 / 32), log_miss=math.log(1e-4 / 32))
        26184
    """
    require(0 < gap < math.inf, "gap", gap, "> 0 and finite")
    require(0 < second_moment <= 1, "second_moment", second_moment, "> 0 and <= 1")
    check_log_levels(log_level, log_miss)
    return _smallest_at_best_split(
        lambda share: _bennett_examples(gap * share, second_moment, log_level),
        lambda share: _bennett_examples(gap * (1 - share), second_moment, log_miss),
    )


def sign_test_bound_size(*, gap: float, second_moment: float, log_level: float, log_miss: float) -> int:
    """Give N so that the exact sign test misses a mean of ``gap`` at most at beta, for every share of decisions <= p.

    With m decided examples the sign test rejects once wins minus losses are sqrt(2 m ln(1/alpha)) (Hoeffding). By
    Bernstein's inequality, at beta / 2 each, m is at most N p + sqrt(2 N p L) + L / 3 and wins minus losses at least
    N gap - sqrt(2 N p L) - L / 3, where L = ln(2 / beta). N is the smallest for which the two fit, or Hoeffding's for
    m = N where that is smaller.

    Args:
        gap: The true mean, > 0.
        second_moment: p in (0, 1].
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> sign_test_bound_size(gap=0.04, second_moment=0.1, log_level=-12.7, log_miss=-12.7)
        7363
    """
    largest = hoeffding_test_size(gap=gap, value_range=2.0, log_level=log_level, log_miss=log_miss)
    require(0 < second_moment <= 1, "second_moment", second_moment, "> 0 and <= 1")
    rare = math.log(2) - log_miss

    def short(examples: int) -> float:
        slack = math.sqrt(2 * examples * second_moment * rare) + rare / 3
        return math.sqrt(-2 * log_level * (examples * second_moment + slack)) + slack - examples * gap

    return min(largest, first_at_most(short, 0.0, guess=largest * second_moment, slope=gap / 2, low=1, high=largest))


def bennett_deviation_size(*, tolerance: float, second_moment: float, log_level: float) -> int:
    """Give N so that a difference is off by the tolerance to one side with probability at most alpha.

        N = ceil( ln(1 / alpha) / (p h(eps / p)) )

    Args:
        tolerance: eps > 0.
        second_moment: p in (0, 1].
        log_level: ln alpha, finite and < 0.

    Returns:
        N >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> bennett_deviation_size(tolerance=0.01, second_moment=0.1, log_level=math.log(1e-4 / 32))
        26184
    """
    require(0 < tolerance < math.inf, "tolerance", tolerance, "> 0 and finite")
    require(0 < second_moment <= 1, "second_moment", second_moment, "> 0 and <= 1")
    check_log_levels(log_level, log_level)
    return max(1, math.ceil(_bennett_examples(tolerance, second_moment, log_level)))


def _bennett_examples(tolerance: float, second_moment: float, log_level: float) -> float:
    """Give N with N p h(eps / p) = ln(1 / alpha), unrounded; infinite for a tolerance too small for a double."""
    return _ratio(-log_level, second_moment * bennett_h(tolerance / second_moment))


def _smallest_at_best_split(size: Callable[[float], float], miss: Callable[[float], float]) -> int:
    """Give the least N that serves both sides, where the first side's falls with its share and the second's rises."""
    low, high = 0.0, 1.0
    for _ in range(100):
        share = (low + high) / 2
        low, high = (share, high) if size(share) > miss(share) else (low, share)
    needed = max(size(high), miss(high))
    require(math.isfinite(needed), "gap", needed, "large enough for a double")
    return max(1, math.ceil(needed))


def _ratio(amount: float, per_example: float) -> float:
    return amount / per_example if per_example > 0 else math.inf


def _divergence(x: float, p: float) -> float:
    """Give kl(x, p) = x ln(x / p) + (1 - x) ln((1 - x) / (1 - p)), infinite where p excludes what x needs."""
    return float(rel_entr(x, p) + rel_entr(1 - x, 1 - p))

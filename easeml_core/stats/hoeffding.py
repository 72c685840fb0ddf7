"""Hoeffding's bounds for means of bounded values: sample size, half-width and tails, one-sided, levels as logarithms.

Source: Hoeffding (1963), "Probability inequalities for sums of bounded random variables", for independent values in an
interval of width r. Theorem 2: P(mean - truth >= eps) <= exp(-2 N eps^2 / r^2). Theorem 1 is the sharper one, which
knows where in the interval the truth lies: ``chernoff_log_tail``.
"""

from __future__ import annotations

import math

from easeml_core.config import require


def hoeffding_sample_size(*, tolerance: float, log_level: float, value_range: float = 1.0) -> int:
    """Give the number of examples that makes a mean accurate to the tolerance, on one side.

        N = ceil( r^2 * (-ln level) / (2 eps^2) )

    Args:
        tolerance: eps > 0, in the unit of the values.
        log_level: Natural logarithm of the level, finite and < 0.
        value_range: r > 0, width of the interval that holds every value.

    Returns:
        N >= 1. Doubling the range needs four times the examples.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> hoeffding_sample_size(tolerance=0.05, log_level=math.log(0.001))
        1382
    """
    require(0 < tolerance < math.inf, "tolerance", tolerance, "> 0 and finite")
    _check(log_level, value_range)
    return max(1, math.ceil(-log_level * value_range**2 / (2 * tolerance**2)))


def hoeffding_half_width(examples: int, *, log_level: float, value_range: float = 1.0) -> float:
    """Give the distance that a mean of N values exceeds with probability at most the level, on one side.

        eps = r * sqrt( (-ln level) / (2 N) )

    Args:
        examples: N >= 1.
        log_level: Natural logarithm of the level, finite and < 0.
        value_range: r > 0.

    Returns:
        eps > 0.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> round(hoeffding_half_width(1382, log_level=math.log(0.001)), 4)
        0.05
    """
    require(examples >= 1, "examples", examples, ">= 1")
    _check(log_level, value_range)
    return value_range * math.sqrt(-log_level / (2 * examples))


def hoeffding_log_tail(deviation: float, examples: int, *, value_range: float = 1.0) -> float:
    """Give the logarithm of the bound on P(mean - truth >= deviation).

        -2 N deviation^2 / r^2,  and 0 where the deviation is not positive

    Args:
        deviation: How far the mean lies above the truth; any finite number.
        examples: N >= 1.
        value_range: r > 0.

    Returns:
        A number <= 0.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> round(hoeffding_log_tail(0.1, 50), 9)
        -1.0
    """
    require(examples >= 1, "examples", examples, ">= 1")
    require(0 < value_range < math.inf, "value_range", value_range, "> 0 and finite")
    return -2 * examples * (deviation / value_range) ** 2 if deviation > 0 else 0.0


def chernoff_log_tail(mean: float, truth: float, examples: int, *, low: float = 0.0, high: float = 1.0) -> float:
    """Give ln of the bound on the chance that N independent values in [low, high] have so large a mean.

        -N kl(x, c),   kl(x, c) = x ln(x / c) + (1 - x) ln((1 - x) / (1 - c)),   both moved to [0, 1];  0 where x <= c

    Source: Hoeffding (1963), Theorem 1. Proof: exp is convex, so among all laws on [0, 1] with mean c' <= c the one on
    the two ends has the largest E exp(lambda X) = 1 - c' + c' e^lambda, which rises with c'; Markov's inequality with
    the best lambda > 0 gives the bound. It is never above ``hoeffding_log_tail`` (Pinsker).

    Args:
        mean: x, the observed mean, in [low, high] but for rounding.
        truth: c, the largest mean that is supposed.
        examples: N >= 1.
        low: The smallest possible value.
        high: The largest, > low.

    Returns:
        A number <= 0; minus infinity where no law with such a mean can give these values.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> round(chernoff_log_tail(0.98, 0.95, 1000), 2), round(hoeffding_log_tail(0.03, 1000), 2)
        (-12.14, -1.8)
    """
    require(examples >= 1, "examples", examples, ">= 1")
    require(low < high, "high", high, f"> {low}, the smallest value")
    x = min(max((mean - low) / (high - low), 0.0), 1.0)
    c = (truth - low) / (high - low)
    if c < 0 or (c == 0 and x > 0):
        return -math.inf
    if x <= c:
        return 0.0
    tail = 0.0 if x == 1 else (1 - x) * math.log((1 - x) / (1 - c))
    ratio = math.log(x) - math.log(c)  # x / c itself is infinite where c is among the smallest numbers
    return min(0.0, -examples * (x * ratio + tail))


def _check(log_level: float, value_range: float) -> None:
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    require(0 < value_range < math.inf, "value_range", value_range, "> 0 and finite")

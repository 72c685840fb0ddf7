"""Hoeffding's bound for means of bounded values: sample size and half-width, one-sided, levels as logarithms.

Source: Hoeffding (1963), "Probability inequalities for sums of bounded random variables", for independent values in an
interval of width r. Theorem 2: P(mean - truth >= eps) <= exp(-2 N eps^2 / r^2).
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


def _check(log_level: float, value_range: float) -> None:
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    require(0 < value_range < math.inf, "value_range", value_range, "> 0 and finite")

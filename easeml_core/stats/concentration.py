"""Concentration bounds of means, with levels as logarithms: Hoeffding's and Bennett's.

Hoeffding's, for bounded values: sample size and half-width, one-sided.

Source: Hoeffding (1963), "Probability inequalities for sums of bounded random variables", for independent values in an
interval of width r. Theorem 2: P(mean - truth >= eps) <= exp(-2 N eps^2 / r^2).

Bennett's, for values that are mostly zero, such as the difference of two similar models.

Source: Bennett (1962), "Probability inequalities for the sum of independent random variables", in the form of
Renggli et al. (MLSys 2019), section 4: values in [-1, 1] with second moment at most p, both sides together,
P(|mean - truth| > eps) <= 2 exp(-N p h(eps / p)).
"""

from __future__ import annotations

import math

from easeml_core.settings.config import require


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


# Below this the direct formula loses more than half of its digits to cancellation.
_SMALL = 1e-3


def bennett_h(ratio: float) -> float:
    """Give Bennett's function.

        h(u) = (1 + u) ln(1 + u) - u

    Numerics: for small u the two terms cancel; there the series u^2/2 - u^3/6 + u^4/12 - u^5/20 is used.

    Args:
        ratio: u >= 0.

    Returns:
        h(u) >= 0.

    Raises:
        ConfigError: If u is negative or not finite.

    Example:
        >>> round(bennett_h(0.1), 6)
        0.004841
    """
    require(0 <= ratio < math.inf, "ratio", ratio, ">= 0 and finite")
    if ratio < _SMALL:
        return ratio**2 * (1 / 2 - ratio * (1 / 6 - ratio * (1 / 12 - ratio / 20)))
    return (1 + ratio) * math.log1p(ratio) - ratio


def bennett_sample_size(*, tolerance: float, log_level: float, second_moment: float) -> int:
    """Give the number of examples that makes a mean accurate to the tolerance, on both sides.

        N = ceil( ln(2 / level) / (p h(eps / p)) )

    Args:
        tolerance: eps > 0.
        log_level: Natural logarithm of the level, finite and < 0.
        second_moment: p in (0, 1], a bound on E[X^2]; for n - o the share of examples on which the models differ.

    Returns:
        N >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> bennett_sample_size(tolerance=0.01, log_level=math.log(1e-4 / 2 / 32), second_moment=0.1)
        29048
    """
    return max(1, math.ceil(_labels(tolerance, log_level, second_moment) / second_moment))


def bennett_disagreement_labels(*, tolerance: float, log_level: float, second_moment: float) -> int:
    """Give the labels of one submission when only examples on which the two models differ are labelled.

        p N = ln(2 / level) / h(eps / p),  rounded to the nearest whole number, as the published figures are

    Args:
        tolerance: eps > 0.
        log_level: Natural logarithm of the level, finite and < 0. The published 2,188 leaves the multiplicity out.
        second_moment: p in (0, 1].

    Returns:
        A number >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> bennett_disagreement_labels(tolerance=0.01, log_level=math.log(1e-4 / 2), second_moment=0.1)
        2189
    """
    return max(1, math.floor(_labels(tolerance, log_level, second_moment) + 0.5))


def _labels(tolerance: float, log_level: float, second_moment: float) -> float:
    require(0 < tolerance < math.inf, "tolerance", tolerance, "> 0 and finite")
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    require(0 < second_moment <= 1, "second_moment", second_moment, "> 0 and <= 1")
    return (math.log(2) - log_level) / bennett_h(tolerance / second_moment)

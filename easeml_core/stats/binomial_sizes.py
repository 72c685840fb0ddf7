"""How many examples an exact statement about one proportion needs, and the search for such numbers.

Two requirements, kept apart. *Test*: a test of size alpha at the threshold misses a truth beyond it with probability at
most beta. *Deviation*: whatever the truth is, the share seen is off by the tolerance with probability at most alpha
(Langford 2005, "Tutorial on practical prediction theory for classification", as Renggli et al. 2019 use it). Sizes are
checked with the exact tails before they are returned; an approximation only says where to look.

``first_at_most`` finds critical values and sample sizes of every test: where a falling function of a count first comes
down to a level. A sample size meets its requirement only nearly monotonely, because counts are whole numbers: what is
returned meets it, and the number before does not.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri_exp

from easeml_core.settings.config import require
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail

if TYPE_CHECKING:
    from collections.abc import Callable

_GUIDED = 6


def first_at_most(
    value: Callable[[int], float], level: float, *, guess: float, slope: float, low: int, high: int
) -> int:
    """Give a k in low..high with value(k) <= level and, unless k is ``low``, value(k - 1) > level.

    Of a falling function it is the smallest such k. The first steps follow the slope, then the bracket is halved.

    Args:
        value: Logarithm of a probability, falling or nearly so; minus infinity is allowed.
        level: Where it shall come down to.
        guess: Where to begin.
        slope: By how much the value falls per step, about; > 0.
        low: Smallest answer.
        high: Largest answer; ``high + 1`` is returned where even this one is above the level.

    Returns:
        A whole number in low..high + 1.

    Example:
        >>> first_at_most(lambda k: -0.5 * k, -10.2, guess=3, slope=1.0, low=0, high=100)
        21
    """
    above, below = low - 1, high + 1
    k = _inside(guess, low, high)
    tries = 0
    while below - above > 1:
        gap = value(k) - level
        if gap > 0:
            above = k
        else:
            below = k
        tries += 1
        k = _next(k, gap, slope, tries, above, below, low=low, high=high)
    return below


def _next(k: int, gap: float, slope: float, tries: int, above: int, below: int, *, low: int, high: int) -> int:
    """Give the next point to look at, strictly inside the bracket."""
    bracketed = above >= low and below <= high
    if tries > _GUIDED and bracketed:
        return (above + below) // 2
    step = gap / slope if math.isfinite(gap) else math.copysign(float(high), gap)
    # A step too short to bracket the answer is doubled from try to try, so that a wrong slope costs little.
    least = 2.0 ** max(0, tries - 2) if not bracketed else 1.0
    step = max(step, least) if gap > 0 else min(step, -least)
    return _inside(k + step, above + 1, below - 1)


def _inside(wanted: float, low: int, high: int) -> int:
    return max(low, min(high, round(wanted)))


MOST_EXAMPLES = 10**8
"""Larger sizes are no longer searched for: bounds in closed form are as good there (``bound_sizes``)."""


def log_binomial_miss(examples: int, *, null: float, alternative: float, log_level: float) -> float:
    """Give ln of the chance that the exact test of "p is at most null" does not reject, when p is the alternative.

        ln P(Bin(N, p1) < K),  K the smallest count with P(Bin(N, p0) >= K) <= alpha

    Args:
        examples: N >= 1.
        null: p0 in [0, 1).
        alternative: p1 in (p0, 1].
        log_level: ln alpha, finite and < 0.

    Returns:
        A number <= 0; 0 where no count rejects.

    Example:
        >>> round(math.exp(log_binomial_miss(10, null=0.5, alternative=0.9, log_level=math.log(0.06))), 4)
        0.0702
    """
    z, spread = float(-ndtri_exp(log_level)), math.sqrt(examples * null * (1 - null))
    critical = first_at_most(
        lambda k: log_upper_tail(k, examples, null),
        log_level,
        guess=examples * null + z * spread + 1,
        slope=(abs(z) + 0.5) / max(spread, 0.5),
        low=1,
        high=examples,
    )
    return 0.0 if critical > examples else log_lower_tail(critical - 1, examples, alternative)


@lru_cache(maxsize=512)
def binomial_test_size(*, null: float, alternative: float, log_level: float, log_miss: float) -> int:
    """Give N so that the exact test of "p is at most null" misses the alternative with probability at most beta.

    Args:
        null: p0 in [0, 1).
        alternative: p1 in (p0, 1]; every truth above it is missed less often still.
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1 that meets it while N - 1 does not; ``MOST_EXAMPLES + 1`` where it would be more than that.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> binomial_test_size(null=0.5, alternative=1.0, log_level=math.log(0.01), log_miss=math.log(0.01))
        7
    """
    require(0 <= null < 1, "null", null, ">= 0 and < 1")
    require(null < alternative <= 1, "alternative", alternative, f"> {null:g} and <= 1")
    check_log_levels(log_level, log_miss)
    z_level, z_miss = float(-ndtri_exp(log_level)), float(-ndtri_exp(log_miss))
    spread = z_level * math.sqrt(null * (1 - null)) + z_miss * math.sqrt(alternative * (1 - alternative))
    guess = max(1.0, (max(spread, 0.0) / (alternative - null)) ** 2)
    if guess > MOST_EXAMPLES:
        return MOST_EXAMPLES + 1
    return first_at_most(
        lambda n: log_binomial_miss(n, null=null, alternative=alternative, log_level=log_level),
        log_miss,
        guess=guess,
        slope=fall_per_example(z_level, z_miss, guess),
        low=1,
        high=MOST_EXAMPLES,
    )


def log_largest_deviation(examples: int, tolerance: float, *, sides: int = 1) -> float:
    """Give ln of the largest chance, over all truths p, that the share seen is off by the tolerance or more.

        one side:   sup over p of P(X / N - p >= eps) = max over j of P(Bin(N, j/N - eps) >= j)
        two sides:  the same with P(X / N <= p - eps) added

    The event is closed: a share exactly eps away counts. For a fixed count j the chance grows with p up to j/N - eps;
    with the other side, which falls, the sum is largest at such a p too (or at its mirror image). Over j the chance has
    one hump at truths near one half, where two counts with the same rounding are compared; the hump is climbed, and
    the counts around it are all looked at. The tolerance is taken as the decimal that it is written as, since whether
    2 N eps is whole decides what the other side counts.

    Args:
        examples: N >= 1.
        tolerance: eps > 0.
        sides: 1 or 2.

    Returns:
        A number <= 0; minus infinity where no share can be so far off.

    Example:
        >>> math.exp(log_largest_deviation(1, 0.5))
        0.5
    """
    eps = Fraction(repr(float(tolerance)))
    first = math.ceil(examples * eps)
    if first > examples:
        return -math.inf

    def tail(j: int) -> float:
        p = float(Fraction(j, examples) - eps)
        upper = log_upper_tail(j, examples, p)
        other = math.floor(j - 2 * examples * eps)
        if sides == 1 or other < 0:
            return upper
        return min(0.0, float(np.logaddexp(upper, log_lower_tail(other, examples, p))))

    low, high = first, examples
    while high - low > 8:
        third = (high - low) // 3
        a, b = low + third, high - third
        low, high = (a, high) if tail(a) < tail(b) else (low, b)
    return max(tail(j) for j in range(max(first, low - 4), min(examples, high + 4) + 1))


@lru_cache(maxsize=512)
def binomial_deviation_size(*, tolerance: float, log_level: float, sides: int = 1) -> int:
    """Give N so that a share is off by the tolerance with probability at most alpha, whatever the truth is.

    Args:
        tolerance: eps > 0.
        log_level: ln alpha, finite and < 0.
        sides: 1, off to one given side; 2, off to either side.

    Returns:
        N >= 1 that meets it while N - 1 does not; ``MOST_EXAMPLES + 1`` where it would be more than that.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> binomial_deviation_size(tolerance=0.05, log_level=math.log(1e-4 / 32))
        2060
    """
    require(0 < tolerance < math.inf, "tolerance", tolerance, "> 0 and finite")
    require(sides in (1, 2), "sides", sides, "1 or 2")
    check_log_levels(log_level, log_level)
    z = max(0.1, float(-ndtri_exp(log_level - math.log(sides))))
    guess = max(1.0, (z / (2 * tolerance)) ** 2)
    if guess > MOST_EXAMPLES:
        return MOST_EXAMPLES + 1
    return first_at_most(
        lambda n: log_largest_deviation(n, tolerance, sides=sides),
        log_level,
        guess=guess,
        slope=2 * tolerance**2,
        low=1,
        high=MOST_EXAMPLES,
    )


def fall_per_example(z_level: float, z_miss: float, examples: float) -> float:
    """Give by how much ln of the miss falls per example near the size, in the normal approximation."""
    hazard = max(z_miss, 0.0) + 1 / max(abs(z_miss), 1.0)
    return hazard * max(z_level + z_miss, 0.1) / (2 * examples)


def check_log_levels(log_level: float, log_miss: float) -> None:
    """Raise ConfigError unless both are logarithms of probabilities between 0 and 1."""
    require(-math.inf < log_level < 0, "log_level", log_level, "finite and < 0")
    require(-math.inf < log_miss < 0, "log_miss", log_miss, "finite and < 0")

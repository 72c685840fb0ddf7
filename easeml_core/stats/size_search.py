"""One search for whole numbers: where a falling function of a count first comes down to a level.

Critical values and sample sizes are found with it. A sample size meets its requirement only nearly monotonely, because
counts are whole numbers: what is returned meets it, and the number before does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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

"""Ranges of overfitting and the signal of a gap, compared exactly.

The ranges are half open, so a gap that lies on a boundary has one right answer, and floats lose it: ``.3 - .2 < .1``.
Numbers are therefore compared as the fractions that the user meant. The boundaries of a study are its setting
``MeterConfig.ranges``.

Figures for sentences are rounded to the side on which the sentence stays true; all as the decimals that floats show.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence


_MAX_DENOMINATOR = 10**6
_ROUNDING_NOISE = Fraction(1, 10**13)


def exact(value: float | Fraction) -> Fraction:
    """The fraction that a float stands for: a decimal, or a share of at most a million examples.

    Numerics: fractions of denominators up to 10^6 lie at least 10^-12 apart, so at most one is within 10^-13 of the
    value, and what rounding did to it (``1 - 0.9``) is undone. Other floats are taken as they are. Order is kept.

    Args:
        value: A finite number.

    Returns:
        The fraction.

    Raises:
        ConfigError: If the value is not finite.

    Example:
        >>> exact(0.1), exact(1 - 0.9), exact(1 / 3)
        (Fraction(1, 10), Fraction(1, 10), Fraction(1, 3))
    """
    if isinstance(value, Fraction):
        return value
    require(math.isfinite(value), "value", value, "a finite number")
    found = Fraction(value)
    meant = found.limit_denominator(_MAX_DENOMINATOR)
    return meant if abs(meant - found) <= _ROUNDING_NOISE else found


def signal_of(gap: float | Fraction, ranges: Sequence[float | Fraction]) -> int:
    """The number of the range that holds the gap: the i with b_{i-1} < gap <= b_i, from 1 to m.

    Args:
        gap: Loss on the sealed set minus loss on the validation set, in [-1, 1]; below zero it is in range 1.
        ranges: Inner boundaries b_1 < ... < b_{m-1}.

    Returns:
        The signal. It never falls when the gap grows.

    Raises:
        ConfigError: If the gap is not a finite number.

    Example:
        >>> [signal_of(gap, (0.1, 0.3)) for gap in (-0.5, 0.1, 0.1001, 0.3, 0.9)]
        [1, 1, 2, 2, 3]
    """
    return bisect_left([exact(b) for b in ranges], exact(gap)) + 1


def narrowest_inner_range(ranges: Sequence[float]) -> Fraction | None:
    """The width of the narrowest range between two boundaries; None when there is but one boundary.

    Example:
        >>> narrowest_inner_range((0.1, 0.2, 0.3)) == exact(0.1)
        True
    """
    bounds = [exact(b) for b in ranges]
    return min((high - low for low, high in pairwise(bounds)), default=None)


_DIGITS = 6


def decimal_of(value: float) -> Decimal:
    """The shortest decimal that the float stands for: what the user meant by it, and never 1 for what is below 1."""
    return Decimal(repr(float(value)))


def at_least(value: float) -> str:
    """The figure, or the next smaller one of 6 digits: for what is promised to be at least so much.

    Example:
        >>> at_least(0.1), at_least(1 - 1e-9)
        ('0.1', '0.999999')
    """
    return _text(value, ROUND_FLOOR)


def at_most(value: float) -> str:
    """The figure, or the next larger one of 6 digits: for what is promised to be at most so much.

    Example:
        >>> at_most(0.3), at_most(0.12345601)
        ('0.3', '0.123457')
    """
    return _text(value, ROUND_CEILING)


def _text(value: float, rounding: str) -> str:
    return f"{float(Context(prec=_DIGITS, rounding=rounding).plus(decimal_of(value))):g}"

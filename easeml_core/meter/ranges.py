"""Ranges of overfitting and the signal of a gap, compared exactly.

The ranges are half open, so a gap that lies on a boundary has one right answer, and floats lose it: ``.3 - .2 < .1``.
Numbers are therefore compared as the fractions that the user meant. The boundaries of a study are its setting
``MeterConfig.ranges``.

Figures for sentences are rounded to the side on which the sentence stays true; all as the decimals that floats show.

Boundaries can be shifted at random after each submission (dithered), so that no developer can place a model on an edge.
With inner ranges of equal width w and a shift that is uniform on [0, w), an edge falls within epsilon of a gap with
probability at most 2 epsilon / w, wherever the gap is; so 1 + 2 epsilon / w ranges can be answered in the mean. The
shift must be drawn after the submission and know nothing of the sealed set; then it may be shown.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_MAX_DENOMINATOR = 10**6
_ROUNDING_NOISE = Fraction(1, 10**13)


def exact(value: float | Fraction) -> Fraction:
    """The fraction that a float stands for: a decimal, or a share of at most a million examples.

    Numerics: fractions of denominators up to 10^6 lie at least 10^-12 apart, so at most one is within 10^-13 of the
    value, and what rounding did to it (``1 - 0.9``) is undone. Other floats are taken as they are. Order is kept.

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


_NEEDS = "at least two boundaries, all the same distance apart, for the method 'dithered' (e.g. 0.1,0.3,0.5,0.7)"


def grid_width(ranges: Sequence[float]) -> Fraction:
    """The distance w between neighbouring boundaries, compared exactly.

    Example:
        >>> grid_width((0.1, 0.2, 0.3))
        Fraction(1, 10)
    """
    widths = {high - low for low, high in pairwise([exact(b) for b in ranges])}
    require(len(widths) == 1, "ranges", tuple(ranges), _NEEDS)
    return widths.pop()


def mean_branches(ranges: Sequence[float], tolerance: float) -> float:
    """How many ranges can be answered in the mean, at most: 1 + 2 epsilon / w.

    Example:
        >>> mean_branches((0.1, 0.6), 0.05)
        1.2
    """
    return float(1 + 2 * exact(tolerance) / grid_width(ranges))


def late_shift(ranges: Sequence[float], generator: np.random.Generator) -> float:
    """The shift of one submission, uniform on [0, w). Draw it when the submission is in, never before."""
    return float(generator.random()) * float(grid_width(ranges))


def shifted(ranges: Sequence[float], shift: float) -> tuple[Fraction, ...]:
    """The boundaries really used, exactly: b_i + shift."""
    width = grid_width(ranges)
    require(0 <= shift < width, "shift", shift, f"in [0, {float(width):g}), drawn after the submission")
    return tuple(exact(b) + Fraction(shift) for b in ranges)

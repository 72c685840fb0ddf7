"""Boundaries shifted at random after each submission, so that no developer can place a model on an edge.

With inner ranges of equal width w and a shift that is uniform on [0, w), an edge falls within epsilon of a gap with
probability at most 2 epsilon / w, wherever the gap is; so 1 + 2 epsilon / w ranges can be answered in the mean. The
shift must be drawn after the submission and know nothing of the sealed set; then it may be shown.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.meter.ranges import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_NEEDS = "at least two boundaries, all the same distance apart, for the method 'dithered' (e.g. 0.1,0.3,0.5,0.7)"


def grid_width(ranges: Sequence[float]) -> Fraction:
    """The distance w between neighbouring boundaries, compared exactly.

    Raises:
        ConfigError: If there is but one boundary, or the distances differ.

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
    """The shift of one submission, uniform on [0, w). Draw it when the submission is in, never before.

    Args:
        ranges: Inner boundaries, all the same distance apart.
        generator: Source of randomness whose state the developer cannot know.

    Raises:
        ConfigError: If the distances differ.
    """
    return float(generator.random()) * float(grid_width(ranges))


def shifted(ranges: Sequence[float], shift: float) -> tuple[Fraction, ...]:
    """The boundaries really used, exactly: b_i + shift.

    Raises:
        ConfigError: If the shift is outside [0, w).
    """
    width = grid_width(ranges)
    require(0 <= shift < width, "shift", shift, f"in [0, {float(width):g}), drawn after the submission")
    return tuple(exact(b) + Fraction(shift) for b in ranges)

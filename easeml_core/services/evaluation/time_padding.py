"""How long models' runs and decisions seem to take: one of a few fixed times, where answers have such times.

A submitted model decides how long it runs, and it sees sealed inputs while it does. How long the exact tests of a
decision take depends on the counts of right and wrong answers. Whoever can see when the referee goes on would else
read from that as much as a clock can tell; so it is one of the few times of a grid and no more.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GRID_SECONDS = (10.0, 60.0, 1200.0)
"""Of a model's runs on a set. The last is beyond what they can take, so that there are never more than three:

* It is run on all rows and on a part of them, each twice if it fails, for 120 s each at most: 480 s, and a few seconds
  until each of the four children has ended. A kill or a time-out ends that, and one run on the open rows follows.
* Its file is copied for each of the three, at most 8 GiB (``store/artifacts/local.py``), which are read three times and
  written once: 96 GiB together. 700 s suffice for that where reading and writing go at 150 MB/s and more. On a slower
  disk only who hands in files of that size can have a fourth time, the double of the last.
"""

DECISION_GRID_SECONDS = (0.5, 4.0, 60.0)
"""How long after it was taken up a decision is written. Nearly all take less than the first: below 0.1 s with 20,000
examples, 0.4 s with 200,000."""


def padded(took: float, grid: Sequence[float]) -> float:
    """How long a run seems to have taken: the next time of the grid, beyond its last the next multiple of that.

    Args:
        took: Seconds, >= 0.
        grid: Seconds, > 0 and rising; empty for no padding.

    Example:
        >>> padded(6.29, (10.0, 60.0))
        10.0
        >>> padded(61.0, (10.0, 60.0))
        120.0
    """
    if not grid:
        return took
    return next((end for end in grid if took <= end), grid[-1] * math.ceil(took / grid[-1]))


@dataclass(frozen=True, slots=True)
class Pace:
    """When runs of models, or decisions, may be seen to end.

    Attributes:
        grid: As in ``padded``.
        clock: Seconds that never go back.
    """

    grid: tuple[float, ...] = ()
    clock: Callable[[], float] = time.monotonic

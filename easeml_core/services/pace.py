"""How long a model's run seems to take: padded to one of a few fixed times, where answers have fixed times.

A submitted model decides how long it runs, and it sees sealed inputs while it does. Whoever can see when the referee
goes on would else read from that as much as a clock can tell; so it is one of the few times of the grid and no more.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GRID_SECONDS = (10.0, 60.0, 500.0)
"""A model is run on all rows and on a part of them, each twice if it fails, for 120 seconds each at most: the last is
beyond that, so that there are never more than three."""


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
    """When runs of models end.

    Attributes:
        grid: As in ``padded``.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.
    """

    grid: tuple[float, ...] = ()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Let the block last as long as the grid says, however it ends."""
        began = self.clock()
        try:
            yield
        finally:
            took = self.clock() - began
            if self.grid:
                self.sleep(padded(took, self.grid) - took)

"""Pad the durations of model runs and decisions to a few fixed times, where answers have such times.

A submitted model decides how long it runs, and it sees sealed inputs while it does. The exact tests of a decision take
longer or shorter by the counts of right and wrong answers. Without padding a user who can see when the referee goes on
could read information from the duration; with it, only which time of the grid it was. When an answer leaves is decided
by ``Timetable`` in ``services/referee/publishing.py``.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

GRID_SECONDS = (1.0, 3.0, 10.0, 60.0, 1200.0, 3600.0)
"""Of all runs for a request, or of a model's on a set. The last exceeds what they can take:

* A model is run on all rows of a set and on a part of them, each twice if it fails, for 120 s each at most: 480 s, and
  a few seconds until each of the four children has ended. A reading needs that for two sets, and two attempts on the
  validation part: 1,230 s. A kill or a time-out ends all that, and one run on the open rows follows.
* A model's file is copied for each of the five, at most 8 GiB (``LARGEST_COPIED_BYTES``), which are read three
  times and written once: 160 GiB together. 1,700 s suffice for that where reading and writing go at 100 MB/s and more.
  On a slower disk only files of that size can have a further time, the double of the last.
"""

DECISION_GRID_SECONDS = (0.5, 4.0, 60.0)
"""Padded durations of decisions. Nearly all take less than the first: below 0.1 s with 20,000
examples, 0.4 s with 200,000."""


def padded(took: float, grid: Sequence[float]) -> float:
    """Return the padded duration of a run: the next time of the grid, beyond its last the next multiple of that.

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
    """The times at which model runs, or decisions, may seem to end.

    Attributes:
        grid: As in ``padded``.
        clock: Seconds that never go back.
    """

    grid: tuple[float, ...] = ()
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Computed:
    """Results that were computed for decisions that are not written yet.

    Attributes:
        judged: Results of sealed labels, by their inputs; a key begins with the request's id.
        losses: Of models on validation parts, by identity of the model and artifact of the data.
        answers: The models' answers on these parts, likewise.
    """

    judged: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    losses: dict[tuple[str, str], float] = field(default_factory=dict)
    answers: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)

    def requests(self) -> set[int]:
        """Return the requests with a result of sealed labels."""
        return {key[0] for key in list(self.judged)}

    def forget(self, request_id: int, *, keep_runs: bool) -> None:
        """Drop what was computed for a request.

        Args:
            request_id: The request.
            keep_runs: Whether other requests may need models' results on validation parts.
        """
        for key in list(self.judged):  # another thread may add to it meanwhile
            if key[0] == request_id:
                self.judged.pop(key, None)
        if not keep_runs:
            self.losses.clear()
            self.answers.clear()

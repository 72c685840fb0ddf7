"""Notice a part that lives but does nothing: its heartbeat stands still, or its server does not answer.

Such a part is killed, and the supervisor starts it again. Time is counted only while it is known that the heartbeat
stands still: not while the API server, which knows of heartbeats, or the database is away, nor while the machine
sleeps.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SILENCE_SECONDS = 120.0
"""Far above the longest pause between two heartbeats that was seen on an overloaded machine, some 20 s."""
LONGEST_STEP_SECONDS = 30.0


class Pulse:
    """How long each part has shown no sign of life.

    Args:
        clock: Seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.looked = clock()
        self.signs: dict[str, object] = {}
        self.silent: dict[str, float] = {}

    def note(self, signs: Mapping[str, object]) -> list[str]:
        """Take what was seen now; gives the parts that have been silent for too long, whose time then begins anew.

        Args:
            signs: Part to anything that changes while it lives. A part that is left out is not known of.
        """
        now = self.clock()
        step, self.looked = min(now - self.looked, LONGEST_STEP_SECONDS), now
        silent = {name: self.silent.get(name, 0.0) + step for name in signs if self.signs.get(name) == signs[name]}
        stuck = [name for name, seconds in silent.items() if seconds >= SILENCE_SECONDS]
        self.silent = {name: seconds for name, seconds in silent.items() if name not in stuck}
        self.signs = dict(signs)
        return stuck

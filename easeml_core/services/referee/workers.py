"""Threads that decide requests side by side; an idle one costs nothing until it is woken."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Place(Enum):
    """What a thread decides.

    Attributes:
        ANY: Any request.
        ALONE: Requests of a tenant that no thread works for: the tenant whose models take long holds back no other.
        SHORT: Requests for which no model runs: they wait for no model.
    """

    ANY = "any"
    ALONE = "alone"
    SHORT = "short"


class Workers:
    """The deciding threads of one referee.

    Args:
        work: Does one piece of work, or returns the seconds until it should look again without being called.
        count: Threads for any request, >= 1. One more is for short requests, and from two on one works ``ALONE``.
        stop: When set, each thread ends after its present piece.
    """

    def __init__(self, work: Callable[[Place], float | None], count: int, stop: threading.Event) -> None:
        self._work, self._stop = work, stop
        self._calls = 0
        self._called = threading.Condition()
        kinds = [Place.ANY] * count + [Place.ALONE] * (count > 1) + [Place.SHORT]
        self._threads = [
            threading.Thread(target=self._keep_at, args=(place,), name=f"worker-{number}", daemon=True)
            for number, place in enumerate(kinds)
        ]
        for thread in self._threads:
            thread.start()

    def call(self) -> None:
        """Let every idle thread look for work."""
        with self._called:
            self._calls += 1
            self._called.notify_all()

    def join(self) -> None:
        """Wait for the end of the threads, once ``stop`` is set."""
        self.call()
        for thread in self._threads:
            thread.join()

    def _keep_at(self, place: Place) -> None:
        while not self._stop.is_set():
            with self._called:
                seen = self._calls
            pause = self._work(place)
            if pause is not None:
                self._wait_for_call(seen, pause)

    def _wait_for_call(self, seen: int, seconds: float) -> None:
        with self._called:
            self._called.wait_for(lambda: self._calls != seen or self._stop.is_set(), seconds)

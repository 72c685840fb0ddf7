"""Threads that decide requests side by side; an idle one costs nothing until it is woken."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Workers:
    """The deciding threads of one referee.

    Args:
        work: Does one piece of work, or returns the seconds until it should look again without being called. With
            ``alone`` only for a tenant that none works for.
        count: Threads for any tenant, >= 1. From two on there is one more that works ``alone``, so that the tenant
            whose models take long holds back no other.
        stop: When set, each thread ends after its present piece.
    """

    def __init__(self, work: Callable[[bool], float | None], count: int, stop: threading.Event) -> None:
        self._work, self._stop = work, stop
        self._calls = 0
        self._called = threading.Condition()
        kinds = [False] * count + [True] * (count > 1)
        self._threads = [
            threading.Thread(target=self._keep_at, args=(alone,), name=f"worker-{place}", daemon=True)
            for place, alone in enumerate(kinds)
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

    def _keep_at(self, alone: bool) -> None:
        while not self._stop.is_set():
            with self._called:
                seen = self._calls
            pause = self._work(alone)
            if pause is not None:
                self._wait_for_call(seen, pause)

    def _wait_for_call(self, seen: int, seconds: float) -> None:
        with self._called:
            self._called.wait_for(lambda: self._calls != seen or self._stop.is_set(), seconds)

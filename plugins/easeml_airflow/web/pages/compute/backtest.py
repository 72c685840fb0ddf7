"""Backtests that somebody asked for on a page: one at a time, bounded, and kept while the history stays the same.

They run in the server's own process, so they may not take long: a history that is too long for that is replayed on the
command line.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.server.throttling import Turns
from easeml_core.errors import StateError
from easeml_core.services.selection.backtest import Replay, backtest_installation
from easeml_core.store.queries.compute import history_stamp

if TYPE_CHECKING:
    from easeml_core.store.database import Store

LONGEST_SECONDS = 10.0
REPEATS = 10
"""Draws of tenants: fewer than on the command line, for a first look."""

COMMAND = "easeml backtest"


@dataclass(frozen=True, slots=True)
class Kept:
    """A backtest that was made here.

    Attributes:
        stamp: Of the history that it replayed.
        made_at: When.
        answer: As of ``services.backtest.Backtest``; None where it would have taken too long.
    """

    stamp: tuple[int, int, int]
    made_at: datetime
    answer: dict[str, Any] | None


@dataclass
class Backtests:
    """The backtests of one server."""

    longest_seconds: float = LONGEST_SECONDS
    _turns: Turns = field(default_factory=lambda: Turns(at_once=1, waiting=0))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: Kept | None = None

    def last(self) -> Kept | None:
        """The newest, whatever has happened since."""
        with self._lock:
            return self._kept

    def run(self, store: Store) -> None:
        """Replay the installation's past, unless the last one was of the same.

        Raises:
            StateError: It takes longer than a page may; says the command that has no limit.
            ConcurrentUpdateError: Another one is under way.
        """
        with store.begin() as tx:
            stamp = history_stamp(tx)
        last = self.last()
        if last is None or last.stamp != stamp:
            with self._turns.taken("backtest"):
                last = Kept(stamp, datetime.now(UTC), self._answer(store))
            with self._lock:
                self._kept = last
        if last.answer is None:
            message = f"this history takes longer than {self.longest_seconds:g} s to replay; run `{COMMAND}` instead"
            raise StateError(message)

    def _answer(self, store: Store) -> dict[str, Any] | None:
        ends = time.monotonic() + self.longest_seconds

        def go_on(done: int, of: int) -> None:
            if done < of and time.monotonic() > ends:
                raise _TooLong

        try:
            return backtest_installation(store, Replay(repeats=REPEATS, processes=1, on_done=go_on)).answer
        except _TooLong:
            return None


class _TooLong(Exception):
    """The replay has taken all of its time."""

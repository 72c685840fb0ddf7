"""Signals that ask a launcher to stop become one exception, so that every ``with`` on the way cleans up."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequestedError(BaseException):
    """Raised in the main thread when a signal asks us to stop; no failure, hence no Exception."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


def stop_on_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into StopRequestedError from now on."""
    for number in ASKING:
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise StopRequestedError(number)


@contextlib.contextmanager
def ignoring_stop_signals() -> Iterator[None]:
    """Let a stop that is under way finish, however often it is asked for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

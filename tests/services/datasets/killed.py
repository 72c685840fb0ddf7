"""Work that ends as by ``kill -9``, in a fork of the test's process."""

from __future__ import annotations

import os
import signal
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def die(*_: Any, **__: Any) -> Any:
    """End this process by a signal that cannot be caught."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in(work: Callable[[], object]) -> None:
    """Do work in a fork, which has to ``die`` in it. What it changes in modules changes nothing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the fork has not and does not wait for
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(120)
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it went on to its end: {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL

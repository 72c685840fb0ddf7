"""Waiting for what other processes do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 120
"""Longer than any step here takes on a slow machine."""


def until(look: Callable[[], Any], what: str = "it", *, seconds: float = SECONDS) -> Any:
    """What the look finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.2)
    return found

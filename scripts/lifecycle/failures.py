"""What can go wrong while the story is played: something that was awaited did not appear."""

from __future__ import annotations

from stack.failures import StackError


class LifecycleError(StackError):
    """Raised when the story does not go on; the message says what was awaited, and where."""

"""What can go wrong in a night that is no part of its business: a rejection is expected, a broken task is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.failures import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence


class NightError(StackError):
    """Raised when a night did not do what it promises; the message is the cause."""


class BrokenTasksError(NightError):
    """Raised when tasks failed for another reason than a rejected model; shows the end of each one's log."""

    def __init__(self, dag_id: str, run_id: str, broken: Sequence[tuple[str, Sequence[str]]]) -> None:
        self.broken = tuple(broken)
        logs = "\n".join(f"{name}\n" + "\n".join(f"    {line}" for line in lines) for name, lines in broken)
        names = ", ".join(name for name, _ in broken)
        super().__init__(f"{logs}\nrun {run_id} of {dag_id}: failed without a rejection: {names}; the logs are above")

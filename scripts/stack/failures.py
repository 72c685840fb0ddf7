"""Errors of a stack and of a night, with the cause on the last lines, where users look."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

TAIL = 25


class StackError(Exception):
    """Base of all: the stack could not be started, or did not stay up."""


class ComponentDiedError(StackError):
    """Raised when a part keeps ending; shows why it last did, with the end of its log."""

    def __init__(self, name: str, failures: int, failure: str, logs: Path) -> None:
        self.name, self.failures, self.logs = name, failures, logs
        super().__init__(f"{failure}\n{name} failed {failures} times in a row, the last time as above; logs: {logs}")


class CommandFailedError(StackError):
    """Raised when a command that should succeed did not; shows what it printed."""

    def __init__(self, name: str, status: int, log: Path) -> None:
        self.name, self.status, self.log = name, status, log
        super().__init__(
            f"{tail(log)}\n{name} failed with status {status}; its last lines are above, all of them in {log}"
        )


class UnhealthyError(StackError):
    """Raised when components run but do not say that they are well in time."""

    def __init__(self, states: dict[str, str], seconds: float, logs: Path) -> None:
        self.states, self.seconds = states, seconds
        shown = ", ".join(f"{name} {state}" for name, state in states.items()) or "the API server does not answer"
        super().__init__(f"not healthy after {seconds:.0f} s: {shown}; the logs are in {logs}")


class ExposedError(StackError):
    """Raised when one of our processes listens outside loopback."""

    def __init__(self, sockets: Iterable[str]) -> None:
        self.sockets = tuple(sockets)
        super().__init__("listening outside loopback, which nothing of ours may: " + "; ".join(self.sockets))


class AlreadyRunningError(StackError):
    """Raised when another launcher holds the state folder."""

    def __init__(self, home: Path, launcher: str) -> None:
        self.launcher = launcher
        super().__init__(f"a stack is already running on {home} ({launcher}); stop it with `make down`")


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log file."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.rstrip().splitlines()[-lines:]) or "(its log is empty)"


def last_line(log: Path) -> str:
    """The last line of a log file: where Python and the kernel say why."""
    return tail(log, 1)


class NightError(StackError):
    """Raised when a night did not do what it promises; the message is the cause."""


class BrokenTasksError(NightError):
    """Raised when tasks failed for another reason than a rejected model; shows the end of each one's log."""

    def __init__(self, dag_id: str, run_id: str, broken: Sequence[tuple[str, Sequence[str]]]) -> None:
        self.broken = tuple(broken)
        logs = "\n".join(f"{name}\n" + "\n".join(f"    {line}" for line in lines) for name, lines in broken)
        names = ", ".join(name for name, _ in broken)
        super().__init__(f"{logs}\nrun {run_id} of {dag_id}: failed without a rejection: {names}; the logs are above")

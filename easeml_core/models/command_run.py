"""Run a program of somebody else's: words without a shell, its standard output read by us, its last words kept.

It has the folder, the environment and the account of whoever calls this, and it dies with it. Limits on time and memory
are those of the caller's own parent, which counts and ends a child with everything that it has started.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, TypeVar

from easeml_core.errors import TrainingError, TrainingKilled, TrainingTaskError
from easeml_core.sandbox.child_guard import FROM_OUTSIDE, names_missing_package

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Taken = TypeVar("Taken")

_PYTHON = ("python", "python3")
_KILLED = {-number for number in FROM_OUTSIDE} | {128 + signal.SIGKILL, 128 + signal.SIGTERM}
"""Exit statuses of a program that was killed: by Python's count, and by that of shells and container runtimes."""

_TAIL_BYTES = 1500
_NOT_STARTED = (126, 127)  # of shells, env and container runtimes: a program is not executable, or not there
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # here, so that a child that was only just forked has nothing left to load


def run_command(command: Sequence[str], *, cwd: Path, take: Callable[[IO[bytes]], Taken], shown: str = "") -> Taken:
    """Start a program, read what it writes, and wait for its end.

    Args:
        command: Program and arguments; ``python`` is the interpreter that runs this package.
        cwd: The folder in which it runs.
        take: Reads its standard output to the end; what it raises ends the program.
        shown: How the program is called in errors; else all its words.

    Returns:
        What ``take`` gave.

    Raises:
        TrainingTaskError: If it cannot be started, or says that a program or a package is missing here.
        TrainingError: If it ends with any other status but 0; with its last words.
        TrainingKilled: If a signal from outside ended it, or what it has started in a shell or a container.
    """
    program = [sys.executable, *command[1:]] if command[0] in _PYTHON else list(command)
    name = shown or shlex.join(command)
    try:
        process = subprocess.Popen(
            program, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
    except OSError as error:
        message = f"the command {name!r} cannot be started: {error.strerror}"
        raise TrainingTaskError(message) from error
    assert process.stdout is not None  # PIPE was asked for
    with process:
        said = _Tail(process.stderr)
        try:
            taken = take(process.stdout)
        except BaseException:
            process.kill()
            raise
        finally:
            said.join()
    if process.returncode:
        message = f"the command {name!r} ended with exit status {process.returncode}{said.words()}"
        if process.returncode in _KILLED:
            raise TrainingKilled(message)
        of_task = process.returncode in _NOT_STARTED or names_missing_package(said.text())
        raise (TrainingTaskError if of_task else TrainingError)(message)
    return taken


def _die_with_parent() -> None:
    """Between fork and exec: nothing but one call of the kernel, since locks may be held by threads that are gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Tail(threading.Thread):
    """The last words of a program, read while it speaks, so that it never waits; for whoever may know its inputs."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._kept = pipe, b""
        self.start()

    def run(self) -> None:
        while self._pipe is not None and (chunk := os.read(self._pipe.fileno(), 65536)):
            self._kept = (self._kept + chunk)[-_TAIL_BYTES:]

    def text(self) -> str:
        """All that was kept."""
        return self._kept.decode(errors="replace").strip()

    def words(self) -> str:
        """The last line, which most often tells what went wrong; then all that was kept, if that is more."""
        words = self.text()
        lines = words.splitlines()
        more = f"\n{words}" if len(lines) > 1 else ""
        return f": {lines[-1].strip()}{more}" if words else " and said nothing on standard error"

"""What every child does for the process that started it: it dies with it, reports how far it is, and says why it ends.

A child leaves no core file. It reports as JSON lines, on a channel that no library can print into. All children, those
that train and those that predict, end with status ``REASON_STATUS`` and a reason as the last line of standard error
when they fail in a way they understand; any other end is a crash. Linux.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import JsonObject


REASON_STATUS = 3
"""Exit status of a child that says on its last line of standard error why there is no result."""

OUT_OF_MEMORY = "out of memory"
"""How the reason of a child begins that found no memory, and of one that took more than it was allowed."""

FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGBUS)
"""Signals by which a machine, or its administrator, ends a process; SIGBUS where a mapped file has no room."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends (PR_SET_PDEATHSIG, man prctl)."""
    ask_for_parents_death()
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")


def ask_for_parents_death() -> None:
    """Once more after every fork and every change of account: both take the wish back."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_to_itself() -> None:
    """From now on no other process of the same account may open this one's pipes and memory, or trace it."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def show_to_account() -> None:
    """Take ``keep_to_itself`` back: files of this process in /proc belong to its account again."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, so that they are found and counted."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def prepare(parent: int) -> None:
    """Die with the parent, write no core file, and be the first that the kernel ends when memory runs out."""
    die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Some containers keep this file read-only; then the kernel chooses as it would have.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def bound_memory(most_mb: int) -> None:
    """Let this process allocate so many megabytes beside what it has now (RLIMIT_DATA; mapped files do not count).

    The starter looks at a child's memory some times a second only, and a second is long enough to fill a machine's.
    """
    with open("/proc/self/status") as file:
        has_kb = next((int(line.split()[1]) for line in file if line.startswith("VmData:")), 0)
    allowed, hard = (has_kb << 10) + (most_mb << 20), resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = allowed if hard == resource.RLIM_INFINITY else min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def fail(reason: str, *, killed: bool = False, of_task: bool = False, passing: bool = False) -> NoReturn:
    """End this child with a reason that its parent can read."""
    sys.stdout.flush()
    causes = {"killed": killed, "of_task": of_task, "passing": passing}
    said = {"reason": reason} | {name: True for name, is_cause in causes.items() if is_cause}
    sys.stderr.write("\n" + json.dumps(said) + "\n")
    sys.exit(REASON_STATUS)


def reason_in(text: str) -> str | None:
    r"""The reason that ``fail`` wrote at the end of a child's standard error, or None.

    Example:
        >>> reason_in('a warning\n{"reason": "no memory"}\n')
        'no memory'
    """
    fields = _last_fields(text)
    return str(fields["reason"]) if "reason" in fields else None


def was_killed(text: str) -> bool:
    r"""Whether the child said with its reason that a program which it has started was killed.

    Example:
        >>> was_killed('{"reason": "ended", "killed": true}\n'), was_killed('{"reason": "ended"}\n')
        (True, False)
    """
    return _last_fields(text).get("killed") is True


def is_of_task(text: str) -> bool:
    r"""Whether what executed the child is at fault: its reason says so, or it crashed for want of a package.

    Example:
        >>> is_of_task('{"reason": "no docker", "of_task": true}'), is_of_task("ImportError: no module a")
        (True, True)
        >>> is_of_task('{"reason": "it diverged", "of_task": false}'), is_of_task("ValueError: nan")
        (False, False)
    """
    if fields := _last_fields(text):
        return fields.get("of_task") is True
    return names_missing_package(text)


def is_passing(text: str) -> bool:
    r"""Whether the child said with its reason that a fault of its machine ended it, which passes.

    Example:
        >>> is_passing('{"reason": "disk full", "passing": true}'), is_passing("OSError: No space left on device")
        (True, False)
    """
    return _last_fields(text).get("passing") is True


def names_missing_package(text: str) -> bool:
    """Whether the last line of a traceback says that a package cannot be imported."""
    lines = text.rstrip().splitlines()
    return bool(lines) and lines[-1].strip().startswith(("ModuleNotFoundError:", "ImportError:"))


def _last_fields(text: str) -> dict[str, object]:
    """What ``fail`` wrote as the last line; empty where it is something else."""
    lines = text.rstrip().splitlines()
    try:
        fields = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


LINE_LIMIT = 10_000
"""Longer lines are dropped: progress is small, and a reader must not be filled by a child that went wild."""


class Report(Protocol):
    """What trainers call."""

    def __call__(self, progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
        """Tell ``progress`` in [0, 1], a short note, and the quality so far if it is known.

        ``more`` is what only some know: ``step`` of ``of`` steps and its ``loss``, ``seconds_left``, the step
        of a ``checkpoint`` that was just written, whether one was ``resumed``, ``peak_mb`` of memory. What is not
        finite is left out.
        """


def silent(progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
    """Discard a report."""


def take_stdout() -> int:
    """Return the original standard output as a new descriptor, and send every later print to standard error.

    Libraries print; on the same stream their output would come between our lines, or inside an array.
    """
    sys.stdout.flush()
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def report_to(channel: int) -> Report:
    """A report that writes one JSON line per call to the descriptor."""

    def report(progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
        fields: dict[str, object] = {"progress": round(progress, 4), "note": note}
        for name, value in {"quality": quality, **more}.items():
            if value is not None and math.isfinite(value):
                fields[name] = value if isinstance(value, int) else round(value, 6)
        os.write(channel, json.dumps(fields).encode() + b"\n")

    return report


STARTED = "started"
"""Field of the line by which a child says that it has imported its libraries: from here on it costs its own time."""


def tell_started(channel: int) -> None:
    """Write that line to the descriptor."""
    os.write(channel, json.dumps({STARTED: True}).encode() + b"\n")


class LineReader:
    r"""Turns chunks of bytes into the JSON objects that stand on whole lines; anything else is dropped.

    Example:
        >>> seen = []
        >>> reader = LineReader(seen.append)
        >>> reader(b'{"progress": 0.5, "no'); reader(b'te": "epoch 1 of 2"}' + b"\n")
        >>> seen
        [{'progress': 0.5, 'note': 'epoch 1 of 2'}]
    """

    def __init__(self, consume: Callable[[JsonObject], None]) -> None:
        self._consume = consume
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        """Take the next chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT:]
        for line in lines:
            if len(line) < LINE_LIMIT:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return  # not ours: the end of a line that was cut, or a print by foreign code
        if isinstance(fields, dict):
            self._consume(fields)

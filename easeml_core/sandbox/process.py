"""Run a module of ours in a child process under limits: own session, clean environment, bounded output, no survivors.

The child's environment holds only the variables that ``child_start`` names, so connections, passwords and secrets of
the parent stay outside. Linux; the kernel ties the signal on the parent's death to the *thread* that starts a cold
child, so that thread waits until the child has ended (``run_child``).
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from easeml_core.errors import TrainingError, TrainingKilled, TrainingMachineError, TrainingStarved, TrainingTaskError
from easeml_core.sandbox.child_protocol import (
    FROM_OUTSIDE,
    OUT_OF_MEMORY,
    REASON_STATUS,
    is_of_task,
    is_passing,
    reason_in,
    was_killed,
)
from easeml_core.sandbox.child_start import clean_environment, start_child
from easeml_core.sandbox.fork_server import PACKAGES, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from easeml_core.sandbox.child_start import Child

_TAIL_BYTES = 4000
_CHUNK = 65536
_READER_PATIENCE_SECONDS = 2.0
_FORKED_ONLY = 0x40
"""PF_FORKNOEXEC of the kernel's include/linux/sched.h."""
_HAS_LISTS = Path("/proc/thread-self/children").exists()
"""Whether the kernel lists the children of a process (CONFIG_PROC_CHILDREN)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Wall seconds of a child, and resident megabytes of it and its children together.

    What a fork shares with its server is not counted, in the child and in up to ``copies`` processes that it forks
    itself: a confined child is two copies of the server, one of which only waits. A program that one of them runs is no
    copy, and is counted in full.
    """

    time_seconds: float
    memory_mb: int
    copies: int = 1


def run_child(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    limits: Limits,
    on_output: Callable[[bytes], None],
    on_poll: Callable[[], None],
    poll_seconds: float = 0.2,
    threads: int = 1,
    device: str | None = None,
    gpus: Sequence[str] = (),
    feed: Callable[[IO[bytes]], None] | None = None,
    loads: Sequence[str] = (),
    warm: bool = True,
) -> float:
    """Run ``python -m module PARENT_PID *arguments`` until it ends, as a fork of a warm server where possible."""
    started = time.monotonic()
    own = (module,) if module.partition(".")[0] in PACKAGES else ()
    request = Request(module, tuple(arguments), str(cwd), clean_environment(threads, device, gpus), (*loads, *own))
    child = start_child(request, with_input=feed is not None, warm=warm)
    pipes, seen = _Pipes(child, on_output, feed), _Seen()

    def look() -> float:
        on_poll()
        family = _family_at_a_look(child.pid)
        seen.note(family)
        copies = _copies(family)[: 1 + limits.copies]
        shared = sum(min(child.shared_mb, _resident_mb([process])) for process in copies)
        return max(_resident_mb(family) - shared, 0.0)

    try:
        _watch(child, pipes.ended, started=started, limits=limits, poll_seconds=poll_seconds, look=look)
        seconds = time.monotonic() - started
    finally:
        kill_family(child.pid, seen.often)
        status = child.wait()
        pipes.join()
    if status:
        raise _failure(status, pipes.stderr_tail.decode(errors="replace"))
    return seconds


def _failure(status: int, stderr: str) -> TrainingError:
    """The error for a child that ended badly; a limit on memory that we keep is no lack of memory."""
    reason = failure_reason(status, stderr)
    if -status in FROM_OUTSIDE or (status == REASON_STATUS and was_killed(stderr)):
        return TrainingKilled(reason)
    if status == REASON_STATUS and is_passing(stderr):
        return TrainingMachineError(reason)
    if status > 0 and is_of_task(stderr):
        return TrainingTaskError(reason)
    found_none = status == REASON_STATUS and reason.startswith(OUT_OF_MEMORY)
    return TrainingStarved(reason) if found_none else TrainingError(reason)


def failure_reason(status: int, stderr: str) -> str:
    """Why a child ended badly: its own reason, or its end and the last lines it wrote.

    Example:
        >>> failure_reason(-9, "")
        'the process was ended by SIGKILL, from outside or because the machine ran out of memory'
    """
    if status == REASON_STATUS and (reason := reason_in(stderr)):
        return reason
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", from outside or because the machine ran out of memory" if name == "SIGKILL" else ""
        sentence = f"the process was ended by {name}{hint}"
    else:
        sentence = f"the process crashed with exit status {status}"
    lines = stderr.strip().splitlines()
    return f"{sentence}: {lines[-1].strip()}\n{stderr.strip()}" if lines else sentence


def kill_family(pid: int, seen: Iterable[psutil.Process] = ()) -> None:
    """SIGKILL to a child of ours, its descendants, and everything in its process group."""
    family = _family(pid)
    left = [other for other in seen if other not in family and other.is_running()]
    for process in (*family, *(below for other in left for below in _family(other.pid))):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue  # ended by itself, or with an earlier one
    try:
        # The child has not been waited for yet, so its group's number cannot have been reused.
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class _Seen:
    """The descendants that were there at two looks in a row, for when they are left behind.

    Not those of a single look: who watches over a container leaves the family at once, and must outlive it.
    """

    def __init__(self) -> None:
        self.often = set[psutil.Process]()
        self._last = set[psutil.Process]()

    def note(self, family: Iterable[psutil.Process]) -> None:
        """Take down who is there now."""
        now = set(family)
        self.often |= now & self._last
        self._last = now


def end_children() -> None:
    """SIGKILL to all that this process has started or adopted, however often they start others."""
    deadline = time.monotonic() + _READER_PATIENCE_SECONDS
    this = psutil.Process()
    while (found := [p for p in this.children(recursive=True) if is_alive(p)]) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.005)


def is_alive(process: psutil.Process | int) -> bool:
    """Whether a process, or the one of this number, runs; a zombie, which its parent has not collected, has ended."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return bool(found.is_running() and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _resident_mb(family: Iterable[psutil.Process]) -> float:
    """Resident megabytes of these processes; those that are gone have none.

    Pages of files do not count: the kernel takes them back when memory is short, and mapped data have many.
    """
    total = 0.0
    for process in family:
        try:
            total += process.memory_info().rss / 2**20 - _mb_of_files(process.pid)
        except psutil.NoSuchProcess:
            continue  # ended while we were counting
    return total


def _copies(family: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Which of a child and its descendants, parents first, are copies of its server and run no other program.

    The kernel marks each process that was forked and has run no other program since.
    """
    copies: dict[int, psutil.Process] = {}
    for process in family:
        with suppress(psutil.NoSuchProcess, OSError):  # it has ended meanwhile
            values = Path(f"/proc/{process.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            parent, flags = int(values[1]), int(values[6])  # fields 4 and 9 of proc_pid_stat(5)
            if flags & _FORKED_ONLY and (process == family[0] or parent in copies):
                copies[process.pid] = process
    return list(copies.values())


def _mb_of_files(pid: int) -> float:
    """Resident megabytes that are pages of files (proc_pid_status(5)); 0 where that cannot be read."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^RssFile:\s*(\d+) kB$", text, re.MULTILINE)
    return 0.0 if found is None else int(found[1]) / 1024


def _family(pid: int) -> list[psutil.Process]:
    """A process and its descendants, found among all processes of the machine."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _family_at_a_look(pid: int) -> list[psutil.Process]:
    """As ``_family``, from the kernel's list of each one's children: it costs what the family has processes.

    The list may lack a child whose sibling ends while it is read; the next look has it.
    """
    if not _HAS_LISTS:
        return _family(pid)
    found, numbers = [], [pid]
    while numbers:
        with suppress(psutil.NoSuchProcess, OSError):  # it has ended meanwhile
            process = psutil.Process(numbers.pop())
            found.append(process)
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(OSError):
                    numbers += map(int, (thread / "children").read_text().split())
    return found


def _watch(
    child: Child,
    ended: threading.Event,
    *,
    started: float,
    limits: Limits,
    poll_seconds: float,
    look: Callable[[], float],
) -> None:
    """Return when the child has ended by itself; it is left to be waited for.

    ``look`` is called all the while, and gives the megabytes in use.
    """
    while not child.has_ended():
        used = look()
        if time.monotonic() - started > limits.time_seconds:
            message = (
                f"out of time: not finished after {limits.time_seconds:g} s; raise time_limit_seconds or train less"
            )
            raise TrainingStarved(message)
        if used > limits.memory_mb:
            message = f"out of memory: {used:,.0f} MB in use, {limits.memory_mb:,} MB allowed; raise memory_limit_mb"
            raise TrainingError(message)
        if ended.wait(poll_seconds):
            child.await_end(poll_seconds)  # its output is closed: most likely it is about to end


class _Pipes:
    """The threads that empty and fill a child's pipes, so that neither side ever waits for the other."""

    def __init__(
        self,
        child: Child,
        on_output: Callable[[bytes], None],
        feed: Callable[[IO[bytes]], None] | None,
    ) -> None:
        self.stderr_tail = b""
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._drain, args=(child.stdout, on_output, self.ended.set), daemon=True),
            threading.Thread(target=self._drain, args=(child.stderr, self._keep_tail, lambda: None), daemon=True),
        ]
        if feed is not None:
            self._threads.append(threading.Thread(target=self._fill, args=(child.stdin, feed), daemon=True))
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the last bytes; a descendant that left the family may hold a pipe open, so not for ever."""
        for thread in self._threads:
            thread.join(_READER_PATIENCE_SECONDS)

    def _keep_tail(self, chunk: bytes) -> None:
        self.stderr_tail = (self.stderr_tail + chunk)[-_TAIL_BYTES:]

    @staticmethod
    def _drain(pipe: IO[bytes], take: Callable[[bytes], None], finish: Callable[[], None]) -> None:
        with pipe:
            while chunk := os.read(pipe.fileno(), _CHUNK):
                take(chunk)
        finish()

    @staticmethod
    def _fill(pipe: IO[bytes], feed: Callable[[IO[bytes]], None]) -> None:
        try:
            with pipe:
                feed(pipe)
        except BrokenPipeError:
            return  # the child ended before it had read everything; its end tells why

"""Start and stop the components; none outlives its launcher, and nothing of an ended one outlives the stop."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from stack.failures import CommandFailedError, tail
from stack.supervision import named_status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from stack.account import Account
    from stack.components import Component

TETHER = Path(__file__).with_name("tether.py")
GRACE_SECONDS = 10.0


@dataclass(slots=True)
class Running:
    """A started component; a part that the supervisor watches.

    Attributes:
        component: What is run.
        log: Where it writes; the file of the run before has the suffix ``.1``.
        process: Its process, another one after each start.
        earlier: Process ids, thus sessions, of its earlier runs: what they started may live on.
    """

    component: Component
    log: Path
    process: subprocess.Popen[bytes]
    earlier: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What people and log files call it."""
        return self.component.name

    def ended(self) -> str | None:
        """How it ended; None while it runs."""
        status = self.process.poll()
        return None if status is None else named_status(status)

    def start(self) -> None:
        """Start it again."""
        self.earlier = list(_sessions_that_live({*self.earlier, self.process.pid}))
        self.process = _started(self.component, self.log)

    def last_lines(self) -> str:
        """The end of its log."""
        return tail(self.log)


class Processes:
    """The components of one stack, in the order of their start.

    Start them from a thread that lives as long as the launcher: the kernel counts the death of the starting thread as
    the launcher's.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[Running] = []

    def start(self, component: Component) -> Running:
        """Start a component, tied to this process, with a separate log file (the one before is kept as ``.1``)."""
        log = self.logs / f"{component.name}.log"
        running = Running(component, log, _started(component, log))
        self.running.append(running)
        return running

    def tree(self) -> list[psutil.Process]:
        """The components, everything below them, and what an earlier run of one has left."""
        found: list[psutil.Process] = []
        for process in self._roots():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [process, *process.children(recursive=True)]
        return list(dict.fromkeys(found))

    def identities(self) -> tuple[tuple[int, float], ...]:
        """Process id and time of creation, which no other process has, of the components and of what they left."""
        found = []
        left = _sessions_that_live({pid for running in self.running for pid in running.earlier})
        for pid in (*(running.process.pid for running in self.running), *(p for pids in left.values() for p in pids)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append((pid, psutil.Process(pid).create_time()))
        return tuple(found)

    def _roots(self) -> list[psutil.Process]:
        own = {running.process.pid for running in self.running if running.process.returncode is None}
        sessions = {pid for running in self.running for pid in (*running.earlier, running.process.pid)}
        pids = [pid for members in _sessions_that_live(sessions, own).values() for pid in members]
        found = []
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ask all to end, ask again after half the grace (Airflow then stops waiting for tasks), then kill."""
        family = self.tree()
        for _ in range(2):
            for running in self.running:
                running.process.terminate()
            if _wait(self.running, grace_seconds / 2):
                break
        kill(family)
        for running in self.running:
            running.process.wait()
        self.running.clear()


def _started(component: Component, log: Path) -> subprocess.Popen[bytes]:
    """A process of the component, tied to this one; the log of the run before is kept."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with _private(log) as out:
        return subprocess.Popen(
            tethered(component.command, component.account),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(component.environment),
            cwd=log.parent,
            start_new_session=True,  # Ctrl-C in a terminal reaches the launcher only, which then stops in order
        )


def _sessions_that_live(sessions: set[int], own: Collection[int] = ()) -> dict[int, list[int]]:
    """The processes of each of the sessions that has any.

    The kernel gives the id of a session to no other process while the session has members. So a session whose leader
    lives, and is not one of our ``own`` processes, is a stranger's by now.
    """
    found: dict[int, list[int]] = {}
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if (session := os.getsid(pid)) in sessions:
                found.setdefault(session, []).append(pid)
    return {session: members for session, members in found.items() if session in own or session not in members}


def _wait(running: Iterable[Running], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(one.process.poll() is None for one in running):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill(family: Iterable[psutil.Process]) -> None:
    """Kill what is left of these very processes; a process id that went to a stranger is left alone."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def tethered(command: tuple[str, ...], account: Account | None = None) -> tuple[str, ...]:
    """The command, tied to this process, under the account."""
    descent = () if account is None else ("--as", account.to_json())
    return (sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *descent, *command)


def _private(log: Path) -> IO[bytes]:
    """Open a log that only its owner may read: what the referee keeps back from developers is in one."""
    return open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600))


def run_command(
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    logs: Path,
    account: Account | None = None,
) -> None:
    """Run a command to its end, with a separate log.

    Raises:
        CommandFailedError: If it does not succeed.
    """
    finish_command(begin_command(name, command, environment, logs, account), name, logs)


def begin_command(
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    logs: Path,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command that will end by itself."""
    with _private(logs / f"{name}.log") as out:
        return subprocess.Popen(
            tethered(command, account),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=logs,
        )


def finish_command(process: subprocess.Popen[bytes], name: str, logs: Path) -> None:
    """Wait for a command that was begun.

    Raises:
        CommandFailedError: If it does not succeed.
    """
    status = process.wait()
    if status != 0:
        raise CommandFailedError(name, status, logs / f"{name}.log")

"""Start, watch and stop the components; none outlives its launcher, none dies unnoticed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from stack.failures import CommandFailedError, ComponentDiedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stack.account import Account
    from stack.components import Component

TETHER = Path(__file__).with_name("tether.py")
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A started component."""

    component: Component
    process: subprocess.Popen[bytes]
    log: Path


class Processes:
    """The components of one stack, in the order of their start.

    Start them from a thread that lives as long as the launcher: the kernel counts the death of the starting thread as
    the launcher's.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[Running] = []

    def start(self, component: Component) -> None:
        """Start a component, tied to this process, with a separate log file (the one before is kept as ``.1``)."""
        log = self.logs / f"{component.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with _private(log) as out:
            process = subprocess.Popen(
                tethered(component.command, component.account),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(component.environment),
                cwd=self.logs,
                start_new_session=True,  # Ctrl-C in a terminal reaches the launcher only, which then stops in order
            )
        self.running.append(Running(component, process, log))

    def check(self) -> None:
        """Do nothing while all are alive.

        Raises:
            ComponentDiedError: If one is not; the first that was started, should there be several.
        """
        for running in self.running:
            status = running.process.poll()
            if status is not None:
                raise ComponentDiedError(running.component.name, status, running.log)

    def tree(self) -> list[psutil.Process]:
        """The components and everything below them."""
        found: list[psutil.Process] = []
        for running in self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(running.process.pid)
                found += [process, *process.children(recursive=True)]
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

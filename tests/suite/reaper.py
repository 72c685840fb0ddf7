"""End what a killed run of tests would leave: process groups, database servers and their folders.

A run that ends in order ends them itself. After SIGKILL nothing of it runs any more, so a small process looks once a
second whether its parent still lives: a pipe alone would not do, since children of the tests inherit its end.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 1.0
STOP_SECONDS = 20.0
"""How long a database server may take to end, which then removes its shared memory, too."""


class Reaper:
    """The process that waits for the death of this one."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._known: set[str] = set()
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        command = (sys.executable, "-I", "-S", __file__, str(self.owner))
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def kills(self, group: int) -> None:
        """Kill the process group at the death of this process."""
        self._known.add(f"group {group}")
        self._say(f"group {group}")

    def forgets(self, group: int) -> None:
        """Leave the group alone: it has ended, and another one may get its number."""
        self._known.discard(f"group {group}")
        self._say(f"forget {group}")

    def removes(self, folder: Path) -> None:
        """Stop the database servers in the folder and remove it at the death of this process."""
        self._known.add(f"folder {folder}")
        self._say(f"folder {folder}")

    def _say(self, line: str) -> None:
        try:
            self._write(line)
        except BrokenPipeError:  # a test has killed all processes below it; the next one is told everything
            self._process.wait()
            self._process = self._started()
            for known in sorted(self._known):
                self._write(known)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None  # it is a pipe
        print(line, file=self._process.stdin, flush=True)


_found: list[Reaper] = []


def reaper() -> Reaper:
    """The reaper of this process, which starts at the first call."""
    if not _found or _found[-1].owner != os.getpid():
        _found.append(Reaper())
    return _found[-1]


def _wait_for_the_death_of(parent: int) -> None:
    groups, folders, rest = set[int](), list[Path](), ""
    while True:  # what was said before the death is read to its end
        if not select.select([0], [], [], LOOK_SECONDS)[0]:
            if os.getppid() != parent:
                break
            continue
        read = os.read(0, 65536).decode()
        if not read:
            break
        *lines, rest = (rest + read).split("\n")
        for word, _, value in (line.partition(" ") for line in lines):
            if word == "folder":
                folders.append(Path(value))
            elif word == "group":
                groups.add(int(value))
            else:
                groups.discard(int(value))
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        _stop_servers(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _stop_servers(folder: Path) -> None:
    for found in folder.rglob("postmaster.pid"):
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile, or ends just now
            pid = int(found.read_text().split()[0])
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + STOP_SECONDS
            while _lives(pid) and time.monotonic() < deadline:
                time.sleep(0.1)


def _lives(pid: int) -> bool:
    """Whether there is such a process; one that has ended may stay where its new parent waits for none."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it outlives who is asked to end
        signal.signal(number, signal.SIG_IGN)
    _wait_for_the_death_of(int(sys.argv[1]))

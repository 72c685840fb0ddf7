"""What a launcher leaves on disk for others: that it lives (a lock), and how it is (a small JSON file).

The lock is the truth: the kernel lets go of it however the launcher ends. The file only explains.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from easeml_core.files.local import write_durably
from easeml_core.sandbox.process import is_alive
from stack.failures import AlreadyRunningError
from stack.processes import kill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.places import Places

STARTING, HEALTHY, FAILED, STOPPED = "starting", "healthy", "failed", "stopped"


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One component, or the database server.

    Attributes:
        name: What people and log files call it.
        state: As ``stack.supervision.Life`` has it.
        since: When it was last started, ISO 8601 in UTC.
        restarts: How often it was started again.
        failure: When and why it last ended; empty if it never did.
    """

    name: str
    state: str
    since: str
    restarts: int
    failure: str


@dataclass(frozen=True, slots=True)
class Record:
    """What a launcher says of itself.

    Attributes:
        launcher: Its process id.
        state: ``starting``, ``healthy``, ``failed`` or ``stopped``.
        step: What it does now.
        url: Where Airflow's UI is.
        failure: Why it failed.
        children: (process id, time of creation) of each component.
        parts: What became of the database server and of each component.
        executor: Where its tasks run, ``local`` or ``celery``.
    """

    launcher: int
    state: str = STARTING
    step: str = ""
    url: str = ""
    failure: str = ""
    children: tuple[tuple[int, float], ...] = field(default=())
    parts: tuple[PartRecord, ...] = field(default=())
    executor: str = "local"

    def write(self, path: Path, **changes: object) -> Record:
        """Write a changed copy to the file, and give it."""
        changed = replace(self, **changes)  # type: ignore[arg-type]  # the names are those of the fields
        write_durably(path, json.dumps(asdict(changed)))
        return changed


def read_record(path: Path) -> Record | None:
    """What the last launcher wrote; None if there never was one, or if the file is damaged.

    The next launcher writes it anew, so that a damaged file costs its content only. That a launcher lives tells the
    lock, and what a killed one left is found without the file, too (``end_leftovers``).
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["children"] = tuple((int(pid), float(created)) for pid, created in values["children"])
        values["parts"] = tuple(PartRecord(**part) for part in values.get("parts", ()))
        return Record(**values)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def launcher_pid(places: Places) -> int | None:
    """The process that holds the state folder; None if none is known.

    It says so in the lock at once. What the record says may be of an earlier one, until the present one writes it.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(places.lock.read_text(encoding="utf-8"))
    record = read_record(places.record)
    return None if record is None else record.launcher


def launcher_of(places: Places) -> str:
    """Whose stack it is that runs: process id, since when, its command."""
    pid = launcher_pid(places)
    with contextlib.suppress(psutil.Error, ValueError, TypeError):
        process = psutil.Process(pid)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.create_time()))
        return f"process {pid}, since {since}: {shlex.join(process.cmdline()[1:])}"
    return f"process {pid or '(unknown)'}"


def _locked(path: Path) -> IO[str] | None:
    handle = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    os.set_inheritable(handle.fileno(), False)
    return handle


@contextlib.contextmanager
def launcher_lock(places: Places) -> Iterator[None]:
    """Be the one launcher of this state folder.

    Raises:
        AlreadyRunningError: If there is one.
    """
    handle = _locked(places.lock)
    if handle is None:
        raise AlreadyRunningError(places.home, launcher_of(places))
    with handle:
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


def is_running(places: Places) -> bool:
    """Whether a launcher holds the state folder."""
    if not places.lock.exists():
        return False
    handle = _locked(places.lock)
    if handle is None:
        return True
    handle.close()
    return False


def end_leftovers(places: Places, patience_seconds: float = 15.0) -> int:
    """Wait for components whose launcher was killed, then kill them; gives how many there were.

    The caller has seen that no launcher lives. The kernel has sent them SIGTERM already. A process is known by its id
    *and* its time of creation, so a stranger that got the same id is never touched.
    """
    record = read_record(places.record)
    left = [p for p in (_same(*child) for child in record.children) if p] if record else _recognised(places)
    family = [q for p in left for q in _family(p)]
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline and any(map(is_alive, left)):
        time.sleep(0.1)
    kill(family)
    return len(left)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def _same(pid: int, created: float) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1:
            return process
    return None


def _recognised(places: Places) -> list[psutil.Process]:
    """Components of this state folder without a record of them: our interpreter, in a folder of ours, no terminal."""
    folders = {str(folder) for folder in (places.logs, places.airflow, places.api_server)}
    interpreter = str(Path(sys.executable).resolve())
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_ours = process.pid != os.getpid() and process.cwd() in folders
            if is_ours and process.exe() == interpreter and process.terminal() is None:
                found.append(process)
    return found

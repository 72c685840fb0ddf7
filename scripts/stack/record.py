"""What a launcher leaves on disk for others: that it lives (a lock), and how it is (a small JSON file).

The lock is the truth: the kernel lets go of it however the launcher ends. The file only explains.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from typing import IO, TYPE_CHECKING

import psutil

from easeml_core.files import write_durably
from stack.failures import AlreadyRunningError
from stack.processes import kill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stack.places import Places

STARTING, HEALTHY, FAILED, STOPPED = "starting", "healthy", "failed", "stopped"


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
    """

    launcher: int
    state: str = STARTING
    step: str = ""
    url: str = ""
    failure: str = ""
    children: tuple[tuple[int, float], ...] = field(default=())

    def write(self, path: Path, **changes: object) -> Record:
        """Write a changed copy to the file, and give it."""
        changed = replace(self, **changes)  # type: ignore[arg-type]  # the names are those of the fields
        write_durably(path, json.dumps(asdict(changed)))
        return changed


def read_record(path: Path) -> Record | None:
    """What the last launcher wrote; None if there never was one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    values["children"] = tuple((int(pid), float(created)) for pid, created in values["children"])
    return Record(**values)


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
        raise AlreadyRunningError(places.home)
    with handle:
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


def end_leftovers(record: Record | None, patience_seconds: float = 15.0) -> int:
    """Wait for components whose launcher was killed, then kill them; gives how many there were.

    The kernel has sent them SIGTERM already. A process is known by its id *and* its time of creation, so a stranger
    that got the same id is never touched.
    """
    left = [p for p in (_same(pid, created) for pid, created in (record.children if record else ())) if p]
    family = [q for p in left for q in (p, *p.children(recursive=True))]
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline and any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in left):
        time.sleep(0.1)
    kill(family)
    return len(left)


def _same(pid: int, created: float) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1:
            return process
    return None

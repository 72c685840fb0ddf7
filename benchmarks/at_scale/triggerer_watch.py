"""What can be seen of a running stack from outside: tasks in Airflow's database, processor time, notifications."""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.launcher import Stack

CHANNEL = "easeml"
RUNNING_TASK = re.compile(r"airflow worker -- .*[0-9a-f]{8}-[0-9a-f-]{27}")
MAPPED_TASKS = "SELECT coalesce(state, 'none'), count(*) FROM task_instance WHERE map_index >= 0 GROUP BY 1"


@dataclass(slots=True)
class BlockingListener(contextlib.AbstractContextManager["BlockingListener"]):
    """Hears notifications in a separate thread.

    Attributes:
        stack: Whose database it listens to.
        heard: Time (seconds since 1970) at which each topic was heard last.
    """

    stack: Stack
    heard: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> BlockingListener:
        """Listen from now on."""
        connection = self.stack.server.connect("easeml_worker", "easeml")
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        self._thread = threading.Thread(target=self._listen, args=(connection,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self, connection: Any) -> None:
        with contextlib.closing(connection):
            while not self._stop.is_set():
                if select.select([connection], [], [], 0.2)[0]:
                    now = time.time()
                    connection.poll()
                    self.heard |= {notice.payload: now for notice in connection.notifies}
                    connection.notifies.clear()


class Tasks:
    """The mapped tasks of the one DAG, as Airflow's database has them."""

    def __init__(self, stack: Stack) -> None:
        self._connection = stack.server.connect("airflow", "airflow")

    def states(self) -> dict[str, int]:
        """How many there are in each state."""
        with self._connection.cursor() as cursor:
            cursor.execute(MAPPED_TASKS)
            return dict(cursor.fetchall())

    def until(self, state: str, count: int, *, seconds: float, every: float = 0.02) -> float | None:
        """The time (since 1970) from which at most, or for ``deferred`` at least, so many are in the state."""
        return next(self._looks(lambda found: found.get(state, 0) >= count, seconds, every), None)

    def fewer(self, state: str, count: int, *, seconds: float) -> float | None:
        """The time (since 1970) from which fewer are in the state; None if that takes too long."""
        return next(self._looks(lambda found: found.get(state, 0) < count, seconds, 0.02), None)

    def _looks(self, holds: Any, seconds: float, every: float) -> Iterator[float]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds(self.states()):
                yield time.time()
                return
            time.sleep(every)


def component(stack: Stack, name: str) -> list[psutil.Process]:
    """A component of the stack with everything below it."""
    (process,) = (psutil.Process(r.process.pid) for r in stack.processes.running if r.component.name == name)
    return [process, *process.children(recursive=True)]


def processor_seconds(processes: list[psutil.Process]) -> float:
    """Processor time so far, of processes that live on."""
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def use(processes: list[psutil.Process], seconds: float) -> dict[str, float]:
    """Share of one core over this time, and what else the processes hold at its end."""
    start, before = time.monotonic(), processor_seconds(processes)
    time.sleep(seconds)
    share = (processor_seconds(processes) - before) / (time.monotonic() - start)
    return {
        "core_percent": 100 * share,
        "threads": sum(p.num_threads() for p in processes),
        "memory_mb": sum(p.memory_info().rss for p in processes) / 2**20,
        "load": os.getloadavg()[0],
    }


def listeners(stack: Stack) -> int:
    """Connections that wait for our notifications and are not the referee's or this benchmark's."""
    with contextlib.closing(stack.server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'easeml_worker' "
            "AND application_name = 'easeml-listener'"
        )
        ((count,),) = cursor.fetchall()
        return int(count)


def workers(stack: Stack) -> int:
    """Processes that run a task now; those of the executor that wait for one are none."""
    return sum(RUNNING_TASK.search(" ".join(p.cmdline())) is not None for p in component(stack, "scheduler")[1:])

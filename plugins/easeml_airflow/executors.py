"""Airflow's LocalExecutor, made to survive kill -9 of its processes: tasks go on while the scheduler is started again.

Under Airflow's own executor the next scheduler resets every task that ran under a killed one: the training that still
runs is ended, and begins anew. A scheduler that ends by an error, such as a database that is away, waits for its
running tasks before it ends, which can be hours without a scheduler. An idle worker that is killed keeps the lock of
the queue, after which no task starts (LocalExecutor of Airflow 3.3: ``multiprocessing.SimpleQueue``). And a task whose
worker is killed before it has begun stays queued for ``[scheduler] task_queued_timeout``, ten minutes.

In Airflow's configuration: ``[core] executor = easeml_airflow.executors.AdoptingLocalExecutor``.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import psutil
from airflow.executors.local_executor import LocalExecutor
from airflow.models.taskinstance import TaskInstance
from airflow.utils.net import get_hostname
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE_BYTES = 1 << 20
"""The longest message between scheduler and workers, which say which task is to run and what became of it."""

WORKER_TITLE = "airflow worker -- LocalExecutor"
LOST_SECONDS = 10.0
"""How long no worker may hold a task that was handed out before it is looked for."""

CLOCK_SECONDS = 2.0
"""By how much the clocks of a process's start and of heartbeats may differ."""


class PacketQueue:
    """A queue from one process to those that it forks, or back, that no killed process can block.

    Each message is one packet, which the kernel gives to one reader as a whole, so that no lock is needed. A reader in
    a fork gives its end for writing away: when the process that made the queue ends, ``get`` raises EOFError.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        self._maker = os.getpid()

    def put(self, message: Any) -> None:
        """Send a message; wait while there is no room."""
        self._writer.send(bytes(ForkingPickler.dumps(message)))

    def get(self) -> Any:
        """The next message.

        Raises:
            EOFError: If the process that made the queue has ended, and all messages are read.
        """
        if os.getpid() != self._maker:
            self._writer.close()
        packet = self._reader.recv(MESSAGE_BYTES)
        if not packet:
            raise EOFError
        return ForkingPickler.loads(packet)

    def empty(self) -> bool:
        """Whether no message waits."""
        return not select.select([self._reader], [], [], 0)[0]

    def close(self) -> None:
        """Give both ends away."""
        self._reader.close()
        self._writer.close()


@dataclass(slots=True)
class _HandedOut:
    """A task that was handed to the workers, and the monotonic time when a worker, or the queue, last had it."""

    workload: Any
    seen_at: float


class AdoptingLocalExecutor(LocalExecutor):
    """LocalExecutor whose tasks outlive a scheduler that was killed or ended by an error, and are adopted by the next.

    A worker of a killed scheduler sees its task to its end, by way of the API server as always, then ends. Adopted
    tasks take no place of the new scheduler's parallelism; pools count them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's
        self._handed_out: dict[Any, _HandedOut] = {}

    def start(self) -> None:
        """Start the workers, with queues that a killed worker cannot block."""
        if not self.is_mp_using_fork:
            super().start()
            return
        self.activity_queue = PacketQueue()  # type: ignore[assignment]  # it does what the workers ask of a queue
        self.result_queue = PacketQueue()  # type: ignore[assignment]  # and of this one
        self.workers = {}
        self._unread_messages = multiprocessing.Value(ctypes.c_uint)
        self._spawn_workers_with_gc_freeze(self.parallelism)  # type: ignore[no-untyped-call]  # Airflow's

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        for workload in workload_list:
            if hasattr(workload, "ti"):
                self._handed_out[workload.key] = _HandedOut(workload, time.monotonic())
        super()._process_workloads(workload_list)  # type: ignore[no-untyped-call]  # Airflow's

    def sync(self) -> None:
        """Read results, start workers in place of dead ones, and hand out again what a worker took along."""
        super().sync()
        if self._handed_out and self.is_mp_using_fork:
            self._hand_out_again()

    def change_state(self, key: Any, state: Any, *arguments: Any, **named: Any) -> None:
        """Note what became of a task; the worker has it no more, unless it says that it runs."""
        if state != TaskInstanceState.RUNNING:
            self._handed_out.pop(key, None)
        super().change_state(key, state, *arguments, **named)

    def _hand_out_again(self) -> None:
        """Hand out a task again that no worker has, and that has not begun: its worker was killed on the way to it."""
        held = " ".join(_titles(self.workers))
        now, is_queue_empty = time.monotonic(), self.activity_queue.empty()
        for key, one in list(self._handed_out.items()):
            ti_id = str(one.workload.ti.id)
            if not is_queue_empty or ti_id in held:
                one.seen_at = now
            elif now - one.seen_at > LOST_SECONDS:
                one.seen_at = now
                if not is_queued(ti_id):  # it has begun, so its heartbeat says what becomes of it
                    del self._handed_out[key]
                    continue
                self.log.warning("task instance %s is handed out again: its worker was killed", ti_id)
                self.activity_queue.put(one.workload)
                with self._unread_messages:
                    self._unread_messages.value += 1
                self._check_workers()  # type: ignore[no-untyped-call]  # Airflow's

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Those that cannot be adopted: all but the ones that a worker of an earlier scheduler runs on this machine."""
        host = get_hostname()
        return [ti for ti in tis if not (ti.hostname == host and is_run_by_a_worker(ti))]

    def end(self) -> None:
        """Let running tasks end first where the scheduler was asked to stop; after an error leave them running."""
        kind = sys.exc_info()[0]
        if kind is None or not issubclass(kind, Exception):
            try:
                super().end()
            finally:  # a second signal interrupts it: workers that were not asked to end see that the queue is closed
                self.activity_queue.close()
            return
        self.log.error("the scheduler ends by %s; its workers see their tasks to the end", kind.__name__)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # Python would wait for the workers


def _titles(pids: Sequence[int] | dict[int, Any]) -> list[str]:
    """What the processes show; a worker shows the task that it has taken."""
    found = []
    for pid in pids:
        try:
            found.append(" ".join(psutil.Process(pid).cmdline()))
        except psutil.Error:
            continue
    return found


def is_queued(ti_id: str) -> bool:
    """Whether the task instance waits to begin, by Airflow's database."""
    kind = TaskInstance.id.type.python_type  # a text in Airflow 3.1, else a UUID
    with create_session() as session:
        ti = session.get(TaskInstance, kind(ti_id))
        return ti is not None and ti.state == TaskInstanceState.QUEUED


def is_run_by_a_worker(ti: TaskInstance) -> bool:
    """Whether the process of a task instance lives, is older than its last heartbeat, and is a worker's child."""
    if ti.state != TaskInstanceState.RUNNING or not ti.pid or ti.last_heartbeat_at is None:
        return False
    try:
        process = psutil.Process(ti.pid)
        parent = process.parent()
        is_older = process.create_time() <= ti.last_heartbeat_at.timestamp() + CLOCK_SECONDS
        return is_older and parent is not None and " ".join(parent.cmdline()).startswith(WORKER_TITLE)
    except psutil.Error:
        return False

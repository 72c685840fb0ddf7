"""The executor that survives kill -9: queues without locks, adoption of what runs, an end that waits for no task."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor
from airflow.utils.net import get_hostname
from setproctitle import setproctitle

from easeml_airflow import executors
from easeml_airflow.executors import AdoptingLocalExecutor, PacketQueue, is_run_by_a_worker

FORK = multiprocessing.get_context("fork")


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def answer(asked, answers):
    """A worker: it reads until its maker is gone."""
    try:
        while (message := asked.get()) is not None:
            answers.put((os.getpid(), message))
    except EOFError:
        os._exit(7)


def test_a_reader_that_is_killed_while_it_waits_blocks_no_other():
    asked, answers = PacketQueue(), PacketQueue()
    workers = [FORK.Process(target=answer, args=(asked, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    until(lambda: all(psutil.Process(w.pid).status() == psutil.STATUS_SLEEPING for w in workers))
    os.kill(workers[0].pid, signal.SIGKILL)
    workers[0].join()
    for number in range(3):
        asked.put(number)
    got = [answers.get() for _ in range(3)]
    assert got == [(workers[1].pid, number) for number in range(3)]
    assert answers.empty()
    asked.close()
    workers[1].join(20)
    assert workers[1].exitcode == 7  # the writer is gone, so it ended by itself


@dataclass
class Workload:
    """As much of a task as executor and workers look at."""

    key: str
    ti: SimpleNamespace
    queued_tasks: None = None
    running_state = None
    success_state, failure_state = "success", "failed"

    @property
    def display_name(self):
        return self.ti.id


def never_ends_at_first(workload, *, proctitle, **_):
    setproctitle(proctitle)
    runs = Path(os.environ["RUNS"])
    with runs.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(runs.read_text().split()) == 1:
        time.sleep(600)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_task_whose_worker_is_killed_before_it_begins_is_handed_out_again(has_begun, monkeypatch, tmp_path):
    runs = tmp_path / "runs"
    monkeypatch.setenv("RUNS", str(runs))
    monkeypatch.setattr(executors.LocalExecutor, "run_workload", staticmethod(never_ends_at_first))
    monkeypatch.setattr(BaseExecutor, "run_workload", staticmethod(never_ends_at_first))
    monkeypatch.setattr(executors, "LOST_SECONDS", 0.1)
    looks = []
    monkeypatch.setattr(executors, "is_queued", lambda ti_id: looks.append(ti_id) or not has_begun)
    executor = AdoptingLocalExecutor(parallelism=2)
    executor.start()
    try:
        workload = Workload("task", SimpleNamespace(id="01a22e30"))
        executor.queued_tasks["task"] = workload
        executor._process_workloads([workload])
        until(lambda: any("01a22e30" in title for title in executors._titles(executor.workers)))
        until(lambda: runs.exists() and runs.read_text().endswith("\n"))
        executor.sync()
        assert looks == []  # a worker has it
        os.kill(int(runs.read_text()), signal.SIGKILL)
        until(lambda: executor.sync() or looks)
        if has_begun:  # its heartbeat tells what became of it
            assert executor.activity_queue.empty()
            assert len(runs.read_text().split()) == 1
        else:
            until(lambda: executor.sync() or executor.event_buffer)
            assert executor.event_buffer["task"][0] == "success"
            assert len(runs.read_text().split()) == 2
        assert executor._handed_out == {}
    finally:
        for worker in executor.workers.values():
            worker.kill()


def ti_of(pid, changes):
    now = datetime.now(UTC)
    facts = {"state": "running", "pid": pid, "hostname": get_hostname(), "last_heartbeat_at": now} | changes
    return SimpleNamespace(**facts)


@pytest.fixture(scope="module")
def running():
    """The process of a task, whose parent has the title of a worker."""
    code = (
        "import os, sys, time\nfrom setproctitle import setproctitle\n"
        f"setproctitle({executors.WORKER_TITLE!r} + ': some task')\n"
        "child = os.fork()\nif child: print(child, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
        task = int(worker.stdout.readline())
        yield task
        os.kill(task, signal.SIGKILL)
        worker.kill()


@pytest.mark.parametrize(
    ("changes", "is_adopted"),
    [
        ({}, True),
        ({"state": "queued"}, False),  # the dead scheduler's queue is gone
        ({"hostname": "another-machine"}, False),
        ({"pid": None}, False),
        ({"pid": os.getpid()}, False),  # no worker's child
        ({"last_heartbeat_at": datetime(2026, 1, 1, tzinfo=UTC)}, False),  # the process id went to a younger process
        ({"last_heartbeat_at": None}, False),
    ],
)
def test_only_what_a_worker_of_this_machine_still_runs_is_adopted(running, changes, is_adopted):
    ti = ti_of(running, changes)
    left = AdoptingLocalExecutor.try_adopt_task_instances(None, [ti])
    assert left == ([] if is_adopted else [ti])


def test_a_task_whose_process_has_ended_is_not_adopted():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert not is_run_by_a_worker(ti_of(ended.pid, {"last_heartbeat_at": datetime.now(UTC) + timedelta(days=1)}))


def test_a_second_signal_while_workers_are_asked_to_end_leaves_none_behind(monkeypatch):
    """Python waits for its children at its end: a worker that still waits for a task would keep the scheduler there."""

    def interrupted(self):
        raise SystemExit

    monkeypatch.setattr(LocalExecutor, "end", interrupted)
    executor = AdoptingLocalExecutor(parallelism=2)
    executor.start()
    with pytest.raises(SystemExit):
        executor.end()
    for worker in executor.workers.values():
        worker.join(20)
        assert worker.exitcode == 0


@pytest.mark.parametrize(
    ("error", "way"), [(None, "waited"), (SystemExit(0), "waited"), (OSError("the database is away"), "left")]
)
def test_a_scheduler_waits_for_its_tasks_when_asked_to_stop_and_not_after_an_error(monkeypatch, error, way):
    seen = []
    monkeypatch.setattr(LocalExecutor, "end", lambda self: seen.append("waited"))
    monkeypatch.setattr(executors.os, "_exit", lambda status: seen.append("left"))
    executor = AdoptingLocalExecutor(parallelism=1)
    executor.activity_queue = PacketQueue()
    try:
        try:
            if error is not None:
                raise error
        finally:
            executor.end()
    except (SystemExit, OSError):
        pass
    assert seen == [way]

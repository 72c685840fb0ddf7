"""Each part of a real stack is killed, and the database goes away: all comes back, and a task that runs goes on.

What is printed are the seconds until all was healthy again: `pytest -s` shows them.
"""

import os
import signal
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import psutil
import pytest
from demo_night.runs import await_dag
from property_sizes import at_night
from stack.components import SUGGESTING
from stack.keys import ADMIN
from stack.launcher import HEALTHY_PARTS
from stack.record import HEALTHY, read_record
from stack.rest import Rest

from easeml_core.sandbox.process import is_alive
from easeml_core.store.server.cluster import LOOPBACK, find_postmaster
from easeml_core.store.server.place import locked
from easeml_core.store.server.server import START_LOCK

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1800)]

AWAY_SECONDS = 15


def until(condition, seconds=240.0, pause=0.25):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
    return found


@pytest.fixture(scope="module")
def stack(small_stack):
    return small_stack


@pytest.fixture(scope="module")
def held(stack):
    """The process of a running task, and the states of its run as a demo follows them."""
    rest = stack.access.rest()
    await_dag(rest, "held", stack.check)
    rest.pause("held", False)
    run_id, states = rest.trigger("held"), []
    follower = threading.Thread(target=lambda: states.extend(rest.wait("held", run_id)), daemon=True)
    follower.start()
    (pid,) = until(lambda: held_by(stack))
    return psutil.Process(pid), run_id, states, follower


def held_by(stack):
    file = stack.places.airflow / "held-by"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def is_well(stack, since):
    """Whether every part runs, answers, and has sent a heartbeat since then."""
    record = read_record(stack.places.record)
    if record.state != HEALTHY or any(part.state != "running" for part in record.parts) or not stack.server.alive():
        return False
    health = Rest(record.url, ADMIN, "", timeout_seconds=5).health(since)
    port = stack.places.task_port
    has_tasks_server = not port.exists() or Rest(
        f"http://{LOOPBACK}:{port.read_text().strip()}", ADMIN, "", timeout_seconds=5
    ).answers("/execution/health")
    return has_tasks_server and all(health.get(part) == "healthy" for part in HEALTHY_PARTS)


def postmaster(stack):
    return psutil.Process(find_postmaster(stack.server.data).pid)


def backend(stack):
    """The process of the database that serves a connection of Airflow's."""
    with closing(stack.server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT max(pid) FROM pg_stat_activity WHERE usename = 'airflow'")
        return psutil.Process(cursor.fetchone()[0])


def idle_worker(stack):
    (scheduler,) = (r.process.pid for r in stack.processes.running if r.name == "scheduler")
    workers = psutil.Process(scheduler).children(recursive=True)
    return next(w for w in workers if "<idle>" in " ".join(w.cmdline()))


def component(name):
    def find(stack):
        found = [r.process.pid for r in stack.processes.running if r.name == name]
        return psutil.Process(found[0]) if found else None

    return find


PARTS = {
    **{
        n: component(n)
        for n in ("referee", SUGGESTING, "scheduler", "dag-processor", "triggerer", "api-server", "task-api-server")
    },
    "postmaster": postmaster,
    "backend of Airflow": backend,
    "idle worker": idle_worker,
}


BY_DAY = ("referee", "scheduler", "api-server", "postmaster")


@pytest.mark.parametrize("name", [name if name in BY_DAY else at_night(name) for name in PARTS])
def test_a_killed_part_comes_back_and_a_running_task_goes_on(stack, held, name):
    victim = PARTS[name](stack)
    if victim is None:
        pytest.skip(f"{name} is a process of its own only where the launcher is root")
    since, began, load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
    victim.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(victim))
    until(lambda: is_well(stack, since))
    print(f"\n{name}: all healthy after {time.monotonic() - began:.1f} s, load {load:.1f}")
    stack.check()
    assert held[0].is_running()
    assert held_by(stack) == [held[0].pid]


def test_a_database_that_is_away_costs_the_time_that_it_is_away(stack, held):
    with locked(stack.server.home / START_LOCK):  # nobody starts it meanwhile
        stack.server._cluster().halt()
        time.sleep(AWAY_SECONDS)
        since, began = datetime.now(UTC), time.monotonic()
    until(lambda: is_well(stack, since))
    print(f"\ndatabase away for {AWAY_SECONDS} s: all healthy {time.monotonic() - began:.1f} s after its return")
    stack.check()
    assert held[0].is_running()
    assert held_by(stack) == [held[0].pid]


def test_the_run_that_lasted_through_it_all_ends_well_in_its_first_try(stack, held):
    _, run_id, states, follower = held
    (stack.places.airflow / "let-go").touch()
    follower.join(240)
    assert states[-1] == "success"
    tasks = stack.access.rest().tasks("held", run_id)
    assert {(t["task_id"], t["state"], t["try_number"]) for t in tasks} == {
        ("hold", "success", 1),
        ("after", "success", 1),
    }
    assert held_by(stack) == [held[0].pid]


def test_the_record_tells_of_each_part_what_happened_to_it(stack, held):
    parts = {part.name: part for part in read_record(stack.places.record).parts}
    assert parts["database"].restarts >= 2
    assert "SIGKILL" in parts["referee"].failure
    assert all(parts[name].restarts >= 1 for name in ("scheduler", "dag-processor", "triggerer", "api-server"))

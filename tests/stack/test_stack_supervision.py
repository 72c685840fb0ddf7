"""What ended is started again: the pauses, the reports, the database that is away, and real processes at the end."""

import contextlib
import random
import signal
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console
from stack import supervision
from stack.components import Component
from stack.environment import plain_environment
from stack.failures import StackError
from stack.launcher import Stack
from stack.places import Places
from stack.processes import Processes
from stack.progress import Progress
from stack.pulse import Pulse
from stack.supervision import FAILING, RESTARTING, RUNNING, WAITING, Backoff, Supervisor

from easeml_core.sandbox.process import is_alive

PLAIN = Backoff(first_seconds=1, factor=2, most_seconds=8, jitter=0, steady_seconds=30, failing=3)


class FakePart:
    """A part that ends when it is told to, and starts unless it is told not to."""

    def __init__(self, name):
        self.name, self.reason, self.refusal, self.starts = name, None, None, 0

    def ended(self):
        return self.reason

    def start(self):
        self.starts += 1
        if self.refusal:
            raise StackError(self.refusal)
        self.reason = None

    def last_lines(self):
        return f"last words of {self.name}"


@pytest.fixture
def watched(monkeypatch):
    """A supervisor of a database and two parts, without a thread, on a clock of the test."""
    clock = SimpleNamespace(now=0.0, up=True, lines=[])
    monkeypatch.setattr(supervision, "time", SimpleNamespace(monotonic=lambda: clock.now))
    database, first, second = (FakePart(name) for name in ("database", "first", "second"))
    clock.database, clock.first, clock.second = database, first, second
    clock.supervisor = Supervisor(
        database, is_database_up=lambda: clock.up, on_change=clock.lines.append, backoff=PLAIN, rng=random.Random(7)
    )
    for part in (first, second):
        clock.supervisor.watch(part)
    clock.life = clock.supervisor.lives[0]
    return clock


def look_until(watched, seconds, step=0.25):
    """Look again and again for so long; what ended ends again at once if its refusal says so."""
    end = watched.now + seconds
    while watched.now < end:
        watched.supervisor.look()
        watched.now += step


def test_each_failure_doubles_the_pause_up_to_the_largest_and_nothing_is_given_up(watched):
    starts = []

    def start():
        starts.append(watched.now)

    watched.first.reason, watched.first.start = "was killed by SIGKILL", start  # it ends as soon as it was started
    look_until(watched, 40)
    pauses = [b - a for a, b in zip([0.0, *starts], starts, strict=False)]
    assert pauses[:3] == [1.0, 2.25, 4.25]  # a look comes a quarter of a second after the end
    assert set(pauses[3:]) == {8.25}
    assert len(pauses) > 5
    assert watched.life.state == FAILING
    assert watched.second.starts == 0


def test_jitter_keeps_parts_that_ended_together_apart():
    shaken = Backoff(first_seconds=1, factor=2, most_seconds=60, jitter=0.25)
    rng = random.Random(3)
    pauses = [shaken.pause_seconds(3, rng) for _ in range(200)]
    assert len(set(pauses)) == 200
    assert 3 <= min(pauses) < 3.2
    assert 4.8 < max(pauses) <= 5


@pytest.mark.parametrize(("ran_seconds", "failures"), [(29, 2), (31, 1)])
def test_a_part_that_was_steady_begins_with_the_first_pause(watched, ran_seconds, failures):
    watched.first.reason = "ended with status 1"
    look_until(watched, 2)
    assert (watched.life.restarts, watched.life.state) == (1, RUNNING)
    watched.now = watched.life.began + ran_seconds
    watched.first.reason = "ended with status 1"
    watched.supervisor.look()
    assert (watched.life.failures, watched.life.state) == (failures, RESTARTING)


def test_what_keeps_failing_is_reported_with_its_last_words_until_it_is_steady(watched):
    watched.first.reason, watched.first.refusal = "ended with status 3", "no such option"
    look_until(watched, 6)
    assert watched.life.state == FAILING
    assert watched.supervisor.failing() is watched.life
    assert watched.supervisor.failing(60) is None
    assert "did not start: no such option\nlast words of first" in watched.life.failure
    assert any("failed 3 times in a row" in line and "last words of first" in line for line in watched.lines)
    watched.first.refusal = None
    look_until(watched, 10)
    assert (watched.first.reason, watched.life.state) == (None, FAILING)
    look_until(watched, 40)
    assert (watched.life.state, watched.life.failures, watched.supervisor.failing()) == (RUNNING, 0, None)


def test_while_the_database_is_away_nothing_is_started_and_no_end_counts(watched):
    watched.up, watched.database.refusal = False, "the disk is full"
    watched.database.reason = "has no process any more"
    watched.first.reason = "ended with status 1"
    look_until(watched, 60)
    assert watched.database.starts > 5
    assert (watched.first.starts, watched.life.failures, watched.life.state) == (0, 0, WAITING)
    watched.database.refusal, watched.up = None, True
    look_until(watched, 10)
    assert (watched.first.starts, watched.life.state, watched.life.restarts) == (1, RUNNING, 1)


def test_a_database_that_runs_but_does_not_answer_is_waited_for_too(watched):
    watched.up, watched.first.reason = False, "ended with status 1"
    look_until(watched, 5)
    assert (watched.first.starts, watched.database.starts) == (0, 0)
    watched.up = True
    look_until(watched, 2)
    assert watched.first.starts == 1


def test_a_supervision_that_breaks_is_no_silence(watched):
    watched.first.ended = lambda: 1 / 0
    watched.supervisor.start()
    until(lambda: watched.supervisor.broken is not None)
    watched.supervisor.stop()
    with pytest.raises(StackError, match="supervision of the stack broke: ZeroDivisionError"):
        watched.supervisor.failing()


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


ORPHAN = """
import os, sys, time
if os.fork() == 0:
    time.sleep(600)
print("run", os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def real(tmp_path):
    """A supervisor with its thread, over real processes."""
    processes = Processes(tmp_path)
    quick = Backoff(first_seconds=0.05, most_seconds=0.2)
    lines = []
    supervisor = Supervisor(FakePart("database"), is_database_up=lambda: True, on_change=lines.append, backoff=quick)
    supervisor.start()
    yield SimpleNamespace(processes=processes, supervisor=supervisor, lines=lines, folder=tmp_path)
    supervisor.hold()
    processes.stop(grace_seconds=1.0)
    supervisor.stop()


def test_a_killed_process_is_started_again_and_the_stop_ends_what_the_killed_one_left(real):
    code = Component("part", (sys.executable, "-c", ORPHAN), plain_environment())
    running = real.processes.start(code)
    real.supervisor.watch(running)
    until(lambda: len(real.processes.tree()) == 2)
    killed = running.process.pid
    running.process.send_signal(signal.SIGKILL)
    until(lambda: running.process.pid != killed and len(real.processes.tree()) == 3)
    until(lambda: (real.folder / "part.log").read_text() == f"run {running.process.pid}\n")
    assert (real.folder / "part.log.1").read_text() == f"run {killed}\n"
    assert "was killed by SIGKILL" in real.supervisor.lives[0].failure
    assert len(real.processes.identities()) == 2
    family = real.processes.tree()
    real.supervisor.hold()
    real.processes.stop(grace_seconds=1.0)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            until(lambda process=process: not is_alive(process))


def test_a_part_whose_heartbeat_stands_still_is_found_and_one_that_is_not_known_of_is_not():
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    found = []

    def look(**signs):
        now[0] += 10
        found.extend((now[0], name) for name in pulse.note(signs))

    for second in range(8):
        look(scheduler="beat 1", triggerer=f"beat {second}")
    look()  # the API server is away: nothing is known, and the count begins anew
    for second in range(13):
        look(scheduler="beat 1", triggerer=f"beat {second}")
    assert found == [(220.0, "scheduler")]
    now[0] += 100_000  # the machine slept: one look is no proof
    look(scheduler="beat 1", triggerer="beat 12")
    assert len(found) == 1


@pytest.mark.parametrize(("is_asked_for", "has_logins"), [(False, False), (False, True), (True, False)])
def test_easeml_scheduler_is_a_part_where_a_tenant_has_a_login_or_it_is_asked_for(
    is_asked_for, has_logins, tmp_path, monkeypatch
):
    stack = Stack(Places.of(tmp_path), Progress(Console(quiet=True)), with_scheduler=is_asked_for)
    started = []
    monkeypatch.setattr(stack.server, "connect", lambda database: Connected(has_logins))
    monkeypatch.setattr(stack.server, "url", lambda role, database: f"postgresql://{role}@127.0.0.1/{database}")
    monkeypatch.setattr(stack.processes, "start", lambda component: started.append(component) or component)
    monkeypatch.setattr(stack, "_note_parts", lambda: None)
    stack._start_components([])
    wanted = ["referee", *(["easeml-scheduler"] if is_asked_for or has_logins else [])]
    assert [component.name for component in started] == wanted
    addresses = [component.environment["EASEML_DATABASE_URL"] for component in started]
    assert [address.split("@")[0].split("//")[1] for address in addresses] == [
        f"easeml_{name.removeprefix('easeml-')}" for name in wanted
    ]


def test_a_login_that_is_made_while_the_stack_runs_brings_easeml_scheduler(tmp_path, monkeypatch):
    stack = Stack(Places.of(tmp_path), Progress(Console(quiet=True)))
    connected, started = Connected(False), []

    def start(component):
        started.append(component.name)
        if len(started) == 1:
            raise OSError("no process is left")
        return FakePart(component.name)

    monkeypatch.setattr(stack.server, "connect", lambda database: connected)
    monkeypatch.setattr(stack.server, "url", lambda role, database: f"postgresql://{role}@127.0.0.1/{database}")
    monkeypatch.setattr(stack.processes, "start", start)
    monkeypatch.setattr(stack, "_note_parts", lambda: None)
    stack.supervisor.database.part = FakePart("database")
    stack._add_scheduler()
    stack.supervisor.look()
    assert started == []
    connected.value = True  # `easeml tenant login` was run
    for _ in range(3):
        stack._add_scheduler()
        stack._add_scheduler()
        stack.supervisor.look()  # in the thread that lives as long as the launcher
    assert started == ["easeml-scheduler"] * 2  # the first start was refused, and no third is needed
    assert [life.part.name for life in stack.supervisor.lives] == ["easeml-scheduler"]


class Connected:
    """A connection, and its cursor, that gives one row of one value."""

    def __init__(self, value):
        self.value = value

    def cursor(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def execute(self, _):
        pass

    def fetchone(self):
        return (self.value,)

    def close(self):
        pass

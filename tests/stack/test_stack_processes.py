"""Children die with their launcher, whatever kills it; a stop leaves nothing. See test_stack_supervision.py, too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from stack.components import Component
from stack.environment import plain_environment
from stack.failures import CommandFailedError
from stack.processes import Processes, run_command

from easeml_core.sandbox.process import is_alive

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); " + SLEEPER
LAUNCHER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stack.components import Component
from stack.processes import Processes
processes = Processes(Path(sys.argv[2]))
for name in ("one", "two"):
    processes.start(Component(name, (sys.executable, "-c", sys.argv[3]), {}))
print(*(r.process.pid for r in processes.running), flush=True)
time.sleep(600)
"""


def component(code, name="part"):
    return Component(name, (sys.executable, "-c", code), plain_environment())


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path)
    yield processes
    processes.stop(grace_seconds=1.0)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_children_die_with_their_launcher(tmp_path, end):
    command = [sys.executable, "-c", LAUNCHER, str(SCRIPTS), str(tmp_path), SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        children = [psutil.Process(int(pid)) for pid in launcher.stdout.readline().split()]
        until(lambda: all((tmp_path / f"{name}.log").read_text() == "up\n" for name in ("one", "two")))
        launcher.send_signal(end)
    assert len(children) == 2
    until(lambda: not any(map(is_alive, children)))


def test_a_child_whose_launcher_is_gone_already_does_not_start(tmp_path):
    tether = SCRIPTS / "stack" / "tether.py"
    command = [sys.executable, "-I", str(tether), "1", sys.executable, "-c", "print('started')"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert "launcher 1 is gone" in done.stderr


def test_a_death_is_noticed_with_its_last_words(processes):
    steady = processes.start(component(SLEEPER, "steady"))
    frail = processes.start(component("print('first'); raise SystemExit('out of luck')", "frail"))
    until(lambda: frail.ended() is not None)
    assert (frail.ended(), frail.last_lines()) == ("ended with status 1", "first\nout of luck")
    assert steady.ended() is None


def test_a_stop_ends_all_of_them(processes):
    processes.start(component(SLEEPER, "one"))
    processes.start(component(SLEEPER, "two"))
    family = processes.tree()
    processes.stop()
    assert len(family) == 2
    assert not any(p.is_running() for p in family)
    assert processes.running == []


def test_a_stop_ends_the_stubborn_and_their_children(processes, tmp_path):
    processes.start(component(PARENT))
    until(lambda: len(processes.tree()) == 2 and (tmp_path / "part.log").read_text() == "up\nup\n")
    family = processes.tree()
    began = time.monotonic()
    processes.stop(grace_seconds=1.0)
    assert time.monotonic() - began < 60
    until(lambda: not any(map(is_alive, family)))


def test_ctrl_c_of_a_terminal_reaches_the_launcher_only(processes):
    processes.start(component(SLEEPER))
    pid = processes.running[0].process.pid
    assert psutil.Process(pid).terminal() is None or os.getpgid(pid) != os.getpgid(0)
    assert os.getsid(pid) == pid


def test_the_log_of_the_last_start_is_kept(processes, tmp_path):
    for _ in range(2):
        processes.start(component(SLEEPER))
        until(lambda: (tmp_path / "part.log").read_text() == "up\n")
        processes.stop()
    assert (tmp_path / "part.log.1").read_text() == "up\n"


def test_a_command_that_fails_says_why(tmp_path):
    run_command("fine", (sys.executable, "-c", ""), {}, tmp_path)
    with pytest.raises(CommandFailedError, match=r"(?s)no such table.*broken failed with status 1"):
        run_command("broken", (sys.executable, "-c", "raise SystemExit('no such table')"), {}, tmp_path)

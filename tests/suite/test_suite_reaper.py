"""What a killed run of tests has started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from easeml_core.sandbox.process import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = """
import subprocess, sys, time
from pathlib import Path
from reaper import reaper

code = "import signal, time; signal.signal(2, signal.SIG_DFL); print(flush=True); time.sleep(600)"
sleeper = [sys.executable, "-c", code]
left, ended = (subprocess.Popen(sleeper, start_new_session=True, stdout=subprocess.DEVNULL) for _ in range(2))
server = subprocess.Popen(sleeper, stdout=subprocess.PIPE)
server.stdout.readline()  # a shell may have started this run with SIGINT ignored: from now on it ends the server
(Path(sys.argv[1]) / "postmaster.pid").write_text(f"{server.pid}\\n")
for group in (left.pid, ended.pid):
    reaper().kills(group)
reaper()._process.kill()  # as a test does that kills all processes below it
reaper()._process.wait()
reaper().forgets(ended.pid)
reaper().removes(Path(sys.argv[1]))
print(left.pid, server.pid, ended.pid, flush=True)
time.sleep(600)
"""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_groups_servers_and_folders_end_with_a_killed_run(tmp_path: Path) -> None:
    folder = tmp_path / "easeml-throwaway-x"
    folder.mkdir()
    command = [sys.executable, "-c", RUN, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as run:
        assert run.stdout is not None
        left, server, ended = map(psutil.Process, map(int, run.stdout.readline().split()))
        run.kill()
    until(lambda: not folder.exists())
    until(lambda: not is_alive(left) and not is_alive(server))
    assert is_alive(ended)  # forgotten: another run's by now, say
    os.kill(ended.pid, signal.SIGKILL)

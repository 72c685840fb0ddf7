"""What a launcher leaves on disk: a damaged record is repaired, leftovers are found without it, it says whose it is."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from stack.failures import AlreadyRunningError, StackError
from stack.launcher import Presence
from stack.places import Places
from stack.record import (
    FAILED,
    STOPPED,
    PartRecord,
    Record,
    end_leftovers,
    is_running,
    launcher_lock,
    launcher_of,
    read_record,
)

LAUNCH = Path(__file__).resolve().parents[2] / "scripts" / "launch.py"
FAILURE = "2026-01-01 00:00:00 UTC: was killed by SIGKILL"
PART = PartRecord("referee", "running", "2026-01-01T00:00:00+00:00", 2, FAILURE)


@pytest.fixture
def places(tmp_path):
    places = Places.of(tmp_path / "home", tmp_path)
    places.make()
    return places


def test_a_record_is_read_as_it_was_written(places):
    written = Record(launcher=7).write(places.record, children=((12, 3.5),), parts=(PART,), state="healthy")
    assert read_record(places.record) == written


DAMAGED = ["", "{", "null", "[]", '{"launcher": 1}', '{"launcher": 1, "children": 3}', '{"children": [], "other": 1}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_none(places, content):
    places.record.write_text(content)
    assert read_record(places.record) is None


@pytest.mark.parametrize(("command", "status"), [("status", 3), ("down", 0)])
def test_a_damaged_record_stops_no_command(places, command, status):
    places.record.write_text("")
    words = [sys.executable, LAUNCH, "--home", places.home, "--dags", places.dags, command]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, ""), done.stdout


@pytest.mark.parametrize("record", ["damaged", "of the killed launcher before"])
def test_whose_stack_it_is_stands_in_the_lock_whatever_the_record_says(places, record):
    """A launcher that starts has not written the record yet, and another process may have the number in the old one."""
    with launcher_lock(places):
        if record == "damaged":
            places.record.write_text("")
        else:
            Record(launcher=1).write(places.record)
        assert is_running(places)
        told = launcher_of(places)
        assert f"process {os.getpid()}, since " in told
        assert told.endswith(f": {shlex.join(psutil.Process().cmdline()[1:])}")
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()}, since"), launcher_lock(places):
            pass
    assert not is_running(places)


def test_status_as_json_has_each_part(places):
    Record(launcher=os.getpid()).write(places.record, parts=(PART,), state="healthy")
    words = [sys.executable, LAUNCH, "--home", places.home, "--dags", places.dags, "status", "--json"]
    with launcher_lock(places):
        done = subprocess.run(words, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert (done.returncode, told["running"], told["state"]) == (0, True, "healthy")
    assert told["parts"] == [
        {"name": "referee", "state": "running", "since": PART.since, "restarts": 2, "failure": PART.failure}
    ]
    assert told["launched_by"].startswith(f"process {os.getpid()}, since")


@pytest.mark.parametrize("is_recorded", [True, False])
def test_components_of_a_killed_launcher_are_ended_with_and_without_its_record(places, is_recorded):
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        subprocess.Popen(sleeper, cwd=places.logs, start_new_session=True) as left,
        subprocess.Popen(sleeper, cwd=places.home, start_new_session=True) as stranger,
    ):
        until_runs(left)
        if is_recorded:
            created = psutil.Process(left.pid).create_time()
            Record(launcher=1).write(places.record, children=((left.pid, created), (stranger.pid, created - 60)))
        else:
            places.record.write_text("")
        assert end_leftovers(places, patience_seconds=0) == 1
        assert left.wait(20) == -9
        assert stranger.poll() is None
        stranger.kill()


def until_runs(process):
    """Wait until the child has become the program: before, its folder is that of the test."""
    deadline = time.monotonic() + 20
    with contextlib.suppress(psutil.NoSuchProcess):
        while "time.sleep(600)" not in " ".join(psutil.Process(process.pid).cmdline()):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_launcher_that_was_killed_is_waited_for_and_one_that_was_stopped_is_not(places):
    presence = Presence(places)
    Record(launcher=1).write(places.record, state="healthy")
    presence.require()
    with launcher_lock(places):
        presence.require()
    for state, match in ((FAILED, r"(?s)no disk.*has stopped"), (STOPPED, "has stopped")):
        Record(launcher=1).write(places.record, state=state, failure="no disk" if state == FAILED else "")
        with pytest.raises(StackError, match=match):
            presence.require()
    Record(launcher=1).write(places.record, state="healthy")
    presence.seen -= 10_000
    with pytest.raises(StackError, match="has stopped"):
        presence.require()

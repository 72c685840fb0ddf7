"""A stack is stopped, started again by the command line, killed with its launcher, and refused where a part dies.

The stack is the one that the tests of its parts have left running.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
from rich.console import Console
from stack.failures import ComponentDiedError
from stack.launcher import Stack
from stack.progress import Progress
from stack.record import FAILED, STOPPED, is_running, read_record

from easeml_core.store.server.server import Server

pytestmark = pytest.mark.journey

LAUNCH = Path(__file__).resolve().parents[3] / "scripts" / "launch.py"


def launch(*arguments, folders):
    command = [sys.executable, LAUNCH, "--home", folders.home, "--dags", folders.dags, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@contextmanager
def half_a_request(url):
    """A client that sends the beginning of a request and then keeps silent; the server has read it."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        client.sendall(
            b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"
        )
        assert b"100 Continue" in client.recv(100)
        yield


def ended(processes, seconds=30):
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.fixture(scope="module")
def stopped(small_stack, small_places, tiny_run):
    """The same state folder after its stack has stopped; what follows starts it again."""
    family = small_stack.processes.tree()
    small_stack._stop(None)
    assert ended(family)
    return small_places


def test_a_stop_leaves_nothing_behind(stopped):
    assert read_record(stopped.record).state == STOPPED
    assert not is_running(stopped)
    assert not Server(stopped.database).alive()


def test_down_with_nothing_running_is_fine(stopped):
    done = launch("down", folders=stopped)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing is running.")
    assert launch("status", folders=stopped).returncode == 3


@pytest.fixture(scope="module")
def up(stopped):
    """``make up`` on the state of before."""
    done = launch("up", folders=stopped)
    assert done.returncode == 0, done.stdout
    yield done.stdout
    launch("down", folders=stopped)


def test_up_says_where_it_is_and_keeps_what_was(up, stopped):
    record = read_record(stopped.record)
    password = json.loads(stopped.passwords.read_text())["admin"]
    assert record.url in up
    assert password in up
    with closing(psycopg2.connect(_dsn(stopped))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM dag_run WHERE dag_id = 'tiny'")
        assert cursor.fetchone() == (1,)
    again = launch("up", folders=stopped)
    assert again.returncode == 0
    assert record.url in again.stdout
    assert read_record(stopped.record).launcher == record.launcher


def _dsn(places):
    return Server(places.database).url("airflow", "airflow").replace("+psycopg2", "")


def test_a_killed_launcher_takes_all_but_the_database_along_and_down_stops_that(up, stopped):
    record = read_record(stopped.record)
    children = [psutil.Process(pid) for pid, _ in record.children]
    with half_a_request(record.url):
        os.kill(record.launcher, signal.SIGKILL)
        assert ended(children)
    assert not is_running(stopped)
    assert Server(stopped.database).alive()
    assert launch("down", folders=stopped).returncode == 0
    assert not Server(stopped.database).alive()


def test_a_component_that_dies_stops_the_start_with_its_last_words(stopped, monkeypatch):
    def broken(environment, *_places_and_options, **_named):
        from stack.components import Component

        return Component("referee", (sys.executable, "-c", "raise SystemExit('no such option')"), environment)

    monkeypatch.setattr("stack.launcher.referee", broken)
    monkeypatch.setattr("stack.launcher.airflow_components", lambda *_: ())
    with pytest.raises(ComponentDiedError, match=r"(?s)ended with status 1.*no such option.*referee failed 4 times"):
        Stack(stopped, Progress(Console(quiet=True))).__enter__()
    record = read_record(stopped.record)
    assert record.state == FAILED
    assert "no such option" in record.failure
    assert not is_running(stopped)
    assert not Server(stopped.database).alive()

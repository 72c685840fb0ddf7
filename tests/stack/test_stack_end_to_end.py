"""The whole stack, real: PostgreSQL, referee, Airflow's four processes, a DAG run over REST, and a clean end.

One stack for the session (about 40 s); what needs a stack of its own is at the end.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from demo_night.runs import Release, await_dag, follow, require_no_broken_tasks
from rich.console import Console
from stack.failures import AlreadyRunningError, BrokenTasksError, ComponentDiedError, NightError
from stack.launcher import POOL, Stack
from stack.places import Places
from stack.progress import Progress
from stack.record import FAILED, HEALTHY, STOPPED, is_running, read_record
from stack.rest import RestError

from easeml_core.services.reports.overview import overview
from easeml_core.store.database import Store
from easeml_core.store.server.server import Server
from easeml_core.store.server.throwaway import throwaway_folder

pytestmark = pytest.mark.journey

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "scripts" / "launch.py"
DAG_FILE = '''
"""Tiny."""
import os
import pendulum
from airflow.sdk import Param, dag, task

@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), params={"n": Param(2, type="integer")})
def tiny():
    @task
    def numbers(params=None):
        return list(range(params["n"]))

    @task(pool="easeml_devices")
    def double(x):
        return 2 * x

    @task
    def secrets():
        """What a task could give away: its environment, and the connection it is meant to have."""
        from airflow.sdk import BaseHook

        connection = BaseHook.get_connection("easeml_default")
        return {"environment": dict(os.environ), "login": connection.login, "extra": connection.extra_dejson}

    double.expand(x=numbers())
    secrets()

tiny()
'''

JUDGED = '''
"""Stands where the nightly DAG would: a gate that answers as it is told, and what depends on it."""
import pendulum
from airflow.sdk import DAG, Param, task, task_group
from airflow.sdk.exceptions import AirflowFailException

with DAG("judged", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None,
         params={"outcomes": Param([], type="array")}) as dag:
    @task
    def best_models(params=None):
        return params["outcomes"]

    @task
    def gate(outcome, ti=None):
        facts = {"study": f"study-{outcome}", "model_id": 7, "message": "step 1 of 8"}
        for name, value in (facts if outcome == "refused" else facts | {"symbol": outcome}).items():
            ti.xcom_push(key=name, value=value)
        if outcome != "pass":
            raise AirflowFailException(f"the answer was {outcome}")

    @task
    def promote(outcome):
        return True

    @task
    def meter(outcome, ti=None):
        ti.xcom_push(key="signal", value=2)

    @task_group
    def release(outcome):
        gate(outcome) >> promote(outcome)
        meter(outcome)

    release.expand(outcome=best_models())
'''


def quiet():
    return Progress(Console(quiet=True))


@pytest.fixture(scope="module")
def folders():
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        (dags / "tiny.py").write_text(DAG_FILE)
        (dags / "judged.py").write_text(JUDGED)
        yield Places.of(folder / "home-of-all", dags)
        Server(folder / "home-of-all" / "postgres").stop()


@pytest.fixture(scope="module")
def stack(folders):
    with Stack(folders, quiet()) as stack:
        yield stack


@pytest.fixture(scope="module")
def rest(stack):
    return stack.access.rest()


@pytest.fixture(scope="module")
def run(stack, rest):
    """A finished run of the tiny DAG with three numbers."""
    await_dag(rest, "tiny", stack.check)
    rest.pause("tiny", False)
    run_id = rest.trigger("tiny", {"n": 3})
    assert list(rest.wait("tiny", run_id))[-1] == "success"
    return run_id


def test_a_run_over_rest_reaches_its_end(rest, run):
    states = [(t["task_id"], t["map_index"], t["state"]) for t in rest.tasks("tiny", run)]
    doubles = [("double", i, "success") for i in range(3)]
    assert sorted(states) == sorted([("numbers", -1, "success"), ("secrets", -1, "success"), *doubles])
    assert [rest.xcom("tiny", run, "double", map_index=i) for i in range(3)] == [0, 2, 4]
    assert rest.xcom("tiny", run, "double", map_index=0, key="nothing") is None
    assert rest.count_runs("tiny") == 1
    assert any("xcom" in line.lower() for line in rest.log("tiny", run, "numbers"))


def judged(stack, rest, outcomes):
    await_dag(rest, "judged", stack.check)
    rest.pause("judged", False)
    run_id = rest.trigger("judged", {"outcomes": outcomes})
    states = [state for state, tasks in follow(rest, "judged", run_id, stack.check) if tasks]
    assert states[-1] == "failed"  # Airflow's word for a run with a rejection
    return run_id


def test_a_rejection_is_told_from_a_pass_and_stops_nobody_else(stack, rest):
    run_id = judged(stack, rest, ["fail", "pass"])
    assert require_no_broken_tasks(rest, "judged", run_id) == [
        Release("study-fail", 7, "fail", promoted=False, signal=2, message="step 1 of 8"),
        Release("study-pass", 7, "pass", promoted=True, signal=2, message="step 1 of 8"),
    ]


def test_a_gate_that_refused_is_a_broken_task_with_its_reason(stack, rest):
    run_id = judged(stack, rest, ["fail", "refused"])
    with pytest.raises(BrokenTasksError, match=r"(?s)the answer was refused.*without a rejection: gate 1") as caught:
        require_no_broken_tasks(rest, "judged", run_id)
    assert [name for name, _ in caught.value.broken] == ["gate 1 (failed)"]


def test_a_dag_that_cannot_be_read_is_reported_with_its_reason(stack, rest):
    broken = stack.places.dags / "broken.py"
    broken.write_text("from airflow.sdk import DAG\nraise RuntimeError('forgotten')\n")
    try:
        with pytest.raises(NightError, match=r"(?s)forgotten.*cannot be imported"):
            await_dag(rest, "broken", stack.check)
    finally:
        broken.unlink()


def test_a_value_that_the_params_forbid_is_refused_with_the_reason(rest, run):
    with pytest.raises(RestError, match="three") as caught:
        rest.trigger("tiny", {"n": "three"})
    assert caught.value.status == 400


def test_a_task_knows_the_worker_and_not_the_referee(stack, rest, run):
    found = rest.xcom("tiny", run, "secrets")
    assert found["login"] == "easeml_worker"
    assert found["extra"] == {"artifacts": str(stack.places.artifacts)}
    secrets = stack.server.secrets
    for role in ("postgres", "easeml_owner", "easeml_referee"):
        assert secrets[role] not in json.dumps(found)


def test_everything_listens_on_loopback_only(stack):
    assert stack.exposed() >= 2  # the database and the API server


def test_the_pool_of_devices_is_there_and_deferred_tasks_keep_their_slots(stack, rest):
    pool = rest.call("GET", f"/pools/{POOL}")
    assert (pool["slots"], pool["include_deferred"]) == (2, True)
    rest.call("PATCH", f"/pools/{POOL}", {"name": POOL, "slots": 3, "include_deferred": True})
    rest.make_pool(POOL, 2, "again")
    assert rest.call("GET", f"/pools/{POOL}")["slots"] == 3


def test_our_schema_is_there_for_the_worker(stack):
    assert overview(Store(stack.access.worker_url)).tenants == []


def test_the_plugin_comes_by_its_entry_point(stack, rest):
    assert rest.call("GET", "/plugins/importErrors")["import_errors"] == []
    names = [p["name"] for p in rest.call("GET", "/plugins")["plugins"]]
    assert names.count("easeml") == 1


def test_nobody_gets_in_with_another_password(stack):
    from stack.rest import Rest

    with pytest.raises(RestError) as caught:
        Rest(stack.access.url, "admin", "admin").log_in()
    assert caught.value.status == 401


def test_the_state_folder_has_one_launcher(stack, folders):
    assert read_record(folders.record).state == HEALTHY
    assert is_running(folders)
    with pytest.raises(AlreadyRunningError, match="make down"), Stack(folders, quiet()):
        pass
    assert read_record(folders.record).state == HEALTHY


def test_secrets_are_readable_by_their_owner_only(stack, folders):
    for file in (folders.keys, folders.passwords, folders.record, folders.database / "secrets.json"):
        assert file.stat().st_mode & 0o077 == 0, file


def launch(*arguments, folders):
    command = [sys.executable, LAUNCH, "--home", folders.home, "--dags", folders.dags, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def ended(processes, seconds=30):
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.fixture(scope="module")
def stopped(stack, folders, run):
    """The same state folder after its stack has stopped; what follows starts it again."""
    family = stack.processes.tree()
    stack._stop(None)
    assert ended(family)
    return folders


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
    with pytest.raises(ComponentDiedError, match=r"(?s)ended with status 1.*no such option.*referee failed 4 times"):
        Stack(stopped, quiet()).__enter__()
    record = read_record(stopped.record)
    assert record.state == FAILED
    assert "no such option" in record.failure
    assert not is_running(stopped)
    assert not Server(stopped.database).alive()

"""The whole stack, real: PostgreSQL, referee, Airflow's four processes, DAG runs over REST, and secrets."""

import json

import pytest
from demo_night.runs import Release, await_dag, follow, require_no_broken_tasks
from rich.console import Console
from stack.failures import AlreadyRunningError, BrokenTasksError, NightError
from stack.launcher import POOL, Stack
from stack.progress import Progress
from stack.record import HEALTHY, is_running, read_record
from stack.rest import RestError

from easeml_core.services.reports.overview import overview
from easeml_core.store.database import Store

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def stack(small_stack):
    return small_stack


@pytest.fixture(scope="module")
def rest(stack):
    return stack.access.rest()


def test_a_run_over_rest_reaches_its_end(rest, tiny_run):
    states = [(t["task_id"], t["map_index"], t["state"]) for t in rest.tasks("tiny", tiny_run)]
    doubles = [("double", i, "success") for i in range(3)]
    assert sorted(states) == sorted([("numbers", -1, "success"), ("secrets", -1, "success"), *doubles])
    assert [rest.xcom("tiny", tiny_run, "double", map_index=i) for i in range(3)] == [0, 2, 4]
    assert rest.xcom("tiny", tiny_run, "double", map_index=0, key="nothing") is None
    assert rest.count_runs("tiny") == 1
    assert any("xcom" in line.lower() for line in rest.log("tiny", tiny_run, "numbers"))


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


def test_a_value_that_the_params_forbid_is_refused_with_the_reason(rest, tiny_run):
    with pytest.raises(RestError, match="three") as caught:
        rest.trigger("tiny", {"n": "three"})
    assert caught.value.status == 400


def test_a_task_knows_the_worker_and_not_the_referee(stack, rest, tiny_run):
    found = rest.xcom("tiny", tiny_run, "secrets")
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
    assert {row.study for row in overview(Store(stack.access.worker_url)).tenants} <= {"cancer"}


def test_the_plugin_comes_by_its_entry_point(stack, rest):
    assert rest.call("GET", "/plugins/importErrors")["import_errors"] == []
    names = [p["name"] for p in rest.call("GET", "/plugins")["plugins"]]
    assert names.count("easeml") == 1


def test_nobody_gets_in_with_another_password(stack):
    from stack.rest import Rest

    with pytest.raises(RestError) as caught:
        Rest(stack.access.url, "admin", "admin").log_in()
    assert caught.value.status == 401


def test_the_state_folder_has_one_launcher(stack, small_places):
    assert read_record(small_places.record).state == HEALTHY
    assert is_running(small_places)
    with pytest.raises(AlreadyRunningError, match="make down"), Stack(small_places, Progress(Console(quiet=True))):
        pass
    assert read_record(small_places.record).state == HEALTHY


def test_secrets_are_readable_by_their_owner_only(stack, small_places):
    for file in (
        small_places.keys,
        small_places.passwords,
        small_places.record,
        small_places.database / "secrets.json",
    ):
        assert file.stat().st_mode & 0o077 == 0, file

"""What Airflow's own database says of runs and tasks, and that a page is shown without it."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from easeml_airflow.web.airflow_runs import Place, places, starters
from easeml_airflow.web.airflow_task import parts_of, task_of


def test_airflow_says_who_started_a_run_and_where_its_tasks_run(run_dag):
    from airflow.sdk import DAG, task

    with DAG("who-ran-it", schedule=None) as dag:

        @task
        def act():
            return 1

        act()
    run = run_dag(dag)
    name = ("who-ran-it", run.run_id)
    assert starters([name, name, ("who-ran-it", "another"), ("a'b", "%")]) == {name: run.triggering_user_name}
    assert run.triggering_user_name
    key = f"who-ran-it/{run.run_id}/act/-1"
    found = places([key, f"{key}/7", key.replace("act", "other"), "laptop", "a/b/c/99999999999"])
    assert set(found) == {key, f"{key}/7"}  # a stream's trials are its task's
    assert isinstance(found[key], Place)
    assert found[key].pool == "default_pool"
    assert starters([]) == places([]) == {}


def test_a_page_is_shown_without_airflows_database(monkeypatch, caplog):
    def away(**_):
        raise OperationalError("SELECT", {}, Exception("no route"))

    monkeypatch.setattr("airflow.models.dagrun.DagRun.find", away)
    monkeypatch.setattr("airflow.models.dagrun.DagRun.fetch_task_instances", away)
    assert starters([("dag", "run")]) == {}
    assert places(["dag/run/task/-1"]) == {}
    assert "no route" in caplog.text


@pytest.mark.parametrize(
    "key", [None, "", "laptop", "a/b/c", "a//c/-1", "a/b/c/x", "a/b/c/-", "a/b/c/1234567890", "a/b/c/٣"]
)
def test_what_is_no_request_key_of_a_task(key):
    assert parts_of(key) is None


@pytest.mark.parametrize(
    ("actor", "task"), [("a/b/c", ("a", "b", "c")), ("a/b/c/d", ("a", "b", "c/d")), ("ada", None), ("//", None)]
)
def test_who_acts_may_be_a_task(actor, task):
    assert task_of(actor) == task

"""What Airflow's own database says of runs and tasks, and that a page is shown without it."""

from __future__ import annotations

import pickle

import pytest
from device_rows import add_study, add_trial
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from easeml_airflow.web.server.airflow_runs import Place, parts_of, places, run_address, starters, task_address, task_of
from easeml_core.store.rows import change


@pytest.fixture
def run(run_dag):
    """A run of a DAG of one task."""
    from airflow.sdk import DAG, task

    with DAG("who-ran-it", schedule=None) as dag:

        @task
        def act():
            return 1

        act()
    return run_dag(dag)


def test_airflow_says_who_started_a_run_and_where_its_tasks_run(run):
    name = ("who-ran-it", run.run_id)
    assert starters([name, name, ("who-ran-it", "another"), ("a'b", "%")]) == {name: run.triggering_user_name}
    assert run.triggering_user_name
    key = f"who-ran-it/{run.run_id}/act/-1"
    found = places([key, f"{key}/7", key.replace("act", "other"), "laptop", "a/b/c/99999999999"])
    assert set(found) == {key, f"{key}/7"}  # a stream's trials are its task's
    assert isinstance(found[key], Place)
    assert found[key].pool == "default_pool"
    assert starters([]) == places([]) == {}


class Planted:
    """A value that leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_nothing_is_read_of_a_task_and_a_run_but_what_is_shown(run, tmp_path):
    """Whoever reaches Airflow's database may plant a pickle; a run's conf may have any size, here it is no JSON."""
    from airflow.utils.session import create_session

    def plant(config, conf):
        with create_session() as session:
            told = {"run": run.run_id, "config": config, "conf": conf}
            session.execute(text("UPDATE task_instance SET executor_config = :config WHERE run_id = :run"), told)
            session.execute(text("UPDATE dag_run SET conf = :conf WHERE run_id = :run"), told)

    plant(pickle.dumps(Planted(tmp_path / "unpickled")), "{")
    key = f"who-ran-it/{run.run_id}/act/-1"
    try:
        found, who = places([key]), starters([("who-ran-it", run.run_id)])
    finally:
        plant(None, None)
    assert not (tmp_path / "unpickled").exists()
    assert found[key].pool == "default_pool"
    assert who == {("who-ran-it", run.run_id): run.triggering_user_name}


def test_where_a_task_runs_is_told_to_operators_alone(database, ask_as, monkeypatch):
    """A worker writes the key freely, and so could name a task of anybody's."""
    asked = []
    monkeypatch.setattr(
        "easeml_airflow.web.pages.compute.page.places",
        lambda keys: asked.append(keys) or {key: Place("rivals-box-3", "rivals_pool") for key in keys},
    )
    add_study(database, "mine")
    add_trial(database, "mine", began=1)
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.trials SET lease_key = 'rival-dag/manual__1/act/-1'")
    for viewer in (ask_as("vic"), ask_as("rita", "referee")):
        page = viewer.get("/compute")
        assert page.status_code == 200
        assert "rivals-box-3" not in page.text
        assert "rivals_pool" not in page.text
    assert asked == []
    assert "rivals-box-3, pool rivals_pool" in ask_as("ada", "operator").page("/compute").text


def test_a_page_is_shown_without_airflows_database(monkeypatch, caplog):
    def away(**_):
        raise OperationalError("SELECT", {}, Exception("no route"))

    monkeypatch.setattr("airflow.utils.session.create_session", away)
    assert starters([("dag", "run")]) == {}
    assert places(["dag/run/task/-1"]) == {}
    assert "no route" in caplog.text


@pytest.mark.parametrize(
    "key",
    [
        *(None, "", "laptop", "a/b/c", "a//c/-1", "a/b/c/x", "a/b/c/-", "a/b/c/1234567890", "a/b/c/٣"),
        *("../../x/-1", "../b/c/-1", "a/../c/-1", "a/b/../-1", "./b/c/-1", "a/b/./3/17"),
    ],
)
def test_what_is_no_request_key_of_a_task(key):
    assert parts_of(key) is run_address(key) is task_address(key) is None


@pytest.mark.parametrize(
    ("actor", "task"),
    [
        *(("a/b/c", ("a", "b", "c")), ("a/b/c/d", ("a", "b", "c/d")), ("..a/b./...", ("..a", "b.", "..."))),
        *((name, None) for name in ("ada", "//", "../../c", "../b/c", "a/./c", "a/b/..")),
    ],
)
def test_who_acts_may_be_a_task(actor, task):
    assert task_of(actor) == task

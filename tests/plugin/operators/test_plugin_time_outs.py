"""The time that Airflow gives a task is over, by Airflow's alarm: no candidate is lost, and none hangs for ever."""

import signal
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from sklearn.naive_bayes import GaussianNB
from task_doubles import context

from easeml_airflow import operators
from easeml_airflow.decorators import trial
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.store.artifacts import disk

LIMIT = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _alarm():
    """Airflow leaves its handler behind."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def ring(*_):
    signal.raise_signal(signal.SIGALRM)


def run(operator):
    """Execute the task as Airflow does: what it pushed and returned, or what it raised."""
    given = context("train")
    pushed = given["ti"].pushed
    with timeout(LIMIT.total_seconds()):
        try:
            operator.execute(given)
        except (AirflowTaskTimeout, AirflowFailException, AirflowSkipException) as error:
            return pushed, error
    return pushed, None


def row(store, trial_id):
    with store.begin() as tx:
        query = f"SELECT state, attempt, excused, failure_kind FROM work.trials WHERE id = {trial_id}"
        return tuple(tx.exec_driver_sql(query).one())


def test_a_disk_that_stays_full_for_as_long_as_the_task_may_take_leaves_the_trial_free(
    connected, make_study, store, monkeypatch
):
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    (found,) = suggest_trials(store, count=1, request_key="k").trials
    monkeypatch.setenv(disk.VARIABLE, "100%")
    monkeypatch.setattr(disk, "time", SimpleNamespace(sleep=ring))
    operator = operators.TrainTrialOperator(task_id="train", trial=found.trial_id, execution_timeout=LIMIT)
    for _ in range(4):  # more often than a trial has attempts
        assert isinstance(run(operator)[1], AirflowTaskTimeout)
        assert row(store, found.trial_id) == ("SUGGESTED", 0, 0, None)
    monkeypatch.setenv(disk.VARIABLE, "0")
    assert run(operator)[0]["trial"]["state"] == "SUCCEEDED"


@pytest.mark.parametrize("form", ["operator", "decorator"])
def test_a_function_that_hangs_is_tried_as_often_as_a_trial_may_be_and_again_once_its_task_is_cleared(
    connected, make_study, store, form
):
    def own(data, parameters, report):
        if hangs:
            ring()
        return GaussianNB().fit(data.train_inputs, data.train_labels)

    make_study("cancer", candidates=[{"name": "own", "kind": "function"}])
    (found,) = suggest_trials(store, count=1, functions=["own"], request_key="k").trials
    how = {"task_id": "train", "execution_timeout": LIMIT}
    with DAG("hangs", schedule=None):
        of_type = operators.TrainTrialOperator(trial=found.trial_id, functions=[own], **how)
        decorated = trial(own, **how | {"task_id": "fit"})(trial=found.trial_id).operator
    hangs, task = [True], {"operator": of_type, "decorator": decorated}[form]
    for attempt in (1, 2):
        assert isinstance(run(task)[1], AirflowTaskTimeout)  # which Airflow tries again
        assert row(store, found.trial_id) == ("SUGGESTED", attempt, 0, None)
    pushed, error = run(task)
    assert isinstance(error, AirflowFailException)  # no further try would help
    assert "failed because of its task" in str(error)
    assert "by the task's execution_timeout (3,600 s)" in str(error)
    assert (row(store, found.trial_id), pushed["trial"]["state"]) == (("FAILED", 3, 0, "task"), "FAILED")
    hangs.clear()
    again, error = run(task)
    assert (again["trial"]["state"], again["trial"]["trial_id"] > found.trial_id) == ("SUCCEEDED", True)


@pytest.mark.parametrize(("on_failed", "raised"), [("skip", AirflowSkipException), ("ignore", type(None))])
def test_the_last_time_out_does_to_its_task_what_a_failed_trial_does(connected, make_study, store, on_failed, raised):
    make_study("cancer", candidates=[{"name": "own", "kind": "function"}], training={"max_attempts": 1})
    (found,) = suggest_trials(store, count=1, functions=["own"], request_key="k").trials

    def own(data, parameters, report):
        ring()

    how = {"functions": [own], "on_failed": on_failed, "execution_timeout": LIMIT}
    pushed, error = run(operators.TrainTrialOperator(task_id="train", trial=found.trial_id, **how))
    assert (pushed["trial"]["state"], type(error)) == ("FAILED", raised)

"""The DAG ``easeml_feed_retraining`` in this process: real referee, real training, only the study that was fed."""

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.services.datasets.feed import feed, file_refresh, list_feeds
from easeml_core.services.referee.requests import wait_for_answer
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial

TREE = {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 3}}
TABLE = load_source("sklearn:breast_cancer")


def states(run, task):
    return sorted(str(ti.state) for ti in run.get_task_instances() if ti.task_id == task)


@pytest.fixture
def run(run_dag, root, referee):
    from airflow.dag_processing.dagbag import DagBag

    return lambda: run_dag(DagBag(dag_folder=str(root / "dags" / "easeml_feed_retraining.py")).dags.popitem()[1])


def trials_of(store, study):
    from sqlalchemy import text

    with store.begin() as tx:
        asked = "SELECT v.version, t.state FROM work.trials t JOIN work.data_versions v ON v.id = t.data_version_id "
        asked += "JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study ORDER BY 1"
        return [tuple(row) for row in tx.execute(text(asked), {"study": study})]


@pytest.mark.nightly
@pytest.mark.journey
def test_new_pairs_retrain_their_study_and_no_other(make_study, connected, artifacts, run, store):
    for name in ("fed", "left"):
        make_study(name, candidates=[TREE])
    for trial in suggest_trials(store, count=1, studies_only=["fed"], request_key="k").trials:
        run_trial(store, artifacts, trial_id=trial.trial_id, request_key="w")
    pairs = [{"inputs": (row * np.float32(1.01)).tolist(), "label": "benign"} for row in TABLE.inputs[:5]]
    feed(store, artifacts, study="fed", pairs=pairs, fed_by="ann", request_key="f")

    night = run()
    assert states(night, "refresh") == ["success"]
    assert set(states(night, "train")) == {"success"}  # one for each slot of the live devices
    assert [entry.state for entry in list_feeds(store, study="fed")] == ["taken"]
    assert trials_of(store, "fed") == [(1, "SUCCEEDED"), (2, "SUCCEEDED")]
    assert trials_of(store, "left") == []  # though its candidate has never run
    assert len(states(night, "release.gate")) == 1

    quiet = run()
    assert states(quiet, "fed_studies") == ["success"]
    for task in ("refresh", "train", "release.gate"):
        assert states(quiet, task) in (["skipped"], []), task
    assert trials_of(store, "left") == []

    # The referee was away at night, and has answered the request of a task that had given up.
    another = [{"inputs": [1.0] * 30, "label": "benign"}]
    feed(store, artifacts, study="fed", pairs=another, fed_by="ann", request_key="g")
    late = file_refresh(store, study="fed", request_key="a night before")
    assert wait_for_answer(store, late.request_id, timeout=60).version == 3
    next_night = run()
    assert states(next_night, "refresh") == ["success"]
    assert trials_of(store, "fed")[2:] == [(3, "SUCCEEDED")]
    assert len(states(next_night, "release.gate")) == 1
    assert states(run(), "train") in (["skipped"], [])

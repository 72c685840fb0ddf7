"""The task that mirrors in MLflow, against a real server; and what becomes of it where that is away."""

import pytest
from airflow.sdk.exceptions import AirflowFailException
from mlflow_lab import free_address, mlflow_server, standing
from task_doubles import context

from easeml_airflow import operators
from easeml_core.errors import StoreUnavailableError
from easeml_core.services.operations import mlflow_sync

pytestmark = pytest.mark.journey

TREE = {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 3}}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The variables that the mirror sets where they are missing: here, so that they are gone after the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def execute(name, **arguments):
    return getattr(operators, name)(task_id="task", **arguments).execute(context())


@pytest.mark.nightly
def test_what_was_trained_is_in_mlflow(connected, make_study, tmp_path, monkeypatch):
    make_study("cancer", candidates=[TREE])
    (trial,) = execute("SuggestTrialsOperator", count=1)
    trained = execute("TrainTrialOperator", trial=trial)
    with mlflow_server(tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        done = execute("MlflowSyncOperator", studies='["cancer"]', prefix="night")
        added = {"runs": 1, "versions": 0, "production_version": None}
        assert done == [{"study": "cancer", "experiment": "night/lab/cancer"} | added]
        ((run,),) = standing(address, "night")["runs"].values()
        assert run["params"] == {"max_depth": "3"}
        assert [point[0] for point in run["metrics"]["quality"]] == [trained["quality"]]
        assert execute("MlflowSyncOperator", tracking_uri=address, prefix="night")[0]["runs"] == 0


def test_what_the_task_names_is_mirrored_and_what_was_added_is_returned(connected, monkeypatch):
    def sync(store, artifacts, mirrored, *, studies_only):
        asked.append((mirrored, studies_only))
        return [mlflow_sync.MirrorReport("cancer", "night/lab/cancer", 1, 0, None)]

    asked = []
    monkeypatch.setattr(mlflow_sync, "sync", sync)
    done = execute("MlflowSyncOperator", tracking_uri="http://there", studies='["cancer"]', prefix="night", alias="now")
    assert asked == [(mlflow_sync.Mirror("http://there", "night", "now"), ["cancer"])]
    added = {"runs": 1, "versions": 0, "production_version": None}
    assert done == [{"study": "cancer", "experiment": "night/lab/cancer"} | added]


def test_a_server_that_is_away_is_tried_again_and_a_wrong_address_is_not(connected, make_study):
    make_study("cancer", candidates=[TREE])
    (trial,) = execute("SuggestTrialsOperator", count=1)
    execute("TrainTrialOperator", trial=trial)
    with pytest.raises(StoreUnavailableError, match="MLflow server cannot be used"):
        execute("MlflowSyncOperator", tracking_uri=free_address())
    with pytest.raises(AirflowFailException, match="tracking-uri must be http"):
        execute("MlflowSyncOperator", tracking_uri="None")

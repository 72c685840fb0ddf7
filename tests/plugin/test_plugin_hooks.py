"""What a task has of Airflow: its request key, its name in the audit, metrics, and look-ups that may fail."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult
from airflow.sdk.execution_time.context import context_to_airflow_vars
from task_doubles import context

from easeml_airflow.errors import Outcome, outcome_of
from easeml_airflow.hooks.easeml import EasemlHook, request_key, task_actor
from easeml_airflow.operators import notify
from easeml_core.errors import NotFoundError, StoreUnavailableError
from easeml_core.store.callers import Actor

PARTS = ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID")
SERVER = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
CODE = """
from airflow.sdk._shared.observability.metrics import stats
from airflow.sdk.observability.metrics import stats_utils
from easeml_airflow.hooks import easeml
from easeml_core.services.telemetry import TRIAL_SECONDS, TRIALS_ENDED, WAITS_PENDING

stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)  # as a task's process does
easeml.connect_metrics()
easeml.connect_metrics()
TRIALS_ENDED.note(1, state="SUCCEEDED")
TRIAL_SECONDS.note(1.5)
for change in (1, 1, -1):
    WAITS_PENDING.note(change, question="answer")
"""


def test_the_request_key_names_the_task_instance_and_not_the_try():
    names = {"dag_id": "nightly", "run_id": "scheduled__1"}
    for index, place in ((4, "4"), (None, "-1")):
        assert request_key(context("train_1", **names, map_index=index)) == f"nightly/scheduled__1/train_1/{place}"


def test_a_task_is_named_by_what_airflow_puts_into_its_environment(monkeypatch):
    told = context_to_airflow_vars(
        {
            "task_instance": SimpleNamespace(dag_id="nightly", task_id="pause", try_number=2),
            "dag_run": SimpleNamespace(run_id="scheduled__1", logical_date=None, team_name=None),
        },
        in_env_var_format=True,
    )
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert task_actor() == Actor("nightly/scheduled__1/pause", "task", try_number=2)


@pytest.mark.parametrize("tried", ["", "0", "-1", "two", "99999999999", "2\n"])
def test_a_try_that_is_no_number_is_left_out(monkeypatch, tried):
    for name in PARTS:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", tried)
    assert task_actor() == Actor("x/x/x", "task")


@pytest.mark.parametrize("missing", PARTS)
def test_outside_of_tasks_nobody_is_named(monkeypatch, missing):
    for name in PARTS:
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)
    assert task_actor() is None


def test_measurements_reach_the_statsd_that_airflow_has_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        metrics = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(server.getsockname()[1])}
        given = {f"AIRFLOW__METRICS__{name}": value for name, value in metrics.items()}
        subprocess.run([sys.executable, "-c", CODE], env=os.environ | given, check=True, timeout=120)
        server.sendto(b"the end", server.getsockname())
        got = list(iter(lambda: server.recv(4096).decode(), "the end"))
    assert sorted(line for line in got if "easeml" in line) == [
        "airflow.easeml.trial.duration:1500.000000|ms",
        "airflow.easeml.trials.ended:1|c",
        *(f"airflow.easeml.waits.pending:{level:.1f}|g" for level in (1, 1, 2)),
    ]


@pytest.fixture
def supervisor(monkeypatch):
    """Let the supervisor answer this to every question; an exception is raised."""

    class Supervisor:
        def __init__(self, answer):
            self.answer = answer

        def send(self, _):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    return lambda answer: monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(answer), raising=False)


@pytest.mark.parametrize("answer", [SERVER, OSError("the pipe is closed")])
def test_a_server_that_cannot_look_is_tried_again(answer, supervisor):
    supervisor(answer)
    with pytest.raises(StoreUnavailableError, match="could not look for the connection 'nowhere'") as raised:
        _ = EasemlHook("nowhere").url
    assert outcome_of(raised.value) is Outcome.RETRY
    with pytest.raises(StoreUnavailableError, match="could not look for the variable 'told'") as raised:
        notify._kept("told")
    assert outcome_of(raised.value) is Outcome.RETRY


def test_what_airflow_says_is_missing_is_missing(supervisor):
    supervisor(ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND))
    with pytest.raises(NotFoundError, match="no connection 'nowhere'"):
        _ = EasemlHook("nowhere").url
    supervisor(ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND))
    assert notify._kept("told") is None


def test_a_variable_that_is_there_is_read(supervisor):
    supervisor(VariableResult(key="told", value='{"last": 7}'))
    assert notify._kept("told") == {"last": 7}

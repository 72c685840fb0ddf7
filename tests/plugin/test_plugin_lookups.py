"""A look-up that fails is no missing connection: Airflow's own look-ups say "not found" for both."""

import pytest
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult

from easeml_airflow.errors import Outcome, outcome_of
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.operators import notify
from easeml_core.errors import NotFoundError, StoreUnavailableError

SERVER = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})


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

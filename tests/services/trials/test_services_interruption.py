"""The caller's time is over: what it means for the trial depends on how far the attempt had come."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.naive_bayes import GaussianNB

from easeml_core.services.selection.executors import TRAINERS_ONLY
from easeml_core.services.selection.retry import retry_trial
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials import attempts, execution
from easeml_core.services.trials.attempts import TimeLimit, run_function_trial, run_routed_trial
from easeml_core.services.trials.execution import cancel_trial, claim, trial_state
from easeml_core.settings.config import TrainingConfig
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.tables.leases import MOST_EXCUSED, checkpoint_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class OverError(BaseException):
    """What ends the caller: as Airflow's, no Exception."""


LIMIT = TimeLimit(OverError, 3600.0, "the task's execution_timeout")


def over(*_: Any, **__: Any) -> Any:
    raise OverError


@pytest.fixture
def trial(lab: Any) -> int:
    lab.register("limited", candidates=[{"name": "net", "kind": "torch_mlp"}])
    (found,) = suggest_trials(lab.worker, count=1, studies_only=["limited"], request_key=lab.key()).trials
    return int(found.trial_id)


@pytest.fixture
def run(lab: Any, trial: int) -> Callable[..., str]:
    """Run the trial once in a task; its end: the state that is reported, or ``over``."""

    def once(**changes: Any) -> str:
        asked = {"trial_id": trial, "request_key": "w", "executors": TRAINERS_ONLY, "time_limit": LIMIT}
        try:
            return str(run_routed_trial(lab.worker, lab.artifacts, **asked | changes).state)
        except OverError:
            return "over"

    return once


def row(lab: Any, trial: int) -> tuple[Any, ...]:
    ((state, attempt, excused, kind),) = lab.rows(
        "SELECT state, attempt, excused, failure_kind FROM work.trials WHERE id = :id", id=trial
    )
    return state, attempt, excused, kind


def saving(path: Path) -> Callable[..., Any]:
    """Stand for a training that writes a checkpoint and goes on."""

    def train(job: Any, *, on_checkpoint: Any, **_: Any) -> Any:
        path.write_bytes(b"weights")
        on_checkpoint(path, 1e-3, 0.1)
        raise OverError

    return train


def test_time_that_is_over_before_the_training_began_does_not_count(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int
) -> None:
    monkeypatch.setattr(ArtifactStore, "staged", over)
    for attempt in (1, 2, 3, 4):  # more than may be lost
        assert run() == "over"
        assert row(lab, trial) == ("SUGGESTED", attempt, attempt, None)


def test_a_training_that_saves_nothing_fails_after_the_last_attempt_because_of_its_task(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int
) -> None:
    monkeypatch.setattr(execution, "run_job", over)
    lines = list[str]()
    for attempt in (1, 2):
        assert run(log=lines.append) == "over"
        assert row(lab, trial) == ("SUGGESTED", attempt, 0, None)
    assert [line for line in lines if "by the task's execution_timeout (3,600 s); it counts" in line]
    assert run() == "FAILED"
    assert row(lab, trial) == ("FAILED", 3, 0, "task")
    failure = trial_state(lab.worker, trial_id=trial).failure or ""
    assert "by the task's execution_timeout (3,600 s), and no attempt is left; raise the task's" in failure
    assert "allows a training 600 s (time_limit_seconds)" in failure
    again = retry_trial(lab.worker, trial_id=trial)
    assert (again.state, again.trial_id > trial) == ("SUGGESTED", True)


def test_a_training_that_saves_a_checkpoint_goes_on_from_it_and_is_not_tried_for_ever(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(execution, "run_job", saving(tmp_path / "checkpoint"))
    seconds = list[float]()
    for attempt in range(1, MOST_EXCUSED + 3):
        assert run() == "over"
        assert row(lab, trial) == ("SUGGESTED", attempt, min(attempt, MOST_EXCUSED), None)
        with lab.worker.begin() as tx:
            saved = checkpoint_of(tx, trial)
        assert saved is not None
        seconds.append(saved.seconds)
    assert seconds == sorted(set(seconds))
    assert run() == "FAILED"
    assert row(lab, trial) == ("FAILED", MOST_EXCUSED + 3, MOST_EXCUSED, "task")


def test_an_attempt_that_hangs_where_it_went_on_counts(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(execution, "run_job", saving(tmp_path / "checkpoint"))
    run()
    monkeypatch.setattr(execution, "run_job", over)
    assert [run(), run(), run()] == ["over", "over", "FAILED"]
    assert row(lab, trial) == ("FAILED", 4, 1, "task")


def test_a_stop_before_the_time_is_over_counts_as_a_stop(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int
) -> None:
    stopped = list[bool]()

    def train(*_: Any, **__: Any) -> Any:
        stopped.append(True)
        raise OverError

    monkeypatch.setattr(execution, "run_job", train)
    assert run(should_stop=lambda: bool(stopped)) == "over"
    assert row(lab, trial) == ("SUGGESTED", 1, 1, None)


def test_a_person_s_cancel_holds_when_the_time_is_over(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int
) -> None:
    def train(*_: Any, **__: Any) -> Any:
        cancel_trial(lab.worker, trial_id=trial)
        raise OverError

    monkeypatch.setattr(execution, "run_job", train)
    assert run() == "CANCELLED"


def test_a_function_is_looked_after_once_a_second_whatever_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "LOOK_SECONDS", 0.01)
    looked = threading.Event()
    lease: Any = SimpleNamespace(config=TrainingConfig(lease_seconds=3600.0), should_stop=looked.set)
    with attempts._heartbeat(lease):
        assert looked.wait(60)  # a quarter of the lease is fifteen minutes


def test_time_that_is_over_takes_no_trial_from_another_worker(
    lab: Any, monkeypatch: pytest.MonkeyPatch, run: Any, trial: int
) -> None:
    def train(*_: Any, **__: Any) -> Any:
        lab.let_run_out(trial)
        assert claim(lab.worker, trial_id=trial, request_key="another") is not None
        raise OverError

    monkeypatch.setattr(execution, "run_job", train)
    assert run() == "over"
    assert row(lab, trial) == ("RUNNING", 2, 0, None)


def test_a_result_that_was_recorded_in_time_is_the_task_s(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.register("in-time", candidates=[{"name": "own", "kind": "function"}])
    asked = {"studies_only": ["in-time"], "functions": ["own"], "request_key": lab.key()}
    (found,) = suggest_trials(lab.worker, count=1, **asked).trials
    record = execution.record_success

    def own(data: Any, parameters: Any, report: Any) -> Any:
        return GaussianNB().fit(data.train_inputs, data.train_labels)

    def then_over(*arguments: Any) -> None:
        record(*arguments)
        raise OverError

    monkeypatch.setattr("easeml_core.services.trials.attempts.record_success", then_over)
    how = {"trial_id": found.trial_id, "request_key": "w", "function": own, "time_limit": LIMIT}
    assert run_function_trial(lab.worker, lab.artifacts, **how).state == "SUCCEEDED"


@pytest.mark.parametrize(("seconds", "told"), [(599.0, 1), (600.0, 0)])
def test_a_study_that_allows_a_longer_training_than_the_task_is_named_when_the_attempt_begins(
    monkeypatch: pytest.MonkeyPatch, run: Any, seconds: float, told: int
) -> None:
    monkeypatch.setattr(ArtifactStore, "staged", over)
    lines = list[str]()
    run(log=lines.append, time_limit=TimeLimit(OverError, seconds, LIMIT.name))
    found = [line for line in lines if "allows it 600 s (time_limit_seconds), and the task's execution_timeout" in line]
    assert (len(found), lines.index(found[0]) if found else 0) == (told, 0)

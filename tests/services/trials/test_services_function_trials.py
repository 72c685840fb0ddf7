"""A tenant's own training function: the same record as any trial, and every way in which it can go wrong."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from easeml_core.errors import ShapeError, TrialStateError
from easeml_core.models.formats import load_predictor
from easeml_core.services.selection.executors import executors_of
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.attempts import run_function_trial
from easeml_core.services.trials.execution import cancel_trial, claim, trial_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.tables.trials import TrialReport


def own(data: Any, parameters: Any, report: Any) -> Any:
    """Stand for the function that the candidate names, where only its name counts."""


OWN = executors_of([own], trainers=False)


@pytest.fixture
def trial_id(lab: Any) -> int:
    """A trial whose candidate has a parameter for the function to read."""
    candidates = [{"name": "own", "kind": "function", "parameters": {"max_depth": 3}}]
    lab.register("own", candidates=candidates, training={"lease_seconds": 6.0})
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["own"], functions=["own"], request_key="k").trials
    return int(trial.trial_id)


@pytest.fixture
def run(lab: Any, trial_id: int) -> Callable[..., TrialReport]:
    def train(function: Callable[..., Any], **changes: Any) -> TrialReport:
        def own(data: Any, parameters: Any, report: Any) -> Any:
            return function(data, parameters, report)

        asked = {"trial_id": trial_id, "request_key": "w", "function": own} | changes
        return run_function_trial(lab.worker, lab.artifacts, **asked)

    return train


@pytest.fixture
def next_heartbeat(lab: Any, trial_id: int, wait_for: Any) -> Callable[[], None]:
    """Wait until the lease has been extended."""

    def until() -> Any:
        return lab.one("SELECT lease_until FROM work.trials WHERE id = :id", id=trial_id)

    def wait() -> None:
        before = until()
        wait_for(lambda: until() > before)

    return wait


def good(data: Any, parameters: Any, report: Any) -> Any:
    report(np.int64(1), quality=np.float32(0.5))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(data.train_inputs, data.train_labels)


def test_a_function_trial_is_recorded_like_any_other(run: Any, lab: Any, trial_id: int) -> None:
    seen: list[Any] = []

    def train(data: Any, parameters: Any, report: Any) -> Any:
        seen.append((parameters, data.classes, data.train_inputs.shape))
        return good(data, parameters, report)

    lines: list[str] = []
    report = run(train, log=lines.append)
    assert seen == [({"max_depth": 3}, 2, (174, 30))]
    assert (report.state, report.failure) == ("SUCCEEDED", None)
    assert report.quality > 0.9
    assert report.cost_seconds > 0
    assert lines == [f"trial {trial_id}: step 1.0, quality 0.5"]
    ((artifact, kind),) = lab.rows("SELECT artifact, format FROM work.models WHERE id = :id", id=report.model_id)
    parts = lab.open_parts("own")
    predicted = load_predictor(lab.artifacts.path(artifact), kind).predict(parts.validation_inputs)
    assert report.quality == pytest.approx(float(np.mean(predicted == parts.validation_labels)), abs=1e-12)
    assert run(lambda *_: pytest.fail("a finished trial is not repeated")) == report


def test_a_bare_classifier_is_taken_as_well(run: Any) -> None:
    assert run(lambda data, *_: GaussianNB().fit(data.train_inputs, data.train_labels)).state == "SUCCEEDED"


def test_a_report_that_is_no_number_costs_neither_the_heartbeat_nor_the_trial(run: Any, next_heartbeat: Any) -> None:
    """What diverged gives NaN: no heartbeat could carry it, and the lease would be lost."""
    lines: list[str] = []

    def diverges(data: Any, parameters: Any, report: Any) -> Any:
        for step in range(2):
            report(step, quality=np.nan)
            report(np.inf)
            next_heartbeat()
        return good(data, parameters, report)

    assert run(diverges, log=lines.append).state == "SUCCEEDED"
    assert any("step 1.0" in line for line in lines)
    assert not any("nan" in line or "inf" in line for line in lines)


def broken(_: Any, parameters: Any, __: Any) -> Any:
    raise KeyError(parameters["max_depth"])


def refused(*_: Any) -> Any:
    name = "inputs"
    raise ShapeError(name, (1,), "(n, 30)")


FAILURES: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (broken, "the training function raised KeyError: 3"),
    "raises an error of ours": (refused, "the training function raised ShapeError: inputs must have shape (n, 30)"),
    "nothing": (lambda *_: None, "must return a fitted scikit-learn classifier, or regressor"),
    "a number": (lambda *_: 0.97, "or the path of a folder with a program that predicts (command.json); got float"),
    "not fitted": (lambda *_: LogisticRegression(), "cannot be used"),
    "names for labels": (
        lambda data, *_: GaussianNB().fit(data.train_inputs, np.array(["no", "yes"])[data.train_labels]),
        "a class number is wanted",
    ),
    "another width": (
        lambda data, *_: GaussianNB().fit(data.train_inputs[:, :3], data.train_labels),
        "cannot be used",
    ),
    "a type that is not trusted": (
        lambda data, *_: RidgeClassifierCV().fit(data.train_inputs, data.train_labels),
        "steps that are not trusted: sklearn.linear_model._ridge.RidgeClassifierCV",
    ),
    "a report of nonsense": (lambda data, _, report: report("soon"), "the training function raised ValueError"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_whatever_goes_wrong_is_a_failed_trial_with_its_reason(what: str, run: Any, lab: Any, trial_id: int) -> None:
    function, reason = FAILURES[what]
    report = run(function)
    assert report.state == "FAILED"
    assert reason in report.failure
    if what == "raises":  # a key is missing, whatever is tried: the seconds are charged, and speak of no candidate
        charged = lab.one("SELECT lost_seconds FROM work.trials WHERE id = :id AND failure_kind = 'task'", id=trial_id)
        assert (report.cost_seconds, charged > 0) == (None, True)
    else:
        assert report.cost_seconds > 0
    assert lab.one("SELECT count(*) FROM work.observations WHERE trial_id = :id", id=trial_id) == 0


class OnlyFits:
    """A classifier of the tenant's own, which no file of ours can hold."""

    def predict(self, inputs: Any) -> Any:
        return np.zeros(len(inputs), dtype=np.int64)


def test_a_classifier_of_the_tenants_own_type_is_refused_with_the_type(run: Any) -> None:
    report = run(lambda *_: OnlyFits())
    assert report.state == "FAILED"
    assert "OnlyFits" in report.failure


def test_the_lease_is_kept_alive_while_the_function_works(
    run: Any, lab: Any, trial_id: int, next_heartbeat: Any
) -> None:
    def slow(data: Any, parameters: Any, report: Any) -> Any:
        next_heartbeat()
        with pytest.raises(TrialStateError, match="RUNNING on another worker"):
            claim(lab.worker, trial_id=trial_id, request_key="another caller", executors=OWN)
        return good(data, parameters, report)

    assert run(slow).state == "SUCCEEDED"


def test_a_cancel_reaches_the_function_at_its_next_report(run: Any, lab: Any, trial_id: int) -> None:
    started, ended = threading.Event(), list[Any]()

    def endless(_: Any, __: Any, report: Any) -> None:
        started.set()
        for step in range(10_000):
            report(step)
            time.sleep(0.02)

    worker = threading.Thread(target=lambda: ended.append(run(endless)))
    worker.start()
    assert started.wait(30)
    cancel_trial(lab.worker, trial_id=trial_id)
    worker.join(30)
    assert [r.state for r in ended] == ["CANCELLED"]


def test_a_function_that_lost_its_lease_records_nothing(run: Any, lab: Any, trial_id: int) -> None:
    def slow(data: Any, parameters: Any, report: Any) -> Any:
        taken = claim(
            lab.worker, trial_id=trial_id, request_key="w", executors=OWN
        )  # a retry of the same task, elsewhere
        assert taken.attempt == 2
        return good(data, parameters, report)

    with pytest.raises(TrialStateError, match="taken over by another attempt"):
        run(slow)
    assert trial_state(lab.worker, trial_id=trial_id).state == "RUNNING"
    assert lab.one("SELECT count(*) FROM work.models WHERE trial_id = :id", id=trial_id) == 0

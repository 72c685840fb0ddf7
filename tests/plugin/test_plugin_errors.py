"""The table from the core's errors to what Airflow does about them."""

from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from easeml_airflow.errors import OUTCOMES, Outcome, airflow_outcome, outcome_of, settle_trial
from easeml_core import errors as core
from easeml_core.entities import TrialState
from easeml_core.store.tables.trials import TrialReport


def descendants(kind):
    """The class and all classes below it."""
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def example(kind):
    """An error of the class, whatever its constructor takes."""
    error = kind.__new__(kind)
    error.args = ("tolerance must be > 0, got -1",)
    return error


CORE = sorted((k for k in descendants(core.EasemlError) if k.__module__ == core.__name__), key=lambda k: k.__name__)


def test_there_is_a_row_for_every_error_of_the_core():
    assert set(OUTCOMES) == set(CORE)


def test_a_new_error_below_a_known_one_has_the_same_outcome():
    class BrandNewError(core.StoreUnavailableError):
        pass

    assert outcome_of(BrandNewError("away")) is Outcome.RETRY


@pytest.mark.parametrize("kind", CORE)
def test_each_error_becomes_what_its_row_says(kind):
    error = example(kind)
    expected = kind if OUTCOMES[kind] is Outcome.RETRY else AirflowFailException
    with pytest.raises(expected, match="tolerance must be > 0, got -1") as caught, airflow_outcome():
        raise error
    assert caught.value is error or caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [core.StoreUnavailableError, core.ConcurrentUpdateError])
def test_what_may_get_better_is_retried(kind):
    assert OUTCOMES[kind] is Outcome.RETRY


@pytest.mark.parametrize("kind", [core.ConditionSyntaxError, core.NotFoundError, core.SchemaVersionError])
def test_what_cannot_get_better_fails_at_once(kind):
    assert OUTCOMES[kind] is Outcome.FAIL


def test_used_up_fails_or_skips_as_the_operator_says():
    error = core.BudgetExhaustedError("the sealed gate set of study 'x'", 32, 32, "seal a new set")
    with pytest.raises(AirflowFailException, match="32 of 32 used; seal a new set"), airflow_outcome():
        raise error
    with pytest.raises(AirflowSkipException, match="32 of 32"), airflow_outcome(on_exhausted="skip"):
        raise error


def test_errors_of_others_pass_through():
    with pytest.raises(ZeroDivisionError), airflow_outcome():
        1 / 0  # noqa: B018 - raises


RESULT = TrialReport(
    trial_id=7,
    study="digits",
    candidate="forest",
    state=TrialState.FAILED,
    quality=None,
    score=None,
    metric="accuracy",
    cost_seconds=1.0,
    failure="quality is NaN",
    failure_kind=None,
    model_id=None,
)


@pytest.mark.parametrize(("on_failed", "expected"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
def test_a_failed_trial_tells_its_reason(on_failed, expected):
    with pytest.raises(expected, match=r"trial 7 \(digits, forest\) failed: quality is NaN"):
        settle_trial(RESULT, on_failed=on_failed)


@pytest.mark.parametrize("on_failed", ["fail", "skip", "ignore"])
def test_a_cancelled_trial_skips_its_task(on_failed):
    with pytest.raises(AirflowSkipException, match="was cancelled"):
        settle_trial(replace(RESULT, state=TrialState.CANCELLED, failure=None), on_failed=on_failed)


def test_a_failed_trial_may_be_ignored_and_a_good_one_is_fine():
    settle_trial(RESULT, on_failed="ignore")
    settle_trial(replace(RESULT, state=TrialState.SUCCEEDED, failure=None), on_failed="fail")


def test_a_misspelt_choice_is_told():
    with pytest.raises(core.ConfigError, match="on_failed must be one of fail, skip, ignore, got 'stop'"):
        settle_trial(RESULT, on_failed="stop")

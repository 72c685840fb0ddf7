"""One table: what each error of the core means for the Airflow task that meets it.

* FAIL: it cannot get better by trying again; the task fails at once, whatever ``retries`` says.
* RETRY: the world may be better soon; the error is passed on as it is, and Airflow retries.
* EXHAUSTED: nothing is left to spend; the task fails, or is skipped where the operator says so.

A test demands a row for every error class of the core, so that a new one cannot be forgotten.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_airflow.version_compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from easeml_core import errors as core
from easeml_core.entities import FailureKind, TrialState
from easeml_core.errors import Blame, blame_of
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import BaseOperator

    from easeml_core.services.trials.attempts import TimeLimit
    from easeml_core.services.trials.worker import DeviceSummary
    from easeml_core.store.tables.trials import TrialReport


class Outcome(StrEnum):
    """What becomes of the task."""

    FAIL = "fail"
    RETRY = "retry"
    EXHAUSTED = "exhausted"


OUTCOMES: Mapping[type[core.EasemlError], Outcome] = {
    core.EasemlError: Outcome.FAIL,
    core.InvalidInputError: Outcome.FAIL,
    core.ShapeError: Outcome.FAIL,
    core.ConfigError: Outcome.FAIL,
    core.ConditionSyntaxError: Outcome.FAIL,
    core.MissingLabelsError: Outcome.FAIL,
    core.ProgramError: Outcome.FAIL,
    core.StateError: Outcome.FAIL,
    core.NotFoundError: Outcome.FAIL,
    core.AlreadyExistsError: Outcome.FAIL,
    core.TrialStateError: Outcome.FAIL,
    core.SealedSetTooSmallError: Outcome.FAIL,
    core.BudgetExhaustedError: Outcome.EXHAUSTED,
    core.MachineError: Outcome.RETRY,
    core.DevicesHeldError: Outcome.RETRY,
    core.NumericalError: Outcome.FAIL,
    core.TrainingError: Outcome.FAIL,
    core.TrainingCancelled: Outcome.FAIL,
    core.TrainingKilled: Outcome.RETRY,
    core.TrainingStarved: Outcome.FAIL,
    core.TrainingTaskError: Outcome.FAIL,
    core.TrainingMachineError: Outcome.RETRY,
    core.ArtifactError: Outcome.FAIL,
    core.ArtifactPlaceError: Outcome.FAIL,
    core.StoreError: Outcome.RETRY,
    core.StoreUnavailableError: Outcome.RETRY,
    core.StoreExhaustedError: Outcome.RETRY,
    core.ConcurrentUpdateError: Outcome.RETRY,
    core.WrongRoleError: Outcome.FAIL,
    core.SchemaVersionError: Outcome.FAIL,
}


def outcome_of(error: core.EasemlError) -> Outcome:
    """The row of the nearest class in the table; an error that the disk or the system has caused is tried again."""
    if blame_of(error) is Blame.PASSING and not isinstance(error, core.SchemaVersionError | core.WrongRoleError):
        return Outcome.RETRY
    return next(OUTCOMES[kind] for kind in type(error).__mro__ if kind in OUTCOMES)


@contextmanager
def airflow_outcome(*, on_exhausted: str = "fail") -> Iterator[None]:
    """Turn an error of the core into what Airflow does about it."""
    try:
        yield
    except core.EasemlError as error:
        outcome = outcome_of(error)
        if outcome is Outcome.RETRY:
            raise
        if outcome is Outcome.EXHAUSTED and on_exhausted == "skip":
            raise AirflowSkipException(str(error)) from error
        raise AirflowFailException(str(error)) from error


ON_FAILED = ("fail", "skip", "ignore")


def time_limit_of(task: BaseOperator) -> TimeLimit | None:
    """Return the task's ``execution_timeout``, at whose end Airflow's alarm interrupts its training; None for none."""
    from easeml_core.services.trials.attempts import TimeLimit

    if task.execution_timeout is None:
        return None
    return TimeLimit(AirflowTaskTimeout, task.execution_timeout.total_seconds(), "the task's execution_timeout")


@contextmanager
def skipped_if_taken() -> Iterator[None]:
    """Skip a task that comes too late for its trial: another worker has it by now, and that one records the result.

    So does the second try of a task whose worker was lost, where a device has taken the trial up before Airflow has
    given the first try up.
    """
    try:
        yield
    except core.TrialStateError as error:
        message = f"{error}; the worker that has it records its result"
        raise AirflowSkipException(message) from error


def settle_trial(result: TrialReport, *, on_failed: str, is_stopped: bool = False) -> None:
    """Turn a trial that did not succeed into what Airflow does about it."""
    require(on_failed in ON_FAILED, "on_failed", on_failed, "one of " + ", ".join(ON_FAILED))
    state, trial = result.state, f"trial {result.trial_id} ({result.study}, {result.candidate})"
    if state == TrialState.CANCELLED:
        message = f"{trial} was cancelled"
        raise AirflowSkipException(message)
    if state == TrialState.SUGGESTED and is_stopped:
        message = f"{trial} was handed back, since this task was stopped; a further try, or the next ask, takes it"
        raise AirflowException(message)
    if state == TrialState.SUGGESTED:
        message = f"{trial} was given back: this task does not execute what its candidate names"
        raise AirflowSkipException(message)
    if state == TrialState.FAILED and on_failed != "ignore":
        message = f"{trial} failed: {result.failure}"
        if result.failure_kind == FailureKind.TASK:
            message = (
                f"{trial} failed because of its task, not of its candidate: mend it and clear this task, or run "
                f"`easeml trial retry {result.trial_id}`; {result.failure}"
            )
        raise (AirflowFailException if on_failed == "fail" else AirflowSkipException)(message)


STREAM_OUTCOMES: Mapping[str, type[Exception]] = {
    "stopped": AirflowException,
    "taken over": AirflowException,
    "device fails": AirflowFailException,
}
"""Reasons for which a device's stream did not end by itself; at every other one its task succeeds."""


NOTHING_RUNNABLE = "nothing runnable"
"""A device found candidates, and could run none of them."""


def settle_stream(summary: DeviceSummary) -> None:
    """Turn the end of a device's stream into what Airflow does about it."""
    raised = STREAM_OUTCOMES.get(summary.reason)
    if raised is None and summary.reason == NOTHING_RUNNABLE and summary.is_useless:
        raised = AirflowFailException
    if raised is not None:
        raise raised(summary.message)

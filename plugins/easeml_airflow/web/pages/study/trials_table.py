"""The trials of a study as lines of a table: state, quality, cost, learning curve, and where its log is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Dot, Line, Plot, nice_axis
from easeml_airflow.web.server.airflow_runs import is_of_stream, run_address, task_address
from easeml_airflow.web.server.formats import Mark, quality_text, seconds_text
from easeml_core.entities import TrialState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.queries.study import StudyTrial, TrialFacts

TRIAL_STATES = {
    TrialState.SUGGESTED: Mark("busy", "queue", "Suggested"),
    TrialState.RUNNING: Mark("busy", "run", "Running"),
    TrialState.SUCCEEDED: Mark("ok", "done", "Succeeded"),
    TrialState.FAILED: Mark("bad", "fail", "Failed"),
    TrialState.CANCELLED: Mark("idle", "stop", "Cancelled"),
}
NOT_HELD = Mark("bad", "alert", "Did not hold")
"""Of a trial whose stated quality is not what the referee has measured."""

LOOKS = {TrialState.RUNNING: ("ln k1", "f1"), TrialState.FAILED: ("ln k2", "f2")}
LONGEST_REASON = 160


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial.

    Attributes:
        trial_id: Its number.
        candidate: Which one.
        state: As a shape, a colour and a word.
        when: When it ended, else began, else was suggested.
        when_word: Which of these.
        why: First line of its failure, or that it measured a model anew.
        device: Kind of device; empty for any.
        quality: In words.
        is_best: Whether it is the study's best now.
        so_far: Whether the quality is that of a running trial.
        cost: In words.
        curve: Learning curve; None without one.
        log: Address of the task that worked on it last, in Airflow, or of its run; None where that is not known.
        log_word: What is there.
        can_cancel: Whether it waits or runs, and is not cancelled yet.
    """

    trial_id: int
    candidate: str
    state: Mark
    when: datetime
    when_word: str
    why: str
    device: str
    quality: str
    is_best: bool
    so_far: bool
    cost: str
    curve: Plot | None
    log: str | None
    log_word: str
    can_cancel: bool


def rows_of(trials: Sequence[StudyTrial], *, best: int | None) -> list[TrialRow]:
    """Return the lines of these trials, all curves on one axis; ``best`` is the trial with the best result."""
    axis = _axis(trials)
    return [_row(trial, axis, best) for trial in trials]


def curves_text(trials: Sequence[StudyTrial]) -> str:
    """Return the ends of the axis that all curves of the page share; empty where there are none."""
    if not any(trial.curve for trial in trials):
        return ""
    axis = _axis(trials)
    return f"{axis.low:.4g} to {axis.high:.4g}"


def _axis(trials: Sequence[StudyTrial]) -> Axis:
    return nice_axis([quality for trial in trials for _, quality in trial.learning_curve])


def _row(trial: StudyTrial, axis: Axis, best: int | None) -> TrialRow:
    word, when = _when(trial)
    so_far = trial.state == TrialState.RUNNING
    reported = trial.progress_quality if so_far else None
    quality = result_of(trial) if reported is None else reported
    log, log_word = log_of(trial)
    return TrialRow(
        trial_id=trial.trial_id,
        candidate=trial.candidate,
        state=state_of(trial),
        when=when,
        when_word=word,
        why=why_of(trial),
        device=trial.device or "",
        quality="none" if quality is None else quality_text(quality),
        is_best=trial.trial_id == best,
        so_far=so_far and quality is not None,
        cost=cost_of(trial, trial.predicted_seconds),
        curve=spark_of(trial.learning_curve, axis, trial.state) if trial.curve else None,
        log=log,
        log_word=log_word,
        can_cancel=trial.finished_at is None and not trial.cancel_requested,
    )


def _when(trial: StudyTrial) -> tuple[str, datetime]:
    if trial.finished_at is not None:
        return "", trial.finished_at
    return ("suggested", trial.suggested_at) if trial.started_at is None else ("started", trial.started_at)


def state_of(trial: TrialFacts) -> Mark:
    """Return the state of a trial, or that its result did not hold."""
    return TRIAL_STATES[trial.state] if trial.measured is None else NOT_HELD


def result_of(trial: TrialFacts) -> float | None:
    """Return the quality of a trial; None without one, and where the stated one did not hold."""
    return trial.quality if trial.measured is None else None


def why_of(trial: TrialFacts) -> str:
    """Return why there is no quality, or why there is no training; empty where nothing needs to be said."""
    if trial.measured is not None:
        return f"{quality_text(trial.quality)} was stated; its model has {quality_text(trial.measured)}"
    if trial.failure:
        first = trial.failure.partition("\n")[0]
        return first if len(first) <= LONGEST_REASON else f"{first[:LONGEST_REASON]}…"
    if trial.cancel_requested and trial.finished_at is None:
        return "will be cancelled"
    return f"measured the model of #{trial.reevaluates} anew" if trial.reevaluates else ""


def cost_of(trial: TrialFacts, predicted: float | None = None) -> str:
    """Return the device time that a trial has taken, and while it runs of how much."""
    if trial.finished_at is not None:
        return seconds_text(trial.lost_seconds + (trial.cost_seconds or 0.0) + (trial.start_seconds or 0.0))
    if trial.state != TrialState.RUNNING or trial.attempt_started_at is None:
        return "none yet"
    taken = seconds_text((datetime.now(UTC) - trial.attempt_started_at).total_seconds() + trial.lost_seconds)
    return f"{taken} of about {seconds_text(predicted)}" if predicted and predicted != 1 else taken


def spark_of(curve: Sequence[tuple[float, float]], axis: Axis, state: TrialState) -> Plot:
    """A learning curve: quality over the share of the steps."""
    line, dot = LOOKS.get(state, ("ln k6", "f6"))
    end = Dot(*curve[-1], "", dot)
    return Plot("", "", Axis(0.0, 1.0), axis, lines=[Line(curve, line)], dots=[end])


def log_of(trial: StudyTrial) -> tuple[str | None, str]:
    """Where Airflow keeps the log: the try of the task that worked on the trial last; before the first, the run.

    Of trials that ended before their last key was kept, the batch knows the run that asked, and the task where
    one task asks and trains.
    """
    key = trial.last_key or (trial.batch_key if is_of_stream(trial.batch_key) else None)
    task = task_address(key, trial.last_try)
    return (task, "Log") if task else (run_address(trial.batch_key), "Airflow run")

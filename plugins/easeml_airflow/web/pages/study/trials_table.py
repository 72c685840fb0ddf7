"""The trials of a study as lines of a table: state, quality, cost, learning curve, and where its log is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.components.charts import Axis, Dot, Line, Plot, nice_axis
from easeml_airflow.web.server.airflow_runs import is_of_stream, run_address, task_address
from easeml_airflow.web.server.formats import quality_text, seconds_text
from easeml_airflow.web.server.marks import Mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRIAL_STATES = {
    "SUGGESTED": Mark("busy", "queue", "Suggested"),
    "RUNNING": Mark("busy", "run", "Running"),
    "SUCCEEDED": Mark("ok", "done", "Succeeded"),
    "FAILED": Mark("bad", "fail", "Failed"),
    "CANCELLED": Mark("idle", "stop", "Cancelled"),
}
LOOKS = {"RUNNING": ("ln k1", "f1"), "FAILED": ("ln k2", "f2")}
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
        can_cancel: Whether it waits or runs, and nobody has cancelled it yet.
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


def rows_of(facts: Mapping[str, Any]) -> list[TrialRow]:
    """The lines for the facts of ``services.study_facts``, all curves on one axis."""
    curves, axis = facts["curves"], _axis(facts)
    best = facts["best"]["trial_id"] if facts["best"] else None
    return [_row(trial, curves.get(trial["trial_id"]), axis, best) for trial in facts["trials"]]


def curves_text(facts: Mapping[str, Any]) -> str:
    """The ends of the axis that all curves of the page share; empty where there are none."""
    if not any(t["trial_id"] in facts["curves"] for t in facts["trials"]):
        return ""
    axis = _axis(facts)
    return f"{axis.low:.4g} to {axis.high:.4g}"


def _axis(facts: Mapping[str, Any]) -> Axis:
    shown = [facts["curves"].get(t["trial_id"], ()) for t in facts["trials"]]
    return nice_axis([quality for curve in shown for _, quality in curve])


def _row(
    trial: Mapping[str, Any], curve: Sequence[tuple[float, float]] | None, axis: Axis, best: int | None
) -> TrialRow:
    word, when = _when(trial)
    so_far = trial["state"] == "RUNNING"
    news = (trial["progress"] or {}).get("quality") if so_far else None
    quality = news if isinstance(news, int | float) else trial["quality"]
    log, log_word = log_of(trial)
    return TrialRow(
        trial_id=trial["trial_id"],
        candidate=trial["candidate"],
        state=TRIAL_STATES[trial["state"]],
        when=when,
        when_word=word,
        why=why_of(trial),
        device=trial["device"] or "",
        quality="none" if quality is None else quality_text(quality),
        is_best=trial["trial_id"] == best,
        so_far=so_far and quality is not None,
        cost=cost_of(trial),
        curve=None if not curve else spark_of(curve, axis, trial["state"]),
        log=log,
        log_word=log_word,
        can_cancel=trial["finished_at"] is None and not trial["cancel_requested"],
    )


def _when(trial: Mapping[str, Any]) -> tuple[str, datetime]:
    for word, name in (("", "finished_at"), ("started", "started_at"), ("suggested", "suggested_at")):
        if trial[name] is not None:
            return word, trial[name]
    return "", datetime.now(UTC)


def why_of(trial: Mapping[str, Any]) -> str:
    """Why there is no quality, or why there is no training; empty where nothing needs to be said."""
    if trial["failure"]:
        first = str(trial["failure"]).partition("\n")[0]
        return first if len(first) <= LONGEST_REASON else f"{first[:LONGEST_REASON]}…"
    if trial["cancel_requested"] and trial["finished_at"] is None:
        return "will be cancelled"
    return f"measured the model of #{trial['reevaluates']} anew" if trial["reevaluates"] else ""


def cost_of(trial: Mapping[str, Any]) -> str:
    """What it has taken, and while it runs of how much."""
    if trial["finished_at"] is not None:
        return seconds_text(trial["lost_seconds"] + (trial["cost_seconds"] or 0.0))
    if trial["state"] != "RUNNING":
        return "none yet"
    told = seconds_text((datetime.now(UTC) - trial["attempt_started_at"]).total_seconds() + trial["lost_seconds"])
    about = (trial["reasons"] or {}).get("predicted_cost_seconds")
    return f"{told} of about {seconds_text(about)}" if about and about != 1 else told


def spark_of(curve: Sequence[tuple[float, float]], axis: Axis, state: str) -> Plot:
    """A learning curve: quality over the share of the steps."""
    line, dot = LOOKS.get(state, ("ln k6", "f6"))
    end = Dot(*curve[-1], "", dot)
    return Plot("", "", Axis(0.0, 1.0), axis, lines=[Line(curve, line)], dots=[end])


def log_of(trial: Mapping[str, Any]) -> tuple[str | None, str]:
    """Where Airflow keeps the log: the try of the task that worked on the trial last; before the first, the run.

    Of trials that ended before their last key was kept (m0010), the batch knows the run that asked, and the task where
    one task asks and trains.
    """
    key = trial["last_key"] or (trial["batch_key"] if is_of_stream(trial["batch_key"]) else None)
    task = task_address(key, trial["last_try"])
    return (task, "Log") if task else (run_address(trial["batch_key"]), "Airflow run")

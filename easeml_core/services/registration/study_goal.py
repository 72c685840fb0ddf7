"""What a study is after: what is predicted, by which metric candidates are compared, what is right on sealed sets."""

from __future__ import annotations

from dataclasses import dataclass

from easeml_core.data.sources.spec import checked_task
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.metrics.correctness import CLASSES
from easeml_core.metrics.metric import METRICS, check_metric_name, metric_of, require_gate_metric
from easeml_core.programs.demands import Demands, demands_of
from easeml_core.programs.language import parse_program

_DEFAULT_METRIC = {Task.CLASSIFICATION: "accuracy", Task.REGRESSION: "r2"}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a study is after.

    Attributes:
        task: Whether classes or numbers are predicted.
        metric: By which candidates are compared; a name of ``training.metrics``.
        hit: What counts as right on sealed sets: ``accuracy``, or ``within:T``.
        program: In canonical form; None where it follows from the data.
    """

    task: Task
    metric: str
    hit: str
    program: str | None


def checked_goal(
    *, task: str | None = None, metric: str | None = None, hit: str | None = None, program: str | None = None
) -> Goal:
    """What follows from what was said, and does not contradict itself.

    Args:
        task: ``classification`` or ``regression``; None for what program and metric say, classification where they do
            not.
        metric: Name of a metric; None for ``accuracy``, or ``r2`` where numbers are predicted.
        hit: ``within:T`` where numbers are predicted: one that is at most T off is right. None for the metric, where
            that is one of these.
        program: What goes in and what comes out, in either form.

    Raises:
        InvalidInputError: If these contradict each other, or T is needed and not given; says what to give.
        ProgramError: If the program cannot be read; shows where.
        NotFoundError: If there is no such metric.

    Example:
        >>> checked_goal(metric="rmse", hit="within:5")
        Goal(task=<Task.REGRESSION: 'regression'>, metric='rmse', hit='within:5.0', program=None)
    """
    parsed = parse_program(program) if program is not None and program.strip() else None
    demands = None if parsed is None else demands_of(parsed)
    found = _task(checked_task(task), metric, hit, demands)
    name = check_metric_name(metric or _DEFAULT_METRIC[found])
    canonical = None if parsed is None else str(parsed)
    return Goal(found, metric_of(name).name if _is_ours(name) else name, _hit(found, name, hit), canonical)


def _is_ours(metric: str) -> bool:
    """Whether its name says all; a function of the tenant's is only imported where tenants' code runs."""
    return metric in METRICS or metric.startswith("within:")


def _task(asked: Task | None, metric: str | None, hit: str | None, demands: Demands | None) -> Task:
    said: dict[str, Task] = {}
    if asked is not None:
        said[f"task {asked}"] = asked
    if demands is not None:
        said["the program"] = demands.task
    if metric is not None and _is_ours(check_metric_name(metric)):
        about_numbers = metric_of(metric).needs == "numbers"
        said[f"metric {metric}"] = Task.REGRESSION if about_numbers else Task.CLASSIFICATION
    if hit is not None and hit != CLASSES:
        said[f"hit {hit}"] = Task.REGRESSION
    if demands is not None and demands.are_scores and len(said) > 1:
        del said["the program"]  # a list of numbers stands for a class, unless somebody says otherwise
    tasks = sorted(set(said.values()))
    if len(tasks) > 1:
        listed = "; ".join(f"{what}: {task}" for what, task in said.items())
        message = f"a study predicts classes or numbers, and here not all say the same: {listed}"
        raise InvalidInputError(message)
    return tasks[0] if tasks else Task.CLASSIFICATION


def _hit(task: Task, metric: str, hit: str | None) -> str:
    if task == Task.CLASSIFICATION:
        return CLASSES
    chosen = hit or (metric if metric.startswith("within:") else "")
    if not chosen:
        message = (
            "gate and meter count answers that are right, so a study that predicts numbers says how far off a right "
            "one may be: give hit 'within:T', with T in the unit of the target, e.g. within:0.5; candidates are still "
            f"compared by {metric}"
        )
        raise InvalidInputError(message)
    if not chosen.startswith("within:") and (chosen not in METRICS or chosen == CLASSES):
        message = f"hit must be within:T where numbers are predicted, T > 0 in the unit of the target, got {chosen!r}"
        raise InvalidInputError(message)
    return metric_of(require_gate_metric(chosen)).name

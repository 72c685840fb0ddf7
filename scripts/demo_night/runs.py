"""Runs of our DAGs over REST: wait for them, tell what happens now, and tell a rejection from a broken task."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stack.failures import BrokenTasksError, NightError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stack.rest import Rest

PARSE_SECONDS = 90.0
LOG_LINES = 6
BAD = ("failed", "upstream_failed")
Task = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Release:
    """What became of one study's submission in a run.

    Attributes:
        study: Whose.
        model_id: The model handed in.
        symbol: ``pass``, ``fail`` or ``withheld``.
        promoted: Whether it is in production now.
        signal: The meter's, or None.
        message: The referee's public words on the gate request.
    """

    study: str
    model_id: int
    symbol: str
    promoted: bool
    signal: int | None
    message: str


def await_dag(rest: Rest, dag_id: str, check: Callable[[], None]) -> None:
    """Wait until the DAG processor has read a DAG.

    Raises:
        NightError: If its file cannot be read, or it does not appear in time.
    """
    deadline = time.monotonic() + PARSE_SECONDS
    while not rest.has_dag(dag_id):
        check()
        for file, trace in rest.import_errors().items():
            message = f"{trace.strip()}\n{file} cannot be imported; the reason is above"
            raise NightError(message)
        if time.monotonic() > deadline:
            message = f"Airflow has not found the DAG {dag_id} within {PARSE_SECONDS:.0f} s"
            raise NightError(message)
        time.sleep(0.5)


def follow(rest: Rest, dag_id: str, run_id: str, check: Callable[[], None]) -> Iterator[tuple[str, list[Task]]]:
    """State and task instances of a run, again and again until it has ended."""
    for state in rest.wait(dag_id, run_id):
        check()
        yield state, rest.tasks(dag_id, run_id)


def kind_of(task: Task) -> str:
    """A task's id without its group."""
    return str(task["task_id"]).rsplit(".", 1)[-1]


def title(task: Task) -> str:
    """A task as people know it: ``train digits: random_forest`` rather than ``train_1[3]``."""
    name = kind_of(task)
    if task["map_index"] < 0:
        return name
    return f"{name.rstrip('_0123456789')} {task.get('rendered_map_index') or task['map_index']}"


def releases(rest: Rest, dag_id: str, run_id: str, tasks: Sequence[Task]) -> list[Release]:
    """What became of every submission of a run, in the order of the group; unanswered ones are left out."""
    gates = [t for t in tasks if kind_of(t) == "gate" and t["state"] in ("success", "failed")]
    found = (_release(rest, dag_id, run_id, gate, tasks) for gate in sorted(gates, key=lambda t: t["map_index"]))
    return [release for release in found if release is not None]


def broken_tasks(tasks: Sequence[Task], rejected: set[int]) -> list[Task]:
    """Failed tasks that no rejection explains: a rejected gate fails, and its promotion then never runs.

    Args:
        tasks: Of one run.
        rejected: Map indices of the gates that answered ``fail``.
    """
    explained = {("gate", "failed"), ("promote", "upstream_failed")}
    return [
        t
        for t in tasks
        if t["state"] in BAD and not (t["map_index"] in rejected and (kind_of(t), t["state"]) in explained)
    ]


def require_no_broken_tasks(rest: Rest, dag_id: str, run_id: str) -> list[Release]:
    """What a finished run released.

    Raises:
        BrokenTasksError: If a task failed that no rejection explains; ``upstream_failed`` ones are not causes.
    """
    tasks = rest.tasks(dag_id, run_id)
    released = releases(rest, dag_id, run_id, tasks)
    rejected = {g["map_index"] for g in tasks if kind_of(g) == "gate" and _symbol(rest, dag_id, run_id, g) == "fail"}
    broken = broken_tasks(tasks, rejected)
    causes = [t for t in broken if t["state"] == "failed"] or broken
    if causes:
        logs = [(f"{title(t)} ({t['state']})", _last_lines(rest, dag_id, run_id, t)) for t in causes]
        raise BrokenTasksError(dag_id, run_id, logs)
    return released


def _left(rest: Rest, dag_id: str, run_id: str, task: Task, key: str) -> Any:
    return rest.xcom(dag_id, run_id, task["task_id"], map_index=task["map_index"], key=key)


def _symbol(rest: Rest, dag_id: str, run_id: str, gate: Task) -> str | None:
    """The gate's answer; a refused request has none, so that it never passes for a rejection."""
    symbol = _left(rest, dag_id, run_id, gate, "symbol")
    return None if symbol is None else str(symbol)


def _release(rest: Rest, dag_id: str, run_id: str, gate: Task, tasks: Sequence[Task]) -> Release | None:
    symbol = _symbol(rest, dag_id, run_id, gate)
    if symbol is None:
        return None
    beside = {kind_of(t): t for t in tasks if t["map_index"] == gate["map_index"]}
    return Release(
        study=str(_left(rest, dag_id, run_id, gate, "study")),
        model_id=int(_left(rest, dag_id, run_id, gate, "model_id")),
        symbol=symbol,
        promoted=bool("promote" in beside and beside["promote"]["state"] == "success"),
        signal=_left(rest, dag_id, run_id, beside["meter"], "signal") if "meter" in beside else None,
        message=str(_left(rest, dag_id, run_id, gate, "message")),
    )


def _last_lines(rest: Rest, dag_id: str, run_id: str, task: Task) -> list[str]:
    if task["state"] != "failed":
        return []
    attempt = max(1, int(task["try_number"]))
    return rest.log(dag_id, run_id, task["task_id"], map_index=task["map_index"], attempt=attempt)[-LOG_LINES:]

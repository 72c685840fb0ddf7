"""What a person decided in Airflow: read from the task where Airflow asked for it, never from an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval.

    Attributes:
        who: Name of the person, as Airflow's login knows it, with the id where that is another word.
        why: The reason that the person typed in.
    """

    who: str
    why: str


def approval_of(context: Context, task_id: str) -> Approval:
    """Who approved in this run, and why.

    Args:
        context: Of the task that needs the approval.
        task_id: An ``ApprovalOperator`` upstream of it, with a param ``why``.

    Raises:
        ConfigError: The task is no approval, or is not upstream.
        StateError: Nobody approved: it was rejected, or a time-out answered; or no reason was given.
    """
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    task = context["task"]
    allowed = "the id of a task upstream of this one that is an ApprovalOperator"
    require(task_id in task.get_flat_relative_ids(upstream=True), "approval", task_id, allowed)
    asked = task.dag.get_task(task_id) if task.dag is not None else None
    require(isinstance(asked, ApprovalOperator), "approval", task_id, allowed)
    answer = context["ti"].xcom_pull(task_ids=task_id) or {}
    if list(answer.get("chosen_options") or ()) != [ApprovalOperator.APPROVE]:
        message = f"task {task_id!r} was not approved; only a person's approval lets a model past the gate"
        raise StateError(message)
    return Approval(who=_who(answer, task_id), why=_why(answer, task_id))


def _who(answer: Mapping[str, Any], task_id: str) -> str:
    person = answer.get("responded_by_user") or {}
    number, name = (str(person.get(part) or "").strip() for part in ("id", "name"))
    if not name and not number:
        message = f"task {task_id!r} was answered by a time-out's default, not by a person; leave `defaults` out"
        raise StateError(message)
    return name if number in ("", name) else f"{name} ({number})".strip()


def _why(answer: Mapping[str, Any], task_id: str) -> str:
    why = (answer.get("params_input") or {}).get("why")
    if not isinstance(why, str) or not why.strip():
        message = f"task {task_id!r} was approved without a reason; give it a param `why` and fill it in"
        raise StateError(message)
    return why.strip()

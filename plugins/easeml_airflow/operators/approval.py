"""What a person decided in Airflow: who may, what the answer says, and what Airflow shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_airflow import settings
from easeml_core.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.execution_time.hitl import HITLUser

NAMES_ARE_IDS = "SimpleAuthManager"
"""The login of Airflow whose users' ids are their names; others number them."""


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval.

    Attributes:
        who: Name of the referee, as Airflow's login knows it, with the id where that is another word.
        why: The reason that the referee typed in.
    """

    who: str
    why: str


def approval_of(answer: Mapping[str, Any]) -> Approval:
    """Who approved, and why.

    Args:
        answer: What Airflow's question was answered with.

    Raises:
        StateError: A time-out or somebody who is no referee answered, or no reason was given.
    """
    return Approval(who=_who(answer.get("responded_by_user") or {}), why=_why(answer.get("params_input") or {}))


def require_same_question(asked: Any, now: Mapping[str, Any]) -> None:
    """Refuse an answer to another question.

    Args:
        asked: What the person was asked about, as Airflow kept it; None where nothing was kept.
        now: What the task would do with the answer.

    Raises:
        StateError: They differ.
    """
    then = asked if isinstance(asked, dict) else {}
    changed = [name for name in now if name not in then or then[name] != now[name]]
    if changed:
        told = "; ".join(f"{name} was {then.get(name)!r} then and is {now[name]!r} now" for name in changed)
        message = (
            f"the answer is to another question: {told}; nothing was promoted; trigger it again, with values or "
            "templates that stay the same while a referee thinks"
        )
        raise StateError(message)


def referees_asked() -> list[HITLUser] | None:
    """Who alone may answer, as ``assigned_users`` of Airflow's questions: the referees.

    Where Airflow's login numbers its users this cannot be said by name. Then None: whoever may change the task may
    answer, and ``approval_of`` takes only a referee's answer.
    """
    from airflow.providers.common.compat.sdk import conf

    if not str(conf.get("core", "auth_manager", fallback="")).endswith(NAMES_ARE_IDS):
        return None
    names = sorted(settings.referees()) or ["nobody"]  # an empty list would be everybody
    return [{"id": name, "name": name} for name in names]


def question(study: str, model: Mapping[str, Any], production: int | None, asked_by: str | None, reason: str) -> str:
    """What the referee reads, in Markdown; the reason stands in it as it was typed, whatever marks it has.

    Args:
        study: Whose production pointer would move.
        model: The model, an entry of ``model_list``.
        production: The model that is in production now; None for none.
        asked_by: Who triggered the run; None for a program.
        reason: Why they ask.
    """
    instead = f"in place of model {production}" if production else "where nothing is now"
    return (
        f"* **What:** model {model['model_id']} of study {study} goes to production, {instead}.\n"
        f"* **The gate's last word on it:** {model['verdict'] or 'none, it was never judged'}.\n"
        f"* **Who asks:** {asked_by or 'a program'}, and why:\n\n"
        f"        {' '.join(reason.split()) or 'no reason was given'}\n\n"
        "The gate does **not** stand behind this: whoever approves answers for it. **Approve**, with a reason of yours "
        "in the field, and the model is in production at once; your name, as Airflow's login knows it, and your reason "
        "are recorded with the promotion, for ever, where everybody can read them. **Reject**, or let the time pass: "
        "nothing is promoted."
    )


def _who(person: Mapping[str, Any]) -> str:
    number, name = (str(person.get(part) or "").strip() for part in ("id", "name"))
    if not name and not number:
        message = "a time-out's default answered, not a person; leave `defaults` out"
        raise StateError(message)
    if name not in settings.referees():
        message = (
            f"{name or number!r} answered, who is no referee; only who is named in [easeml] referees of Airflow's "
            "configuration lets a model past the gate"
        )
        raise StateError(message)
    return name if number in ("", name) else f"{name} ({number})"


def _why(given: Mapping[str, Any]) -> str:
    why = given.get("why")
    if not isinstance(why, str) or not why.strip():
        message = "the promotion was approved without a reason; trigger it again and fill it in"
        raise StateError(message)
    return why.strip()

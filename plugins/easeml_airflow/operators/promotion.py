"""Operators that ask the referee to promote a model, to roll back, or to promote without the gate.

A promotion without the gate needs a referee's approval in Airflow. One task asks for it and files the request: a user
who may change a run can write the states and XComs of tasks, forged approvals included, but the answer to Airflow's
question reaches this task only.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_text, optional_whole, whole
from easeml_airflow.hooks.lineage import EmitsLineage, lineage_of_models
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator
from easeml_airflow.version_compat import (
    AirflowFailException,
    AirflowSkipException,
    TaskAwaitingInput,
    TaskDeferred,
)
from easeml_core.errors import NotFoundError, StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.execution_time.hitl import HITLUser

    from easeml_core.entities import GivenAnswer, JsonObject
    from easeml_core.store.database import Store
    from easeml_core.store.tables.model_life import ListedModel


class _MovesProduction(EmitsLineage, RefereeOperator):
    """What moves the production pointer: lineage names the model, and production as what was made of it."""

    def note_answer(self, answer: GivenAnswer) -> None:
        """Collect the model that is in production now."""
        known = {"study": answer.study, "model_id": answer.model_id}
        promoted = () if answer.model_id is None else (answer.model_id,)
        self._note_lineage(lambda: lineage_of_models(self.hook.get_store(), [known], promoted=promoted))


class PromoteModelOperator(_MovesProduction):
    """Brings a model to production, on a recorded pass of the gate; under adaptivity ``none`` on a recorded verdict.

    The state of a task proves nothing, so the referee's process alone moves the pointer, after looking up its own
    record. Without such a record the task fails and says so; ``ForcePromotionOperator`` is for that. Where another task
    has promoted this model already, nothing changes, and the task succeeds with ``promoted`` false.

    Args:
        study: Whose production pointer moves.
        model_id: The model that passed.
        gate_request_id: The gate's request, such as ``gate.output["request_id"]``.
        kwargs: As of ``RefereeOperator``.
    """

    asks_by_subject = True
    template_fields: Sequence[str] = ("study", "model_id", "gate_request_id", *EasemlOperator.template_fields)

    def __init__(self, *, study: str, model_id: int | str, gate_request_id: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.model_id = model_id
        self.gate_request_id = gate_request_id

    def file_request(self, store: Store, key: str) -> int:
        """File the request for the promotion."""
        from easeml_core.services.referee.requests import file_promotion

        model, request = whole(self.model_id, "model_id"), whole(self.gate_request_id, "gate_request_id")
        return file_promotion(store, study=self.study, model_id=model, gate_request_id=request, request_key=key)


class RollbackModelOperator(_MovesProduction):
    """Brings back a model that was in production before; the reason is recorded.

    Args:
        study: Whose production pointer moves back.
        model_id: The model; None means the one before the present one.
        why: The reason, such as ``latency doubled``.
        kwargs: As of ``RefereeOperator``.
    """

    template_fields: Sequence[str] = ("study", "model_id", "why", *EasemlOperator.template_fields)

    def __init__(self, *, study: str, why: str, model_id: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.model_id = model_id
        self.why = why

    def file_request(self, store: Store, key: str) -> int:
        """File the request for the rollback."""
        from easeml_core.services.referee.requests import file_rollback

        model = optional_whole(self.model_id, "model_id")
        return file_rollback(store, study=self.study, model_id=model, why=self.why, request_key=key)


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


def approval_of(answer: JsonObject) -> Approval:
    """Who approved, and why.

    Args:
        answer: What Airflow's question was answered with.

    Raises:
        StateError: A time-out or a user who is no referee answered, or no reason was given.
    """
    return Approval(who=_who(answer.get("responded_by_user") or {}), why=_why(answer.get("params_input") or {}))


def wait_argument(operator: type[BaseOperator]) -> str:
    """Return which argument of Airflow's operator limits the wait for a person.

    Before 1.12.2 of the standard provider this is the ``execution_timeout``. Such an operator takes no
    ``response_timeout``, and Airflow refuses a DAG that gives it one.

    Args:
        operator: Airflow's operator that asks.
    """
    known = inspect.signature(operator.__init__).parameters
    return "response_timeout" if "response_timeout" in known else "execution_timeout"


def require_same_question(asked: Any, now: JsonObject) -> None:
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
        changes = "; ".join(f"{name} was {then.get(name)!r} then and is {now[name]!r} now" for name in changed)
        message = (
            f"the answer is to another question: {changes}; nothing was promoted; trigger it again, with values or "
            "templates that stay the same while a referee thinks"
        )
        raise StateError(message)


def referees_asked() -> list[HITLUser] | None:
    """Return the referees, as ``assigned_users`` of Airflow's question.

    None where Airflow's login has numbers, not names, as user ids. Then any user who may change the task may answer,
    and ``approval_of`` accepts only a referee's answer.
    """
    from airflow.providers.common.compat.sdk import conf

    if not str(conf.get("core", "auth_manager", fallback="")).endswith(NAMES_ARE_IDS):
        return None
    names = sorted(settings.referees()) or ["nobody"]  # an empty list would allow every user
    return [{"id": name, "name": name} for name in names]


def question(study: str, model: ListedModel, production: int | None, asked_by: str | None, reason: str) -> str:
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
        f"* **What:** model {model.model_id} of study {study} goes to production, {instead}.\n"
        f"* **The gate's last word on it:** {model.verdict or 'none, it was never judged'}.\n"
        f"* **Who asks:** {asked_by or 'a program'}, and why:\n\n"
        f"        {' '.join(reason.split()) or 'no reason was given'}\n\n"
        "The gate has **not** passed this model; the referee who approves is responsible. **Approve**, with a reason "
        "in the field, and the model is in production at once; your name, as Airflow's login knows it, and your reason "
        "are recorded with the promotion for every user to read. **Reject**, or let the time pass: "
        "nothing is promoted."
    )


def _who(person: JsonObject) -> str:
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


def _why(given: JsonObject) -> str:
    why = given.get("why")
    if not isinstance(why, str) or not why.strip():
        message = "the promotion was approved without a reason; trigger it again and fill it in"
        raise StateError(message)
    return why.strip()


class ForcePromotionOperator(_MovesProduction, ApprovalOperator):
    """Brings a model to production without the gate, once a referee has approved it in Airflow.

    Airflow asks under "Required Actions" and tells what the gate last said of the model. Who approved and why are
    recorded with the promotion for ever. A rejection skips the task. An answer of a user who is not named in
    ``[easeml] referees``, an approval without a reason, one of another model than the task names by then, and a
    time-out fail it; then nothing is promoted. A further try asks anew. The referee's process refuses unless it was
    started with ``--allow-forced``.

    Args:
        study: Whose production pointer moves.
        model_id: The model.
        reason: Why it cannot wait for the gate; shown to the referee.
        response_timeout: How long Airflow waits for the answer.
        kwargs: As of ``RefereeOperator``.
    """

    template_fields: Sequence[str] = ("study", "model_id", "reason", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        study: str,
        model_id: int | str,
        reason: str | None = None,
        response_timeout: timedelta = timedelta(days=3),
        **kwargs: Any,
    ) -> None:
        subject = "Promote a model without the gate?"  # the study and the model are known when the task runs
        own = {wait_argument(HITLOperator): response_timeout, "params": {"why": _reason()}}  # Airflow adds the DAG's
        super().__init__(subject=subject, **kwargs | own)
        self.response_timeout = response_timeout
        self.study = study
        self.model_id = model_id
        self.reason = reason
        self._approved: Approval | None = None

    def validate_params(self) -> None:
        """Leave out what providers of Airflow 3.1's time do: they want a value here for each field of the DAG's form.

        A field gets its value where the run is triggered, or from the person who answers.
        """

    def execute(self, context: Context) -> Any:
        """Look the model up, then ask for the approval."""
        with airflow_outcome():
            self.subject, self.body = self._question(context)
            asked = self._asked()
        self.assigned_users = referees_asked()
        try:
            return ApprovalOperator.execute(self, context)
        except (TaskAwaitingInput, TaskDeferred) as wait:
            wait.kwargs = {**(wait.kwargs or {}), "asked": asked}  # Airflow keeps them, and gives them back
            raise

    def execute_complete(self, context: Context, event: Any = None, asked: Any = None) -> Any:
        """Go on with a person's answer, and later with that of the referee's process, whose events have a status.

        Airflow renders the templates again before, perhaps from an XCom that has changed since.
        """
        if isinstance(event, dict) and "status" in event:
            return RefereeOperator.execute_complete(self, context, event)
        try:
            answer = HITLOperator.execute_complete(self, context, event)
        except HITLTimeoutError as error:
            message = f"no answer came within {self.response_timeout}; nothing was promoted"
            raise AirflowFailException(message) from error
        if list(answer["chosen_options"]) != [self.APPROVE]:
            message = "the promotion was rejected"
            raise AirflowSkipException(message)
        with airflow_outcome():
            require_same_question(asked, self._asked())
            self._approved = approval_of(answer)
        return RefereeOperator.execute(self, context)

    def file_request(self, store: Store, key: str) -> int:
        """File the request for the promotion, in the name of who approved it."""
        from easeml_core.services.referee.requests import file_forced_promotion

        assert self._approved is not None, "an approval comes first"
        who, why, model = self._approved.who, self._approved.why, whole(self.model_id, "model_id")
        self.log.warning("%s promotes model %d past the gate: %s", who, model, why)
        return file_forced_promotion(store, study=self.study, model_id=model, who=who, why=why, request_key=key)

    def _asked(self) -> JsonObject:
        """What an answer is to: only this may be promoted."""
        named = {"study": str(self.study), "model_id": whole(self.model_id, "model_id")}
        return named | {"easeml_conn_id": self.hook.easeml_conn_id}

    def _question(self, context: Context) -> tuple[str, str]:
        from easeml_core.services.models.promotion import model_list

        number, reason = whole(self.model_id, "model_id"), optional_text(self.reason) or ""
        models = {found.model_id: found for found in model_list(self.hook.get_store(), study=self.study)}
        if number not in models:
            raise NotFoundError(kind="model", name=number, owner=f"study {self.study!r}")
        standing = next((model for model, found in models.items() if found.in_production), None)
        asked_by = getattr(context.get("dag_run"), "triggering_user_name", None)
        body = question(self.study, models[number], standing, asked_by, reason)
        return f"Promote model {number} of study {self.study} without the gate?", body


def _reason() -> Param:
    """Return the field for the referee's reason; empty at first, so that no referee confirms another's reason."""
    description = "Why the gate is passed by, or why not: both buttons wait for it."
    return Param("", title="Reason", type="string", format="multiline", maxLength=500, description=description)

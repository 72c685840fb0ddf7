"""Asks a referee in Airflow for a promotion without the gate, and then the referee's process to make it.

One task does both. What one task hands on to the next, its state and its XComs, can be written by whoever may change a
run, an approval in another's name among it. What a person answers Airflow's own question with reaches this task alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_text, whole
from easeml_airflow.operators.approval import Approval, approval_of, question, referees_asked, require_same_question
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator
from easeml_airflow.version_compat import (
    AirflowFailException,
    AirflowSkipException,
    TaskAwaitingInput,
    TaskDeferred,
)
from easeml_core.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_core.store.database import Store


class ForcePromotionOperator(RefereeOperator, ApprovalOperator):
    """Brings a model to production without the gate, once a referee has approved it in Airflow.

    Airflow asks under "Required Actions" and tells what the gate last said of the model. Who approved and why are
    recorded with the promotion for ever. A rejection skips the task. An answer of anybody who is not named in
    ``[easeml] referees``, an approval without a reason, one of another model than the task names by then, and a
    time-out fail it; then nothing is promoted. A further try asks anew. The referee's process refuses unless it was
    started with ``--allow-forced``.

    Args:
        study: Whose production pointer moves.
        model_id: The model.
        reason: Why it cannot wait for the gate; whoever approves reads it.
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
        own = {"response_timeout": response_timeout, "params": {"why": _reason()}}  # Airflow adds the DAG's to params
        super().__init__(subject=subject, **kwargs | own)
        self.study = study
        self.model_id = model_id
        self.reason = reason
        self._approved: Approval | None = None

    def execute(self, context: Context) -> Any:
        """Look the model up, so that nobody is asked for one that is not there; then ask."""
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

        Airflow reads the templates anew before, by then perhaps of an XCom that somebody has changed since.
        """
        if isinstance(event, dict) and "status" in event:
            return RefereeOperator.execute_complete(self, context, event)
        try:
            answer = HITLOperator.execute_complete(self, context, event)
        except HITLTimeoutError as error:
            message = f"nobody answered within {self.response_timeout}; nothing was promoted"
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
        filed = file_forced_promotion(store, study=self.study, model_id=model, who=who, why=why, request_key=key)
        return int(filed["request_id"])

    def _asked(self) -> dict[str, Any]:
        """What an answer is to: only this may be promoted."""
        named = {"study": str(self.study), "model_id": whole(self.model_id, "model_id")}
        return named | {"easeml_conn_id": self.easeml_conn_id}

    def _question(self, context: Context) -> tuple[str, str]:
        from easeml_core.services.models.promotion import model_list

        number, reason = whole(self.model_id, "model_id"), optional_text(self.reason) or ""
        models = {found["model_id"]: found for found in model_list(self.hook.get_store(), study=self.study)}
        if number not in models:
            raise NotFoundError(kind="model", name=number, owner=f"study {self.study!r}")
        standing = next((model for model, found in models.items() if found["in_production"]), None)
        asked_by = getattr(context.get("dag_run"), "triggering_user_name", None)
        body = question(self.study, models[number], standing, asked_by, reason)
        return f"Promote model {number} of study {self.study} without the gate?", body


def _reason() -> Param:
    """The field that the referee fills in; empty at first, so that nobody confirms another's reason."""
    description = "Why the gate is passed by, or why not: both buttons wait for it."
    return Param("", title="Reason", type="string", format="multiline", maxLength=500, description=description)

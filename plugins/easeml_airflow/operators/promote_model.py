"""Asks the referee to move the production pointer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_text, optional_whole, whole
from easeml_airflow.operators.approval import Approval, approval_of
from easeml_airflow.operators.base import EasemlOperator
from easeml_airflow.operators.production import ProductionOperator
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.store.database import Store


class PromoteModelOperator(ProductionOperator):
    """Brings a model to production, on a recorded pass of the gate; under adaptivity ``none`` on a recorded verdict.

    The state of a task proves nothing, so the referee's process alone moves the pointer, after looking up its own
    record. Without such a record the task fails and says so.

    With ``force`` there is no record: a person answers for the model. The person approves in Airflow, in a task
    upstream of this one, and types the reason; both are recorded for ever. The referee refuses unless it was started
    with ``--allow-forced``.

    Args:
        study: Whose production pointer moves.
        model_id: The model that passed.
        gate_request_id: The gate's request, such as ``gate.output["request_id"]``; not with ``force``.
        force: Promote without the gate, on a person's word.
        approval: With ``force``: the id of the ``ApprovalOperator`` task, which has a param ``why``.
        kwargs: As of ``RefereeOperator``.
    """

    template_fields: Sequence[str] = (
        "study",
        "model_id",
        "gate_request_id",
        "approval",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        study: str,
        model_id: int | str,
        gate_request_id: int | str | None = None,
        force: bool = False,
        approval: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.model_id = model_id
        self.gate_request_id = gate_request_id
        self.force = force
        self.approval = approval
        self._approved: Approval | None = None

    def execute(self, context: Context) -> Facts:
        """Look for the approval where one is needed; then file the request and wait."""
        with airflow_outcome():
            approval, request = optional_text(self.approval), optional_whole(self.gate_request_id, "gate_request_id")
            if self.force:
                require(request is None, "gate_request_id", request, "absent with force=True")
                require(approval is not None, "approval", None, "with force=True the id of an ApprovalOperator's task")
                self._approved = approval_of(context, str(approval))
            else:
                require(approval is None, "approval", approval, "absent without force=True")
                require(request is not None, "gate_request_id", None, "the id of a gate request, or force=True")
        return super().execute(context)

    def file_request(self, store: Store, key: str) -> int:
        """File the request for the promotion."""
        from easeml_core.services.requests import file_forced_promotion, file_promotion

        model = whole(self.model_id, "model_id")
        if self._approved is not None:
            self.log.warning("%s promotes model %d past the gate: %s", self._approved.who, model, self._approved.why)
            who, why = self._approved.who, self._approved.why
            filed = file_forced_promotion(store, study=self.study, model_id=model, who=who, why=why, request_key=key)
        else:
            request = whole(self.gate_request_id, "gate_request_id")
            filed = file_promotion(store, study=self.study, model_id=model, gate_request_id=request, request_key=key)
        return int(filed["request_id"])

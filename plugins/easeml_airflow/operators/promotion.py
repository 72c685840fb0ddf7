"""Asks the referee to move the production pointer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import whole
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


class PromoteModelOperator(RefereeOperator):
    """Brings a model to production, on a recorded pass of the gate; under adaptivity ``none`` on a recorded verdict.

    The state of a task proves nothing, so the referee's process alone moves the pointer, after looking up its own
    record. Without such a record the task fails and says so; ``ForcePromotionOperator`` is for that.

    Args:
        study: Whose production pointer moves.
        model_id: The model that passed.
        gate_request_id: The gate's request, such as ``gate.output["request_id"]``.
        kwargs: As of ``RefereeOperator``.
    """

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
        filed = file_promotion(store, study=self.study, model_id=model, gate_request_id=request, request_key=key)
        return int(filed["request_id"])

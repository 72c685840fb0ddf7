"""Asks the referee to bring an earlier model back to production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_whole
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


class RollbackModelOperator(RefereeOperator):
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
        filed = file_rollback(store, study=self.study, model_id=model, why=self.why, request_key=key)
        return int(filed["request_id"])

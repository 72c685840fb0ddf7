"""Predicts with the model in production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class InferOperator(EasemlOperator):
    """Gives the class of each row, as the model in production sees it, and names that model.

    For small batches: inputs and answers travel through XCom.

    Args:
        study: Whose production model answers.
        inputs: Rows of numbers, one per feature of the study's data.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("study", "inputs", *EasemlOperator.template_fields)

    def __init__(self, *, study: str, inputs: Sequence[Sequence[float]] | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.inputs = inputs

    def execute(self, context: Context) -> dict[str, Any]:
        """Predict."""
        from easeml_core.services.inference import infer

        with airflow_outcome():
            hook, inputs = self.hook, optional_plain(self.inputs, "inputs") or []
            answered = infer(hook.get_store(), hook.get_artifacts(), study=self.study, inputs=inputs)
        self.log.info("model %s of study %s answered %d rows", answered["model_id"], self.study, len(inputs))
        return dict(answered)

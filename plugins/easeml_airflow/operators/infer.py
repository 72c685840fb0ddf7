"""Predicts with a model of a study: that in production, the best so far, or a named one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, optional_text
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class InferOperator(EasemlOperator):
    """Gives the answer to each row, and names the model that has answered.

    Rows given as ``inputs`` travel through XCom, so they should be few; a file may be large, with ``answers``.

    Args:
        study: Whose model answers.
        inputs: Rows: numbers, one per feature of the study's data, or ``{column: value}``.
        path: Instead of them a file on this worker: CSV, ``.npy``, an image, or a folder of one of the last two.
        answers: A CSV file for the answers; they are left out of the result then.
        model: ``production``, ``best`` or the id of a model of the study.
        probabilities: Give the probability of each class too.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("study", "inputs", "path", "answers", "model", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        study: str,
        inputs: Sequence[Sequence[float] | Mapping[str, Any]] | str | None = None,
        path: str | None = None,
        answers: str | None = None,
        model: str | int = "production",
        probabilities: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.inputs = inputs
        self.path = path
        self.answers = answers
        self.model = model
        self.probabilities = probabilities

    def execute(self, context: Context) -> dict[str, Any]:
        """Predict."""
        from easeml_core.services.models.inference import infer, write_answers

        path, file = optional_text(self.path), optional_text(self.answers)
        with airflow_outcome():
            require(type(self.probabilities) is bool, "probabilities", self.probabilities, "True or False")
            hook = self.hook
            told = infer(
                hook.get_store(),
                hook.get_artifacts(),
                study=self.study,
                inputs=optional_plain(self.inputs, "inputs"),
                path=None if path is None else Path(path),
                model=self.model,
                probabilities=self.probabilities,
            )
        rows = len(told["labels"])
        self.log.info("model %s of study %s answered %d rows", told["model_id"], self.study, rows)
        if file is not None:
            write_answers(Path(file), told)
            del told["labels"]
            told.pop("probabilities", None)
        del told["columns"]
        return told | {"rows": rows, "answers": file}

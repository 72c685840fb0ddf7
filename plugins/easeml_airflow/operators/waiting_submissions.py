"""Lists the models that were handed in and wait for the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_text
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class WaitingSubmissionsOperator(EasemlOperator):
    """Gives one entry ``{"submission_id", "study", "model_id"}`` a submission that no gate was asked about.

    Made to map a gate over, in a DAG that is scheduled on ``submissions()``. It asks the database and not the event
    that started the run, so a forged event judges nothing and a lost one loses nothing.

    Args:
        study: The study; None means all.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("study", *EasemlOperator.template_fields)

    def __init__(self, *, study: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look, log, hand on."""
        from easeml_core.services.models.submission import waiting_submissions

        with airflow_outcome():
            found = waiting_submissions(self.hook.get_store(), study=optional_text(self.study))
        for submission in found:
            self.log.info("%(study)s: model %(model_id)s, submission %(submission_id)s, waits for the gate", submission)
        if not found:
            self.log.info("no submission waits for the gate")
        return found

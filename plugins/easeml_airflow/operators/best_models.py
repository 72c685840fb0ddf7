"""Lists the studies that have something better than what is in production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class BestModelsOperator(EasemlOperator):
    """Gives one entry ``{"study", "model_id", "quality"}`` a study whose best model is not the one in production.

    Made to map a group of gate, promotion and meter over. An empty list skips what is mapped over it.

    Args:
        studies: Names of the studies to look at; None means all.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("studies", *EasemlOperator.template_fields)

    def __init__(self, *, studies: Sequence[str] | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.studies = studies

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look, log, hand on."""
        from easeml_core.services.models.submission import best_models

        with airflow_outcome():
            found = best_models(self.hook.get_store(), studies_only=optional_plain(self.studies, "studies"))
        for best in found:
            self.log.info("%(study)s: model %(model_id)s with quality %(quality).4f waits for the gate", best)
        if not found:
            self.log.info("every study's best model is in production already")
        return list(found)

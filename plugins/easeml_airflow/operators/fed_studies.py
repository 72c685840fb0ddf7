"""Lists the studies that new pairs have touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class FedStudiesOperator(EasemlOperator):
    """Gives the names of the active studies with pairs or switches that no refresh has taken yet.

    Made to map ``RefineOperator`` over, and to retrain these studies alone. An empty list skips what is mapped over it.

    Args:
        kwargs: As of ``EasemlOperator``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def execute(self, context: Context) -> list[str]:
        """Look, log, hand on."""
        from easeml_core.services.datasets.feed import studies_that_wait

        with airflow_outcome():
            found = studies_that_wait(self.hook.get_store())
        self.log.info("new pairs or switches wait for: %s", ", ".join(found) or "no study")
        return found

"""What operators share that change what is in production: they tell Airflow of the new model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.assets import PROMOTED, alias, production_model, tell
from easeml_airflow.operators.base import RefereeOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts


class ProductionOperator(RefereeOperator):
    """Base of operators that ask the referee for another model in production.

    Once the pointer has moved, the asset ``easeml://production/STUDY`` has an event with study, model and request.

    Args:
        kwargs: As of ``RefereeOperator``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outlets = [*self.outlets, alias(PROMOTED)]

    def _finish(self, context: Context, facts: Facts) -> Facts:
        """A refusal raises before the event is added."""
        facts = super()._finish(context, facts)
        extra = {name: facts[name] for name in ("study", "model_id", "request_id", "kind")}
        tell(context, PROMOTED, production_model(str(facts["study"])), extra)
        return facts

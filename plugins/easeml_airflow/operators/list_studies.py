"""Keeps the list of studies that trigger forms offer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.operators.base import EasemlOperator
from easeml_airflow.params import MOST_OFFERED, STUDIES

if TYPE_CHECKING:
    from airflow.sdk import Context


class ListStudiesOperator(EasemlOperator):
    """Writes the names of the studies into the Variable that ``params.study`` reads; only when they have changed.

    A form is made when a DAG file is parsed, which asks no database of ours. So it offers the studies of this list.

    Args:
        kwargs: As of ``EasemlOperator``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def execute(self, context: Context) -> list[str]:
        """List, compare, write."""
        from easeml_core.services.registration.register import study_names

        with airflow_outcome():
            names = study_names(self.hook.get_store(), limit=MOST_OFFERED)
        listed = json.dumps(names)
        if Variable.get(STUDIES, default=None) != listed:
            Variable.set(STUDIES, listed, description="Studies that the trigger forms of Ease.ml offer.")
        return names

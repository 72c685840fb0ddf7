"""Registers a study: data, metric, candidates, budgets; keeps the list of studies that trigger forms offer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.operators.base import EasemlOperator, action_operator
from easeml_airflow.params import MOST_OFFERED, STUDIES
from easeml_core.actions.studies import RegisterStudy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.services.registration.register import RegisteredStudy


if TYPE_CHECKING:
    from easeml_airflow.operators.signatures import RegisterStudyBase
else:
    RegisterStudyBase = action_operator(RegisterStudy)


class RegisterStudyOperator(RegisterStudyBase):
    """Registers a study and waits until the referee has split its data and sealed the test sets.

    Fails at once when the study cannot be: an unknown source, a name already taken, too few rows for the planned
    sealed sets. Afterwards the study takes part in the next round of suggestions.

    With ``keep`` a study that is there stays as it is; the log and the XCom ``differs`` name candidates and settings
    that it has otherwise. Without ``keep`` the name must be free.
    """

    _differs: Sequence[str] = ()

    def note(self, done: RegisteredStudy) -> None:
        """Log whether the study is new, and how one that is kept differs."""
        from easeml_core.services.registration.register import KeptStudy

        if isinstance(done, KeptStudy):
            self._differs = done.differs
            self.log.info("study %s of tenant %s is there already and stays as it is", self.study, self.tenant)
            for sentence in self._differs:
                self.log.warning("study %s differs from this task's arguments: %s", self.study, sentence)
        else:
            self.log.info("study %s of tenant %s is registered; its data is being sealed", self.study, self.tenant)

    def execute(self, context: Context) -> Facts:
        """Register; push first how a study that is kept differs, as the task may wait in the triggerer."""
        try:
            return super().execute(context)
        finally:
            if self.keep:
                context["ti"].xcom_push(key="differs", value=list(self._differs))


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

"""What our sensors share: one look, made here while poking or in the triggerer while deferred."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.links import EasemlPageLink
from easeml_airflow.triggers.questions import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts


class EasemlSensor(BaseSensorOperator):
    """Base of our sensors: waits until a look gives facts, and returns them.

    Args:
        easeml_conn_id: Connection of type ``easeml``; None means the installation's ``[easeml] conn_id``.
        deferrable: Wait in the triggerer, where it costs no worker and a notification wakes at once; False pokes.
        kwargs: As of Airflow's sensors: ``timeout`` ends the wait, ``poke_interval`` spaces the looks.
    """

    template_fields: Sequence[str] = ("easeml_conn_id",)
    operator_extra_links = (EasemlPageLink(),)
    page_of_study: ClassVar[str] = ""
    """Which page of its study the task's link leads to; empty for the study's own."""
    ui_color = "#e2f3ee"
    ui_fgcolor = "#131d2c"

    def __init__(self, *, easeml_conn_id: str | None = None, deferrable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.easeml_conn_id = easeml_conn_id
        self.deferrable = deferrable

    @abstractmethod
    def question(self) -> tuple[str, str, int]:
        """What is waited for: the question, its subject, and the id of the last event that was dealt with."""

    def settle(self, facts: Facts) -> None:
        """Raise when what was waited for must fail or skip the task."""

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        with airflow_outcome():
            facts = look(EasemlHook(self.easeml_conn_id).get_store(), *self.question())
        if facts is not None:
            self.settle(facts)
        return PokeReturnValue(is_done=facts is not None, xcom_value=facts)

    def execute(self, context: Context) -> Any:
        """Poke here, or look once and then wait in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        looked = self.poke(context)
        return looked.xcom_value if looked.is_done else self._defer()

    def execute_complete(self, context: Context, event: Any = None) -> Facts:
        """Go on where the trigger ended."""
        from easeml_airflow.triggers.easeml import facts_of

        facts = facts_of(event)
        self.settle(facts)
        return facts

    def _defer(self) -> None:
        from easeml_airflow.triggers.easeml import EasemlTrigger

        with airflow_outcome():
            question, subject, after = self.question()
        trigger = EasemlTrigger(
            question=question,
            subject=subject,
            after=after,
            easeml_conn_id=self.easeml_conn_id,
            poll_interval=min(self.poke_interval, settings.poll_interval_seconds()),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

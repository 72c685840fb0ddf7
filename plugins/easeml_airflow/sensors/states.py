"""Waits until a trial has ended or a sealed test set can be asked, and what all our sensors share.

One look is made here while poking, or in the triggerer while deferred.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome, settle_trial
from easeml_airflow.hooks.arguments import optional_text, trial_id
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.links import EasemlPageLink
from easeml_airflow.triggers.questions import look
from easeml_airflow.version_compat import AirflowFailException
from easeml_core.entities import SealedSetPurpose, StudyState
from easeml_core.formats.encoding import from_json
from easeml_core.settings.config import choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.entities import Parameters


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


class TrialFinishedSensor(EasemlSensor):
    """Succeeds when the trial has SUCCEEDED, whichever worker ran it.

    Args:
        trial: An entry of what ``SuggestTrialsOperator`` returned, or a trial's id.
        on_failed: What a FAILED trial does to this task: ``fail``, ``skip`` or ``ignore``.
        kwargs: As of ``EasemlSensor``.
    """

    template_fields: Sequence[str] = ("trial", *EasemlSensor.template_fields)

    def __init__(self, *, trial: Parameters | int | str, on_failed: str = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trial = trial
        self.on_failed = on_failed

    def question(self) -> tuple[str, str, int]:
        """The end of this trial."""
        return "trial", str(trial_id(self.trial)), 0

    def settle(self, facts: Facts) -> None:
        """A failed trial fails the task, unless told otherwise."""
        from easeml_core.store.tables.trials import TrialReport

        settle_trial(from_json(facts, TrialReport), on_failed=self.on_failed)


class TestSetReadySensor(EasemlSensor):
    """Succeeds when the study has a live sealed set; fails when the referee refused the study.

    Args:
        study: The study.
        purpose: ``gate``, ``meter`` (a shared set is ready for both), ``joint`` or ``direct``; None means any.
        kwargs: As of ``EasemlSensor``.
    """

    __test__ = False  # the name begins like a test; pytest would collect it wherever it is imported

    template_fields: Sequence[str] = ("study", "purpose", *EasemlSensor.template_fields)

    def __init__(self, *, study: str, purpose: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.purpose = purpose

    def question(self) -> tuple[str, str, int]:
        """Whether there is a live set."""
        purpose = optional_text(self.purpose)
        wanted = "" if purpose is None else f"/{choice(SealedSetPurpose, 'purpose', purpose)}"
        return "test-set", f"{self.study}{wanted}", 0

    def settle(self, facts: Facts) -> None:
        """A refused or archived study gets no sealed set; waiting on would not help."""
        if facts["state"] == StudyState.ARCHIVED:
            message = f"study {self.study!r} is archived; restore it with `easeml study restore {self.study}`"
            raise AirflowFailException(message)
        if facts["state"] == StudyState.REFUSED:
            message = f"study {self.study!r} was refused by the referee; see `easeml study show {self.study}` for why"
            raise AirflowFailException(message)

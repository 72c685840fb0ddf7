"""Waits until a trial has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import settle_trial
from easeml_airflow.hooks.arguments import trial_id
from easeml_airflow.sensors.base import EasemlSensor
from easeml_core.encoding import from_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.entities import Parameters


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

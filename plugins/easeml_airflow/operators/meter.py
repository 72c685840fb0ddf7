"""Asks the referee how much a model is overfitted to its validation data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_whole
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.store.database import Store


class MeterOperator(RefereeOperator):
    """Takes a reading of the overfitting meter for a model and gives the signal, from 1 (little) upwards.

    An alert does not fail this task: it is recorded, and wakes whoever waits with ``OverfittingMeterSensor``. Where the
    study has a second validation sample, the answer has ``direct_signal``, ``drift`` and a ``sentence`` on what to do.

    Args:
        study: Whose sealed meter set is read.
        model_id: The model handed in; None means the study's best.
        team: Whose submission it is, 1..K; None means 1. For a set that is planned for several teams.
        kwargs: As of ``RefereeOperator``.
    """

    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = ("study", "model_id", "team", *EasemlOperator.template_fields)

    def __init__(
        self, *, study: str, model_id: int | str | None = None, team: int | str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.model_id = model_id
        self.team = team

    def file_request(self, store: Store, key: str) -> int:
        """File the request for a reading."""
        from easeml_core.services.referee.requests import file_meter_request

        model_id, team = optional_whole(self.model_id, "model_id"), optional_whole(self.team, "team") or 1
        filed = file_meter_request(store, study=self.study, model_id=model_id, team=team, request_key=key)
        return int(filed["request_id"])

    def settle(self, facts: Facts) -> None:
        """Make what needs a person stand out in the log."""
        if facts.get("alert"):
            self.log.warning("overfitting above the budget: %s", facts["alert"])
        if facts.get("drift") in ("likely", "certain"):
            self.log.warning("drift is %s: %s", facts["drift"], facts["sentence"])
        elif facts.get("sentence"):
            self.log.info("%s", facts["sentence"])
        if facts.get("retired"):
            self.log.warning("the sealed meter set of study %s is used up; seal a new one", self.study)

"""Asks how much a model is overfitted to its validation data; pauses a study whose overfitting budget is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_whole
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator
from easeml_core.formats.encoding import to_json
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_core.entities import GivenAnswer, JsonObject
    from easeml_core.store.database import Store


class MeterOperator(RefereeOperator):
    """Takes a reading of the overfitting meter for a model and gives the signal, from 1 (little) upwards.

    An alert does not fail this task: it is recorded, and wakes an ``OverfittingMeterSensor`` that waits. Where the
    study has a second validation sample, the answer has ``direct_signal``, ``drift`` and a ``sentence`` on what to do.

    Args:
        study: Whose sealed meter set is read.
        model_id: The model handed in; None means the study's best.
        team: Whose submission it is, 1..K; None means 1. For a set that is planned for several teams.
        kwargs: As of ``RefereeOperator``.
    """

    asks_by_subject = True
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
        return file_meter_request(store, study=self.study, model_id=model_id, team=team, request_key=key)

    def settle(self, answer: GivenAnswer) -> None:
        """Make what needs a person stand out in the log."""
        from easeml_core.services.referee.answers import ReadingAnswer

        if not isinstance(answer, ReadingAnswer):
            return
        if answer.alert:
            self.log.warning("overfitting above the budget: %s", answer.alert)
        if answer.drift in ("likely", "certain"):
            self.log.warning("drift is %s: %s", answer.drift, answer.sentence)
        elif answer.sentence:
            self.log.info("%s", answer.sentence)
        if answer.retired:
            self.log.warning("the sealed meter set of study %s is used up; seal a new one", self.study)


class PauseOnAlertOperator(EasemlOperator):
    """Pauses the study when the alert says that its overfitting budget is broken; ``easeml study resume`` goes on.

    A cleared alert, or one about something else (drift, a new test set), pauses nothing. Nor does an alert of one of
    several teams on a meter set: the other teams would learn the signal from the pause.

    Args:
        study: Whose alert it is.
        alert_id: Number of the alert.
        team: The team that it is for, where it is for one of several; None means none.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("study", "alert_id", "team", *EasemlOperator.template_fields)

    def __init__(self, *, study: str, alert_id: int | str, team: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.alert_id = alert_id
        self.team = team

    def execute(self, context: Context) -> JsonObject:
        """Pause or not, log, hand on."""
        from easeml_core.services.meter.alerts import pause_on_alert

        with airflow_outcome():
            alert_id = optional_whole(self.alert_id, "alert_id") or 0
            require(alert_id > 0, "alert_id", self.alert_id, "the number of an alert")
            team = optional_whole(self.team, "team")
            found = pause_on_alert(self.hook.get_store(), study=self.study, alert_id=alert_id, team=team)
        done = "is paused by it" if found.paused else f"stays {found.state}"
        self.log.info("alert %d: study %s %s", alert_id, self.study, done)
        public: JsonObject = to_json(found)
        return public

"""Pauses the search of a study whose overfitting budget is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_whole
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class PauseOnAlertOperator(EasemlOperator):
    """Pauses the study when the alert says that its overfitting budget is broken; ``easeml study resume`` goes on.

    An alert that somebody has cleared, or that is about something else (drift, a new test set), pauses nothing. Nor
    does that of one of several teams on a meter set: the others would see the pause, and so the signal.

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

    def execute(self, context: Context) -> dict[str, Any]:
        """Pause or not, log, hand on."""
        from easeml_core.services.meter.alerts import pause_on_alert

        with airflow_outcome():
            alert_id = optional_whole(self.alert_id, "alert_id") or 0
            require(alert_id > 0, "alert_id", self.alert_id, "the number of an alert")
            team = optional_whole(self.team, "team")
            found = pause_on_alert(self.hook.get_store(), study=self.study, alert_id=alert_id, team=team)
        done = "is paused by it" if found["paused"] else f"stays {found['state']}"
        self.log.info("alert %d: study %s %s", alert_id, self.study, done)
        return found

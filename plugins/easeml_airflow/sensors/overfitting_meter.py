"""Waits for an alert of the overfitting meter, or for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_text, optional_whole
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.sensors.alerts import AlertSensor
from easeml_airflow.triggers.questions import METER_KINDS, meter_subject
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT_FOR = ("alert", "clear", "any")


class OverfittingMeterSensor(AlertSensor):
    """Succeeds when the study's overfitting budget is exceeded, or is not any more; or when two meters show drift.

    Alerts are rows with increasing numbers, and the sensor's condition depends on rows and a number, never on a
    notification alone. Pass what was reported, or the number of the last handled alert: the sensor finds the next one
    even if it came between two polls, was cleared immediately, or came while the triggerer was restarted. Without
    either the sensor considers open alerts at its first poll, and every later one.

    Args:
        study: The study; None means any.
        wait_for: ``alert``: the next alert after ``after_id``; ``clear``: no alert up to ``after_id`` is open, and
            without a number none of those that are there at the first look; ``any``: an alert after ``after_id``, or
            the clearing of those up to it.
        kind: What alerts are about: ``overfitting`` (the budget is exceeded), ``drift`` (validation and test data
            certainly differ; for studies with a second validation sample), or ``both``.
        after_id: Number of the last alert that was dealt with; 0 means that every open one counts.
        team: Whose alerts count, too, where several teams share a meter set; None means none of theirs.
        reported: Alerts that this sensor has returned, such as the results of the DAG's earlier runs: every other one
            that is open counts, and every later one. For ``alert``, without ``after_id``.
        kwargs: As of ``EasemlSensor``.
    """

    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = (
        "study",
        "wait_for",
        "kind",
        "after_id",
        "team",
        "reported",
        *AlertSensor.template_fields,
    )

    def __init__(
        self,
        *,
        study: str | None = None,
        wait_for: str = "alert",
        kind: str = "overfitting",
        after_id: int | str = 0,
        team: int | str | None = None,
        reported: Sequence[Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.wait_for = wait_for
        self.kind = kind
        self.after_id = after_id
        self.team = team
        self.reported = reported

    def question(self) -> tuple[str, str, int]:
        """The next alert, or the end of those that are there."""
        require(self.wait_for in WAIT_FOR, "wait_for", self.wait_for, "one of " + ", ".join(WAIT_FOR))
        require(self.kind in METER_KINDS, "kind", self.kind, "one of " + ", ".join(METER_KINDS))
        study, after = optional_text(self.study) or "", optional_whole(self.after_id, "after_id") or 0
        team = optional_whole(self.team, "team")
        subject = meter_subject(study, self.kind, team)
        if after:
            return self.wait_for, subject, after
        allowed = "left out where wait_for is clear or any"
        require(self.reported is None or self.wait_for == "alert", "reported", self.reported, allowed)
        since = self.since(study, team, kind=METER_KINDS[self.kind])
        if since is None:
            return self.wait_for, subject, 0
        return ("clear" if self.wait_for == "clear" else "alert-since"), subject, since

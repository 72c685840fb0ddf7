"""Waits for an alert that asks for a new test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_text, optional_whole
from easeml_airflow.sensors.alerts import AlertSensor
from easeml_core.config import choice
from easeml_core.entities import SealedSetPurpose

if TYPE_CHECKING:
    from collections.abc import Sequence


class NewTestSetSensor(AlertSensor):
    """Succeeds when a sealed set of the study has served, of the gate, of the meter, or of both.

    Steps, passes, signals or the reachable tolerance have run out, or the referee has retired the set. Alerts are rows
    with increasing numbers. Pass what was reported, or the number of the last handled alert: the sensor finds the next
    one even if it came between two polls, or was cleared immediately. Without either the sensor considers open alerts
    at its first poll, and every later one. With ``on_success_callback=MailNotifier(to=...)`` it sends a mail.

    Args:
        study: The study; None means any.
        after_id: Number of the last alert that was dealt with; 0 means that every open one counts.
        purpose: Whose set: ``gate``, ``meter`` (a shared set counts for both), ``joint`` or ``direct``, the second
            validation sample; None means any.
        reported: Alerts that this sensor has returned, such as the results of the DAG's earlier runs: every other one
            that is open counts, and every later one. Without ``after_id``.
        kwargs: As of ``EasemlSensor``.
    """

    template_fields: Sequence[str] = ("study", "after_id", "purpose", "reported", *AlertSensor.template_fields)

    def __init__(
        self,
        *,
        study: str | None = None,
        after_id: int | str = 0,
        purpose: str | None = None,
        reported: Sequence[Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.after_id = after_id
        self.purpose = purpose
        self.reported = reported

    def question(self) -> tuple[str, str, int]:
        """The next alert."""
        study, purpose = optional_text(self.study) or "", optional_text(self.purpose)
        subject = study if purpose is None else f"{study}/{choice(SealedSetPurpose, 'purpose', purpose)}"
        after = optional_whole(self.after_id, "after_id") or 0
        since = None if after else self.since(study, kind="new-test-set", purpose=purpose)
        return ("new-test-set", subject, after) if since is None else ("new-test-set-since", subject, since)

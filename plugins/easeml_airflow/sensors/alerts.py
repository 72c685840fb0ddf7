"""Waits for alerts: of the overfitting meter, or for their end, and those that ask for a new test set."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_plain, optional_text, optional_whole, whole
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.sensors.states import EasemlSensor
from easeml_airflow.triggers.questions import METER_KINDS, meter_subject
from easeml_core.entities import SealedSetPurpose
from easeml_core.settings.config import choice, require

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT_FOR = ("alert", "clear", "any")


class AlertSensor(EasemlSensor):
    """Base of the sensors that wait for alerts.

    A wait that is given neither a number nor what was reported begins with its first look: then open alerts count, and
    all that come after the newest one of that moment, even if they are cleared immediately.
    """

    reported: Sequence[Any] | str | None
    _begins: int | None = None
    """Number of the alert after which everything counts, once it is known."""

    def since(self, study: str, team: int | None = None, **asked: Any) -> int | None:
        """Number of the alert after which everything counts; None at the first look, at which open ones count.

        Asked before the first look: what comes between the two is found by the later ones, cleared or not.

        Args:
            study: The study; empty for any.
            team: The caller's team.
            asked: Kind and purpose of the alerts, for those that were not reported.
        """
        from easeml_core.services.meter.alerts import newest_alert, reported_up_to

        if self._begins is not None:
            return self._begins
        store = EasemlHook(self.easeml_conn_id).get_store()
        about: dict[str, Any] = {"study": study or None, "team": team}
        reported = optional_plain(self.reported, "reported")
        if reported is None:
            self._begins = newest_alert(store, **about)
            return None
        self._begins = reported_up_to(store, reported=set(map(_identity, reported)), **about, **asked)
        return self._begins


def _identity(alert: Any) -> tuple[int, datetime]:
    """Number and moment of an alert."""
    try:
        return whole(alert["alert_id"], "alert_id"), datetime.fromisoformat(alert["created_at"])
    except (KeyError, TypeError, ValueError):
        require(False, "reported", alert, "alerts as this sensor returns them, with alert_id and created_at")
        raise


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

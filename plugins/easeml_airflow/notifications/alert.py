"""Tells people of an alert: a line in the log, and a mail where somebody is named."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

SUBJECTS = {
    "new-test-set": "{study}: {needs} a new test set",
    "overfitting": "{study}: overfitting above the budget",
    "drift": "{study}: validation and test data differ",
}
"""What the subject of the mail says, by the kind of the alert."""

NEEDS = {
    "gate": "the gate needs",
    "meter": "the meter needs",
    "joint": "gate and meter need",
    "direct": "the second meter needs",
}
"""Who needs a new set, by the purpose of the one that has served."""


class AlertNotifier(BaseNotifier):
    """Sends the alert that a sensor has found, by the mail connection of Airflow.

    Meant as ``on_success_callback`` of ``NewTestSetSensor`` and ``OverfittingMeterSensor``; where another task holds
    the alert, name it. Without an address it writes to the log alone. The text of an alert is never read as a template.

    Args:
        to: Address, or several with commas between; templated; empty sends no mail.
        alert_task: Id of the task whose XCom is the alert; None means the task that the notifier belongs to.
        smtp_conn_id: Connection of type ``smtp``.
    """

    template_fields: Sequence[str] = ("to", "alert_task", "smtp_conn_id")

    def __init__(
        self, *, to: str | None = None, alert_task: str | None = None, smtp_conn_id: str = "smtp_default"
    ) -> None:
        super().__init__()
        self.to = to
        self.alert_task = alert_task
        self.smtp_conn_id = smtp_conn_id

    def notify(self, context: Context) -> None:
        """Send.

        Raises:
            AirflowException: The mail connection is missing or the server refuses; Airflow logs it.
        """
        ti = context["ti"]
        alert = ti.xcom_pull(task_ids=self.alert_task or ti.task_id)
        if not isinstance(alert, dict):
            self.log.info("there is no alert to tell")
            return
        subject, text = mail_of(alert)
        self.log.warning("%s. %s", subject, alert.get("message"))
        to = [address.strip() for address in (self.to or "").split(",") if address.strip() not in ("", "None")]
        if to:
            self._send(to, subject, text)

    def _send(self, to: list[str], subject: str, text: str) -> None:
        # The hook and not Airflow's SmtpNotifier, which would render the alert's text as a template.
        from airflow.providers.smtp.hooks.smtp import SmtpHook

        with SmtpHook(smtp_conn_id=self.smtp_conn_id) as hook:
            hook.send_email_smtp(to=to, subject=subject, html_content=text, smtp_conn_id=self.smtp_conn_id)


def mail_of(alert: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and HTML of the mail about an alert.

    Example:
        >>> alert = {"kind": "new-test-set", "study": "digits", "message": "steps 8 of 8 are used", "alert_id": 3}
        >>> mail_of(alert)[0]
        'digits: the gate needs a new test set'
    """
    known = {name: str(alert.get(name, "")) for name in ("study", "message", "alert_id")}
    needs = NEEDS.get(str(alert.get("purpose")), NEEDS["gate"])
    subject = SUBJECTS.get(str(alert.get("kind")), "{study}: alert").format(study=known["study"], needs=needs)
    text = "<p>{message}</p><p>Study {study}, alert {alert_id}.</p>"
    return " ".join(subject.split()), text.format(**{name: escape(value) for name, value in known.items()})

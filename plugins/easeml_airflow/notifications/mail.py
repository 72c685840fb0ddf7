"""Sends events by e-mail, through Airflow's connection to a mail server."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from easeml_airflow.notifications.base import EasemlNotifier, parts
from easeml_airflow.notifications.subjects import one_line, subject_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_airflow.notifications.subjects import Event


class MailNotifier(EasemlNotifier):
    """Sends an e-mail for each event; without an address it writes to the log only.

    Time-out and further tries are those of the connection (``timeout``, ``retry_limit`` in its extra). The Message-ID
    is the event's, so that a mail program recognises a repeated one.

    Args:
        to: Address, or several with commas between; templated.
        smtp_conn_id: Connection of type ``smtp``.
        kwargs: As of ``EasemlNotifier``.
    """

    template_fields: Sequence[str] = ("to", "smtp_conn_id", *EasemlNotifier.template_fields)

    def __init__(self, *, to: str | None = None, smtp_conn_id: str = "smtp_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.to = to
        self.smtp_conn_id = smtp_conn_id

    def tell(self, event: Event) -> None:
        """Send.

        Raises:
            AirflowException: The connection is missing.
            SMTPException: The server refuses.
        """
        to = parts(self.to)
        if not to:
            return
        # The hook and not Airflow's SmtpNotifier, which would render the event's text as a template.
        from airflow.providers.smtp.hooks.smtp import SmtpHook

        subject, text = mail_of(event)
        with SmtpHook(smtp_conn_id=self.smtp_conn_id) as hook:
            hook.send_email_smtp(
                to=to, subject=subject, html_content=text, custom_headers={"Message-ID": message_id(event)}
            )


def mail_of(event: Event) -> tuple[str, str]:
    """Subject and HTML of the mail about an event.

    Example:
        >>> mail_of({"kind": "drift", "study": "digits", "message": "1 < 2", "key": "alert-3"})
        ('digits: validation and test data differ', '<p>1 &lt; 2</p><p>Study digits, alert-3.</p>')
    """
    message, study, key = (escape(one_line(event.get(name) or "")) for name in ("message", "study", "key"))
    about = f'<a href="{escape(event["page"])}">{study}</a>' if event.get("page") else study
    head = escape(one_line(event.get("head") or ""))
    evidence = f"<p>Evidence: {head}</p>" if head else ""
    return subject_of(event), f"<p>{message}</p><p>Study {about}, {key}.</p>{evidence}"


def message_id(event: Event) -> str:
    """The same for the same event, of letters that a header may have."""
    return f"<easeml.{re.sub('[^A-Za-z0-9.-]', '-', str(event.get('key')))}@easeml.invalid>"

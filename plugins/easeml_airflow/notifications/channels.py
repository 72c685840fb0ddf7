"""Where events are sent: e-mail, a chat's incoming webhook, a Python callable.

The webhook is that of Slack, and of what takes the same message (Mattermost, Rocket.Chat, ...).
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook

from easeml_airflow.hooks.arguments import optional_text
from easeml_airflow.notifications.base import EasemlNotifier, one_line, parts, subject_of
from easeml_airflow.version_compat import AirflowException
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Connection

    from easeml_airflow.notifications.base import Event

PAUSE_SECONDS = 1.0
"""Before the second try; twice as long before each further one."""

_LONGEST = 3000
_PASSING = (408, 425, 429)
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b", "](": "] ("}
"""What could mention people, name a link otherwise than it leads, or leave the text; in this order."""


class FunctionNotifier(EasemlNotifier):
    """Calls a function with each event: a ticket, a pager, a message bus.

    It runs in the task's process. An error fails the task, so the event is sent again with the same
    ``event["key"]``.

    Args:
        function: Takes the event, a dictionary of plain JSON with ``kind``, ``study``, ``message``, ``key``, and where
            known ``model``, ``tenant``, ``at``, ``page``, and ``head``, the evidence that left with a verdict.
        kwargs: As of ``EasemlNotifier``.
    """

    def __init__(self, function: Callable[[Event], object], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def tell(self, event: Event) -> None:
        """Call it with a copy of the event."""
        self.function(dict(event))


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


class WebhookNotifier(EasemlNotifier):
    """Posts ``{"text": ...}`` for each event. Without a connection it writes to the log only.

    The address is a secret, since it allows posting: it is kept in a connection and never logged. The header
    ``Idempotency-Key`` is the same whenever the same event is sent. Redirects are not followed.

    Args:
        webhook_conn_id: Connection of any type: its host is the address, ``https://hooks.example.org/services``; its
            password, if there is one, is the secret end of the address. Templated.
        timeout_seconds: Of one try.
        attempts: Tries, where the server cannot be reached, is busy, or fails (429, 5xx).
        kwargs: As of ``EasemlNotifier``.
    """

    template_fields: Sequence[str] = ("webhook_conn_id", *EasemlNotifier.template_fields)

    def __init__(
        self,
        *,
        webhook_conn_id: str | None = "easeml_webhook",
        timeout_seconds: float = 10.0,
        attempts: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.webhook_conn_id = webhook_conn_id
        self.timeout_seconds = timeout_seconds
        self.attempts = attempts

    def tell(self, event: Event) -> None:
        """Post; try again what may pass.

        Raises:
            ConfigError: The connection holds no address.
            AirflowException: It could not be posted; says why, and never where to.
        """
        name = optional_text(self.webhook_conn_id)
        if name is None:
            return
        address = address_of(BaseHook.get_connection(name))
        for attempt in range(1, self.attempts + 1):
            failure, passing = _post(address, event, self.timeout_seconds)
            if failure is None:
                return
            if not passing or attempt == self.attempts:
                message = f"the webhook of connection {name!r} was not told of {event.get('key')}: {failure}"
                raise AirflowException(message)
            self.log.warning("the webhook of connection %r: %s; trying again", name, failure)
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))


def address_of(connection: Connection) -> str:
    """The address that a connection stands for.

    Raises:
        ConfigError: It is none of a web server; the message does not hold it.
    """
    host, secret = str(connection.host or ""), str(connection.password or "").lstrip("/")
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}" + (f":{connection.port}" if connection.port else "")
    address = f"{host.rstrip('/')}/{secret}" if secret else host
    try:
        split = urlsplit(address)
        known = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except ValueError:
        known = False
    fine = known and address.isascii() and address.isprintable() and " " not in address
    require(fine, "webhook_conn_id", connection.conn_id, "a connection whose host is http(s)://HOST[:PORT][/PATH]")
    return address


def text_of(event: Event) -> str:
    r"""Return the text of a chat message without mentions and links.

    Example:
        >>> text_of({"kind": "drift", "study": "digits", "message": "<!channel> [a](http://b)"})
        '*digits: validation and test data differ*\n&lt;!channel&gt; [a] (http://b)'
    """
    subject, message = subject_of(event), one_line(event.get("message") or "")[:_LONGEST]
    for markup, harmless in _MARKUP.items():
        subject, message = subject.replace(markup, harmless), message.replace(markup, harmless)
    head = event.get("head")
    evidence = f"evidence: {head}" if isinstance(head, str) and head.isalnum() else None
    return "\n".join(filter(None, [f"*{subject}*", message, evidence, event.get("page")]))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection would hand the message to another server, or ours to a server inside."""

    def redirect_request(self, *args: Any) -> None:
        """Follow none."""


def _post(address: str, event: Event, timeout_seconds: float) -> tuple[str | None, bool]:
    """Post once: why it failed, or None, and whether that may pass."""
    request = urllib.request.Request(  # noqa: S310 - address_of allows http(s) only
        address,
        data=json.dumps({"text": text_of(event)}).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": f"easeml-{one_line(event.get('key'))}"},
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_seconds):
            return None, False
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}", error.code in _PASSING or error.code >= 500
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return f"it cannot be reached ({type(reason).__name__})", True

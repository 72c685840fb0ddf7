"""Mail to the integrator: withheld verdicts, and the alert for a new test set.

A mail is written in the transaction that it is about (``store/tables/outbox.py``) and sent later by a separate thread,
so that a mail server that does not answer delays no answer. A mail is sent at least once; its Message-ID stays the
same.
"""

from __future__ import annotations

import logging
import smtplib
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.errors import EasemlError
from easeml_core.store.tables import outbox

if TYPE_CHECKING:
    import threading

    from easeml_core.store.database import Store
    from easeml_core.store.tables.outbox import Mail

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """The mail server.

    Attributes:
        host: Name or address of an SMTP server that takes mail from this machine without a password.
        port: From 1 to 65535.
        sender: Address that the mail comes from.
        timeout_seconds: Of each step of a delivery.
    """

    host: str
    port: int
    sender: str
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A part is not possible.
        """
        require(bool(self.host), "smtp", self.host, "HOST:PORT")
        require(1 <= self.port <= 65535, "smtp", self.port, "HOST:PORT with a port from 1 to 65535")
        sender_is_one = "@" in self.sender and self.sender.isprintable() and " " not in self.sender
        require(sender_is_one, "mail-from", self.sender, "an address such as name@host")

    @classmethod
    def parse(cls, address: str, sender: str) -> MailServer:
        """Read ``HOST:PORT``; port 25 where it is left out.

        Raises:
            ConfigError: It is not of this form.
        """
        host, colon, port = address.rpartition(":")
        if not colon:
            return cls(address, 25, sender)
        require(port.isascii() and port.isdigit(), "smtp", address, "HOST:PORT")
        return cls(host.strip("[]"), int(port), sender)


class MailSender:
    """Sends the mail that waits in the outbox.

    Args:
        store: Role ``easeml_referee``.
        server: The mail server.
    """

    def __init__(self, store: Store, server: MailServer) -> None:
        self._store, self._server = store, server

    def run(self, stop: threading.Event) -> None:
        """Send mail until ``stop`` is set; after a failure the pauses grow up to a quarter of an hour."""
        pause = _LOOK_SECONDS
        while not stop.is_set():
            try:
                failed = self.send_waiting(stop)
            except EasemlError as error:
                logger.warning("mail waits for the database: %s", error)
                failed = 1
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause) if failed else _LOOK_SECONDS
            stop.wait(pause)

    def send_waiting(self, stop: threading.Event | None = None) -> int:
        """Send all waiting mail, each once; return how many could not be sent and keep waiting."""
        failed: list[int] = []
        while stop is None or not stop.is_set():
            with self._store.begin() as tx:
                mail = outbox.claim_mail(tx, skip=failed)
                if mail is None:
                    break
                if self._sends(mail):
                    outbox.mark_sent(tx, mail.id)
                else:
                    failed.append(mail.id)
        return len(failed)

    def _sends(self, mail: Mail) -> bool:
        """Send one mail; False when that failed, for whatever reason of the server or the address."""
        try:
            message = _message(mail, self._server.sender)
            with smtplib.SMTP(self._server.host, self._server.port, timeout=self._server.timeout_seconds) as smtp:
                smtp.send_message(message)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            logger.warning("mail %d could not be sent, it is tried again later: %s", mail.id, error)
            return False
        logger.info("mail %d was sent", mail.id)
        return True


def _message(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, mail.recipient, mail.subject
    message["Date"] = format_datetime(mail.created_at)
    message["Message-ID"] = f"<easeml.{mail.id}.{mail.created_at:%Y%m%d%H%M%S%f}@{sender.rpartition('@')[2]}>"
    message.set_content(mail.body)
    return message

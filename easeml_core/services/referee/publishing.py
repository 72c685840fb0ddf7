"""What leaves the referee: answers, each at a time that reveals nothing, and mail to the integrator.

A request is decided in one transaction (ledger, predictions, and the answer in ``sealed.outbox``), and the answer
leaves in another one, at a time that follows from the time of the request. A referee that is killed in between has
decided, and publishes later. Only answers of gate and meter are delayed. How long a run of a model seems to take is
padded elsewhere (``services/evaluation/model_runs.py``).

A mail (a withheld verdict, the alert for a new test set) is written in the transaction that it is about
(``store/tables/outbox.py``) and sent later by a separate thread, so that a mail server that does not answer delays no
answer. It is sent at least once; its Message-ID stays the same.
"""

from __future__ import annotations

import logging
import smtplib
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind
from easeml_core.errors import ConcurrentUpdateError, EasemlError, StoreUnavailableError
from easeml_core.services.evidence.bundle import redacted
from easeml_core.services.meter.results import whose_alert
from easeml_core.services.referee.claiming import wake
from easeml_core.services.test_sets.lifecycle import end_set
from easeml_core.settings.config import require
from easeml_core.store.tables import chain, outbox, releases, requests, studies
from easeml_core.store.tables.outbox import GateFacts, MailText, MeterFacts

if TYPE_CHECKING:
    import threading

    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.services.evidence.notary import Notary
    from easeml_core.services.referee.claiming import Claims
    from easeml_core.store.database import Store
    from easeml_core.store.tables.outbox import Facts, Held, Mail


logger = logging.getLogger(__name__)

_LONGEST_DELAY_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Timetable:
    """When answers of the gate and the meter leave.

    Attributes:
        delay_seconds: Delay after the request; where deciding took longer, the next multiple. 0 for at once.
        hour: Daily at this time (UTC) instead; None for no such time.
    """

    delay_seconds: float = 0.0
    hour: time | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        delay = self.delay_seconds
        allowed = "seconds from 0 to 2592000 (30 days)"
        require(0 <= delay <= _LONGEST_DELAY_SECONDS, "answer-delay", delay, allowed)
        require(self.hour is None or delay == 0, "answer-delay", delay, "0 where answers leave at an hour of the day")

    @property
    def is_fixed(self) -> bool:
        """Whether answers leave at fixed times, and not at once."""
        return self.delay_seconds > 0 or self.hour is not None

    @property
    def longest_seconds(self) -> float:
        """The longest time that passes until an answer leaves that is decided at once."""
        return self.delay_seconds if self.hour is None else 86_400.0

    def leaves_at(self, asked: datetime, now: datetime) -> datetime:
        """Return the time at which an answer leaves that is decided now.

        Example:
            >>> at = datetime(2026, 1, 1, 12, tzinfo=UTC)
            >>> Timetable(delay_seconds=60).leaves_at(at, at + timedelta(seconds=61)).minute
            2
        """
        if self.hour is not None:
            today = now.astimezone(UTC).replace(hour=self.hour.hour, minute=self.hour.minute, second=0, microsecond=0)
            return today if today >= now else today + timedelta(days=1)
        step = timedelta(seconds=self.delay_seconds)  # whole microseconds: the rest is exact
        if not step:
            return now
        return asked + max(1, -((asked - now) // step)) * step


def release_due(notary: Notary, claims: Claims) -> int | None:
    """Publish the due answer that was decided first."""
    request_id: int | None = None
    try:
        with notary.begin() as tx:
            held = outbox.claim_due(tx, skip=claims.standing_aside())
            if held is None:
                return None
            request_id = held.request_id
            release(tx, held)
            wake(tx, request_id)  # the next one may have waited for the end of the set
    except StoreUnavailableError:
        raise
    except Exception as error:  # a decided answer is never lost: it is published later
        if request_id is None:
            raise
        claims.set_aside(request_id)
        log = logger.info if isinstance(error, ConcurrentUpdateError) else logger.exception
        log("request %d: the answer could not leave and is put off, %s", request_id, error)
    else:
        logger.info("request %d: the answer has left", request_id)
    return request_id


def release(tx: Connection, held: Held) -> None:
    """Publish an answer that was decided in an earlier transaction."""
    study = None
    if held.facts is not None:
        study = studies.study_by_id(tx, held.facts.study_id)
        releases.hold_study(tx, study.id)
    outbox.mark_left(tx, held.request_id)
    say(tx, held, study)


def say(tx: Connection, held: Held, study: Study | None) -> None:
    """Publish a decided answer: its facts, the end of the set that it has used up, and the answer itself."""
    facts, changed = held.facts, tuple[str, ...]()
    if study is not None and facts is not None:
        bundle, mails = None, tuple[MailText, ...]()
        if isinstance(facts, GateFacts):
            releases.add_verdict(tx, request_id=held.request_id, study_id=study.id, verdict=facts.verdict)
            bundle, mails = redacted(tx, request_id=held.request_id, test_set_id=facts.test_set_id), facts.mails
        else:
            releases.add_reading(tx, request_id=held.request_id, study_id=study.id, reading=facts.reading)
            _alerts(tx, study, held.request_id, facts)
        of_answer = {"request_id": held.request_id, "study_id": study.id, "test_set_id": facts.test_set_id}
        head = chain.publish(tx, **of_answer, envelope=bundle)
        for mail in mails:
            body = f"{mail.body}\n\nHead of the set's hash chain: {head}"
            outbox.add_mail(tx, recipient=mail.recipient, subject=mail.subject, body=body)
        _end_sets(tx, study, facts)
        changed = (f"study:{study.name}", f"evidence:{study.name}", "evidence:*")
    requests.add_answer(tx, held.request_id, refused=held.refused, message=held.message, also=changed)


def _end_sets(tx: Connection, study: Study, facts: Facts) -> None:
    """End the sets that the answer has used up."""
    if facts.retired_why is not None:
        end_set(tx, study, facts.test_set_id, facts.retired_why)
    if isinstance(facts, MeterFacts) and facts.direct_retired_why is not None:
        assert facts.reading.direct_test_set_id is not None  # the set that ends
        end_set(tx, study, facts.reading.direct_test_set_id, facts.direct_retired_why)


def _alerts(tx: Connection, study: Study, request_id: int, facts: MeterFacts) -> None:
    """Raise the alerts of a reading, if it has any."""
    if facts.alert or facts.drift_alert:
        team = whose_alert(tx, facts.reading)
        _alert(tx, study, request_id, AlertKind.OVERFITTING, facts.alert, over_budget=facts.over_budget, team=team)
        _alert(tx, study, request_id, AlertKind.DRIFT, facts.drift_alert, team=team)


def _alert(
    tx: Connection,
    study: Study,
    request_id: int,
    kind: AlertKind,
    message: str | None,
    *,
    over_budget: bool | None = None,
    team: int | None = None,
) -> None:
    """Raise the alert of a reading, where it has one of this kind."""
    if message:
        releases.add_alert(
            tx,
            study_id=study.id,
            study=study.name,
            request_id=request_id,
            kind=kind,
            message=f"{study.name}: {message}",
            over_budget=over_budget,
            team=team,
        )


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
        """Check the ranges."""
        require(bool(self.host), "smtp", self.host, "HOST:PORT")
        require(1 <= self.port <= 65535, "smtp", self.port, "HOST:PORT with a port from 1 to 65535")
        sender_is_one = "@" in self.sender and self.sender.isprintable() and " " not in self.sender
        require(sender_is_one, "mail-from", self.sender, "an address such as name@host")

    @classmethod
    def parse(cls, address: str, sender: str) -> MailServer:
        """Read ``HOST:PORT``; port 25 where it is left out."""
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

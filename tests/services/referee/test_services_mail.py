"""Mail through a real SMTP server: contents and recipients, sent once, later after an outage, delaying nothing."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ConfigError
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import MailSender, MailServer
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.store.tables import outbox as mails

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage


class _Session(socketserver.StreamRequestHandler):
    """One client of the mail server: RFC 5321 as far as smtplib speaks it."""

    server: MailBox

    def handle(self) -> None:
        self.say("220 test")
        while words := self.rfile.readline().decode().split():
            verb = words[0].upper()
            if verb == "DATA":
                self.say("354 go on")
                self.server.received.append(self.content())
            elif verb == "RCPT" and any(bad in words[-1] for bad in self.server.refused):
                self.say("550 no such person")
                continue
            elif verb == "QUIT":
                self.say("221 bye")
                return
            self.say("250 ok")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def content(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)


class MailBox(socketserver.ThreadingTCPServer):
    """A mail server that keeps what it gets; it refuses recipients with one of the words in ``refused``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.received: list[bytes] = []
        self.refused: list[str] = []

    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(raw, policy=policy.default) for raw in self.received]

    @property
    def settings(self) -> MailServer:
        return MailServer("127.0.0.1", self.server_address[1], "referee@easeml.example")


@pytest.fixture
def box() -> Iterator[MailBox]:
    with MailBox() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plan_mail(lab: Any, set_id: int, address: str = "integrator@lab.example") -> None:
    lab.as_superuser("UPDATE work.test_sets SET plan = plan || %s WHERE id = %s", json.dumps({"mail": address}), set_id)


def unsent(lab: Any) -> int:
    return int(lab.one("SELECT count(*) FROM sealed.mails WHERE sent_at IS NULL"))


def test_under_none_every_verdict_goes_to_the_integrator_alone(lab: Any, box: MailBox) -> None:
    plan_mail(lab, 5)
    for model in ("good", "rare"):
        lab.gate(model, "hidden")
    assert unsent(lab) == 2
    assert MailSender(lab.referee, box.settings).send_waiting() == 0
    assert [(m["To"], m["From"], m["Subject"]) for m in box.mails()] == [
        ("integrator@lab.example", "referee@easeml.example", "easeml: hidden, model 10: pass"),
        ("integrator@lab.example", "referee@easeml.example", "easeml: hidden, model 12: fail"),
    ]
    first, second = (m.get_content() for m in box.mails())
    assert first.startswith("Study hidden, step 1 of 3: PASS (released as pass by its mode).")
    assert '"verdict": "FAIL"' in second
    assert '"log_level"' in second
    assert MailSender(lab.referee, box.settings).send_waiting() == 0  # each once
    assert len(box.received) == 2
    assert unsent(lab) == 0


def test_where_verdicts_show_only_the_alarm_is_mailed(lab: Any, box: MailBox) -> None:
    plan_mail(lab, 1)
    for model in ("rare", "worse", "good"):
        lab.gate(model)
    MailSender(lab.referee, box.settings).send_waiting()
    (mail,) = box.mails()
    assert mail["Subject"] == "easeml: full needs a new test set"
    assert mail.get_content().strip() == lab.one("SELECT message FROM work.alerts")


def test_without_an_address_nothing_is_mailed(lab: Any) -> None:
    for model in ("rare", "worse", "good"):
        lab.gate(model)
        lab.gate(model, "hidden")
    assert lab.one("SELECT count(*) FROM sealed.mails") == 0


def test_a_mail_exists_only_with_what_it_is_about(lab: Any) -> None:
    def tell_and_fail() -> None:
        with lab.referee.begin() as tx:
            mails.add_mail(tx, recipient="a@b.example", subject="s", body="b")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tell_and_fail()
    assert lab.one("SELECT count(*) FROM sealed.mails") == 0


def write(lab: Any, *recipients: str, subject: str = "s") -> None:
    with lab.referee.begin() as tx:
        for recipient in recipients:
            mails.add_mail(tx, recipient=recipient, subject=subject, body="Grüße\n.\nend")


def test_a_server_that_is_away_gets_its_mail_later(lab: Any, box: MailBox, caplog: Any) -> None:
    write(lab, "a@b.example")
    away = MailServer("127.0.0.1", 1, "referee@easeml.example", timeout_seconds=1)
    assert MailSender(lab.referee, away).send_waiting() == 1
    assert "could not be sent, it is tried again later" in caplog.text
    assert MailSender(lab.referee, box.settings).send_waiting() == 0
    (mail,) = box.mails()
    assert mail.get_content().splitlines() == ["Grüße", ".", "end"]
    assert mail["Message-ID"].startswith("<easeml.1.")


def test_two_senders_never_wait_for_each_other(lab: Any) -> None:
    write(lab, "a@b.example", "c@d.example")
    with lab.referee.begin() as one, lab.referee.begin() as other:
        held = [mails.claim_mail(tx, skip=[]) for tx in (one, other)]
        assert [mail and mail.recipient for mail in held] == ["a@b.example", "c@d.example"]


def test_a_refused_recipient_keeps_no_other_mail_back(lab: Any, box: MailBox) -> None:
    box.refused = ["absent"]
    write(lab, "absent@b.example", "a@b.example")
    assert MailSender(lab.referee, box.settings).send_waiting() == 1
    assert [m["To"] for m in box.mails()] == ["a@b.example"]
    box.refused = []
    assert MailSender(lab.referee, box.settings).send_waiting() == 0
    assert unsent(lab) == 0


def test_a_subject_cannot_bring_headers_of_its_own(lab: Any, box: MailBox) -> None:
    write(lab, "a@b.example", subject="s\r\nBcc: thief@b.example")
    assert MailSender(lab.referee, box.settings).send_waiting() == 1
    assert box.received == []


def test_a_mail_server_that_does_not_answer_keeps_no_answer_waiting(lab: Any, wait_for: Any) -> None:
    write(lab, "a@b.example")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        mail = MailServer("127.0.0.1", silent.getsockname()[1], "referee@easeml.example", timeout_seconds=120)
        stop = threading.Event()
        thread = threading.Thread(target=Referee(lab.referee, lab.artifacts, mail=mail).run, args=(stop,))
        thread.start()
        client, _ = silent.accept()  # a client tries to send
        asked = file_gate_request(lab.worker, study="full", model_id=2, request_key="k")
        wait_for(lambda: answer_of(lab.worker, asked))
        stop.set()
        client.close()
        thread.join(30)
    assert not thread.is_alive()
    assert unsent(lab) == 1


def test_a_referee_sends_by_itself(lab: Any, box: MailBox, wait_for: Any) -> None:
    write(lab, "a@b.example")
    stop = threading.Event()
    thread = threading.Thread(target=Referee(lab.referee, lab.artifacts, mail=box.settings).run, args=(stop,))
    thread.start()
    wait_for(lambda: box.received)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(box.received) == 1


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("mail.example:2525", "mail.example", 2525),
        ("mail", "mail", 25),
        ("[::1]:25", "::1", 25),
        ("mail:1", "mail", 1),
        ("mail:65535", "mail", 65535),
    ],
)
def test_an_address_of_a_server(given: str, host: str, port: int) -> None:
    found = MailServer.parse(given, "a@b")
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize(
    ("given", "sender", "words"),
    [
        ("mail:smtp", "a@b", "smtp must be HOST:PORT, got 'mail:smtp'"),
        ("mail:0", "a@b", "smtp must be HOST:PORT with a port from 1 to 65535, got 0"),
        ("mail:65536", "a@b", "smtp must be HOST:PORT with a port from 1 to 65535, got 65536"),
        (":25", "a@b", "smtp must be HOST:PORT, got ''"),
        ("mail", "nobody", "mail-from must be an address such as name@host, got 'nobody'"),
        ("mail", "a@b\nBcc: c@d", "mail-from must be an address"),
    ],
)
def test_a_server_that_cannot_be_is_refused(given: str, sender: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MailServer.parse(given, sender)
    assert words in str(caught.value)


def test_pauses_double_up_to_a_quarter_of_an_hour_and_begin_anew_after_a_success(monkeypatch: Any) -> None:
    failed, waited = [1] * 10 + [0, 1], []
    sender = MailSender(None, None)  # type: ignore[arg-type]  # neither is reached
    monkeypatch.setattr(sender, "send_waiting", lambda stop: failed.pop(0))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            if not failed:
                self.set()
            return self.is_set()

    sender.run(Stop())
    assert waited == [10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 5, 10]

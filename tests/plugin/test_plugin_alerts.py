"""A gate that needs a new test set: the sensor finds it, the DAG turns red, and a mail goes out by real SMTP."""

import asyncio
import email
import json
import socketserver
import threading
from email.policy import default

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string

from easeml_airflow import sensors
from easeml_airflow.notifications import AlertNotifier
from easeml_airflow.notifications.alert import mail_of
from easeml_airflow.triggers.easeml import facts_of
from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.store import releases, studies

MESSAGE = "all 3 steps are used; the next set needs 3,018 labels <script> {{ conn.smtp_default.password }}"


class Dialogue(socketserver.StreamRequestHandler):
    """The server's side of SMTP, as far as one mail needs it."""

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 test")
        while line := self.rfile.readline().strip():
            word = line.split()[0].upper()
            if word in (b"EHLO", b"HELO"):
                self.say("250 test")
            elif word == b"DATA":
                self.say("354 go on")
                self.server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                self.say("250 kept")
            elif word == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")


@pytest.fixture
def mails(monkeypatch):
    """What was mailed, as (recipients, subject, text)."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dialogue) as server:
        server.mails = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "gate@test", "retry_limit": 1}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.server_address[1], "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        yield lambda: [read(mail) for mail in server.mails]
        server.shutdown()


def read(raw):
    mail = email.message_from_bytes(raw, policy=default)
    return mail["To"], mail["Subject"], mail.get_body(("html",)).get_content().strip()


@pytest.fixture
def used_up(connected, make_study):
    """Let the gate of a study ask for a new test set."""

    def give(study):
        make_study(study)
        with connected.referee.begin() as tx:
            found = studies.get_study(tx, study)
            test_set = releases.live_test_set(tx, found.id, SealedSetPurpose.GATE)
            about = {"test_set_id": test_set.id, "kind": AlertKind.NEW_TEST_SET, "message": MESSAGE}
            releases.add_alert(tx, study_id=found.id, study=study, **about)

    return give


def poke(sensor):
    looked = sensor.poke({})
    return looked.xcom_value if looked.is_done else None


def test_the_sensor_finds_each_alert_once_and_only_those_for_a_new_set(connected, used_up, make_study):
    make_study("wine", source="sklearn:wine", gate={"condition": "n > 0.2 +/- 0.4", "reliability": 0.9, "steps": 2})
    anybody = sensors.NewTestSetSensor(task_id="s", timeout=90)
    with pytest.raises(TaskDeferred) as deferred:
        anybody.execute({})
    assert deferred.value.timeout.total_seconds() == 90
    used_up("cancer")
    path, arguments = deferred.value.trigger.serialize()
    alert = facts_of(asyncio.run(anext(import_string(path)(**arguments).run())).payload)
    assert (alert["study"], alert["kind"], alert["message"]) == ("cancer", "new-test-set", MESSAGE)
    assert poke(anybody) == poke(sensors.NewTestSetSensor(task_id="s", study="cancer", after_id="0")) == alert
    assert poke(sensors.NewTestSetSensor(task_id="s", after_id=alert["alert_id"])) is None
    assert poke(sensors.NewTestSetSensor(task_id="s", study="wine")) is None
    for wait_for, found in (("alert", None), ("any", None), ("clear", "no alert is open")):
        meter = poke(sensors.OverfittingMeterSensor(task_id="m", study="cancer", wait_for=wait_for))
        assert (meter or {}).get("message") == found  # it says nothing of overfitting


def test_the_watch_turns_red_and_mails_what_happened(run_dag, root, used_up, mails):
    from airflow.dag_processing.dagbag import DagBag

    used_up("cancer")

    def run(**form):
        dag = DagBag(dag_folder=str(root / "dags" / "easeml_test_set_watch.py")).dags["easeml_test_set_watch"]
        return {ti.task_id: str(ti.state) for ti in run_dag(dag, run_conf=form).get_task_instances()}

    assert run(mail="ada@test, eve@test") == {"watch": "success", "raise_alert": "failed"}
    ((to, subject, text),) = mails()
    assert (to, subject) == ("ada@test, eve@test", "cancer: the gate needs a new test set")
    assert "all 3 steps are used; the next set needs 3,018 labels" in text
    assert "<script>" not in text
    assert "{{ conn.smtp_default.password }}" in text  # the text of an alert is never a template


class Instance:
    """A task instance whose task has returned this."""

    task_id = "watch"

    def __init__(self, **returned):
        self.returned = returned

    def xcom_pull(self, *, task_ids):
        return self.returned.get(task_ids)


ALERT = {"alert_id": 3, "kind": "overfitting", "study": "digits", "message": "signal 3 of 4"}


def test_without_an_address_the_log_tells(mails, capsys):
    AlertNotifier()({"ti": Instance(watch=ALERT)})
    AlertNotifier(to="None")({"ti": Instance(watch=ALERT)})
    assert capsys.readouterr().out.count("digits: overfitting above the budget. signal 3 of 4") == 2
    AlertNotifier(to="ada@test")({"ti": Instance(watch=None)})  # skipped: there is nothing to tell
    assert mails() == []


def test_another_task_may_hold_the_alert(mails):
    AlertNotifier(to="ada@test", alert_task="other")({"ti": Instance(other=ALERT)})
    assert [(to, subject) for to, subject, _ in mails()] == [("ada@test", "digits: overfitting above the budget")]


def test_an_alert_of_another_shape_is_mailed_all_the_same():
    subject, text = mail_of({"study": "a\r\nBcc: everybody@test", "message": None, "kind": []})
    assert subject == "a Bcc: everybody@test: alert"
    assert "&" not in text.replace("&lt;", "")

"""A gate that needs a new test set: the sensor finds it, the DAG turns red, and a mail goes out by real SMTP."""

import json

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from page_reader import Page
from task_doubles import first_event

from easeml_airflow import operators, sensors
from easeml_airflow.notifications import MailNotifier
from easeml_airflow.notifications.base import subject_of
from easeml_airflow.notifications.channels import mail_of
from easeml_airflow.triggers.easeml import facts_of
from easeml_airflow.triggers.questions import look
from easeml_core.entities import AlertKind, RequestKind, SealedSetPurpose
from easeml_core.formats.encoding import to_json
from easeml_core.services.meter.alerts import clear_alert, newest_alert
from easeml_core.services.reports.overview import study_state
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.rows import change
from easeml_core.store.tables import models, releases, requests, studies

MESSAGE = "all 3 steps are used; the next set needs 3,018 labels <script> {{ conn.smtp_default.password }}"

DRIFT = "cancer: test signal 3, validation signal 1: drift"


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
    alert = facts_of(first_event(deferred.value.trigger))
    assert (alert["study"], alert["kind"], alert["message"]) == ("cancer", "new-test-set", MESSAGE)
    assert poke(anybody) == poke(sensors.NewTestSetSensor(task_id="s", study="cancer", after_id="0")) == alert
    assert poke(sensors.NewTestSetSensor(task_id="s", after_id=alert["alert_id"])) is None
    assert poke(sensors.NewTestSetSensor(task_id="s", study="wine")) is None
    for wait_for, number in (("alert", None), ("any", None), ("clear", 0)):  # it says nothing of overfitting
        assert found(sensors.OverfittingMeterSensor(task_id="m", study="cancer", wait_for=wait_for)) == number


def test_the_watch_turns_red_and_mails_what_happened(run_dag, root, used_up, mails, recorded):
    from airflow.dag_processing.dagbag import DagBag

    used_up("cancer")

    def run(**form):
        dag = DagBag(dag_folder=str(root / "dags" / "easeml_test_set_watch.py")).dags["easeml_test_set_watch"]
        return {ti.task_id: str(ti.state) for ti in run_dag(dag, run_conf=form).get_task_instances()}

    assert run(mail="ada@test, eve@test") == {"watch": "success", "raise_alert": "failed"}
    ((to, subject, text),) = mails()
    assert to == "ada@test, eve@test"
    assert not Page(text).has("script")
    assert MESSAGE in Page(text).text  # the text of an alert is never a template
    recorded(f"{subject}\n\n{text}\n", "mail_new_test_set")


def alarm(connected, study, purpose):
    """Retire the study's set of this purpose, which asks for a new one; the number of the alert."""
    with connected.referee.begin() as tx:
        test_set = releases.live_test_set(tx, studies.get_study(tx, study).id, purpose)
    retire_test_set(connected.referee, test_set=str(test_set.id))
    return newest_alert(connected.worker, study=study)


def stored(connected, number):
    """The alert with this number, as a sensor returns it."""
    with connected.worker.begin() as tx:
        return to_json(next(alert for alert in releases.list_alerts(tx, None) if alert.alert_id == number))


def found(sensor):
    return (poke(sensor) or {}).get("alert_id")


def test_the_alarm_is_found_by_whose_set_has_served(connected, make_study):
    make_study("cancer")
    gate, meter = (alarm(connected, "cancer", purpose) for purpose in (SealedSetPurpose.GATE, SealedSetPurpose.METER))
    for purpose, alert in (("gate", gate), ("meter", meter), (None, gate), ("joint", None), ("direct", None)):
        assert found(sensors.NewTestSetSensor(task_id="s", study="cancer", purpose=purpose)) == alert
        assert found(sensors.NewTestSetSensor(task_id="s", purpose=purpose)) == alert
    assert found(sensors.NewTestSetSensor(task_id="s", purpose="meter", after_id=gate)) == meter
    with pytest.raises(AirflowFailException, match=r"^purpose must .*'fun'"):
        poke(sensors.NewTestSetSensor(task_id="s", purpose="fun"))


@pytest.mark.parametrize("study", ["cancer", None])
def test_an_alarm_that_is_cleared_between_two_looks_is_found(connected, make_study, study):
    """Also by the trigger that has not looked yet, and by one that was restarted."""
    make_study("cancer")
    old = alarm(connected, "cancer", SealedSetPurpose.GATE)
    clear_alert(connected.worker, study="cancer", alert_id=old)
    sensor = sensors.NewTestSetSensor(task_id="s", study=study, timeout=90)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})  # an old one that somebody has dealt with is no news
    new = alarm(connected, "cancer", SealedSetPurpose.METER)
    clear_alert(connected.worker, study="cancer", alert_id=new)
    for _ in range(2):
        assert facts_of(first_event(deferred.value.trigger))["alert_id"] == new
    assert found(sensor) == new  # and by one that pokes


def test_an_alarm_that_comes_while_the_sensor_begins_is_not_lost(connected, make_study, monkeypatch):
    """Raised and cleared after the sensor has asked where it begins, and before its first look."""
    make_study("cancer")
    sensor = sensors.NewTestSetSensor(task_id="s", study="cancer")
    question = sensor.question()
    new = alarm(connected, "cancer", SealedSetPurpose.METER)
    clear_alert(connected.worker, study="cancer", alert_id=new)
    assert look(connected.worker, *question) is None  # the first look sees open ones only
    assert found(sensor) == new


@pytest.fixture
def drifting(connected, make_study):
    """Let a study's two meters show drift; the number of the alert."""
    make_study("cancer")

    def give(message=DRIFT, team=None):
        with connected.referee.begin() as tx:
            found = studies.get_study(tx, "cancer")
            test_set = releases.live_test_set(tx, found.id, SealedSetPurpose.METER)
            newest = newest_alert(connected.worker, study="cancer", team=team)
            key, kind = f"m/{newest}", RequestKind.METER
            model = models.baseline_model(tx, found.id).id
            asked = {"study_id": found.id, "model_id": model, "arguments": {}, "request_key": key}
            request = requests.file_request(tx, kind=kind, **asked)
            read = {"model_id": model, "test_set_id": test_set.id, "step": 1, "cached": False}
            reading = releases.Reading(signal=3, signals=3, **read)
            releases.add_reading(tx, request_id=request, study_id=found.id, reading=reading)
            about = {"request_id": request, "kind": AlertKind.DRIFT, "message": message, "team": team}
            releases.add_alert(tx, study_id=found.id, study="cancer", **about)
        return newest_alert(connected.worker, study="cancer", team=team)

    return give


def test_the_meter_sensor_waits_for_drift_where_it_is_asked_to(connected, drifting):
    def sensor(kind, **given):
        return sensors.OverfittingMeterSensor(task_id="s", study="cancer", kind=kind, **given)

    waiting = sensor("both", timeout=90)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute({})
    alert = drifting()
    assert facts_of(first_event(deferred.value.trigger))["message"] == DRIFT
    for kind, number in (("overfitting", None), ("drift", alert), ("both", alert)):
        assert found(sensor(kind)) == number
        assert (poke(sensor(kind, wait_for="clear")) is None) is (number is not None)
    clear_alert(connected.worker, study="cancer", alert_id=alert)
    assert found(waiting) == alert  # it has waited since there was none, so that a cleared one is news, too
    assert found(sensor("drift", wait_for="clear")) == 0
    assert found(sensor("both", after_id=alert)) is None
    with pytest.raises(AirflowFailException, match=r"^kind must .*'luck'"):
        poke(sensor("luck"))


def test_the_meter_sensor_finds_a_teams_alert_for_that_team_alone(connected, drifting):
    """A wait that begins before the alert, one that looks at once, and one for its end; in the triggerer, too."""

    def sensor(**given):
        return sensors.OverfittingMeterSensor(task_id="s", kind="drift", **({"study": "cancer"} | given))

    clear_alert(connected.worker, study="cancer", alert_id=drifting(team=2), team=2)  # an old one is no news
    waiting = {team: sensor(team=team, timeout=90) for team in ("1", "2")}
    for wait in waiting.values():
        with pytest.raises(TaskDeferred) as deferred:
            wait.execute({})
    alert = drifting(team=2)  # the trigger is that of team 2
    told = facts_of(first_event(deferred.value.trigger))
    assert (told["alert_id"], told["team"]) == (alert, 2)
    assert [found(wait) for wait in waiting.values()] == [None, alert]
    asked = ({}, {"study": None}, {"team": 1}, {"team": "None"}, {"team": 2})
    assert [found(sensor(**given)) for given in asked] == [None] * 4 + [alert]
    assert [poke(sensor(wait_for="clear", **given)) is None for given in asked] == [False] * 4 + [True]
    pause = operators.PauseOnAlertOperator(task_id="p", study="cancer", alert_id=alert, team="2")
    assert pause.execute({})["state"] == "ACTIVE"
    with pytest.raises(AirflowFailException, match="no alert of"):
        operators.PauseOnAlertOperator(task_id="p", study="cancer", alert_id=alert).execute({})
    with pytest.raises(AirflowFailException, match="with a study"):
        poke(sensor(study=None, team=2))


@pytest.fixture
def watch(run_dag, root, connected):
    """Run a watch as if it had never run before; no run of another test's database counts.

    It gives the states of the tasks, and the alert that was reported: study and number.
    """
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    names = ("easeml_overfitting_watch", "easeml_test_set_watch")

    def forget():
        with create_session() as session:
            session.execute(delete(XComModel).where(XComModel.dag_id.in_(names)))

    def run(name, **changes):
        dag = DagBag(dag_folder=str(root / "dags" / f"{name}.py")).dags[name]
        # It looks for a moment only: where it finds nothing, the test shall not wait for a day.
        for field, value in ({"deferrable": False, "timeout": 0.2, "poke_interval": 0.1} | changes).items():
            setattr(dag.task_dict["watch"], field, value)
        done = run_dag(dag)
        (ti,) = [ti for ti in done.get_task_instances() if ti.task_id == "watch"]
        reported = ti.xcom_pull(task_ids="watch", run_id=done.run_id) or {}
        states = {ti.task_id: str(ti.state) for ti in done.get_task_instances()}
        return states, (reported.get("study"), reported.get("alert_id"))

    forget()
    yield run
    forget()


def test_drift_turns_the_watch_red_each_time_and_pauses_nothing(connected, drifting, watch):
    """Three times: the third run is the first one that finds two earlier reports."""
    ended = {"watch": "success", "may_pause": "success", "pause": "success", "raise_alert": "failed"}
    for _ in range(3):
        alert = drifting()  # nobody clears it
        assert watch("easeml_overfitting_watch", deferrable=True) == (ended, ("cancer", alert))
    assert study_state(connected.worker, study="cancer") == "ACTIVE"


def test_a_run_that_has_reported_a_later_alert_of_one_study_hides_no_earlier_one_of_another(connected, used_up, watch):
    """As a copy of the DAG whose sensor once named a study, or a form of an earlier version."""
    first, second = [(used_up(study), (study, newest_alert(connected.worker, study=study)))[1] for study in "ab"]
    assert watch("easeml_test_set_watch", study="b")[1] == second
    assert watch("easeml_test_set_watch")[1] == first
    assert watch("easeml_test_set_watch")[1] == (None, None)  # each once


def test_an_alert_whose_number_was_given_before_the_database_was_restored_is_reported(connected, used_up, watch):
    used_up("cancer")
    (study, number) = watch("easeml_test_set_watch")[1]
    with connected.owner.begin() as tx:
        change(tx, "UPDATE work.alerts SET created_at = clock_timestamp() WHERE id = :id", id=number)
    assert watch("easeml_test_set_watch")[1] == (study, number)


def test_what_was_cleared_before_the_first_report_is_no_news_and_what_is_cleared_after_it_is(connected, make_study):
    make_study("cancer")

    def sensor(*reported):
        return sensors.NewTestSetSensor(task_id="s", reported=json.dumps(reported))

    old = alarm(connected, "cancer", SealedSetPurpose.GATE)
    clear_alert(connected.worker, study="cancer", alert_id=old)
    first = sensor()
    assert found(first) is None
    new = alarm(connected, "cancer", SealedSetPurpose.METER)
    alert = poke(first)
    assert (alert["alert_id"], found(sensor(alert))) == (new, None)
    clear_alert(connected.worker, study="cancer", alert_id=new)
    assert found(sensor(stored(connected, old))) == new
    with pytest.raises(AirflowFailException, match=r"^reported must be"):
        poke(sensor({"alert_id": old}))
    with pytest.raises(AirflowFailException, match=r"^reported must .* wait_for"):
        poke(sensors.OverfittingMeterSensor(task_id="m", wait_for="clear", reported=[]))


class Instance:
    """A task instance whose task has returned this."""

    task_id = "watch"

    def __init__(self, **returned):
        self.returned = returned

    def xcom_pull(self, *, task_ids, key="return_value"):
        return self.returned.get(task_ids) if key == "return_value" else None


ALERT = {"alert_id": 3, "kind": "overfitting", "study": "digits", "message": "signal 3 of 4"}


def test_without_an_address_the_log_tells(mails, capsys):
    MailNotifier()({"ti": Instance(watch=ALERT)})
    MailNotifier(to="None")({"ti": Instance(watch=ALERT)})
    assert capsys.readouterr().out.count(f"{subject_of(ALERT)}. signal 3 of 4") == 2
    MailNotifier(to="ada@test")({"ti": Instance(watch=None)})  # skipped: there is nothing to tell
    assert mails() == []


def test_another_task_may_hold_the_alert(mails):
    MailNotifier(to="ada@test", task="other")({"ti": Instance(other=ALERT)})
    assert [(to, subject) for to, subject, _ in mails()] == [("ada@test", subject_of(ALERT))]


def test_an_alert_of_another_shape_is_mailed_all_the_same():
    subject, text = mail_of({"study": "a\r\nBcc: everybody@test", "message": None, "kind": []})
    assert subject == "a Bcc: everybody@test: news"
    assert "&" not in text.replace("&lt;", "")

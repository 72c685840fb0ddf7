"""The one trigger: its round trip, and an event for every outcome."""

import asyncio

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import TriggerEvent
from asgiref.sync import async_to_sync

from easeml_airflow.triggers import easeml as module
from easeml_airflow.triggers import questions
from easeml_airflow.triggers.answers import AnswersTrigger
from easeml_airflow.triggers.easeml import EasemlTrigger, facts_of
from easeml_airflow.triggers.questions import QUESTIONS, Question, look
from easeml_core import errors as core
from easeml_core.entities import RequestKind
from easeml_core.services import telemetry

ARGUMENTS = {
    "question": "answer",
    "subject": "17",
    "after": 3,
    "easeml_conn_id": "easeml_default",
    "poll_interval": 0.5,
}


def events(trigger):
    """All events of a trigger that is made anew from its serialised form, as the triggerer does it."""

    async def run():
        path, arguments = trigger.serialize()
        return [event async for event in import_string(path)(**arguments).run()]

    return asyncio.run(run())


def test_the_round_trip_gives_the_same_trigger():
    path, arguments = EasemlTrigger(**ARGUMENTS).serialize()
    assert path == "easeml_airflow.triggers.easeml.EasemlTrigger"
    assert arguments == ARGUMENTS
    again = import_string(path)(**arguments)
    assert type(again) is EasemlTrigger
    assert again.serialize() == (path, arguments)
    assert all(value is None or isinstance(value, str | int | float) for value in arguments.values())


@pytest.mark.parametrize("question", [*QUESTIONS, "nonsense", None, 3])
@pytest.mark.parametrize("subject", ["17", "", None, -1])
def test_the_constructor_never_raises(question, subject):
    EasemlTrigger(question=question, subject=subject, after=None, easeml_conn_id=7, poll_interval="often")


def test_facts_are_of_json_s_own_types(monkeypatch):
    """Airflow stores them, and an older Airflow fails on a type of ours; ``==`` does not tell an enum from its text."""
    asked = Question(lambda subject: "", lambda store, subject, after: {"kind": RequestKind.GATE, "sets": (1,)})
    monkeypatch.setattr(questions, "QUESTIONS", {"asked": asked})
    assert repr(look(None, "asked", "")) == "{'kind': 'gate', 'sets': [1]}"


def test_an_unknown_question_is_an_event(monkeypatch):
    monkeypatch.setattr(module, "_open", lambda conn_id: (None, None))
    (event,) = events(EasemlTrigger(question="nonsense", subject="17"))
    assert event.payload == {"status": "error", "message": "KeyError: 'nonsense'", "retry": True}


def test_a_missing_connection_is_an_event_that_says_what_to_do():
    (event,) = events(EasemlTrigger(**ARGUMENTS | {"easeml_conn_id": "there_is_none"}))
    assert event.payload["status"] == "error"
    assert event.payload["retry"] is False
    assert all(told in event.payload["message"] for told in ("'there_is_none'", "`make up`"))


def with_until(monkeypatch, until):
    """Let the trigger wait with this function instead of the database."""

    class Store:
        dsn = "postgresql://somewhere"

    monkeypatch.setattr(module, "_open", lambda conn_id: (Store(), until))


@pytest.mark.parametrize("many", [False, True])
def test_a_connection_is_asked_for_on_the_loop_of_the_triggerer(monkeypatch, many):
    """Airflow 3.1 asks by ``async_to_sync``: from another kind of thread it used a loop of its own, and ended."""
    loops = []

    async def which():
        loops.append(asyncio.get_running_loop())

    def ask(conn_id):
        async_to_sync(which)()
        raise core.StoreUnavailableError("asked")

    monkeypatch.setattr(module, "_open", ask)
    trigger = AnswersTrigger(request_ids=(4,)) if many else EasemlTrigger(**ARGUMENTS)

    async def run():
        await which()
        async for _ in trigger.run():
            pass

    asyncio.run(run())
    assert len(loops) == 2
    assert loops[0] is loops[1]


def test_facts_arrive(monkeypatch):
    async def until(dsn, topic, look, *, poll_seconds):
        assert (dsn, topic, poll_seconds) == ("postgresql://somewhere", "answer:17", 0.5)
        return {"symbol": "pass"}

    with_until(monkeypatch, until)
    (event,) = events(EasemlTrigger(**ARGUMENTS))
    assert facts_of(event.payload) == {"symbol": "pass"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (core.NotFoundError("request", 17), AirflowFailException),
        (core.StoreUnavailableError("the database is away"), AirflowException),
        (OSError("no more sockets"), AirflowException),
    ],
)
def test_an_error_is_an_event_and_the_task_reports_it(monkeypatch, error, expected):
    async def until(*arguments, **more):
        raise error

    with_until(monkeypatch, until)
    (event,) = events(EasemlTrigger(**ARGUMENTS))
    with pytest.raises(AirflowException, match=str(error)) as caught:
        facts_of(event.payload)
    assert type(caught.value) is expected


@pytest.mark.parametrize("event", [None, "done", 3, {}, {"status": "new"}, {"facts": {}}])
def test_an_unknown_event_is_told(event):
    with pytest.raises(AirflowException, match="unknown event"):
        facts_of(event)


def test_events_are_plain_json():
    import json

    for event in (module._failed("x", retry=True), TriggerEvent({"status": "done", "facts": {"signal": None}})):
        assert json.loads(json.dumps(event.payload)) == event.payload


@pytest.mark.parametrize(
    ("question", "subject", "topic"),
    [
        ("answer", "17", "answer:17"),
        ("trial", "4", "trial:4"),
        ("test-set", "digits/gate", "study:digits"),
        ("test-set", "digits", "study:digits"),
        ("alert", "digits", "alert:digits"),
        ("clear", "digits", "alert:digits"),
        ("any", "", "alert:*"),
        ("alert", "digits/drift", "alert:digits"),
        ("alert-since", "/both", "alert:*"),
        ("alert", "digits/both/2", "alert:digits"),
        ("new-test-set-since", "digits/meter", "alert:digits"),
        ("new-test-set", "", "alert:*"),
    ],
)
def test_topics_are_those_that_the_services_notify(question, subject, topic):
    assert QUESTIONS[question].topic(subject) == topic


@pytest.mark.parametrize(("question", "named"), [("answer", "answer"), ("<b>", "other"), (["answer"], "other")])
def test_a_wait_is_counted_by_a_question_of_ours(question, named, monkeypatch):
    """No connection is there, so each wait ends with an error; an argument of a DAG could be any text."""
    seen = []
    monkeypatch.setattr(telemetry, "_sinks", [lambda what, *noted: seen.append((what.name, *noted))])
    (event,) = events(EasemlTrigger(question=question, subject="1", easeml_conn_id="nowhere"))
    assert event.payload["status"] == "error"
    assert seen == [
        ("easeml.waits.pending", 1, {"question": named}),
        ("easeml.waits.pending", -1, {"question": named}),
        ("easeml.waits.ended", 1, {"question": named, "outcome": "error"}),
    ]

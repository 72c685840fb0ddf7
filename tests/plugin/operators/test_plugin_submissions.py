"""Each submission starts the gate by itself: what waits, the trigger that tells it, and the assets."""

import asyncio
import contextlib

import pytest
from airflow.sdk import Asset
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseEventTrigger
from waiting import at_rest

from easeml_airflow import assets, operators
from easeml_airflow.triggers.submissions import SubmissionsTrigger
from easeml_core.encoding import to_json
from easeml_core.services.models.submission import waiting_submissions
from easeml_core.services.referee.requests import file_gate_request, file_meter_request

SECONDS = 30
"""Longer than anything here takes; a wait that is longer has failed."""


@pytest.fixture
def hand_in(connected, make_study, artifacts, tmp_path):
    """Hand in a constant model, as often as wanted; the submission's id."""
    from easeml_core.services.models.submission import submit_model

    numbers = iter(range(1000))
    path = tmp_path / "model.json"
    path.write_text('{"label": 1}')

    def give(study="cancer"):
        told = {"message": "a test", "request_key": f"hand in {next(numbers)}"}
        return submit_model(
            connected.worker, artifacts, study=study, path=path, format="constant", **told
        ).submission_id

    make_study("cancer")
    make_study("wine", source="sklearn:wine", gate={"condition": "n > 0.2 +/- 0.4", "reliability": 0.9, "steps": 2})
    return give


def ids(found):
    return [s["submission_id"] for s in to_json(found)]  # records of the service, or events


def ask_gate(store, submission, *, key, **more):
    return file_gate_request(store, study=submission.study, model_id=submission.model_id, request_key=key, **more)


def test_a_submission_waits_until_the_gate_is_asked_about_its_model(store, hand_in):
    first, other = hand_in(), hand_in("wine")
    assert ids(waiting_submissions(store)) == [first, other]
    (mine,) = waiting_submissions(store, study="cancer")
    assert (mine.submission_id, mine.study) == (first, "cancer")
    ask_gate(store, mine, key="advice", condition="n > 0.1 +/- 0.3")
    file_meter_request(store, study="cancer", model_id=mine.model_id, request_key="meter")
    assert ids(waiting_submissions(store, study="cancer")) == [first]  # advice and a reading are no verdict
    ask_gate(store, mine, key="gate")
    assert ids(waiting_submissions(store)) == [other]
    again = hand_in()  # the same content, handed in anew, is another submission
    assert ids(waiting_submissions(store)) == [other, again]


def test_the_operator_lists_what_waits(store, hand_in):
    first = hand_in()
    find = operators.WaitingSubmissionsOperator
    assert ids(find(task_id="w").execute({})) == ids(find(task_id="w", study="None").execute({})) == [first]
    assert find(task_id="w", study="wine").execute({}) == []


def made_anew(trigger):
    """As the triggerer makes it."""
    path, arguments = trigger.serialize()
    return import_string(path)(**arguments)


async def told(events, count):
    """The next events of a trigger."""
    return [(await asyncio.wait_for(anext(events), SECONDS)).payload for _ in range(count)]


async def silent(events):
    """A wait for the next event, after a look that has found none; the caller may await or cancel it."""
    waiting = asyncio.ensure_future(anext(events))
    await at_rest()
    assert not waiting.done()
    return waiting


@contextlib.asynccontextmanager
async def running(trigger):
    """The events of a trigger, and its end as the triggerer brings it about."""
    events = made_anew(trigger).run()
    try:
        yield events
    finally:
        await events.aclose()


def test_each_submission_is_told_once_and_at_once(hand_in):
    """Woken by the notification: the poll alone would need 80 % of an hour."""

    async def watch():
        before = hand_in()  # while nobody watched
        async with running(SubmissionsTrigger(poll_interval=3600.0)) as events:
            heard = await told(events, 1)
            waiting = await silent(events)  # what still waits for the gate is not told twice
            after = [await asyncio.to_thread(hand_in, study) for study in ("cancer", "wine")]
            heard.append((await asyncio.wait_for(waiting, SECONDS)).payload)
            heard += await told(events, 1)
            with contextlib.suppress(asyncio.CancelledError):
                (last := await silent(events)).cancel()
                await last
        return [before, *after], heard

    handed_in, heard = asyncio.run(watch())
    assert ids(heard) == handed_in
    assert [event["study"] for event in heard] == ["cancer", "cancer", "wine"]


def test_a_watcher_of_one_study_hears_of_no_other(hand_in):
    async def watch():
        async with running(SubmissionsTrigger(study="wine", poll_interval=3600.0)) as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.to_thread(hand_in, "cancer")
            mine = await asyncio.to_thread(hand_in, "wine")
            return mine, (await asyncio.wait_for(waiting, SECONDS)).payload

    mine, heard = asyncio.run(watch())
    assert (heard["submission_id"], heard["study"]) == (mine, "wine")


def test_what_came_while_the_triggerer_was_away_is_told_and_what_was_judged_is_not(store, hand_in):
    first, second = hand_in("cancer"), hand_in("wine")

    async def watch():
        async with running(SubmissionsTrigger()) as events:
            return await told(events, 1 if judged else 2)

    judged = False
    assert ids(asyncio.run(watch())) == [first, second]
    ask_gate(store, waiting_submissions(store, study="cancer")[0], key="gate")
    judged = True
    assert ids(asyncio.run(watch())) == [second]


def test_what_has_reached_the_gate_is_forgotten(store, hand_in):
    """The memory of a trigger that runs for a year holds what waits now, and no more."""
    seen = set()
    first = hand_in()
    found, waiting = SubmissionsTrigger.unseen(store, None, seen)
    assert (ids(found), waiting) == ([first], {first})
    assert SubmissionsTrigger.unseen(store, None, {first}) is None

    async def watch():
        trigger = SubmissionsTrigger(poll_interval=3600.0)
        memory = set()
        await trigger._next(memory)
        ask_gate(store, waiting_submissions(store)[0], key="gate")
        second = hand_in("wine")
        await trigger._next(memory)
        return memory, second

    memory, second = asyncio.run(watch())
    assert memory == {second}


@pytest.mark.parametrize("study", ["nowhere", "", 7, ["x"], "'; DROP TABLE work.studies; --", "\x00"])
def test_a_trigger_that_cannot_watch_says_so_and_goes_on(connected, monkeypatch, caplog, study):
    """An error would end the watcher for ever; and a study that is not there yet may come."""
    trigger = SubmissionsTrigger(study=study, easeml_conn_id="easeml_default", poll_interval=0.01)
    looks = []
    real = SubmissionsTrigger._next

    async def count(self, seen):
        looks.append(1)
        if len(looks) == 3:
            raise asyncio.CancelledError
        if study == "":  # means all studies, of which none has anything
            raise OSError("no more sockets")
        return await real(self, seen)

    monkeypatch.setattr(SubmissionsTrigger, "_next", count)

    async def watch():
        with pytest.raises(asyncio.CancelledError):
            await anext(made_anew(trigger).run())

    asyncio.run(watch())
    assert len(looks) == 3
    assert caplog.text.count("cannot be watched, trying again") == 2


HOSTILE = [None, "", 0, -1, "often", float("nan"), float("inf"), [], {}, object()]


@pytest.mark.parametrize("value", HOSTILE)
def test_the_constructor_never_raises_and_the_interval_is_a_time(value):
    """One that raised anything but TypeError would end the triggerer, and every one after it."""
    trigger = SubmissionsTrigger(study=value, easeml_conn_id=value, poll_interval=value)
    assert 0 < trigger._seconds() < float("inf")


def test_the_round_trip_gives_the_same_trigger_and_equal_ones_are_one():
    trigger = SubmissionsTrigger(study="digits", easeml_conn_id="other", poll_interval=0.5)
    path, arguments = trigger.serialize()
    assert path == "easeml_airflow.triggers.submissions.SubmissionsTrigger"
    assert made_anew(trigger).serialize() == (path, arguments)
    assert all(value is None or isinstance(value, str | int | float) for value in arguments.values())
    same = SubmissionsTrigger(study="digits", easeml_conn_id="other", poll_interval=0.5)
    assert BaseEventTrigger.hash(*trigger.serialize()) == BaseEventTrigger.hash(*same.serialize())
    assert BaseEventTrigger.hash(*trigger.serialize()) != BaseEventTrigger.hash(*SubmissionsTrigger().serialize())


def test_assets_have_the_address_that_airflow_makes_of_it():
    for asset, name, uri in (
        (assets.submissions(), "Ease.ml: models handed in for any study", "easeml://submissions/"),
        (assets.submissions("digits"), "Ease.ml: models handed in for digits", "easeml://submissions/digits"),
        (assets.production_model("digits"), "Ease.ml: digits in production", "easeml://production/digits"),
        (
            assets.submissions(easeml_conn_id="other"),
            "Ease.ml: models handed in for any study (other)",
            "easeml://submissions/?conn=other",
        ),
    ):
        assert (asset.name, asset.uri) == (name, uri)
        assert Asset(uri).uri == uri
    (watcher,) = assets.submissions("digits", easeml_conn_id="other").watchers
    assert watcher.trigger.serialize()[1] == {"study": "digits", "easeml_conn_id": "other", "poll_interval": None}


def test_a_dag_may_be_scheduled_on_the_assets():
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("scheduled", schedule=[assets.submissions("digits"), assets.production_model("digits")]) as dag:
        pass
    stored = DagSerialization.to_dict(dag)
    assert "SubmissionsTrigger" in str(stored)
    DagSerialization.from_dict(stored)

"""The task that releases a chunk of studies, without a database: what it tells, when it fails, when it waits."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from task_doubles import context, made_anew

from easeml_airflow.operators import RejectedModelOperator, ReleaseModelsOperator
from easeml_airflow.operators.models import _chunks
from easeml_airflow.operators.release import _public
from easeml_airflow.triggers import answers
from easeml_airflow.triggers.answers import AnswersTrigger
from easeml_core.entities import Symbol
from easeml_core.services.referee.release import Release, ReleaseOutcome

MODELS = [{"study": f"s{number:02}", "model_id": number, "quality": 0.5} for number in range(1, 13)]


def release(number, outcome, **more):
    facts = {"symbol": None, "signal": 1, "alert": None, "message": "step 1 of 8", "meter_refusal": None}
    return Release(f"s{number:02}", number, outcome, waits_for=more.pop("waits_for", ()), **facts | more)


@pytest.fixture
def execute(monkeypatch):
    """Execute the operator with these results of the service; what it gives, and what it pushed."""

    def go(releases, patience=None, **arguments):
        def advance(self, context):
            self._tell(context, releases)
            return releases, patience

        monkeypatch.setattr(ReleaseModelsOperator, "_advance", advance)
        given_to = context("release", map_index=3)
        try:
            given = ReleaseModelsOperator(task_id="release", models=MODELS, **arguments).execute(given_to)
        except (AirflowException, TaskDeferred) as error:
            given = error
        return given, given_to["ti"].pushed["released"]

    return go


def test_a_person_finds_every_study_that_needs_a_look_and_the_message_stays_short(execute, caplog):
    rejected = [release(n, ReleaseOutcome.REJECTED, symbol=Symbol.FAIL) for n in range(1, 11)]
    others = [release(11, ReleaseOutcome.PROMOTED, meter_refusal="no live set"), release(12, ReleaseOutcome.PROMOTED)]
    with caplog.at_level(logging.INFO):
        error, pushed = execute([*rejected, *others])
    assert type(error) is AirflowFailException  # no retry: the same question has the same answer
    assert str(error).startswith(
        "11 of 12 studies need a look: s01: model 1 rejected, step 1 of 8; meter: signal 1; s02"
    )
    assert "s11" not in str(error)
    assert str(error).endswith("; and 1 more, which the log and the XCom `released` name")
    assert [entry["study"] for entry in pushed] == [model["study"] for model in MODELS]
    assert set(pushed[0]) == {*Release.__annotations__} - {"waits_for"}
    given, again = execute([*rejected, *others], on_fail="ignore")
    assert given == again == pushed
    assert execute(others[1:])[0] == pushed[-1:]


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (0, AirflowFailException, "s01: model 1 rejected, step 1 of 8; meter: signal 1"),
        ("2", AirflowFailException, "s04: model 4 promoted, .* meter: refused, no live set"),
        (3, AirflowSkipException, "3 studies need a look; there is none at place 3"),
        (-1, AirflowFailException, "place must be >= 0"),
    ],
)
def test_a_rejected_study_can_be_a_red_task_of_its_own(place, error, message):
    chunks = [
        [release(1, ReleaseOutcome.REJECTED, symbol=Symbol.FAIL), release(2, ReleaseOutcome.PROMOTED)],
        [release(3, ReleaseOutcome.REFUSED), release(4, ReleaseOutcome.PROMOTED, meter_refusal="no live set")],
    ]
    pushed = [[_public(entry) for entry in chunk] for chunk in chunks]
    operator = RejectedModelOperator(task_id="rejected", released=pushed, place=place)
    with pytest.raises(error, match=message):
        operator.execute({})
    assert operator.study == {0: "s01", "2": "s04"}.get(place, "")
    with pytest.raises(AirflowFailException, match="released must be the XCom `released` of ReleaseModelsOperator"):
        RejectedModelOperator(task_id="rejected", released=[{"study": "s01"}]).execute({})


def test_a_chunk_waits_for_all_open_requests_by_one_trigger(execute):
    waiting = [
        release(1, ReleaseOutcome.WAITING, waits_for=(4, 5)),
        release(2, ReleaseOutcome.REJECTED, symbol=Symbol.FAIL, waits_for=(7,)),
    ]
    deferred, pushed = execute(waiting, patience=90.0, poll_interval=30)
    assert deferred.trigger.serialize()[1] == {"request_ids": [4, 5, 7], "easeml_conn_id": None, "poll_interval": 30}
    assert (deferred.method_name, deferred.timeout.total_seconds()) == ("execute_complete", 90)
    assert [entry["outcome"] for entry in pushed] == ["waiting", "rejected"]  # told though it goes on
    error, _ = execute(waiting, patience=90.0, deferrable=False, answer_timeout=90)
    assert "within 90 s: " in str(error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_fail": "skip"}, "on_fail must be fail or ignore, got 'skip'"),
        ({"models": "digits"}, "models must be a list"),
        ({"models": ["digits"]}, "models must be a list of entries with study and model_id"),
        ({"models": [{"study": "digits"}]}, "model_id must be a whole number"),
        ({"models": [MODELS[0], MODELS[0] | {"model_id": 9}]}, "models must be one model a study"),
    ],
)
def test_what_is_no_chunk_is_refused_before_anything_is_asked(monkeypatch, arguments, message):
    monkeypatch.setattr(ReleaseModelsOperator, "hook", type("Hook", (), {"get_store": staticmethod(lambda: None)}))
    with pytest.raises(AirflowFailException, match=message):
        ReleaseModelsOperator(task_id="release", **{"models": MODELS} | arguments).execute(context())


def test_the_trigger_of_many_requests_listens_for_each_and_looks_at_all(monkeypatch):
    heard = {}

    async def until(dsn, topics, look, *, poll_seconds, rest_seconds):
        heard.update(topics=topics, looks_at=look.request_ids, poll=poll_seconds, rest=rest_seconds)
        return 2

    store = type("Store", (), {"dsn": "postgresql://somewhere"})()

    async def opened(conn_id):
        return store, until

    monkeypatch.setattr(answers, "open_waiting", opened)

    async def run():
        trigger = made_anew(AnswersTrigger(request_ids=(4, 7), poll_interval=60.0))
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(run())
    assert event.payload == {"status": "done", "facts": {"answered": 2}}
    assert heard == {"topics": ["answer:4", "answer:7"], "looks_at": [4, 7], "poll": 15.0, "rest": 1.0}


@pytest.mark.parametrize(("entries", "size", "lengths"), [(0, 4, []), (3, 4, [3]), (10, 4, [3, 3, 4]), (4, 1, [1] * 4)])
def test_chunks_are_few_and_even(entries, size, lengths):
    chunks = _chunks([{"study": n} for n in range(entries)], size)
    assert [len(chunk) for chunk in chunks] == lengths
    assert [entry["study"] for chunk in chunks for entry in chunk] == list(range(entries))


def test_in_airflow_the_chunks_that_failed_are_read_too(run_dag):
    """A failed task has no return value; what it pushed before stays."""
    rejected = _public(release(1, ReleaseOutcome.REJECTED, symbol=Symbol.FAIL))
    promoted = _public(release(2, ReleaseOutcome.PROMOTED))
    with DAG("chunks", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:

        @task
        def judged(entry, ti=None):
            ti.xcom_push(key="released", value=[entry])
            if entry["outcome"] == "rejected":
                message = "1 of 1 studies need a look"
                raise AirflowFailException(message)

        RejectedModelOperator.partial(
            task_id="rejected",
            released=judged.expand(entry=[promoted, rejected])["released"],
            map_index_template="{{ task.study }}",
            trigger_rule="all_done",
        ).expand(place=[0, 1])
    found = [ti for ti in run_dag(dag).get_task_instances() if ti.task_id == "rejected"]
    assert {(ti.map_index, str(ti.state)) for ti in found} == {(0, "failed"), (1, "skipped")}
    assert next(ti.rendered_map_index for ti in found if ti.map_index == 0) == "s01"

"""Two steps from a decision to its answer: fixed times, deaths in between, the order of those that wait."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from easeml_core.entities import GivenAnswer, RequestKind, Symbol
from easeml_core.errors import ConfigError
from easeml_core.formats.encoding import to_json
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee import publishing
from easeml_core.services.referee.answers import (
    MoveAnswer,
    ReadingAnswer,
    RefreshedAnswer,
    VerdictAnswer,
    answer_from_json,
)
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request, file_promotion
from easeml_core.services.reports.overview import live_sets
from easeml_core.store.tables import labels, outbox, sealed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = 3600.0
LATE = Timetable(delay_seconds=HOUR)
RELEASED = ("work.gate_verdicts", "work.meter_readings", "work.alerts")


SIGNALS = (2, 3, [0.2, 0.6], 0.2, 3, False, False, "above 0.2", None, None, "the gap is above 0.2", None, 0.9)
RECORDS = [
    VerdictAnswer(1, RequestKind.GATE, "full", 2, False, "step 1 of 3: pass", Symbol.PASS, True, 1, 3, False),
    ReadingAnswer(2, RequestKind.METER, "full", 2, False, "signal 2 of 3", *SIGNALS),
    *(MoveAnswer(3, kind, "full", 2, False, "done", True) for kind in MOVES),
    RefreshedAnswer(4, RequestKind.REFRESH, "full", None, False, "nothing is new", None, None),
    GivenAnswer(5, RequestKind.SEAL, "full", None, False, "active"),
    *(GivenAnswer(6, kind, "full", None, True, "refused") for kind in RequestKind),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.kind} {record.refused}")
def test_an_answer_comes_back_from_json_as_the_class_of_its_kind(record: GivenAnswer) -> None:
    assert answer_from_json(to_json(record) | {"of_a_later_version": 1}) == record


# When an answer leaves.


@pytest.mark.parametrize(
    ("took", "expected"), [(0, 60), (59, 60), (60, 60), (61, 120), (120, 120), (3601, 3660)], ids=str
)
def test_a_late_decision_leaves_at_the_next_multiple_of_the_delay(took: int, expected: int) -> None:
    at = Timetable(delay_seconds=60).leaves_at(NOON, NOON + timedelta(seconds=took))
    assert at == NOON + timedelta(seconds=expected)


@given(st.floats(0, 1e6), st.floats(0.001, 86_400))
@example(78950.0, 0.33203125)  # no whole number of microseconds
def test_no_answer_leaves_before_it_is_decided_and_none_between_the_multiples(took: float, delay: float) -> None:
    now = NOON + timedelta(seconds=took)
    at = Timetable(delay_seconds=delay).leaves_at(NOON, now)
    assert at >= now
    assert (at - NOON) % timedelta(seconds=delay) == timedelta(0)
    assert at - now < timedelta(seconds=delay) or at == NOON + timedelta(seconds=delay)


def test_without_a_delay_it_leaves_at_once() -> None:
    assert Timetable().leaves_at(NOON, NOON + timedelta(seconds=3)) == NOON + timedelta(seconds=3)


@pytest.mark.parametrize(
    ("hour", "expected"),
    [(time(18, 30), NOON.replace(hour=18, minute=30)), (time(12), NOON), (time(6), NOON.replace(day=2, hour=6))],
)
def test_an_hour_of_the_day_is_the_next_one(hour: time, expected: datetime) -> None:
    assert Timetable(hour=hour).leaves_at(NOON - timedelta(days=3), NOON) == expected


def test_a_delay_must_be_possible() -> None:
    longest = 30 * 24 * 3600
    assert Timetable(delay_seconds=longest).is_fixed
    for wrong in (-1, longest + 1, 1e9, float("nan")):
        with pytest.raises(ConfigError, match="answer-delay must be seconds from 0 to 2592000"):
            Timetable(delay_seconds=wrong)
    with pytest.raises(ConfigError, match="answer-delay must be 0 where answers leave at an hour"):
        Timetable(delay_seconds=1, hour=time(6))


# Decided now, said later.


def file_gate(lab: Any, model: str = "good", study: str = "full", **asked: Any) -> int:
    given = {"study": study, "model_id": lab.models[study][model], "request_key": lab.key()} | asked
    return int(file_gate_request(lab.worker, **given))


def decide_all(lab: Any, timetable: Timetable = LATE) -> None:
    """A referee that decides what there is and is killed: another one takes over from here."""
    list(iter(Referee(lab.referee, lab.artifacts, timetable=timetable).answer_one, None))


def let_it_be_time(lab: Any) -> None:
    lab.as_superuser("UPDATE sealed.outbox SET leaves_at = leaves_at - interval '1 hour'")


def say_what_is_due(lab: Any) -> int:
    """Let a referee say and decide whatever there is; how many requests it dealt with."""
    return Referee(lab.referee, lab.artifacts).run_once()


def released(lab: Any) -> list[int]:
    return [lab.one(f"SELECT count(*) FROM {table}") for table in (*RELEASED, "work.answers")]


@pytest.mark.journey
def test_until_its_time_nothing_of_a_verdict_can_be_seen(lab: Any) -> None:
    before = released(lab)
    asked = [file_gate(lab, m) for m in ("rare", "worse", "good")]
    asked.append(file_gate(lab, "good", reliability=0.5))  # refused, which is as late
    asked.append(file_meter_request(lab.worker, study="full", request_key="m"))
    decide_all(lab)
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 4
    assert released(lab) == before
    assert live_sets(lab.worker, study="full") == ["gate", "meter"]  # though all three steps are used
    left = lab.rows(
        "SELECT o.leaves_at - r.requested_at FROM sealed.outbox o JOIN work.requests r ON r.id = o.request_id "
        "WHERE r.kind <> 'seal'"
    )
    assert left == [(timedelta(hours=1),)] * 4  # the fourth gate request waits until the set's end is public
    let_it_be_time(lab)
    assert say_what_is_due(lab) > 0
    found = [answer_of(lab.worker, a) for a in asked]
    assert [f.message for f in found[:3]] == [f"step {n} of 3: {s}" for n, s in ((1, "fail"), (2, "pass"), (3, "pass"))]
    assert isinstance(found[4], ReadingAnswer)
    assert live_sets(lab.worker, study="full") == ["meter"]
    assert "has no live gate set" in found[3].message


def test_answers_that_are_due_leave_without_a_pause_between_them(lab: Any) -> None:
    asked = [file_gate(lab, m) for m in ("rare", "worse")]
    decide_all(lab)
    let_it_be_time(lab)
    referee = Referee(lab.referee, lab.artifacts)
    for number in asked:
        assert answer_of(lab.worker, number) is None
        assert referee._say_or_move()
        assert answer_of(lab.worker, number) is not None


def test_a_refusal_is_as_late_as_a_verdict(lab: Any) -> None:
    asked = file_gate(lab, "good", reliability=0.5)
    decide_all(lab)
    assert answer_of(lab.worker, asked) is None
    let_it_be_time(lab)
    assert say_what_is_due(lab) == 1
    assert answer_of(lab.worker, asked).refused


def test_sealing_and_promotions_are_not_delayed(lab: Any) -> None:
    passed = lab.gate("good").request_id
    given = {"study": "full", "model_id": lab.models["full"]["good"], "gate_request_id": passed}
    asked = file_promotion(lab.worker, **given, request_key="p")
    decide_all(lab)
    assert answer_of(lab.worker, asked).promoted


def test_a_referee_killed_between_decision_and_answer_loses_nothing_and_counts_nothing_twice(lab: Any) -> None:
    asked = file_gate(lab)
    decide_all(lab)
    decide_all(lab)  # another referee finds nothing to decide
    assert lab.rows("SELECT step, request_id FROM sealed.ledger") == [(1, asked)]
    assert Referee(lab.referee, lab.artifacts).release_one() is None  # not its time
    let_it_be_time(lab)
    assert Referee(lab.referee, lab.artifacts).release_one() == asked
    assert Referee(lab.referee, lab.artifacts).release_one() is None
    assert answer_of(lab.worker, asked).message == "step 1 of 3: pass"
    assert lab.one("SELECT count(*) FROM work.gate_verdicts") == lab.one("SELECT count(*) FROM sealed.ledger") == 1


def test_a_referee_killed_while_it_says_an_answer_says_it_later_and_whole(lab: Any, monkeypatch: Any) -> None:
    asked = file_gate(lab, "good", "first")
    decide_all(lab)
    let_it_be_time(lab)
    with monkeypatch.context() as patch:
        patch.setattr(publishing.requests, "add_answer", lambda *_, **__: 1 / 0)
        assert Referee(lab.referee, lab.artifacts).release_one() == asked
    assert lab.one("SELECT count(*) FROM work.gate_verdicts") == 0  # nothing of it was published
    assert "gate" in live_sets(lab.worker, study="first")
    assert Referee(lab.referee, lab.artifacts).release_one() == asked
    assert answer_of(lab.worker, asked).symbol == "pass"
    assert live_sets(lab.worker, study="first") == ["meter"]


def test_an_answer_that_cannot_leave_keeps_no_other_one_waiting(lab: Any, monkeypatch: Any) -> None:
    first, second = file_gate(lab, "rare"), file_gate(lab, "good")
    decide_all(lab)
    let_it_be_time(lab)
    real = publishing.requests.add_answer

    def fail_first(tx: Any, request_id: int, **said: Any) -> None:
        real(tx, 1 // (request_id - first), **said) if request_id == first else real(tx, request_id, **said)

    monkeypatch.setattr(publishing.requests, "add_answer", fail_first)
    referee = Referee(lab.referee, lab.artifacts)
    assert [referee.release_one() for _ in range(3)] == [first, second, None]
    assert answer_of(lab.worker, first) is None
    assert answer_of(lab.worker, second).symbol == "pass"


def test_two_referees_say_an_answer_once(lab: Any) -> None:
    asked = file_gate(lab)
    decide_all(lab)
    let_it_be_time(lab)
    with lab.referee.begin() as tx:
        assert outbox.claim_due(tx).request_id == asked
        assert Referee(lab.referee, lab.artifacts).release_one() is None  # held by the other one
    assert Referee(lab.referee, lab.artifacts).release_one() == asked


# Waiting for labels.


@pytest.fixture
def unlabelled(lab: Any) -> tuple[Any, np.ndarray]:
    """The laboratory with a gate set of the study ``full`` whose labels are not known yet, and those labels."""
    with lab.referee.begin() as tx:
        truth = sealed.sealed_labels(tx, 1).astype(np.int64)
    lab.relabel(1, lambda known: np.full_like(known, -1))
    return lab, truth


def give(lab: Any, truth: np.ndarray, positions: np.ndarray) -> None:
    said = np.full(len(truth), -1, dtype=np.int64)
    said[positions] = truth[positions]
    with lab.referee.begin() as tx:
        before = labels.labels_given(tx, 1).get("ann", np.full(len(truth), -1))
        labels.keep_labels(tx, 1, "ann", np.where(said >= 0, said, before))


def wanted(lab: Any) -> dict[int, np.ndarray]:
    with lab.referee.begin() as tx:
        return {w.request_id: w.positions for w in labels.open_wanted(tx)}


def test_a_request_without_labels_waits_and_spends_nothing(unlabelled: Any) -> None:
    lab, truth = unlabelled
    asked = file_gate(lab)
    assert lab.answer_all() == 1
    assert lab.answer_all() == 0  # there is no use in looking again
    assert answer_of(lab.worker, asked) is None
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0
    assert lab.one("SELECT bool_and(survived) FROM sealed.attempts WHERE request_id = :id", id=asked)
    places = wanted(lab)[asked]
    with lab.referee.begin() as tx:
        both = identities(lab, lab.models["full"]["good"], 1)
        known = sealed.known_predictions(tx, 1, *both)
        new, old = (known[m].labels for m in both)
    assert np.array_equal(places, np.flatnonzero(new != old))  # only where the two models disagree
    give(lab, truth, places)
    assert lab.answer_all() == 1
    assert answer_of(lab.worker, asked).message == "step 1 of 3: pass"
    assert wanted(lab) == {}


def identities(lab: Any, *model_ids: int) -> list[str]:
    sql = "SELECT format || ' ' || artifact FROM work.models WHERE id = :id"
    return [lab.one(sql, id=model_id) for model_id in model_ids]


def test_half_of_the_labels_do_not_open_it(unlabelled: Any) -> None:
    lab, truth = unlabelled
    asked = file_gate(lab)
    lab.answer_all()
    give(lab, truth, wanted(lab)[asked][::2])
    assert lab.answer_all() == 0
    give(lab, truth, wanted(lab)[asked])
    assert lab.answer_all() == 1
    assert answer_of(lab.worker, asked).symbol == "pass"


def test_who_waits_for_labels_keeps_its_place_and_lets_other_work_through(unlabelled: Any) -> None:
    lab, truth = unlabelled
    first, second = file_gate(lab, "good"), file_gate(lab, "rare")
    third = file_meter_request(lab.worker, study="full", model_id=4, request_key="m")
    other = file_gate(lab, "good", "first")
    assert lab.answer_all() == 3  # the first was looked at; the second one waits behind it
    assert set(wanted(lab)) == {first}
    assert [answer_of(lab.worker, a) is not None for a in (first, second, third, other)] == [False, False, True, True]
    give(lab, truth, np.arange(len(truth)))
    assert lab.answer_all() == 2
    assert [answer_of(lab.worker, a).step for a in (first, second)] == [1, 2]


def test_labels_that_come_wake_the_referee(unlabelled: Any, wait_for: Any) -> None:
    lab, truth = unlabelled
    asked, stop = file_gate(lab), threading.Event()
    thread = threading.Thread(target=Referee(lab.referee, lab.artifacts, poll_seconds=3600).run, args=(stop,))
    thread.start()
    try:
        places = wait_for(lambda: wanted(lab))[asked]
        give(lab, truth, places)
        wait_for(lambda: answer_of(lab.worker, asked))
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_a_decided_answer_leaves_when_its_time_comes_without_a_notification(lab: Any, wait_for: Any) -> None:
    stop, soon = threading.Event(), Timetable(delay_seconds=1.0)
    referee = Referee(lab.referee, lab.artifacts, timetable=soon, poll_seconds=3600)
    thread = threading.Thread(target=referee.run, args=(stop,))
    thread.start()
    try:
        asked = file_gate(lab)
        wait_for(lambda: answer_of(lab.worker, asked))
    finally:
        stop.set()
        thread.join(30)
    left = (
        "SELECT extract(epoch FROM a.answered_at - r.requested_at) FROM work.answers a JOIN work.requests r ON "
        "r.id = a.request_id WHERE r.id = :id"
    )
    assert lab.one(left, id=asked) >= 1.0

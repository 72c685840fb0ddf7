"""Requests to the referee: filed once a key, answered once, and given back by a referee that dies."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import RequestKind
from easeml_core.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from easeml_core.store.database import Store
from easeml_core.store.rows import change, row, scalar
from easeml_core.store.tables import outbox, referee_claims, requests, studies
from easeml_core.store.tables.requests import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

CLAIMERS = 8


def test_a_key_files_one_request(make_rows: Any, file: Callable[..., int], heard: Callable[[int], Any]) -> None:
    study = make_rows()
    first = file(study, "seal", None, key="dag/run/task/0")
    assert file(study, "seal", None, key="dag/run/task/0") == first
    assert file(study, "seal", None, key="dag/run/task/1") == first + 2  # the refused row has used a number
    assert heard(2) == [("easeml_referee", f"request:{first}"), ("easeml_referee", f"request:{first + 2}")]


def test_a_key_is_not_for_another_question(make_rows: Any, file: Callable[..., int]) -> None:
    study, other = make_rows(), make_rows("other")
    file(study, "seal", None, key="k")
    used = pytest.raises(InvalidInputError, match="request key 'k' was used for another request; use a new key")
    with used:
        file(other, "seal", None, key="k")
    with used:
        file(study, "gate", study.baseline_id, key="k")


def ask_again(
    database: Any, study: Any, model_id: int | None, arguments: dict[str, Any], kind: str = "gate", key: str = "k"
) -> int:
    with database.worker.begin() as tx:
        return requests.file_request(
            tx,
            kind=RequestKind(kind),
            study_id=study.study_id,
            model_id=model_id,
            arguments=arguments,
            request_key=key,
        )


def test_a_key_is_not_for_another_model_or_other_arguments(
    database: Any, make_rows: Any, succeed: Callable[..., Any]
) -> None:
    study = make_rows()
    _, model_id = succeed(study, 0)
    asked = {"condition": "n - o > 0", "reliability": 0.9}
    first = ask_again(database, study, study.baseline_id, asked)
    assert ask_again(database, study, study.baseline_id, dict(reversed(asked.items()))) == first
    used = pytest.raises(InvalidInputError, match="request key 'k' was used for another request; use a new key")
    with used:
        ask_again(database, study, model_id, asked)
    with used:
        ask_again(database, study, study.baseline_id, asked, "meter")
    for other in ({}, asked | {"reliability": 0.99}, asked | {"more": None}, {"condition": asked["condition"]}):
        with used:
            ask_again(database, study, study.baseline_id, other)
    with database.worker.begin() as tx:
        assert requests.study_and_earlier(tx, "cancer", "k")[1].arguments == asked


def test_the_same_arguments_are_the_same_whatever_becomes_of_them_in_the_database(
    database: Any, make_rows: Any
) -> None:
    study = make_rows()
    values = [1e23, 5e-324, 10**3900, (1, 2), "a\0b", "\ud800", [[1.0], {"é": None}]]
    for n, value in enumerate(values):
        given = {"study": study, "model_id": study.baseline_id, "key": f"k{n}"}
        first = ask_again(database, arguments={"a": value}, **given)
        assert ask_again(database, arguments={"a": value}, **given) == first, value
        with pytest.raises(InvalidInputError, match="was used for another request"):
            ask_again(database, arguments={"a": [value]}, **given)


BOMBS = ('{"a": ' + "9" * 5000 + "}", '{"a": 1e4990}', '{"a": "' + "x" * 4000 + '"}', "[1]", "1", '"word"', "null")


def test_arguments_that_would_harm_their_reader_are_refused_by_the_schema(store: Any, make_rows: Any) -> None:
    """Sent as SQL: a user with the worker's password need not use our writer."""
    study, refused = make_rows(), "a request's arguments must be a mapping of at most 3999 bytes"
    filed = "INSERT INTO work.requests (request_key, kind, study_id, arguments) "
    filed += "VALUES ('bomb', 'seal', :id, CAST(:arguments AS jsonb))"
    for arguments in BOMBS:
        with pytest.raises(InvalidInputError, match=refused), store.begin() as tx:
            change(tx, filed, id=study.study_id, arguments=arguments)


def test_the_largest_number_that_passes_can_be_read(database: Any, make_rows: Any) -> None:
    """The schema's bound lies below the digits that Python reads (4,300), so no request stops the referee's reading."""
    study, largest = make_rows(), 10**3991 - 1  # with {"a": } around it 3,998 bytes
    request_id = ask_again(database, study, study.baseline_id, {"a": largest})
    with database.referee.begin() as tx:
        assert requests.get_request(tx, request_id)[0].arguments == {"a": largest}


def test_a_key_must_not_be_empty(store: Any, make_rows: Any) -> None:
    study = make_rows()
    empty = pytest.raises(InvalidInputError, match="request_key must not be empty; it makes the call repeatable")
    with empty, store.begin() as tx:
        requests.file_request(
            tx, kind=RequestKind.SEAL, study_id=study.study_id, model_id=None, arguments={}, request_key=""
        )


def test_requests_are_signed_and_dated_by_the_database(store: Any, make_rows: Any, file: Callable[..., int]) -> None:
    request_id = file(make_rows(), "seal", None)
    with store.begin() as tx:
        signed = "SELECT requested_by, now() - requested_at < interval '1 min' FROM work.requests WHERE id = :id"
        assert row(tx, signed, id=request_id) == ("easeml_worker", True)


def test_the_oldest_open_request_comes_first(database: Any, make_rows: Any, file: Callable[..., int]) -> None:
    study = make_rows()
    first, second = file(study, "seal", None, key="1"), file(study, "gate", study.baseline_id, key="2")
    with database.referee.begin() as tx:
        assert referee_claims.claim_request(tx) == first
        asked = requests.Request(first, RequestKind.SEAL, study.study_id, None, {})
        assert requests.get_request(tx, first) == (asked, studies.study_by_id(tx, study.study_id))
        with database.referee.begin() as another:  # held: the next one is given
            change(another, "SET LOCAL lock_timeout = '2s'")
            assert referee_claims.claim_request(another) == second
            with Store(database.url("easeml_referee")).begin() as third:
                change(third, "SET LOCAL lock_timeout = '2s'")
                assert referee_claims.claim_request(third) is None
        requests.add_answer(tx, first, refused=False, message="done")
    with database.referee.begin() as tx:
        assert referee_claims.claim_request(tx) == second  # it was not answered, so it came back


def test_requests_that_are_put_off_are_passed_over(database: Any, make_rows: Any, file: Callable[..., int]) -> None:
    study = make_rows()
    first, second, third = (file(study, "seal", None, key=f"{n}") for n in range(3))
    for skip, expected in [((), first), ([first], second), ([second], first), ([second, first], third), ([99], first)]:
        with database.referee.begin() as tx:
            assert referee_claims.claim_request(tx, skip=skip) == expected
    with database.referee.begin() as tx:
        assert referee_claims.claim_request(tx, skip=[first, second, third]) is None


def test_only_the_kinds_that_were_asked_for_are_claimed(
    database: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    study = make_rows()
    sealing, gate = file(study, "seal", None, key="1"), file(study, "gate", study.baseline_id, key="2")
    seal, judge = RequestKind.SEAL, RequestKind.GATE
    for kinds, expected in [(None, sealing), ([judge], gate), ([judge, seal], sealing), ([RequestKind.METER], None)]:
        with database.referee.begin() as tx:
            assert referee_claims.claim_request(tx, kinds=kinds) == expected
    with database.referee.begin() as tx:
        assert referee_claims.claim_request(tx, kinds=[]) is None


def served(database: Any, minutes: float = 0.0, **asked: Any) -> list[int]:
    """Claim, take and answer one request after the other as one worker would: the order in which they come."""
    order = list[int]()
    with database.referee.begin() as tx:
        referee = referee_claims.add_referee(tx, lease_seconds=60)
    while True:
        with database.referee.begin() as tx:
            claimed = referee_claims.claim_request(tx, referee=referee, aged_seconds=60 * minutes or 600.0, **asked)
            if claimed is None:
                return order
            assert referee_claims.take(tx, claimed, referee)
        with database.referee.begin() as tx:
            requests.add_answer(tx, claimed, refused=False, message="done")
            referee_claims.let_go(tx, [claimed], referee)
        order.append(claimed)


def test_short_requests_come_first_and_tenants_take_turns(
    database: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    """One worker: a tenant with many gates holds back neither another tenant's gate nor any registration."""
    rich = [make_rows(f"rich-{k}", tenant="rich") for k in range(3)]
    poor, new = make_rows("poor", tenant="poor"), make_rows("new", tenant="new")
    gates = [file(study, "gate", study.baseline_id, key=f"{n}{study.name}") for n in range(2) for study in rich]
    other = file(poor, "gate", poor.baseline_id)
    meter, seal, second = (
        file(poor, "meter", poor.baseline_id, key="m"),
        file(rich[0], "seal", None),
        file(new, "seal", None),
    )
    assert served(database, kinds=referee_claims.SHORT) == [seal, second]
    seal, second = (file(study, "seal", None, key=f"again {study.name}") for study in (rich[0], new))
    # The short ones by turn: rich was served before new. Then rich and poor take turns; poor has waited longer.
    assert served(database) == [seal, second, other, gates[0], meter, *gates[1:]]


def test_a_request_that_runs_models_waits_for_short_ones_for_a_limited_time(
    database: Any, make_rows: Any, file: Callable[..., int], ask: Any
) -> None:
    study = make_rows()
    gate = file(study, "gate", study.baseline_id)
    seals = [file(study, "seal", None, key=f"{n}") for n in range(2)]
    ask("SET session_replication_role = replica; UPDATE work.requests SET requested_at = requested_at - interval '1 h'")
    assert served(database, minutes=59) == [gate, *seals]


def test_a_request_that_is_not_there_is_named(database: Any) -> None:
    with pytest.raises(NotFoundError, match="there is no request 99"), database.referee.begin() as tx:
        requests.get_request(tx, 99)


def test_attempts_are_counted_and_those_that_were_survived_are_not_lost(
    database: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    study = make_rows()
    request_id, other = (file(study, "seal", None, key=key) for key in ("1", "2"))

    def attempt() -> tuple[int, int]:
        with database.referee.begin() as tx:
            found = requests.note_attempt(tx, request_id)
            return found.number, found.lost

    assert [attempt(), attempt()] == [(1, 0), (2, 1)]
    with database.referee.begin() as tx:
        requests.note_survival(tx, request_id, 2)
        requests.note_survival(tx, request_id, 77)  # none such: nothing happens
    assert [attempt(), attempt()] == [(3, 1), (4, 2)]
    with database.referee.begin() as tx:
        requests.note_survival(tx, request_id, 1)
        assert requests.note_attempt(tx, other) == Attempt(1, 0, 0)
    assert attempt() == (5, 2)
    with database.referee.begin() as tx:
        survived = "SELECT string_agg(attempt::text, ' ' ORDER BY attempt) FROM sealed.attempts WHERE survived"
        assert scalar(tx, survived) == "1 2"


def test_an_attempt_can_be_noted_while_its_request_is_held(
    database: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    """It is committed on its own, beside the transaction that holds the request: an attempt that kills must count."""
    request_id = file(make_rows(), "seal", None)
    with database.referee.begin() as tx:
        assert referee_claims.claim_request(tx) == request_id
        with database.referee.begin() as aside:
            change(aside, "SET LOCAL lock_timeout = '2s'")
            assert requests.note_attempt(aside, request_id) == Attempt(1, 0, 0)
    with database.referee.begin() as tx:
        assert requests.note_attempt(tx, request_id) == Attempt(2, 1, 0)


@pytest.fixture
def states(ask: Any) -> Callable[[], dict[str, str]]:
    """State of every study, by name."""
    return lambda: dict(ask("SELECT name, state FROM work.studies"))


def test_a_refused_sealing_refuses_its_new_study_and_no_other(
    database: Any,
    make_rows: Any,
    file: Callable[..., int],
    states: Callable[[], dict[str, str]],
    heard: Callable[[int], Any],
) -> None:
    active, new, other = make_rows("active"), make_rows("new", state="REGISTERED"), make_rows("x", state="REGISTERED")
    asked = [file(active, "seal", None), file(new, "gate", new.baseline_id), file(other, "promote", other.baseline_id)]
    for request_id in asked:
        with database.referee.begin() as tx:
            requests.refuse_sealing(tx, request_id)
    assert states() == {"active": "ACTIVE", "new": "REGISTERED", "x": "REGISTERED"}
    seal = file(new, "seal", None)
    for _ in range(2):  # a repetition changes nothing and notifies no listener
        with database.referee.begin() as tx:
            requests.refuse_sealing(tx, seal)
    assert states() == {"active": "ACTIVE", "new": "REFUSED", "x": "REGISTERED"}
    assert [topic for _, topic in heard(5) if topic.startswith("study:")] == ["study:new"]


def test_a_long_message_is_cut(database: Any, make_rows: Any, file: Callable[..., int]) -> None:
    study = make_rows()
    for length in (1999, 2000, 2001, 3_000_000):
        request_id = file(study, "seal", None, key=f"{length}")
        with database.referee.begin() as tx:
            requests.add_answer(tx, request_id, refused=True, message="ä" * length)
        with database.worker.begin() as tx:
            assert requests.get_answer(tx, request_id).message == "ä" * min(length, 2000)


def test_an_answer_is_there_when_it_is_there(database: Any, make_rows: Any, file: Callable[..., int]) -> None:
    request_id = file(make_rows(), "seal", None)
    with database.worker.begin() as tx:
        assert requests.get_answer(tx, request_id) is None
    with database.referee.begin() as tx:
        requests.add_answer(tx, request_id, refused=True, message="too few rows\0")
    with database.worker.begin() as tx:
        assert requests.get_answer(tx, request_id) == requests.GivenAnswer(
            request_id, RequestKind.SEAL, "cancer", model_id=None, refused=True, message="too few rows\ufffd"
        )
    unknown = pytest.raises(NotFoundError, match=f"there is no request {request_id + 1}")
    with unknown, database.worker.begin() as tx:
        requests.get_answer(tx, request_id + 1)


def answer_all(database: Any, start: threading.Barrier, pause: float) -> list[int]:
    """What a referee does: choose, claim, work, answer, until nothing is left."""
    store, answered = Store(database.url("easeml_referee")), []
    with store.begin() as tx:
        referee = referee_claims.add_referee(tx, lease_seconds=60)
    start.wait()
    while True:
        with store.begin() as tx:
            chosen = referee_claims.claim_request(tx, referee=referee)
            if chosen is None:
                break
            with store.begin() as aside:
                if not referee_claims.take(aside, chosen, referee):
                    continue
            time.sleep(pause)
            requests.add_answer(tx, chosen, refused=False, message="done")
            referee_claims.let_go(tx, [chosen], referee)
        answered.append(chosen)
    store.close()
    return answered


@pytest.mark.parametrize(("filed", "pause"), [(1, 0.05), (60, 0.0)])
def test_eight_referees_answer_each_request_once(
    database: Any, make_rows: Any, file: Callable[..., int], filed: int, pause: float
) -> None:
    """Without pause, answers fall between another referee's look and its lock, which must not give it the request."""
    study, start = make_rows(), threading.Barrier(CLAIMERS)
    wanted = [file(study, "seal", None, key=f"{n}") for n in range(filed)]
    with ThreadPoolExecutor(CLAIMERS) as pool:
        done = list(pool.map(lambda _: answer_all(database, start, pause), range(CLAIMERS)))
    assert sorted(r for answered in done for r in answered) == wanted
    with database.worker.begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.answers") == filed


def test_a_decided_request_is_not_claimed_and_its_tenant_has_no_turn(
    database: Any, ask: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    """A referee that has chosen it an instant before its decision must not work on it."""
    study = make_rows()
    answered, held, open_one = (file(study, "seal", None, key=key) for key in ("answered", "held", "open"))
    with database.referee.begin() as tx:
        referee = referee_claims.add_referee(tx, lease_seconds=60)
        requests.add_answer(tx, answered, refused=False, message="done")
        outbox.hold(tx, request_id=held, refused=False, message="done", facts=None, leaves_at=None)
        assert [referee_claims.take(tx, one, referee) for one in (answered, held)] == [False, False]
    counted = "SELECT (SELECT count(*) FROM sealed.claims), (SELECT count(*) FROM sealed.turns)"
    assert ask(counted) == [(0, 0)]
    with database.referee.begin() as tx:
        assert referee_claims.take(tx, open_one, referee)
    assert ask(counted) == [(1, 1)]


def test_a_killed_referee_gives_its_request_back_unanswered(
    database: Any, ask: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    request_id = file(make_rows(), "seal", None)
    killed = pytest.raises(StoreUnavailableError)
    with killed, database.referee.begin() as tx:
        die_at_work(tx, ask, request_id)
    with database.referee.begin() as tx:
        assert referee_claims.claim_request(tx) == request_id
        assert scalar(tx, "SELECT count(*) FROM work.answers") == 0


def die_at_work(tx: Any, ask: Any, request_id: int) -> None:
    assert referee_claims.claim_request(tx) == request_id
    requests.add_answer(tx, request_id, refused=False, message="done")
    ask("SELECT pg_terminate_backend(%s)", scalar(tx, "SELECT pg_backend_pid()"))
    scalar(tx, "SELECT 1")


@pytest.mark.parametrize("minutes", [(3, 7), (7, 3)])
def test_the_next_answer_is_the_one_that_leaves_first(
    database: Any, make_rows: Any, file: Callable[..., int], minutes: tuple[int, int]
) -> None:
    study, now = make_rows(), datetime.now(UTC)
    with database.referee.begin() as tx:
        assert outbox.seconds_to_next(tx, looked_ago=0) is None
    numbers = [file(study, "seal", None, key=f"in {later} minutes") for later in minutes]
    with database.referee.begin() as tx:
        for number, later in zip(numbers, minutes, strict=True):
            decided = {"request_id": number, "refused": True, "message": "no", "facts": None}
            outbox.hold(tx, **decided, leaves_at=now + timedelta(minutes=later))
        assert 120 < outbox.seconds_to_next(tx, looked_ago=0) <= 180
        outbox.mark_left(tx, numbers[minutes.index(3)])
        assert 360 < outbox.seconds_to_next(tx, looked_ago=0) <= 420


def test_a_request_counts_its_own_bounded_put_offs(database: Any, make_rows: Any, file: Callable[..., int]) -> None:
    study = make_rows()
    first, other = (file(study, "seal", None, key=key) for key in ("first", "other"))
    for attempt, bounded in enumerate((True, False, True), start=1):
        with database.referee.begin() as tx:
            assert requests.note_attempt(tx, first).number == attempt
            kept = {"bounded": bounded, "reason": "memory", "seconds": 0.001, "most": 9 if bounded else None}
            assert requests.put_off(tx, first, attempt, **kept)
        time.sleep(0.01)  # until it is over
    with database.referee.begin() as tx:
        assert requests.note_attempt(tx, first) == Attempt(4, 0, 2)
        assert requests.note_attempt(tx, other) == Attempt(1, 0, 0)

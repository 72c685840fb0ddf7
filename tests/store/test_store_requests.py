"""Requests to the referee: filed once a key, answered once, and given back by a referee that dies."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import RequestKind
from easeml_core.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from easeml_core.store import requests
from easeml_core.store.database import Store
from easeml_core.store.rows import change, row, scalar

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
        claimed = requests.claim_request(tx)
        assert claimed == requests.Request(first, RequestKind.SEAL, study.study_id, None, {})
        with database.referee.begin() as another:  # held: the next one is given
            change(another, "SET LOCAL lock_timeout = '2s'")
            assert requests.claim_request(another).id == second
            with Store(database.url("easeml_referee")).begin() as third:
                change(third, "SET LOCAL lock_timeout = '2s'")
                assert requests.claim_request(third) is None
        requests.add_answer(tx, first, refused=False, message="done")
    with database.referee.begin() as tx:
        assert requests.claim_request(tx).id == second  # it was not answered, so it came back


def test_an_answer_is_there_when_it_is_there(database: Any, make_rows: Any, file: Callable[..., int]) -> None:
    request_id = file(make_rows(), "seal", None)
    with database.worker.begin() as tx:
        assert requests.get_answer(tx, request_id) is None
    with database.referee.begin() as tx:
        requests.add_answer(tx, request_id, refused=True, message="too few rows\0")
    with database.worker.begin() as tx:
        assert requests.get_answer(tx, request_id) == {
            "request_id": request_id,
            "kind": "seal",
            "study": "cancer",
            "model_id": None,
            "refused": True,
            "message": "too few rows\ufffd",
        }
    unknown = pytest.raises(NotFoundError, match=f"there is no request {request_id + 1}")
    with unknown, database.worker.begin() as tx:
        requests.get_answer(tx, request_id + 1)


def answer_all(database: Any, start: threading.Barrier, pause: float) -> list[int]:
    """What a referee does: claim, work, answer, until nothing is left."""
    store, answered = Store(database.url("easeml_referee")), []
    start.wait()
    while True:
        with store.begin() as tx:
            claimed = requests.claim_request(tx)
            if claimed is None:
                break
            time.sleep(pause)
            requests.add_answer(tx, claimed.id, refused=False, message="done")
        answered.append(claimed.id)
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


def test_a_killed_referee_gives_its_request_back_unanswered(
    database: Any, ask: Any, make_rows: Any, file: Callable[..., int]
) -> None:
    request_id = file(make_rows(), "seal", None)
    killed = pytest.raises(StoreUnavailableError)
    with killed, database.referee.begin() as tx:
        die_at_work(tx, ask, request_id)
    with database.referee.begin() as tx:
        assert requests.claim_request(tx).id == request_id
        assert scalar(tx, "SELECT count(*) FROM work.answers") == 0


def die_at_work(tx: Any, ask: Any, request_id: int) -> None:
    assert requests.claim_request(tx).id == request_id
    requests.add_answer(tx, request_id, refused=False, message="done")
    ask("SELECT pg_terminate_backend(%s)", scalar(tx, "SELECT pg_backend_pid()"))
    scalar(tx, "SELECT 1")

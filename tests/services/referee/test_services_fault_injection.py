"""Every class of fault at every statement, commit and file of the judging journey: the same ledger, one symbol each.

The journey is run once to count what it does. Then it is run once for each place and fault, with the fault there and
nowhere else, and again until every request is answered. A seeded sample is run by default, all of it as ``slow``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from sqlalchemy import event
from test_services_put_offs import Machine

from easeml_core.errors import ConcurrentUpdateError, StoreUnavailableError
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request, file_promotion

if TYPE_CHECKING:
    from collections.abc import Callable

GONE = "SELECT pg_terminate_backend(pg_backend_pid())"
RAISED = ("53100", "53200", "53400", "58000", "58030", "57014", "25006", "XX001", "40001", "40P01", "55P03")
CLOSED = ("57P01", "lost before", "lost after")
"""57P01 at a statement; at a commit a connection that is lost before or after the server has committed."""

ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM)
FILES = ("_open_plain", "_copy_checked", "tempfile.TemporaryDirectory")
SAMPLE = 16
SHARDS = 8
ALL = [
    pytest.param(
        slice(shard, None, SHARDS), id=f"shard {shard}", marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]
    )
    for shard in range(SHARDS)
]
"""Every place, in parts that processes share (``-n``): about 3,000 journeys, half an hour of one idle processor."""


Place = tuple[str, int, str]
"""``statement`` or ``commit``, its number from 1, the fault."""


class Injector:
    """One fault at one statement, or at one commit, of a store; counts both."""

    def __init__(self, store: Any, place: Place | None) -> None:
        self.statements = self.commits = self.hits = 0
        self.at, self.fault = (None, "") if place is None else (place[:2], place[2])
        engine = store._engine
        event.listen(engine, "before_cursor_execute", self._statement, retval=True)
        event.listen(engine, "commit", self._commit)

    def _statement(self, _: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        self.statements += 1
        if self.at != ("statement", self.statements):
            return statement, parameters
        self.hits += 1
        if self.fault == "57P01":
            return GONE, {}
        return f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{self.fault}'; END $$", {}

    def _commit(self, connection: Any) -> None:
        self.commits += 1
        if self.at != ("commit", self.commits):
            return
        self.hits += 1
        driver = connection.connection.dbapi_connection
        if self.fault == "lost after":
            driver.commit()
        with contextlib.suppress(psycopg2.Error), driver.cursor() as cursor:
            cursor.execute(GONE)


def journey(lab: Any, place: Place | None = None) -> tuple[dict[str, Any], Injector]:
    """Two verdicts, a reading and a promotion, by one referee that is tried until all are answered; what came of it."""
    machine = Machine(lab)
    ids, injector = lab.models["full"], Injector(lab.referee, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed_runs, "predict_in_child", machine.predict)
        judge = Referee(lab.referee, lab.artifacts)
        asked = [
            file_gate_request(lab.worker, study="full", model_id=ids[model], request_key=f"gate/{model}")
            for model in ("good", "rare")
        ]
        asked.append(file_meter_request(lab.worker, study="full", model_id=ids["good"], request_key="meter"))
        answer_all(lab, judge, asked)
        wanted = {"study": "full", "model_id": ids["good"], "gate_request_id": asked[0], "request_key": "promote"}
        asked.append(file_promotion(lab.worker, **wanted))
        answer_all(lab, judge, asked)
    facts = {
        "answers": [(a.kind, a.refused, a.message) for a in (answer_of(lab.worker, r) for r in asked)],
        "ledger": lab.superuser_rows(
            "SELECT test_set_id, step, request_id, answer, log_cost FROM sealed.ledger ORDER BY 1, 2"
        ),
        "verdicts": lab.superuser_rows("SELECT request_id, step, symbol, cached FROM work.gate_verdicts ORDER BY 1"),
        "readings": lab.superuser_rows("SELECT request_id, step, signal FROM work.meter_readings ORDER BY 1"),
        "production": lab.superuser_rows("SELECT study_id, model_id FROM work.production"),
        "promotions": lab.superuser_rows("SELECT model_id, gate_request_id FROM work.promotions"),
        "outbox": lab.superuser_rows("SELECT request_id, refused, left_at IS NULL FROM sealed.outbox ORDER BY 1"),
        "kept": lab.superuser_rows("SELECT test_set_id, model FROM sealed.predictions WHERE failure IS NOT NULL"),
        "waits": lab.superuser_rows("SELECT request_id FROM sealed.put_offs WHERE until > clock_timestamp()"),
    }
    return facts, injector


def answer_all(lab: Any, judge: Referee, asked: list[int]) -> None:
    """As the referee's loop does; pauses are over at once."""
    for _ in range(12):
        try:
            while judge.answer_one() is not None or judge.release_one() is not None:
                pass
        except (StoreUnavailableError, ConcurrentUpdateError):
            continue
        if all(answer_of(lab.worker, request_id) is not None for request_id in asked):
            return
        judge._claims._aside.clear()
        lab.as_superuser("UPDATE sealed.put_offs SET until = put_off_at + interval '1 ms' WHERE until > now()")
    pytest.fail("it never came to an end")


def places(make_lab: Callable[[], Any]) -> tuple[dict[str, Any], list[Place]]:
    """What comes of the journey without a fault, and all places with the faults that may be there."""
    facts, counted = journey(make_lab())
    found = [("statement", k, f) for k in range(1, counted.statements + 1) for f in (*RAISED, "57P01")]
    found += [("commit", k, f) for k in range(1, counted.commits + 1) for f in ("lost before", "lost after")]
    return facts, found


def test_the_journey_is_the_one_that_is_meant(make_lab: Any) -> None:
    facts, found = places(make_lab)
    assert [message for _, _, message in facts["answers"][:2]] == ["step 1 of 3: pass", "step 2 of 3: fail"]
    assert [refused for _, refused, _ in facts["answers"]] == [False] * 4
    assert len({k for kind, k, _ in found if kind == "statement"}) > 100
    assert len(facts["production"]) == 1


@pytest.mark.parametrize("share", [SAMPLE, *ALL])
def test_a_fault_of_the_database_changes_nothing_that_is_decided(make_lab: Any, share: int | slice) -> None:
    facts, found = places(make_lab)
    random.Random(15).shuffle(found)
    if isinstance(share, slice):
        found = found[share]
    else:  # every fault, and commits as well as statements
        first = {fault: place for place in found for fault in [place[2]]}
        found = [*first.values(), *found[: max(0, share - len(first))]]
    for place in found:
        lab = make_lab()
        came, injector = journey(lab, place)
        assert came == facts, place
        assert injector.hits == 1, place
        lab.end()


@pytest.mark.parametrize("share", [slice(9), *ALL])
def test_a_fault_of_a_file_or_of_memory_changes_nothing_that_is_decided(make_lab: Any, share: slice) -> None:
    facts, _ = journey(make_lab())
    errors: list[Exception] = [OSError(number, "injected") for number in ERRNOS]
    errors.append(MemoryError("injected"))
    found = list(itertools.product(FILES, (1, 2, 3), errors))
    random.Random(15).shuffle(found)
    hits = 0
    for name, number, error in found[share]:
        lab = make_lab()
        with pytest.MonkeyPatch.context() as patch:
            calls = patched(patch, name, number, error)
            assert journey(lab)[0] == facts, (name, number, error)
        hits += len(calls) >= number
        lab.end()
    assert hits > len(found[share]) / 2  # most of these files are opened as often


def patched(patch: pytest.MonkeyPatch, name: str, number: int, error: Exception) -> list[None]:
    """Let the call of this number of a function of ``store/artifacts/local.py`` raise; the calls."""
    import tempfile

    from easeml_core.store.artifacts import local as artifacts

    owner, attribute = (tempfile, "TemporaryDirectory") if "." in name else (artifacts, name)
    real, calls = getattr(owner, attribute), list[None]()

    def call(*args: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            raise error
        return real(*args, **named)

    patch.setattr(owner, attribute, call)
    return calls

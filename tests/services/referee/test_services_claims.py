"""Several referees and several workers share the requests: each model runs once, in the order of its set."""

from __future__ import annotations

import contextlib
import functools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from registering import register_study

from easeml_core.errors import StoreUnavailableError
from easeml_core.services.datasets.feed import file_refresh
from easeml_core.services.evaluation import model_runs, sealed_runs
from easeml_core.services.evaluation.backoff import Turn
from easeml_core.services.evaluation.model_runs import ModelRuns, Pace
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.services.referee.dispatch import Dispatcher
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_forced_promotion, file_gate_request
from easeml_core.store.tables import referee_claims

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

STUDIES = ("full", "first", "hidden")


def file_gate(lab: Any, model: str, study: str) -> int:
    asked = {"study": study, "model_id": lab.models[study][model], "request_key": lab.key()}
    return int(file_gate_request(lab.worker, **asked))


class Runs:
    """Models that run as long as the test wants; ``made`` has each run with the thread that made it."""

    def __init__(self, monkeypatch: Any, lab: Any) -> None:
        self.made, self.now, self.most = list[tuple[int, int]](), 0, 0
        self.guard, self.begun, self.free = threading.Lock(), threading.Semaphore(0), threading.Event()
        lab.as_superuser("DELETE FROM sealed.predictions")
        monkeypatch.setattr(sealed_runs, "run_model", self._run)

    def _run(self, artifacts: Any, model: Any, inputs: Any, wanted: Any) -> Any:
        with self.guard:
            self.made.append((model.id, len(inputs)))
            self.now += 1
            self.most = max(self.most, self.now)
        self.begun.release()
        assert self.free.wait(60)
        with self.guard:
            self.now -= 1
        return np.zeros(len(inputs), dtype=np.int64), None


@pytest.fixture
def runs(lab: Any, monkeypatch: Any) -> Iterator[Runs]:
    made = Runs(monkeypatch, lab)
    yield made
    made.free.set()


@contextlib.contextmanager
def at_work(lab: Any, count: int = 1, **duties: Any) -> Iterator[list[Referee]]:
    """So many referees at work."""
    stop = threading.Event()
    work = [Referee(lab.referee, lab.artifacts, **{"poll_seconds": 0.2} | duties) for _ in range(count)]
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield work
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(("referees", "workers"), [(3, 1), (1, 3), (2, 2)])
def test_each_model_runs_once_however_many_referees_and_workers_there_are(
    lab: Any, runs: Runs, wait_for: Any, referees: int, workers: int
) -> None:
    asked = [file_gate(lab, model, study) for model in ("good", "worse") for study in STUDIES]
    with at_work(lab, referees, workers=workers):
        for _ in STUDIES:
            assert runs.begun.acquire(timeout=60)  # three studies at a time, and none waits for another
        runs.free.set()
        for one in asked:
            wait_for(lambda one=one: answer_of(lab.worker, one))
    assert len(runs.made) == len(set(runs.made))
    assert runs.most >= len(STUDIES)
    assert lab.rows("SELECT count(*), count(DISTINCT request_id) FROM sealed.ledger") == [(6, 6)]
    steps = "SELECT test_set_id, request_id FROM sealed.ledger ORDER BY test_set_id, "
    assert lab.rows(steps + "step") == lab.rows(steps + "request_id")  # each set in the order of its requests


def test_a_request_belongs_to_one_referee_until_its_lease_has_ended(lab: Any, runs: Runs) -> None:
    asked, other = file_gate(lab, "good", "full"), file_gate(lab, "good", "first")
    frozen, alive = (Referee(lab.referee, lab.artifacts) for _ in range(2))
    thread = threading.Thread(target=frozen.answer_one)
    thread.start()
    assert runs.begun.acquire(timeout=60)
    for first in (None, asked):
        with lab.referee.begin() as tx:
            assert alive._claims.claim(tx, None, first=first) == other
    with lab.referee.begin() as tx:
        referee_claims.beat(tx, frozen._lease.number(), 0.0)
    with lab.referee.begin() as tx:
        assert alive._claims.claim(tx, None) == asked
    answered = list[int | None]()
    takes_up = threading.Thread(target=lambda: answered.append(alive.answer_one()))
    takes_up.start()
    assert runs.begun.acquire(timeout=60)  # it has the request before the frozen one goes on
    runs.free.set()
    for one in (takes_up, thread):
        one.join(60)
    assert answered == [asked]
    assert lab.rows("SELECT count(*) FROM sealed.ledger WHERE request_id = :id", id=asked) == [(1,)]


def test_a_referee_that_stops_gives_its_requests_away_at_once(lab: Any) -> None:
    asked = file_gate(lab, "good", "full")
    stopped, alive = (Referee(lab.referee, lab.artifacts) for _ in range(2))
    with stopped._lease.kept(), lab.referee.begin() as tx:
        assert referee_claims.take(tx, asked, stopped._lease.number())
    with lab.referee.begin() as tx:
        assert alive._claims.claim(tx, None) == asked


def test_a_referee_that_runs_takes_up_the_requests_of_a_killed_one_when_its_lease_ends(lab: Any, wait_for: Any) -> None:
    asked = file_gate(lab, "good", "full")
    killed = Referee(lab.referee, lab.artifacts, lease_seconds=1.0)
    with lab.referee.begin() as tx:
        assert referee_claims.take(tx, asked, killed._lease.number())
    with at_work(lab, poll_seconds=3600.0):  # the lease ends between two looks
        wait_for(lambda: answer_of(lab.worker, asked))


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), RuntimeError("a fault of the program")])
def test_an_error_ends_the_claim_of_a_referee_that_goes_on(lab: Any, monkeypatch: Any, error: Exception) -> None:
    """Another referee may try at once, and so may the same one."""
    asked = file_gate(lab, "good", "full")
    work, other = (Referee(lab.referee, lab.artifacts) for _ in range(2))

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Dispatcher, "decide", fail)
        with pytest.raises(type(error)):
            work.answer_one()
    for one in (other, work):
        with lab.referee.begin() as tx:
            assert one._claims.claim(tx, None) == asked
    assert work.answer_one() == asked


def test_a_referee_whose_row_is_lost_at_its_commit_adds_another(lab: Any, monkeypatch: Any) -> None:
    lease, begin = RefereeLease(lab.referee), lab.referee.begin

    @contextlib.contextmanager
    def lost() -> Iterator[Any]:
        with begin() as tx:
            yield tx
            raise StoreUnavailableError("lost before the commit")

    with monkeypatch.context() as patched:
        patched.setattr(lab.referee, "begin", lost)
        with pytest.raises(StoreUnavailableError):
            lease.number()
    assert lab.rows("SELECT id FROM sealed.referees WHERE id = :id", id=lease.number()) == [(lease.number(),)]


def test_the_tenant_comes_first_that_has_the_fewest_requests_at_work(lab: Any) -> None:
    lab.as_superuser(
        "SET session_replication_role = replica; "
        "WITH t AS (INSERT INTO work.tenants (name) VALUES ('other') RETURNING id) UPDATE work.studies "
        "SET tenant_id = t.id FROM t WHERE name = 'hidden'"
    )
    first, second, last = (file_gate(lab, "good", study) for study in STUDIES)
    work = Referee(lab.referee, lab.artifacts)
    order, at_work = list[int | None](), list[int]()
    for alone in (False, True, False, False, True):
        with lab.referee.begin() as tx:
            found = work._claims.claim(tx, None, alone=alone)
        order.append(found)
        if found is not None:
            at_work.append(found)
            assert work._claims.begin(Turn(found)) is not None
    # The other tenant has had no turn yet, and comes first although its request is the youngest.
    assert order == [last, first, second, None, None]


@pytest.mark.parametrize("timetable", [Timetable(), Timetable(delay_seconds=0.5)], ids=["at once", "fixed times"])
def test_what_runs_no_model_waits_for_none(lab: Any, runs: Runs, wait_for: Any, timetable: Timetable) -> None:
    """All workers are occupied by models that do not end; a registration, a refresh and a rollback are answered."""
    gates = [file_gate(lab, "good", study) for study in STUDIES]
    with at_work(lab, workers=2, timetable=timetable):
        for _ in range(2):
            assert runs.begun.acquire(timeout=60)
        new = register_study(lab.worker, study="new", tenant="new", source="sklearn:iris", request_key=lab.key())
        again = file_refresh(lab.worker, study="full", request_key=lab.key())
        moved = file_forced_promotion(
            lab.worker, study="full", model_id=gates and lab.models["full"]["good"], who="a", why="b",
            request_key=lab.key(),
        )  # fmt: skip
        for one in (new.request_id, again.request_id, moved):
            assert wait_for(lambda one=one: answer_of(lab.worker, one)).kind in {"seal", "refresh", "force"}
        assert all(answer_of(lab.worker, one) is None for one in gates)
        runs.free.set()
        for one in gates:
            wait_for(lambda one=one: answer_of(lab.worker, one))


def test_places_are_kept_until_padded_ends_and_shared_by_owners(monkeypatch: Any) -> None:
    """Two places, and one for who has none: the last of owner 1 waits although its turn is before that of owner 2."""

    class Inline:
        def __init__(self, *, target: Any, args: Any, **_: Any) -> None:
            self.start = functools.partial(target, *args)

    monkeypatch.setattr(model_runs, "threading", SimpleNamespace(Thread=Inline, Condition=threading.Condition))
    now, begun = [0.0], list[tuple[str, float]]()
    runs = ModelRuns(Pace((10.0, 60.0), lambda: now[0]), places=2, reserve=1)

    def steps(name: str) -> Generator[None, None, None]:
        begun.append((name, now[0]))
        yield

    for owner, name in ((1, "1a"), (1, "1b"), (1, "1c"), (1, "1d"), (2, "2a"), (3, "3a")):
        runs.ask(owner, steps(name), lambda: None, owner)
    assert begun == [("1a", 0.0), ("1b", 0.0), ("2a", 0.0)]
    now[0] = 10.0
    runs.look()
    assert begun[3:] == [("3a", 10.0), ("1c", 10.0)]
    now[0] = 20.0
    runs.look()
    assert begun[5:] == [("1d", 20.0)]

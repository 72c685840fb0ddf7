"""Models run before a decision, in no transaction: no request waits for them, and their duration reveals little."""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import RequestKind
from easeml_core.errors import ArtifactError, ConcurrentUpdateError, StoreUnavailableError
from easeml_core.models.predict import predict_in_child
from easeml_core.services.evaluation import model_runs, sealed_runs
from easeml_core.services.evaluation.model_runs import DECISION_GRID_SECONDS, GRID_SECONDS, ModelRuns, Pace, padded
from easeml_core.services.evidence.notary import Notary
from easeml_core.services.gate import judge
from easeml_core.services.meter import reading
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee import dispatch, housekeeping, process
from easeml_core.services.referee.dispatch import MAX_ATTEMPTS
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import (
    answer_of,
    file_forced_promotion,
    file_gate_request,
    file_meter_request,
    file_promotion,
)
from easeml_core.store.artifacts.local import LARGEST_COPIED_BYTES
from easeml_core.store.tables import models, referee_claims, requests

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

LATE = Timetable(delay_seconds=3600.0)


def test_a_run_ends_at_the_next_time_of_the_grid() -> None:
    took = (0.0, 0.5, 1.41, 3.01, 10.0, 10.001, 60.0, 61.0, 480.0, 1200.0, 1201.0, 3600.0, 3601.0)
    assert [padded(t, GRID_SECONDS) for t in took] == [1, 1, 3, 10, 10, 60, 60, 1200, 1200, 1200, 3600, 3600, 7200]
    assert [padded(t, ()) for t in took] == list(took)


def test_a_run_on_a_set_is_never_beyond_the_grid() -> None:
    """Two sets, two looks with two attempts each, the validation part; five copies of the largest file at 100 MB/s."""
    limit = inspect.signature(predict_in_child).parameters["time_limit_seconds"].default
    read_or_written = 5 * 4 * LARGEST_COPIED_BYTES
    assert 10 * (limit + 3) + read_or_written / 100e6 < GRID_SECONDS[-1]


class Hours:
    """A clock that advances when a thread sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_steps_go_on_at_padded_ends_and_never_before() -> None:
    """However they end, and whichever thread waits: only the clock advances them, and no thread sleeps."""
    hours, done = Hours(), list[tuple[str, float]]()
    runs = ModelRuns(Pace((10.0, 60.0), hours.clock))

    def steps(name: str, *takes: float, fails: bool = False) -> Generator[None, None, None]:
        for seconds in takes:
            done.append((name, hours.now))
            hours.now += seconds
            yield
        done.append((name, hours.now))
        if fails:
            message = "no such file"
            raise ArtifactError(message)

    def look_at(now: float) -> tuple[list[int], float | None]:
        hours.now = max(now, hours.now)
        while runs.look() or runs.wait(60):
            runs.under_way()
        return runs.under_way(), runs.next_look()

    runs.ask(1, steps("a", 0.5, 9.5), lambda: done.append(("a ended", hours.now)))
    runs.ask(2, steps("b", 12.0, fails=True), lambda: None)
    runs.ask(3, steps("c", 1.0), lambda: None)
    assert look_at(9.9) == ([2, 3, 1], 10.0)
    assert look_at(10.0) == ([2, 3, 1], 20.0)
    assert look_at(20.0) == ([3, 2], 80.0)
    assert look_at(79.9) == ([3, 2], 80.0)
    assert look_at(80.0) == ([3], 90.0)
    assert isinstance(runs.failure(2), ArtifactError)
    assert runs.failure(2) is None
    assert look_at(90.0) == ([], None)
    assert done == [
        ("a", 0.0), ("a", 10.0), ("a", 20.0), ("a ended", 20.0), ("b", 20.0), ("b", 80.0), ("c", 80.0), ("c", 90.0),
    ]  # fmt: skip


def test_a_look_is_due_at_the_next_time_of_the_grid_while_a_model_runs() -> None:
    """So that it does not follow from when the run ends; a run that is left in the middle is not gone on with."""
    hours, go_on, left = Hours(), threading.Event(), list[str]()
    runs = ModelRuns(Pace((10.0, 60.0), hours.clock))

    def steps() -> Generator[None, None, None]:
        try:
            assert go_on.wait(60)
            yield
            left.append("kept")
        finally:
            left.append("tidied")

    runs.ask(1, steps(), lambda: left.append("ended"))
    for now, due in ((0.0, 10.0), (10.0, 10.0), (10.1, 60.0), (61.0, 120.0)):
        hours.now = now
        runs.look()
        assert runs.next_look() == due
    go_on.set()
    runs.close()
    assert (left, runs.is_idle) == (["tidied"], True)


@pytest.mark.parametrize("form", ["skops", "constant"])
def test_what_a_run_gave_follows_a_step_later_however_it_ends(form: str) -> None:
    """But for a constant, which runs no code of a user."""
    model, steps = SimpleNamespace(format=form), 0 if form == "constant" else 1
    given = sealed_runs._stepped(model, lambda: 7)
    assert [next(given) for _ in range(steps)] == [None] * steps
    assert sealed_runs.at_once(given) == 7
    failing = sealed_runs._stepped(model, raising(ArtifactError("gone")))
    assert [next(failing) for _ in range(steps)] == [None] * steps
    with pytest.raises(ArtifactError):
        next(failing)


def identity(lab: Any, model: str, study: str = "full") -> str:
    with lab.referee.begin() as tx:
        return str(models.get_model(tx, 1, lab.models[study][model]).identity)


def forget(lab: Any, *names: str) -> None:
    """Let these models never have been run on any sealed set."""
    for name in names:
        lab.as_superuser("DELETE FROM sealed.predictions WHERE model = %s", identity(lab, name))


def file_gate(lab: Any, model: str = "good", study: str = "full") -> int:
    asked = {"study": study, "model_id": lab.models[study][model], "request_key": lab.key()}
    return int(file_gate_request(lab.worker, **asked))


def file_bogus_promotion(lab: Any) -> int:
    asked = {"study": "full", "model_id": lab.models["full"]["rare"], "gate_request_id": 1}
    return int(file_promotion(lab.worker, **asked, request_key=lab.key()))


@pytest.mark.parametrize("grid", [GRID_SECONDS, ()], ids=["fixed times", "at once"])
def test_two_worlds_in_which_a_model_sleeps_differently(make_lab: Any, monkeypatch: Any, grid: tuple[float]) -> None:
    """What the referee does after the run it does at the same time, whatever the model's inputs let it sleep."""
    ended = []
    monkeypatch.setattr(process, "_RUNS", 1)
    for sleeps in (1.81, 3.29):
        lab, hours, began = make_lab(), Hours(), list[float]()
        forget(lab, "good")

        def run(_: Any, model: Any, inputs: Any, task: Any, given: Any = (hours, sleeps, began)) -> Any:
            given[2].append(given[0].now)
            given[0].now += given[1]
            return np.zeros(len(inputs), dtype=np.int64), None

        monkeypatch.setattr(sealed_runs, "run_model", run)
        timetable = LATE if grid else Timetable()  # nothing is padded where answers leave at once
        work = Referee(lab.referee, lab.artifacts, timetable=timetable, decision_grid_seconds=())
        work._keep_time(hours.clock, hours.sleep)
        gate = file_gate(lab)
        asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": "m"}
        meter = file_meter_request(lab.worker, **asked)
        assert {work.answer_one(), work.answer_one()} == {gate, meter}
        ended.append((hours.now, [at for at in began if at % 10 == 0]))
    if grid:
        assert ended == [(20, [0, 10])] * 2  # the next ones begin at the padded end of the ones before
    else:
        assert [now for now, _ in ended] == [pytest.approx(5 * sleeps) for sleeps in (1.81, 3.29)]


@pytest.mark.parametrize("kind", ["gate", "meter"])
@pytest.mark.parametrize("timetable", [LATE, Timetable()], ids=["fixed times", "at once"])
def test_two_worlds_in_which_a_decision_takes_differently(
    make_lab: Any, monkeypatch: Any, timetable: Timetable, kind: str
) -> None:
    """A decision is written at the same time, however long the tests of the counts took; until then no lock is held."""
    written = []
    for takes in (0.001, 0.41):
        lab, hours = make_lab(), Hours()
        work = paced(lab, hours, monkeypatch, timetable, takes)
        asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": "m"}
        {"gate": file_gate_request, "meter": file_meter_request}[kind](lab.worker, **asked)
        assert work.answer_one() is not None
        written.append(hours.now)
        assert lab.one("SELECT count(*) FROM sealed.ledger") == 1
    assert written == ([0.5, 0.5] if timetable.is_fixed else [0.001, 0.41])


class Inline:
    """A thread whose work is done when it has started."""

    def __init__(self, *, target: Any, args: Any, **_: Any) -> None:
        self._target, self._args = target, args

    def start(self) -> None:
        self._target(*self._args)


def paced(lab: Any, hours: Hours, monkeypatch: Any, timetable: Timetable, *takes: float) -> Referee:
    """A referee in whose hours what follows from labels takes so long, each time as the last one from then on.

    Nothing of it is held or open while it waits.
    """
    left = list(takes)
    monkeypatch.setattr(process, "_JUDGEMENTS", 1)  # one after the other: what each may tell of the one before
    inline = SimpleNamespace(Thread=Inline, Condition=threading.Condition)
    monkeypatch.setattr(model_runs, "threading", inline)
    for module, name in ((judge, "judge_predictions"), (reading, "read_submission")):
        real = getattr(module, name)

        def slowly(*given: Any, real: Any = real, **more: Any) -> Any:
            hours.now += left.pop(0) if len(left) > 1 else left[0]
            return real(*given, **more)

        monkeypatch.setattr(module, name, slowly)
    monkeypatch.setattr(sealed_runs, "run_model", lambda a, m, inputs, _: (np.zeros(len(inputs), dtype=np.int64), None))

    def sleep(seconds: float) -> None:
        with lab.referee.begin() as tx:
            assert tx.exec_driver_sql("SELECT 1 FROM work.studies FOR UPDATE NOWAIT").scalar() == 1
        hours.sleep(seconds)

    work = Referee(lab.referee, lab.artifacts, timetable=timetable, grid_seconds=())
    assert work._judgements.pace.grid == (DECISION_GRID_SECONDS if timetable.is_fixed else ())
    work._keep_time(hours.clock, sleep)
    return work


def test_others_are_answered_until_a_decision_is_written(make_lab: Any, monkeypatch: Any) -> None:
    """And the time of each follows from no label: not from how long its own tests took, nor those of the one before."""
    answered = []
    for takes in (0.001, 0.24):
        lab, hours = make_lab(), Hours()
        work = paced(lab, hours, monkeypatch, LATE, takes, takes)
        first, second = file_gate(lab, "good", "full"), file_gate(lab, "good", "hidden")
        assert work._answer_ready() is None
        bogus = file_bogus_promotion(lab)
        order = [work._answer_ready()]
        assert order == [bogus]
        assert hours.slept == []
        order += [work._judgements.next_look(), work.answer_one(), work._judgements.next_look(), work.answer_one()]
        answered.append(order)
        assert order == [bogus, 0.5, first, 1.0, second]
    assert answered[0] == answered[1]


@pytest.mark.parametrize("first", [0.001, 0.45])
def test_how_long_one_computation_takes_is_not_seen_by_the_time_of_the_next(
    lab: Any, monkeypatch: Any, first: float
) -> None:
    hours = Hours()
    work = paced(lab, hours, monkeypatch, LATE, first, 0.6)
    asked = [file_gate(lab, "good", study) for study in ("full", "hidden")]
    assert [work.answer_one(), work.answer_one()] == asked
    assert hours.now == 0.5 + 4.0


def test_a_decision_that_is_computed_and_not_written_is_lost_with_its_referee(lab: Any, monkeypatch: Any) -> None:
    work = paced(lab, Hours(), monkeypatch, LATE, 0.1)
    asked = file_gate(lab)
    assert work._answer_ready() is None
    assert lab.rows("SELECT 1 FROM sealed.ledger") == []
    lab.end_leases()
    del work  # and another one decides it anew, once
    assert lab.answer(asked).symbol == "pass"
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 1


def test_a_decision_that_another_referee_has_written_is_waited_for_no_more(lab: Any, monkeypatch: Any) -> None:
    hours = Hours()
    work, asked = paced(lab, hours, monkeypatch, LATE, 0.1), file_gate(lab)
    assert work._answer_ready() is None
    work._judgements.wait(60)
    lab.end_leases()
    assert Referee(lab.referee, lab.artifacts, timetable=LATE, decision_grid_seconds=()).answer_one() == asked
    assert work.answer_one() is None
    assert work._judgements.is_idle
    assert work.answer_one() is None
    assert work._underway.computed.judged == {}


def test_labels_that_come_before_a_decision_is_written_are_looked_at(lab: Any, monkeypatch: Any) -> None:
    work, asked = paced(lab, Hours(), monkeypatch, LATE, 0.1), file_gate(lab)
    assert work._answer_ready() is None
    lab.relabel(1, lambda labels: 1 - labels)
    assert work.answer_one() == asked
    assert lab.one("SELECT report ->> 'symbol' FROM sealed.ledger") == "fail"


def test_decisions_need_not_be_padded(lab: Any) -> None:
    assert Referee(lab.referee, lab.artifacts, timetable=LATE, decision_grid_seconds=())._judgements.pace.grid == ()


def test_who_stops_the_referee_waits_for_no_decision_that_is_not_written(lab: Any, wait_for: Any) -> None:
    with at_work(lab, timetable=LATE, decision_grid_seconds=(3600.0,)) as work:
        asked = file_gate(lab)
        wait_for(lambda: asked in work._judgements.under_way())
    assert lab.one("SELECT count(*) FROM sealed.outbox WHERE request_id = :id", id=asked) == 0


def test_a_model_of_the_past_is_padded_as_well(lab: Any, monkeypatch: Any) -> None:
    hours, ended = Hours(), []
    lab.gate("good")
    forget(lab, "good")
    monkeypatch.setattr(
        sealed_runs, "run_model", lambda a, m, inputs, _: ended.append(1) or (np.zeros(len(inputs), int), None)
    )
    work = Referee(lab.referee, lab.artifacts, timetable=LATE)
    work._keep_time(hours.clock, hours.sleep)
    assert work.run_once() == 0
    assert ended == [1] * 4  # on the gate set and on the meter set, and on a part of each again
    assert hours.slept == [1.0, 1.0]


@pytest.fixture
def stuck(monkeypatch: Any) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Models run until the test lets them: set when one has begun, and to be set."""
    begun, free = threading.Event(), threading.Event()

    def run(artifacts: Any, model: Any, inputs: Any, task: Any) -> Any:
        begun.set()
        assert free.wait(60)
        return np.zeros(len(inputs), dtype=np.int64), None

    monkeypatch.setattr(sealed_runs, "run_model", run)
    yield begun, free
    free.set()


@contextlib.contextmanager
def at_work(lab: Any, **duties: Any) -> Iterator[Referee]:
    """A referee that looks by itself once an hour only."""
    stop, work = threading.Event(), Referee(lab.referee, lab.artifacts, **{"poll_seconds": 3600.0} | duties)
    thread = threading.Thread(target=work.run, args=(stop,))
    thread.start()
    try:
        yield work
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not [t for t in threading.enumerate() if t.name == "publisher"]


def test_nobody_waits_for_a_model(lab: Any, stuck: Any, wait_for: Any) -> None:
    """While it runs a promotion is refused, a due answer leaves, and a labeler gets the set."""
    begun, free = stuck
    due = file_gate(lab, "worse", "hidden")
    Referee(lab.referee, lab.artifacts, timetable=LATE).answer_one()
    forget(lab, "good")
    asked = file_gate(lab)
    with at_work(lab, timetable=LATE, grid_seconds=(0.01,)):
        assert begun.wait(60)
        bogus = file_bogus_promotion(lab)
        assert wait_for(lambda: answer_of(lab.worker, bogus)).refused
        lab.as_superuser("UPDATE sealed.outbox SET leaves_at = leaves_at - interval '1 hour'")
        second = file_bogus_promotion(lab)  # wakes it: the hour was not waited for
        assert wait_for(lambda: answer_of(lab.worker, due)).symbol == "withheld"
        assert wait_for(lambda: answer_of(lab.worker, second)).refused  # its decision locks the set for a moment
        with lab.referee.begin() as tx:
            assert tx.exec_driver_sql("SELECT 1 FROM work.test_sets WHERE id = 1 FOR UPDATE NOWAIT").scalar() == 1
            assert requests.hold_request(tx, asked)
        # A short look of another thread is no harm; what the run held would never be gone.
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        assert wait_for(lambda: lab.superuser_rows(idle) == [(0,)])
        assert not free.is_set()
        free.set()
        wait_for(lambda: lab.one("SELECT count(*) FROM sealed.outbox WHERE request_id = :id", id=asked))


DECIDED = "SELECT count(*) FROM sealed.outbox WHERE request_id = :id"
KEPT = "SELECT count(*) FROM sealed.predictions WHERE model = :m"
ATTEMPTS = "SELECT survived FROM sealed.attempts WHERE request_id = :id"


@pytest.fixture
def ran(monkeypatch: Any) -> list[int]:
    """Which models have run; each says 0 at once."""
    models_run: list[int] = []

    def run(artifacts: Any, model: Any, inputs: Any, task: Any) -> Any:
        models_run.append(model.id)
        return np.zeros(len(inputs), dtype=np.int64), None

    monkeypatch.setattr(sealed_runs, "run_model", run)
    return models_run


def test_other_requests_are_answered_while_a_run_is_padded(
    lab: Any, ran: list[int], wait_for: Any, monkeypatch: Any
) -> None:
    """Another study's request is decided; a later one of the same study is not, nor one that needs the next run."""
    monkeypatch.setattr(process, "_RUNS", 1)
    forget(lab, "good")
    lab.as_superuser(
        "DELETE FROM sealed.predictions WHERE test_set_id IN (SELECT t.id FROM work.test_sets t "
        "JOIN work.studies s ON s.id = t.study_id WHERE s.name = %s)",
        "first",
    )
    padded_one, next_one = file_gate(lab, "good", "full"), file_gate(lab, "good", "first")
    behind = file_gate(lab, "worse", "full")
    with at_work(lab, timetable=LATE, grid_seconds=(3600.0,)) as work:
        wait_for(lambda: ran.count(lab.models["full"]["good"]) == 2)  # a part of the rows is asked again
        other = file_gate(lab, "worse", "hidden")
        wait_for(lambda: lab.one(DECIDED, id=other))
        assert work._runs.under_way() == [next_one, padded_one]
        assert lab.models["first"]["good"] not in ran
        assert lab.one(KEPT, m=identity(lab, "good")) == 0  # when a row is written is seen
    assert [lab.one(DECIDED, id=one) for one in (padded_one, next_one, behind)] == [0, 0, 0]
    assert lab.one(KEPT, m=identity(lab, "good")) == 0  # a referee that is stopped waits for no padded end
    assert lab.rows(ATTEMPTS, id=padded_one) == [(True,)] * 2
    assert lab.rows(ATTEMPTS, id=next_one) == [(True,)]  # its runs have not begun
    assert lab.rows(ATTEMPTS, id=behind) == []


def test_another_referee_makes_a_run_again_that_is_padded(lab: Any, ran: list[int]) -> None:
    """As after a kill; one that was frozen and goes on adds nothing."""
    forget(lab, "good")
    asked, frozen, hours = file_gate(lab), Hours(), Hours()
    stood = Referee(lab.referee, lab.artifacts, timetable=LATE)
    stood._keep_time(frozen.clock, frozen.sleep)
    assert stood._answer_ready() is None
    stood._runs.wait(60)
    assert (len(ran), lab.one(KEPT, m=identity(lab, "good"))) == (2, 0)
    lab.end_leases()
    work = Referee(lab.referee, lab.artifacts, timetable=LATE, decision_grid_seconds=())
    work._keep_time(hours.clock, hours.sleep)
    assert work.answer_one() == asked
    assert (len(ran), hours.slept) == (4, [1.0])
    assert stood.answer_one() is None
    assert frozen.slept == [1.0]
    assert (stood._claims._prepared, stood._runs.is_idle) == ({}, True)
    assert lab.rows("SELECT step, request_id FROM sealed.ledger") == [(1, asked)]
    assert sorted(lab.rows(ATTEMPTS, id=asked)) == [(False,)] + [(True,)] * 4  # only the decision could not say so


@pytest.mark.journey
def test_what_stands_may_change_while_a_model_runs(lab: Any, monkeypatch: Any) -> None:
    """The decision is about what stands when it is made; a model that is needed now is run now."""
    forget(lab, "good", "worse")
    real, ran = sealed_runs.run_model, []

    def run(artifacts: Any, model: Any, inputs: Any, task: Any) -> Any:
        ran.append(model.id)
        if len(ran) == 1:
            words = {"who": "Ada", "why": "holidays", "request_key": "f", "directly": True}
            file_forced_promotion(lab.referee, study="full", model_id=lab.models["full"]["worse"], **words)
        return real(artifacts, model, inputs, task)

    monkeypatch.setattr(sealed_runs, "run_model", run)
    answer = lab.answer(file_gate(lab))
    assert ran == [lab.models["full"][name] for name in ("good", "good", "worse", "worse")]
    assert lab.rows("SELECT incumbent_id FROM work.gate_verdicts") == [(lab.models["full"]["worse"],)]
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 1
    found = lab.rows("SELECT survived FROM sealed.attempts WHERE request_id = :id ORDER BY 1", id=answer.request_id)
    assert found == [(False,), (True,), (True,)]  # only the one that decided could not say so


def test_a_model_that_kills_the_referee_is_given_up(lab: Any, monkeypatch: Any) -> None:
    forget(lab, "good")
    asked, ran = file_gate(lab), []

    def die(*_: Any) -> Any:
        ran.append(1)
        raise SystemExit

    monkeypatch.setattr(sealed_runs, "run_model", die)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(SystemExit):
            Referee(lab.referee, lab.artifacts).answer_one()
        lab.end_leases()
    assert "ended 5 times" in lab.answer(asked).message
    assert len(ran) == MAX_ATTEMPTS
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0


@pytest.mark.journey
def test_a_lock_in_the_way_while_a_run_is_kept_puts_the_request_off(lab: Any, monkeypatch: Any) -> None:
    forget(lab, "good")
    asked, work = file_gate(lab), Referee(lab.referee, lab.artifacts)
    with monkeypatch.context() as patch:
        patch.setattr(sealed_runs.sealed, "keep_predictions", raising(ConcurrentUpdateError("another was first")))
        patch.setattr(sealed_runs, "run_model", lambda a, m, inputs, _: (np.zeros(len(inputs), dtype=np.int64), None))
        for _ in range(MAX_ATTEMPTS + 1):
            work._claims._aside.clear()
            assert work.answer_one() == asked
    assert answer_of(lab.worker, asked) is None
    assert lab.answer(asked).symbol == "pass"


def test_an_error_of_a_run_is_reported_as_one_of_the_decision(lab: Any, monkeypatch: Any, caplog: Any) -> None:
    forget(lab, "good")
    monkeypatch.setattr(sealed_runs, "run_model", raising(ZeroDivisionError("example 17")))
    answer = lab.answer(file_gate(lab))
    assert answer.refused
    assert "17" not in answer.message
    assert "example 17" in caplog.text
    assert lab.one("SELECT count(*) FROM sealed.predictions WHERE model = :m", m=identity(lab, "good")) == 0


def raising(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# Two threads.


def test_every_kind_is_somebodys_and_nobody_takes_the_others() -> None:
    assert sorted([*dispatch.RUNS, *MOVES]) == sorted(RequestKind)


def test_all_threads_survive_what_comes(lab: Any, monkeypatch: Any, wait_for: Any, caplog: Any) -> None:
    claim = referee_claims.claim_request
    of_threads = (dispatch.RUNS, dispatch.WITHOUT_MODELS, tuple(MOVES))
    errors = {kinds: [RuntimeError("a bug"), StoreUnavailableError("away")] for kinds in of_threads}

    def claim_or_fail(tx: Any, **given: Any) -> Any:
        if errors[given["kinds"]]:
            raise errors[given["kinds"]].pop()
        return claim(tx, **given)

    monkeypatch.setattr(referee_claims, "claim_request", claim_or_fail)
    asked = [file_gate(lab), file_bogus_promotion(lab)]
    with at_work(lab):
        wait_for(lambda: all(answer_of(lab.worker, a) for a in asked))
    assert errors == {kinds: [] for kinds in errors}
    assert caplog.text.count("the referee goes on") == 3


def test_who_waited_for_the_end_of_a_set_is_answered_after_it(lab: Any, wait_for: Any) -> None:
    """The second is looked at when the first has left, although another thread has said it."""
    with at_work(lab, timetable=Timetable(delay_seconds=0.5)):
        first, second = file_gate(lab, "good", "first"), file_gate(lab, "worse", "first")
        wait_for(lambda: answer_of(lab.worker, first))
        assert "has no live gate set" in wait_for(lambda: answer_of(lab.worker, second)).message


def test_an_answer_that_becomes_due_during_a_look_leaves_at_once(lab: Any, monkeypatch: Any, wait_for: Any) -> None:
    """Its time has come after the thread has looked for due answers, and before it asks how long it may wait."""
    due = "UPDATE sealed.outbox SET leaves_at = clock_timestamp() WHERE left_at IS NULL"
    monkeypatch.setattr(Notary, "look_over", lambda _: lab.as_superuser(due))
    with at_work(lab, timetable=LATE, decision_grid_seconds=()):
        asked = file_gate(lab)
        wait_for(lambda: answer_of(lab.worker, asked))


def test_the_wait_for_a_notification_ends_when_a_request_that_was_set_aside_is_tried(lab: Any) -> None:
    lab.end_leases()  # of those that have made the lab
    work, now = Referee(lab.referee, lab.artifacts, poll_seconds=3600.0), time.monotonic()
    assert work._pause_seconds(now) == 3600.0
    work._claims._aside[1] = now + 100.0
    assert 0.0 < work._pause_seconds(now) <= 100.0
    work._claims._aside[2] = now - 1.0  # was free again before the look: it has been tried
    assert 0.0 < work._pause_seconds(now) <= 100.0
    work._claims._aside[3] = now
    assert work._pause_seconds(now - 1.0) == 0.0


def test_tags_follow_a_move_of_the_other_thread(lab: Any, monkeypatch: Any, wait_for: Any, tmp_path: Path) -> None:
    stood: list[Any] = []

    def look(store: Any, where: Any) -> None:
        stood.append(lab.rows("SELECT model_id FROM work.production"))

    monkeypatch.setattr(housekeeping, "sync_bundle_tags", look)
    with at_work(lab, allow_forced=True, repositories={"dags": tmp_path}):
        wait_for(lambda: stood)
        words = {"study": "full", "model_id": 4, "who": "Ada", "why": "holidays", "request_key": "f"}
        file_forced_promotion(lab.worker, **words)
        wait_for(lambda: [(4,)] in stood)

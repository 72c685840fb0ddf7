"""Eight writers at once, each with separate connections: nothing is lost, nothing happens twice."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
from attempts import begin_attempt

from easeml_core.entities import RequestKind, TrialState
from easeml_core.errors import AlreadyExistsError, ConcurrentUpdateError, StoreUnavailableError
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.store.database import Store, _of_one_moment
from easeml_core.store.rows import row, rows, scalar
from easeml_core.store.tables import decisions, leases, ledger, models, releases, requests, sealed, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

WRITERS = 8


def together(work: Callable[[int], T], writers: int = WRITERS) -> list[T]:
    """Begin at the same moment; an error of any of them is an error here."""
    start = threading.Barrier(writers)

    def run(number: int) -> T:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(run, range(writers)))


@pytest.fixture
def stores(database: Any) -> Iterator[list[Store]]:
    """A worker's store for each writer, connected already, so that they really meet."""
    opened = [Store(database.url("easeml_worker")) for _ in range(WRITERS)]
    for store in opened:
        with store.begin():
            pass
    yield opened
    for store in opened:
        store.close()


def run_trial(store: Store, trial_id: int, key: str) -> None:
    """Claim, beat, and record what came out, in three transactions as in real life."""
    with store.begin() as tx:
        trial = trials.get_trial(tx, trial_id, lock=True)
        assert trial.state == TrialState.SUGGESTED
        attempt = begin_attempt(tx, trial_id, key=key)
    with store.begin() as tx:
        assert leases.extend_lease(tx, trial_id=trial_id, attempt=attempt, lease_seconds=60, progress=None) is False
    with store.begin() as tx:
        ended = {"trial_id": trial_id, "attempt": attempt, "cost_seconds": 1.0}
        assert leases.finish_trial(tx, state=TrialState.SUCCEEDED, **ended)
        models.add_observation(tx, trial_id=trial_id, quality=0.5, cost_seconds=1.0)
        model_id = models.add_model(
            tx,
            study_id=trial.study_id,
            data_version_id=trial.data_version_id,
            trial_id=trial_id,
            format="skops",
            artifact=f"sha256:{trial_id:064x}",
            validation_loss=0.5,
        )
        models.add_validation_predictions(tx, model_id, np.zeros(3, dtype=np.int64))


def test_eight_workers_run_every_candidate_once(stores: list[Store], make_rows: Any) -> None:
    for name in ("iris", "wine", "digits"):
        make_rows(name, tenant=name, candidates=8)

    def work(number: int) -> list[int]:
        done: list[int] = []
        for night in itertools.count():
            key = {"count": 2, "policy": "roundrobin", "request_key": f"worker-{number}/{night}"}
            batch = suggest_trials(stores[number], **key)
            assert suggest_trials(stores[number], **key) == batch  # the retry of a task
            if not batch.trials:
                return done
            for trial in batch.trials:
                run_trial(stores[number], trial.trial_id, f"worker-{number}")
                done.append(trial.trial_id)
        raise AssertionError

    ran = together(work)
    assert sum(len(done) for done in ran) == len({t for done in ran for t in done}) == 24
    with stores[0].begin() as tx:
        answer = trials.outcomes(tx)
        assert len({(o.study_id, o.candidate_id) for o in answer}) == len(answer) == 24
        assert {(o.state, o.quality, o.cost_seconds) for o in answer} == {("SUCCEEDED", 0.5, 1.0)}
        for table in ("observations", "models WHERE trial_id IS NOT NULL", "suggestions", "trials WHERE attempt = 1"):
            assert scalar(tx, f"SELECT count(*) FROM work.{table}") == 24, table


def test_one_batch_a_request_key(stores: list[Store], make_rows: Any) -> None:
    make_rows(candidates=12)
    batches = together(lambda n: suggest_trials(stores[n], count=3, policy="roundrobin", request_key="dag/run/task"))
    assert len(batches[0].trials) == 3
    assert batches == [batches[0]] * WRITERS
    with stores[0].begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.trials") == 3
        assert scalar(tx, "SELECT count(*) FROM work.suggestion_batches") == 1


def register(store: Store, *, name: str, key: str) -> tuple[int, int]:
    """What ``services.registration`` writes; ids of study and request."""
    with store.begin() as tx:
        tenant_id = studies.add_tenant(tx, name="lab")
        made = studies.add_study(
            tx,
            name=name,
            tenant_id=tenant_id,
            data_set_id=studies.add_data_set(tx, tenant_id=tenant_id, source="sklearn:wine", target=""),
            metric="accuracy",
            weight=1.0,
            budget_seconds=None,
            config={},
            request_key=key,
        )
        study_id = made or studies.study_of_request(tx, key).id
        if made:
            studies.add_candidates(tx, study_id, [{"name": f"c{k}", "kind": "tree"} for k in range(4)])
        filed = {"kind": RequestKind.SEAL, "study_id": study_id, "model_id": None, "arguments": {}}
        return study_id, requests.file_request(tx, request_key=key, **filed)


def test_one_study_a_request_key(stores: list[Store]) -> None:
    """Several rounds: the writers must meet between one's look and its insert, which one round may miss."""
    for round_ in range(10):
        made = together(lambda n, r=round_: register(stores[n], name=f"wine-{r}", key=f"register/{r}"))
        assert len(set(made)) == 1
    with stores[0].begin() as tx:
        assert row(tx, "SELECT count(*), count(DISTINCT tenant_id) FROM work.studies") == (10, 1)
        assert scalar(tx, "SELECT count(*) FROM work.candidates") == 40


def test_one_study_a_name(stores: list[Store]) -> None:
    def work(number: int) -> str:
        try:
            register(stores[number], name="wine", key=f"worker-{number}")
        except AlreadyExistsError as error:
            return str(error)
        return "made"

    said = together(work)
    assert sorted(said) == ["made"] + ["study 'wine' already exists; choose another name"] * (WRITERS - 1)


@pytest.fixture
def waiting(stores: list[Store], make_rows: Any) -> int:
    """A trial that waits."""
    study = make_rows(candidates=1)
    with stores[0].begin() as tx:
        ids = {"study_id": study.study_id, "data_version_id": study.version_id}
        return trials.add_trial(tx, candidate_id=study.candidates[0], **ids)


def test_one_of_eight_claims_a_trial(stores: list[Store], waiting: int) -> None:
    def work(number: int) -> bool:
        with stores[number].begin() as tx:
            if trials.get_trial(tx, waiting, lock=True).state != TrialState.SUGGESTED:
                return False
            assert begin_attempt(tx, waiting, key=f"{number}") == 1
        return True

    claimed = together(work)
    assert sum(claimed) == 1
    with stores[0].begin() as tx:
        assert trials.get_trial(tx, waiting).lease_key == str(claimed.index(True))


def test_one_of_eight_ends_an_attempt_and_one_observation_is_made(stores: list[Store], waiting: int) -> None:
    with stores[0].begin() as tx:
        attempt = begin_attempt(tx, waiting)

    def work(number: int) -> bool:
        with stores[number].begin() as tx:
            ended = {"trial_id": waiting, "attempt": attempt, "cost_seconds": 1.0 + number}
            done = leases.finish_trial(tx, state=TrialState.SUCCEEDED, **ended)
            if done:
                models.add_observation(tx, trial_id=waiting, quality=0.5, cost_seconds=1.0 + number)
        return done

    won = together(work)
    assert sum(won) == 1
    with stores[0].begin() as tx:
        cost = 1.0 + won.index(True)
        assert rows(tx, "SELECT t.cost_seconds, o.cost_seconds FROM work.observations o, work.trials t") == [
            (cost, cost)
        ]


def test_a_beat_and_a_take_back_do_not_both_win(stores: list[Store], make_rows: Any) -> None:
    study = make_rows(candidates=10)
    for candidate in study.candidates:
        with stores[0].begin() as tx:
            ids = {"study_id": study.study_id, "data_version_id": study.version_id}
            trial_id = trials.add_trial(tx, candidate_id=candidate, **ids)
            begin_attempt(tx, trial_id, seconds=-1)

        def work(number: int, trial_id: int = trial_id) -> Any:
            with stores[number].begin() as tx:
                if number % 2:
                    return leases.expire_leases(tx)
                return leases.extend_lease(tx, trial_id=trial_id, attempt=1, lease_seconds=60, progress=None)

        said = together(work)
        beats, taken = said[::2], [t for found in said[1::2] for t in found]
        with stores[0].begin() as tx:
            state = trials.get_trial(tx, trial_id).state
        assert (beats, taken, state) in [
            ([False] * 4, [], TrialState.RUNNING),
            ([None] * 4, [trial_id], TrialState.SUGGESTED),
        ]


@pytest.fixture
def referees(database: Any) -> Iterator[list[Store]]:
    """The referee's store for each writer."""
    opened = [Store(database.url("easeml_referee")) for _ in range(WRITERS)]
    yield opened
    for store in opened:
        store.close()


def spend(tx: Any, set_id: int, *, step: int, request_id: int, question: str) -> None:
    values = {"answer": "pass", "log_level": -1.0, "log_cost": 0.25, "tolerance": None, "report": {}, "system": "gate"}
    sealed.add_entry(tx, test_set_id=set_id, step=step, steps=5, request_id=request_id, cache_key=question, **values)


def test_eight_referees_never_overspend_a_set(referees: list[Store], make_rows: Any, seal: Any, file: Any) -> None:
    study = make_rows()
    set_id = seal(study, "gate", steps=5)
    filed = [file(study, "gate", study.baseline_id, key=f"{n}") for n in range(WRITERS)]

    def work(number: int) -> int | None:
        with referees[number].begin() as tx:
            live = releases.hold_study(tx, study.study_id)
            if not live:
                return None
            (test_set,) = live
            used, _ = sealed.spent(tx, test_set.id)
            spend(tx, test_set.id, step=used + 1, request_id=filed[number], question=f"{number}")
            if used + 1 == test_set.steps:
                releases.retire_test_set(tx, test_set.id)
            return used + 1

    steps = together(work)
    assert sorted(s for s in steps if s is not None) == [1, 2, 3, 4, 5]
    with referees[0].begin() as tx:
        assert sealed.spent(tx, set_id) == (5, 1.25)
        entries = ledger.set_ledger(tx, set_id, limit=9)  # newest first
        assert [e.request_id for e in entries] == [filed[steps.index(s)] for s in range(5, 0, -1)]


def test_a_held_study_makes_other_referees_wait_for_it_and_for_no_other(
    referees: list[Store], database: Any, make_rows: Any, seal: Any
) -> None:
    held, free = make_rows("held"), make_rows("free")
    for number, study in enumerate((held, free)):
        seal(study, "gate", start=200 * number)
        seal(study, "meter", start=200 * number + 100)
    impatient = Store(database.url("easeml_referee"), lock_timeout_seconds=0.05, statement_timeout_seconds=5)
    entered = threading.Event()

    def follow() -> float:
        with referees[1].begin() as tx:
            releases.hold_study(tx, held.study_id)
            entered.set()
            return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        with referees[0].begin() as tx:
            releases.hold_study(tx, held.study_id)
            follower = pool.submit(follow)
            with pytest.raises(ConcurrentUpdateError, match="try again"), impatient.begin() as other:
                releases.hold_study(other, held.study_id)
            with impatient.begin() as other:
                releases.hold_study(other, free.study_id)
            assert not entered.wait(0.2)
            released = time.monotonic()
        assert follower.result(timeout=10) >= released
    impatient.close()


def test_without_the_lock_the_ledger_itself_refuses_a_step_twice(
    referees: list[Store], make_rows: Any, seal: Any, file: Any
) -> None:
    study = make_rows()
    set_id = seal(study, "gate", steps=5)
    filed = [file(study, "gate", study.baseline_id, key=f"{n}") for n in range(WRITERS)]

    def work(number: int) -> str:
        try:
            with referees[number].begin() as tx:
                spend(tx, set_id, step=1, request_id=filed[number], question=f"{number}")
        except Exception as error:
            return type(error).__name__
        return "spent"

    assert sorted(together(work)) == ["StoreError"] * 7 + ["spent"]


WORKER = """
import sys, time
from easeml_core.entities import Executor
from easeml_core.store.database import Store, _of_one_moment
from easeml_core.store.tables import leases, trials
store = Store(sys.argv[1])
with store.begin() as tx:
    trials.get_trial(tx, int(sys.argv[2]), lock=True)
    claim = {"lease_key": "doomed", "lease_seconds": 0.3, "executor": Executor("trainer:tree", "test")}
    print(leases.start_trial(tx, trial_id=int(sys.argv[2]), **claim), flush=True)
with store.begin() as tx:
    leases.extend_lease(tx, trial_id=int(sys.argv[2]), attempt=1, lease_seconds=0.3, progress={"progress": 0.5})
    print("beaten", flush=True)
    time.sleep(600)
"""


def test_the_trial_of_a_worker_killed_by_kill_9_is_given_again(
    database: Any, stores: list[Store], waiting: int
) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, database.url("easeml_worker"), str(waiting)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert [worker.stdout.readline().strip() for _ in range(2)] == ["1", "beaten"]
    worker.kill()  # in the middle of a heartbeat's transaction
    worker.wait()
    worker.stdout.close()
    deadline, taken = time.monotonic() + 10, []
    while not taken and time.monotonic() < deadline:
        with stores[0].begin() as tx:
            taken = leases.expire_leases(tx)
    assert taken == [waiting]
    with stores[0].begin() as tx:
        assert [t.id for t in trials.left_over_trials(tx, [trials.get_trial(tx, waiting).study_id])] == [waiting]
    run_trial(stores[0], waiting, "successor")
    with stores[0].begin() as tx:
        assert not leases.finish_trial(tx, trial_id=waiting, attempt=1, state=TrialState.SUCCEEDED, cost_seconds=1.0)
        assert row(tx, "SELECT attempt, state FROM work.trials") == (2, "SUCCEEDED")
        assert scalar(tx, "SELECT count(*) FROM work.observations") == 1


def test_a_batch_may_not_hold_a_trial_twice(stores: list[Store], waiting: int) -> None:
    with stores[0].begin() as tx:
        batch_id = decisions.add_batch(tx, request_key="k", policy="default", requested=2)
        assert decisions.add_batch(tx, request_key="k", policy="hybrid", requested=9) is None
        given = {"batch_id": batch_id, "trial_id": waiting, "reasons": {"sentence": "s"}, "reserve_seconds": 60}
        decisions.add_suggestion(tx, position=0, **given)
    twice = pytest.raises(Exception, match="suggestions_trial_key")
    with twice, stores[0].begin() as tx:
        decisions.add_suggestion(tx, position=1, **given)


OF_BEGIN = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"


@pytest.mark.parametrize("fault", [None, ValueError("in the middle")], ids=["ends", "fails"])
def test_a_snapshot_sees_one_moment_and_leaves_its_connection_as_it_was(
    database: Any, make_rows: Any, fault: Exception | None
) -> None:
    """A server that is set to read-only, as where its disk is full, must not be written by a later transaction."""
    make_rows("first")
    store, asked = Store(database.url("easeml_worker"), connections=1), "SELECT count(*) FROM work.studies"
    with store.begin() as tx:
        session = scalar(tx, "SELECT pg_backend_pid()")
        tx.exec_driver_sql("SET default_transaction_read_only = on")
    expected = contextlib.nullcontext() if fault is None else pytest.raises(ValueError, match="in the middle")
    with expected, store.snapshot() as tx:
        assert tuple(row(tx, OF_BEGIN)) == ("repeatable read", "on")
        assert scalar(tx, asked) == 1
        make_rows("second")
        assert scalar(tx, asked) == 1
        if fault is not None:
            raise fault
    with store.begin(writes=False) as tx:
        assert scalar(tx, "SELECT pg_backend_pid()") == session
        assert tuple(row(tx, OF_BEGIN)) == ("read committed", "on")
        assert scalar(tx, asked) == 2
        driver = tx.connection.driver_connection
        assert (driver.isolation_level, driver.readonly) == (None, None), "BEGIN alone, and no SET before it"
    store.close()


def test_a_snapshot_whose_session_is_ended_says_so_and_the_next_transaction_has_another(
    database: Any, ask: Any
) -> None:
    store = Store(database.url("easeml_worker"), connections=1)
    expected = pytest.raises(StoreUnavailableError)
    with expected, store.snapshot() as tx:
        ask("SELECT pg_terminate_backend(%s)", scalar(tx, "SELECT pg_backend_pid()"))
        scalar(tx, "SELECT 1")
    with store.begin(writes=False) as tx:
        assert tuple(row(tx, OF_BEGIN)) == ("read committed", "off")
    store.close()


def test_a_connection_that_an_interruption_left_in_a_transaction_is_not_used_again(database: Any) -> None:
    store = Store(database.url("easeml_worker"), connections=1)
    with store._engine.connect() as connection:
        with _of_one_moment(connection):
            connection.connection.driver_connection.cursor().execute("SELECT 1")  # and no rollback follows
        assert connection.invalidated
    with store.begin(writes=False) as tx:
        assert tuple(row(tx, OF_BEGIN)) == ("read committed", "off")
    store.close()

"""Budgets, quotas and open trials at once: enforced by the database for all concurrent writers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from attempts import begin_attempt
from property_sizes import at_night

from easeml_core.entities import TrialState
from easeml_core.errors import BudgetExhaustedError, ConcurrentUpdateError, EasemlError
from easeml_core.store.database import Store
from easeml_core.store.rows import row, scalar
from easeml_core.store.tables import capacity, leases, studies, trials

if TYPE_CHECKING:
    from sqlalchemy import Connection

# What no moment may show, in separate SQL: studies and tenants that are beyond a limit.
BROKEN = """
WITH taken AS (
  SELECT s.id AS study_id, s.tenant_id, s.budget_seconds,
         count(t.id) FILTER (WHERE t.finished_at IS NULL) AS open,
         count(t.id) FILTER (WHERE t.finished_at IS NULL AND t.limit_seconds IS NULL) AS unbounded,
         coalesce(sum(t.cost_seconds), 0) + coalesce(sum(t.lost_seconds) FILTER (WHERE t.finished_at IS NOT NULL), 0)
         + coalesce(sum(t.limit_seconds) FILTER (WHERE t.finished_at IS NULL), 0) AS seconds
  FROM work.studies s LEFT JOIN work.trials t ON t.study_id = s.id GROUP BY s.id)
SELECT count(*) FROM (
  SELECT study_id FROM taken WHERE budget_seconds IS NOT NULL AND (unbounded > 0 OR seconds > budget_seconds + 1e-9)
  UNION ALL
  SELECT o.id FROM work.tenants o JOIN taken ON taken.tenant_id = o.id GROUP BY o.id
  HAVING (o.quota_seconds IS NOT NULL AND (sum(unbounded) > 0 OR sum(seconds) > o.quota_seconds + 1e-9))
      OR (o.max_parallel IS NOT NULL AND sum(open) > o.max_parallel)) beyond
"""


def add(tx: Connection, study: Any, candidate: int, limit: float | None = None) -> int:
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    return trials.add_trial(tx, candidate_id=study.candidates[candidate], limit_seconds=limit, **ids)


def start(tx: Connection, trial_id: int, *, seconds: float = 60) -> int:
    return begin_attempt(tx, trial_id, key="k", seconds=seconds)


def finish(tx: Connection, trial_id: int, attempt: int, cost: float, start: float | None = None) -> bool:
    ended: dict[str, Any] = {"state": TrialState.SUCCEEDED, "cost_seconds": cost, "start_seconds": start}
    return leases.finish_trial(tx, trial_id=trial_id, attempt=attempt, **ended)


def limit(tx: Connection, study: Any, budget: float | None) -> None:
    studies.change_study(tx, study.study_id, {"budget_seconds": budget})


def limit_tenant(tx: Connection, **changes: Any) -> None:
    studies.change_tenant(tx, studies.get_tenant(tx, "lab").id, changes)


def test_reservations_add_up_to_the_budget_and_no_further(store: Any, make_rows: Any) -> None:
    study = make_rows()
    with store.begin() as tx:
        assert capacity.seconds_left(tx, study.study_id) is None
        limit(tx, study, 100.0)
        add(tx, study, 0, 60.0)
        assert capacity.seconds_left(tx, study.study_id) == 40.0
    words = "compute budget of study 'cancer': 100.5 of 100 used; raise it with `easeml study set`, or wait"
    with pytest.raises(BudgetExhaustedError, match=words) as caught, store.begin() as tx:
        add(tx, study, 1, 40.5)
    assert (caught.value.used, caught.value.allowed) == (100.5, 100.0)
    with store.begin() as tx:
        add(tx, study, 1, 40.0)
        assert capacity.seconds_left(tx, study.study_id) == 0.0


def test_what_a_trial_does_not_take_comes_back(store: Any, make_rows: Any) -> None:
    study = make_rows()
    with store.begin() as tx:
        limit(tx, study, 100.0)
        trial_id = add(tx, study, 0, 100.0)
        assert not finish(tx, trial_id, attempt := start(tx, trial_id), 10.0, 90.1)  # more than was reserved
        assert finish(tx, trial_id, attempt, 10.0, 2.5)  # the start of the process is charged
        assert capacity.seconds_left(tx, study.study_id) == 87.5
        cancelled = add(tx, study, 1, 87.5)
        trials.request_cancel(tx, cancelled)
        assert capacity.seconds_left(tx, study.study_id) == 87.5


def test_a_quota_counts_all_studies_of_the_tenant_and_no_other(store: Any, make_rows: Any) -> None:
    first, second, other = make_rows("first"), make_rows("second"), make_rows("other", tenant="other")
    with store.begin() as tx:
        limit_tenant(tx, quota_seconds=50.0)
        limit(tx, second, 45.0)
        add(tx, other, 0)
        add(tx, first, 0, 20.0)
        assert capacity.seconds_left(tx, second.study_id) == 30.0
        assert capacity.seconds_left(tx, other.study_id) is None
    words = "quota of tenant 'lab': 55 of 50 used; raise it with `easeml tenant set`"
    with pytest.raises(BudgetExhaustedError, match=words), store.begin() as tx:
        add(tx, second, 0, 35.0)
    with store.begin() as tx:
        found = {t.name: t for t in studies.list_tenants(tx)}
    assert (found["lab"].used_seconds, found["lab"].reserved_seconds, found["lab"].open_trials) == (0.0, 20.0, 1)
    assert (found["other"].quota_seconds, found["other"].open_trials, found["lab"].studies) == (None, 1, 2)


def test_a_tenant_has_no_more_open_trials_than_it_may(store: Any, make_rows: Any) -> None:
    first, second = make_rows("first"), make_rows("second")
    with store.begin() as tx:
        limit_tenant(tx, max_parallel=2)
        one, _ = add(tx, first, 0), add(tx, second, 0)
    words = "open trials of tenant 'lab': 3 of 2 used; wait until some have ended, cancel some, or raise --max-parallel"
    with pytest.raises(BudgetExhaustedError, match=words), store.begin() as tx:
        add(tx, first, 1)
    with store.begin() as tx:
        assert finish(tx, one, start(tx, one), 1.0)
        add(tx, first, 1)


def test_a_limit_below_what_is_used_and_reserved_is_refused(store: Any, make_rows: Any) -> None:
    study = make_rows()
    with store.begin() as tx:
        trial_id = add(tx, study, 0, 10.0)
        assert finish(tx, trial_id, start(tx, trial_id), 4.0)
        add(tx, study, 1, 6.0)
        add(tx, study, 2, 1.0)
    for lower, words in (
        (lambda tx: limit(tx, study, 10.9), "compute budget of study 'cancer': 11 of 10.9 used"),
        (lambda tx: limit_tenant(tx, quota_seconds=10.9), "quota of tenant 'lab': 11 of 10.9 used"),
        (lambda tx: limit_tenant(tx, max_parallel=1), "open trials of tenant 'lab': 2 of 1 used"),
    ):
        with pytest.raises(BudgetExhaustedError, match=words), store.begin() as tx:
            lower(tx)
    with store.begin() as tx:
        limit(tx, study, 11.0)
        limit_tenant(tx, quota_seconds=11.0, max_parallel=2)
        limit_tenant(tx, quota_seconds=None, max_parallel=None)
        limit(tx, study, None)


def test_a_trial_without_a_bound_and_a_budget_do_not_go_together(store: Any, make_rows: Any) -> None:
    study = make_rows()
    with store.begin() as tx:
        open_one = add(tx, study, 0)
    again = "the compute budget of study 'cancer' has just been set; try again"
    with pytest.raises(ConcurrentUpdateError, match=again), store.begin() as tx:
        limit(tx, study, 1e6)
    with store.begin() as tx:
        assert capacity.reserve_open(tx, study_id=study.study_id, time_limit=600.0, grace=1.0) == 1
        assert trials.get_trial(tx, open_one).limit_seconds == 601.0
        limit(tx, study, 1000.0)
        assert capacity.reserve_open(tx, study_id=study.study_id, time_limit=600.0, grace=1.0) == 0
    with pytest.raises(ConcurrentUpdateError, match=again), store.begin() as tx:
        add(tx, study, 1)


def test_a_reservation_grows_only_within_the_budget(store: Any, make_rows: Any) -> None:
    study = make_rows()
    with store.begin() as tx:
        limit(tx, study, 100.0)
        trial_id = add(tx, study, 0, 60.0)
        capacity.reserve(tx, trial_id, 100.0)
    with pytest.raises(BudgetExhaustedError), store.begin() as tx:
        capacity.reserve(tx, trial_id, 100.5)
    with store.begin() as tx:
        assert trials.get_trial(tx, trial_id).limit_seconds == 100.0


# Leases within a reservation.


def lease(ask: Any, trial_id: int, *, started: float, until: float) -> None:
    """Let the attempt have begun so many seconds ago, and its lease end so many from now."""
    moved = "UPDATE work.trials SET attempt_started_at = now() - make_interval(secs => %s), "
    ask(moved + "lease_until = now() + make_interval(secs => %s) WHERE id = %s", started, until, trial_id)


def test_no_lease_outlasts_the_reservation(store: Any, make_rows: Any, ask: Any) -> None:
    study = make_rows()
    seconds_of = "SELECT extract(epoch FROM lease_until - attempt_started_at)::float8 FROM work.trials WHERE id = :id"
    with store.begin() as tx:
        trial_id = add(tx, study, 0, 20.0)
        attempt = start(tx, trial_id, seconds=60)
        assert scalar(tx, seconds_of, id=trial_id) == pytest.approx(20.0, abs=0.01)
        beaten = {"trial_id": trial_id, "attempt": attempt, "progress": None}
        assert leases.extend_lease(tx, lease_seconds=600, **beaten) is False
        assert scalar(tx, seconds_of, id=trial_id) == pytest.approx(20.0, abs=0.01)
        assert leases.extend_lease(tx, lease_seconds=5, **beaten) is False
        assert scalar(tx, seconds_of, id=trial_id) == pytest.approx(5.0, abs=1)
    lease(ask, trial_id, started=20.5, until=60)
    with store.begin() as tx:
        assert leases.extend_lease(tx, lease_seconds=60, **beaten) is None


def test_who_took_more_than_was_reserved_has_lost_the_trial(store: Any, make_rows: Any) -> None:
    study = make_rows()
    with store.begin() as tx:
        limit(tx, study, 20.0)
        trial_id = add(tx, study, 0, 20.0)
        attempt = start(tx, trial_id)
        assert not finish(tx, trial_id, attempt, 20.001)
        assert not leases.end_overrun(tx, trial_id=trial_id, attempt=attempt + 1, why="took too long")
        assert leases.end_overrun(tx, trial_id=trial_id, attempt=attempt, why="took too long")
        ended = trials.get_trial(tx, trial_id)
        assert (ended.state, ended.failure, ended.lost_seconds) == (TrialState.FAILED, "took too long", 20.0)
        assert capacity.seconds_left(tx, study.study_id) == 0.0
        assert scalar(tx, BROKEN) == 0


@pytest.mark.parametrize("lose", ["expire", "release", "take over", "give up"])
def test_a_lost_attempt_is_charged_with_the_time_of_its_lease(store: Any, make_rows: Any, ask: Any, lose: str) -> None:
    """Begun 10 s ago, and the lease ended 4 s ago: 6 s, and the reservation of 20 s has 14 s left."""
    study = make_rows()
    with store.begin() as tx:
        limit(tx, study, 50.0)
        trial_id = add(tx, study, 0, 20.0)
        start(tx, trial_id)
    lease(ask, trial_id, started=10, until=-4)
    with store.begin() as tx:
        if lose == "expire":
            assert leases.expire_leases(tx) == [trial_id]
        elif lose == "release":
            leases.release_lease(tx, trial_id)
        elif lose == "give up":
            leases.give_up(tx, trial_id)
        else:
            start(tx, trial_id)
        lost = trials.get_trial(tx, trial_id)
        assert lost.lost_seconds == pytest.approx(6.0, abs=0.01)
        left = 44.0 if lose == "give up" else 30.0
        assert capacity.seconds_left(tx, study.study_id) == pytest.approx(left, abs=0.01)
        if lose != "give up":
            attempt = lost.attempt if lose == "take over" else start(tx, trial_id)
            bound = scalar(tx, "SELECT extract(epoch FROM lease_until - attempt_started_at)::float8 FROM work.trials")
            assert bound == pytest.approx(14.0, abs=0.01)
            assert not finish(tx, trial_id, attempt, 14.1)
            assert finish(tx, trial_id, attempt, 13.9)


def test_a_lease_that_was_let_run_far_beyond_is_charged_no_more_than_reserved(
    store: Any, make_rows: Any, ask: Any
) -> None:
    study = make_rows()
    with store.begin() as tx:
        trial_id = add(tx, study, 0, 20.0)
        start(tx, trial_id)
    lease(ask, trial_id, started=3600, until=-1)
    with store.begin() as tx:
        assert leases.expire_leases(tx) == [trial_id]
        assert trials.get_trial(tx, trial_id).lost_seconds == 20.0


def test_a_trial_that_runs_when_a_budget_is_set_gets_what_it_may_still_take(
    store: Any, make_rows: Any, ask: Any
) -> None:
    study = make_rows()
    with store.begin() as tx:
        trial_id = add(tx, study, 0)
        start(tx, trial_id)
    lease(ask, trial_id, started=7000, until=60)  # a function of a tenant's own has no limit but its task's
    with store.begin() as tx:
        capacity.reserve_open(tx, tenant_id=studies.get_tenant(tx, "lab").id, time_limit=600.0, grace=1.0)
        assert trials.get_trial(tx, trial_id).limit_seconds == pytest.approx(7060, abs=1)


# Many at once.

WRITERS = 8


def test_two_writers_cannot_both_have_the_last_seconds(database: Any, make_rows: Any) -> None:
    """Ten rounds: both see 10 s left, and reserve 6 s each at the same moment."""
    study = make_rows(candidates=20)
    stores = [Store(database.url("easeml_worker")) for _ in range(2)]
    meet = threading.Barrier(2)

    def reserve(number: int, round_: int) -> str:
        with stores[number].begin() as tx:
            assert capacity.seconds_left(tx, study.study_id) == 10.0
            meet.wait()
            add(tx, study, 2 * round_ + number, 6.0)
        return "reserved"

    for round_ in range(10):
        with stores[0].begin() as tx:
            limit(tx, study, 10.0 + 6.0 * round_)
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(reserve, number, round_) for number in range(2)]
            errors = [f.exception() for f in both]
        assert sorted(type(e).__name__ for e in errors) == ["BudgetExhaustedError", "NoneType"]
        with stores[0].begin() as tx:
            assert scalar(tx, BROKEN) == 0
    for store in stores:
        store.close()


def act(tx: Connection, studies_: list[Any], rng: random.Random) -> None:
    """One thing that a worker, or a user of the command line, might do; the database may refuse it."""
    study = rng.choice(studies_)
    what = rng.random()
    if what < 0.4:
        add(tx, study, rng.randrange(len(study.candidates)), rng.choice([None, *(rng.uniform(0.1, 30.0),) * 5]))
    elif what < 0.8:
        found = row(tx, "SELECT id FROM work.trials WHERE finished_at IS NULL ORDER BY random() LIMIT 1 FOR UPDATE")
        if found is None:
            return
        trial = trials.get_trial(tx, found.id)
        attempt = trial.attempt if trial.state == TrialState.RUNNING else start(tx, trial.id)
        cost = rng.uniform(0.1, 1.2) * (trial.limit_seconds or 10.0)
        if rng.random() < 0.3:
            leases.release_lease(tx, trial.id)
        elif not finish(tx, trial.id, attempt, cost):
            leases.end_overrun(tx, trial_id=trial.id, attempt=attempt, why="late")
    elif what < 0.9:
        capacity.reserve_open(tx, study_id=study.study_id, time_limit=20.0, grace=1.0)
        limit(tx, study, rng.choice([None, rng.uniform(1.0, 300.0)]))
    else:
        owner = studies.get_tenant(tx, rng.choice(["lab", "other"]))
        capacity.reserve_open(tx, tenant_id=owner.id, time_limit=20.0, grace=1.0)
        quota, most = rng.choice([None, rng.uniform(1.0, 600.0)]), rng.choice([None, rng.randint(1, 12)])
        studies.change_tenant(tx, owner.id, {"quota_seconds": quota, "max_parallel": most})


@pytest.mark.parametrize("steps", [50, at_night(200)])
def test_whatever_eight_writers_do_no_limit_is_ever_exceeded(database: Any, make_rows: Any, steps: int) -> None:
    """Random steps; in every visible state between them the invariants are asked for anew."""
    names = {"a": "lab", "b": "lab", "c": "other", "d": "other"}
    rows_ = [make_rows(name, tenant=tenant, candidates=150) for name, tenant in names.items()]
    done, refused, broken, over = [0], [0], [0], threading.Event()

    def work(number: int) -> None:
        rng, store = random.Random(f"writer {number}"), Store(database.url("easeml_worker"))
        for _ in range(steps):
            try:
                with store.begin() as tx:
                    act(tx, rows_, rng)
                done[0] += 1
            except EasemlError:
                refused[0] += 1
        store.close()

    def watch() -> int:
        looks, store = 0, Store(database.url("easeml_worker"))
        while not over.is_set():
            with store.begin() as tx:
                broken[0] += scalar(tx, BROKEN)
            looks += 1
        store.close()
        return looks

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        looks = pool.submit(watch)
        for writer in [pool.submit(work, n) for n in range(WRITERS)]:
            writer.result()
        over.set()
    assert broken[0] == 0
    assert looks.result() > steps / 4
    assert done[0] > 2 * steps, "most steps must get through, else nothing is shown"
    assert refused[0] > steps / 2, "the limits must bite, else nothing is shown"


KILLED = """
import os, random, sys
from easeml_core.entities import Executor, TrialState
from easeml_core.errors import EasemlError
from easeml_core.store.database import Store
from easeml_core.store.tables import leases, trials
url, study_id, version_id, candidates, seed = sys.argv[1], *map(int, sys.argv[2:4]), eval(sys.argv[4]), int(sys.argv[5])
for n in range(5):
    worker = os.fork()
    if not worker:
        break
    print(worker, flush=True)
else:
    for _ in range(5):
        os.wait()
    sys.exit()
store, rng = Store(url), random.Random(seed + n)
while True:
    try:
        with store.begin() as tx:
            ids = {"study_id": study_id, "data_version_id": version_id}
            trial = trials.add_trial(tx, candidate_id=rng.choice(candidates), limit_seconds=rng.uniform(1, 9), **ids)
        with store.begin() as tx:
            claim = {"lease_key": "k", "lease_seconds": 0.05, "executor": Executor("trainer:tree", "test")}
            attempt = leases.start_trial(tx, trial_id=trial, **claim)
        with store.begin() as tx:
            ended = {"state": TrialState.SUCCEEDED, "cost_seconds": rng.uniform(0.1, 1)}
            leases.finish_trial(tx, trial_id=trial, attempt=attempt, **ended)
    except EasemlError:
        pass
"""


def succeeded(store: Any) -> int:
    with store.begin() as tx:
        return int(scalar(tx, "SELECT count(*) FROM work.trials WHERE state = 'SUCCEEDED'"))


def test_workers_killed_at_any_moment_leave_no_budget_exceeded(database: Any, make_rows: Any, store: Any) -> None:
    """Five workers at once are killed with SIGKILL in the middle of reserving, running and recording; twice."""
    study = make_rows(candidates=400, max_attempts=1)
    with store.begin() as tx:
        limit(tx, study, 120.0)
    arguments = (database.url("easeml_worker"), str(study.study_id), str(study.version_id), str(study.candidates))
    for round_ in range(2):
        command = [sys.executable, "-c", KILLED, *arguments, str(5 * round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
            assert starter.stdout is not None
            workers = [int(starter.stdout.readline()) for _ in range(5)]
            while succeeded(store) <= 10 * (round_ + 1):  # on a full machine they'd be killed before they have begun
                time.sleep(0.02)
            for n, worker in enumerate(workers):
                time.sleep(0.05 * n)
                os.kill(worker, signal.SIGKILL)
        with store.begin() as tx:
            assert scalar(tx, BROKEN) == 0
    time.sleep(0.1)  # the last leases run out
    with store.begin() as tx:
        leases.expire_leases(tx)
        assert scalar(tx, "SELECT count(*) FROM work.trials WHERE state = 'RUNNING'") == 0
        for trial in trials.left_over_trials(tx, [study.study_id]):
            trials.request_cancel(tx, trial.id)
        spent = scalar(tx, "SELECT sum(lost_seconds + coalesce(cost_seconds, 0)) FROM work.trials")
        assert capacity.seconds_left(tx, study.study_id) == pytest.approx(120.0 - spent, abs=1e-6)
        assert scalar(tx, BROKEN) == 0

"""A trial's states, leases and attempts, as rows: what may happen, and what a lost or late worker can still do."""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
from attempts import begin_attempt

from easeml_core.entities import Executor, FailureKind, TrialState
from easeml_core.errors import AlreadyExistsError, StateError, StoreError
from easeml_core.formats.encoding import to_json
from easeml_core.store.callers import Actor
from easeml_core.store.database import CHANNEL, NEWS_CHANNEL, Store
from easeml_core.store.rows import change, row, rows, scalar
from easeml_core.store.tables import leases, models, trials

if TYPE_CHECKING:
    from collections.abc import Callable

S, R, OK, F, C = TrialState
# The architecture's picture of a trial's life; everything that is not here is refused.
FORWARD = {(S, R), (S, F), (S, C), (R, OK), (R, F), (R, C)}
LOST_LEASE = {(R, S)}
STAYING = {(S, S), (R, R)}  # a reservation, a heartbeat; what has ended stays as it is

COLUMNS = {
    S: "lease_key = NULL, failure = NULL, finished_at = NULL",
    R: "lease_key = 'k', lease_until = now() + interval '1 min', attempt_started_at = now(), failure = NULL, "
    "finished_at = NULL, executor = 'trainer:tree'",
    OK: "lease_key = NULL, failure = NULL, finished_at = now(), cost_seconds = 1",
    F: "lease_key = NULL, failure = 'crashed', finished_at = now()",
    C: "lease_key = NULL, failure = NULL, finished_at = now()",
}


def move(tx: Any, trial_id: int, state: TrialState) -> None:
    change(tx, f"UPDATE work.trials SET state = :state, {COLUMNS[state]} WHERE id = :id", state=state, id=trial_id)


@pytest.fixture
def trial(database: Any, make_rows: Callable[..., Any]) -> Callable[..., int]:
    """A new trial of the study, moved to a state."""
    study = make_rows(candidates=30)
    numbers = itertools.count()

    def make(state: TrialState = S) -> int:
        with database.worker.begin() as tx:
            trial_id = trials.add_trial(
                tx,
                study_id=study.study_id,
                candidate_id=study.candidates[next(numbers)],
                data_version_id=study.version_id,
            )
            for step in [] if state == S else [state] if state == R else [R, state]:
                move(tx, trial_id, step)
        return trial_id

    return make


def test_the_picture_has_all_transitions() -> None:
    assert len(set(itertools.product(TrialState, TrialState)) - FORWARD - LOST_LEASE - STAYING) == 25 - 9


def test_all_25_transitions(store: Any, trial: Callable[..., int]) -> None:
    for before, after in itertools.product(TrialState, TrialState):
        trial_id = trial(before)
        allowed = (before, after) in FORWARD | LOST_LEASE | STAYING
        refusal = pytest.raises(StateError, match=rf"trial {trial_id} cannot go from {before} \(attempt 0\) to {after}")
        with contextlib.nullcontext() if allowed else refusal, store.begin() as tx:
            move(tx, trial_id, after)
        with store.begin() as tx:
            assert trials.get_trial(tx, trial_id).state == (after if allowed else before)


def test_what_has_ended_stays_as_it_is(store: Any, trial: Callable[..., int]) -> None:
    columns = ("cost_seconds = 9", "failure = 'other'", "progress = '{}'", "lease_until = now()")
    for state, column in itertools.product((OK, F, C), columns):
        trial_id = trial(state)
        changed = pytest.raises(StateError, match=f"cannot go from {state}")
        with changed, store.begin() as tx:
            change(tx, f"UPDATE work.trials SET {column} WHERE id = :id", id=trial_id)


def test_attempts_never_go_back(store: Any, trial: Callable[..., int]) -> None:
    trial_id = trial()
    with store.begin() as tx:
        assert begin_attempt(tx, trial_id, key="k") == 1
    back = pytest.raises(StateError, match=r"from RUNNING \(attempt 1\) to RUNNING \(attempt 0\)")
    with back, store.begin() as tx:
        change(tx, "UPDATE work.trials SET attempt = 0")


def started(tx: Any, trial_id: int, *, key: str = "key", seconds: float = 60) -> int:
    return begin_attempt(tx, trial_id, key=key, seconds=seconds)


def ended(tx: Any, trial_id: int, attempt: int, **changes: Any) -> bool:
    values: dict[str, Any] = {"state": OK, "cost_seconds": 2.5, "failure": None}
    return leases.finish_trial(tx, trial_id=trial_id, attempt=attempt, **values | changes)


def beat(tx: Any, trial_id: int, attempt: int, *, seconds: float = 60, progress: Any = None) -> bool | None:
    return leases.extend_lease(tx, trial_id=trial_id, attempt=attempt, lease_seconds=seconds, progress=progress)


def test_a_trial_runs_beats_and_ends(store: Any, trial: Callable[..., int]) -> None:
    trial_id = trial()
    with store.begin() as tx:
        assert started(tx, trial_id, key="dag/run/task/0") == 1
        running = trials.get_trial(tx, trial_id)
        assert (running.state, running.lease_key, running.attempt) == (R, "dag/run/task/0", 1)
        assert beat(tx, trial_id, 1, seconds=600, progress={"progress": 0.5}) is False
        later = trials.get_trial(tx, trial_id)
        assert 539 < (later.lease_until - running.lease_until).total_seconds() < 541
        assert ended(tx, trial_id, 1)
        done = trials.get_trial(tx, trial_id)
        assert (done.state, done.lease_key, done.lease_until) == (OK, None, None)
        assert row(tx, "SELECT progress, cost_seconds FROM work.trials WHERE id = :id", id=trial_id) == (
            {"progress": 0.5},
            2.5,
        )


def test_an_earlier_attempt_is_fenced_off(store: Any, trial: Callable[..., int]) -> None:
    trial_id = trial()
    with store.begin() as tx:
        late, present = started(tx, trial_id), started(tx, trial_id)  # a retry takes over its own lease
        assert (late, present) == (1, 2)
        assert beat(tx, trial_id, late) is None
        assert not ended(tx, trial_id, late)
        assert trials.get_trial(tx, trial_id).state == R
        assert beat(tx, trial_id, present) is False
        assert ended(tx, trial_id, present)
        assert not ended(tx, trial_id, present, state=F, failure="twice")
        assert beat(tx, trial_id, present) is None


def lapse(tx: Any, trial_id: int) -> None:
    """Let the lease run out."""
    change(tx, "UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = :id", id=trial_id)


def test_a_lease_that_has_run_out_is_taken_back_and_others_are_not(store: Any, trial: Callable[..., int]) -> None:
    lost, alive, waiting = trial(), trial(), trial()
    with store.begin() as tx:
        started(tx, lost)
        started(tx, alive)
        lapse(tx, lost)
        assert (leases.lease_is_over(tx, lost), leases.lease_is_over(tx, alive)) == (True, False)
        assert not leases.lease_is_over(tx, waiting)
    with store.begin() as tx:
        assert leases.expire_leases(tx) == [lost]
        assert leases.expire_leases(tx) == []
        assert [trials.get_trial(tx, t).state for t in (lost, alive, waiting)] == [S, R, S]
        assert trials.get_trial(tx, lost).attempt == 1
        assert not ended(tx, lost, 1)  # the worker that was thought dead comes back
        assert started(tx, lost, key="another") == 2


def test_after_the_last_attempt_a_lost_trial_has_failed(
    store: Any, trial: Callable[..., int], heard: Any, ask: Any
) -> None:
    trial_id = trial()
    ask(f"LISTEN {NEWS_CHANNEL}")
    for attempt in (1, 2, 3):  # the study allows three
        with store.begin() as tx:
            assert started(tx, trial_id) == attempt
            lapse(tx, trial_id)
        with store.begin() as tx:
            assert leases.expire_leases(tx) == [trial_id]
    with store.begin() as tx:
        failed = trials.get_trial(tx, trial_id)
        assert (failed.state, failed.failure) == (F, "its worker was lost 3 times")
    news = (NEWS_CHANNEL, "study:cancer")  # pages show each attempt
    assert sorted(heard(4)) == sorted([(CHANNEL, f"trial:{trial_id}"), news, news, news])


def test_a_cancelled_trial_whose_worker_is_lost_is_not_given_again(store: Any, trial: Callable[..., int]) -> None:
    trial_id = trial()
    with store.begin() as tx:
        started(tx, trial_id)
        trials.request_cancel(tx, trial_id)
        lapse(tx, trial_id)
    with store.begin() as tx:
        assert leases.expire_leases(tx) == [trial_id]
        assert trials.get_trial(tx, trial_id).state == C


def test_a_wait_for_the_row_does_not_shorten_the_lease(database: Any, trial: Callable[..., int]) -> None:
    trial_id = trial()
    with database.worker.begin() as tx:
        change(tx, "SELECT pg_sleep(0.3)")  # as if another transaction had held the row
        started(tx, trial_id, seconds=0.3)
        attempt = trials.get_trial(tx, trial_id).attempt
    with database.worker.begin() as tx:
        assert not leases.lease_is_over(tx, trial_id)
        assert beat(tx, trial_id, attempt) is False


def test_cancel_by_state(store: Any, trial: Callable[..., int]) -> None:
    waiting, running, done = trial(), trial(), trial(OK)
    with store.begin() as tx:
        attempt = started(tx, running)
        for trial_id in (waiting, running, done):
            trials.request_cancel(tx, trial_id)
        states = [trials.get_trial(tx, t).state for t in (waiting, running, done)]
        assert states == [C, R, OK]
        assert beat(tx, running, attempt) is True
        assert ended(tx, running, attempt, state=C)
        trials.request_cancel(tx, running)  # once more does no harm


@pytest.mark.parametrize("back", ["release_lease", "give_up"])
def test_the_lost_lease_of_one_trial(store: Any, trial: Callable[..., int], back: str) -> None:
    trial_id = trial()
    with store.begin() as tx:
        started(tx, trial_id)
        getattr(leases, back)(tx, trial_id)
        found = trials.get_trial(tx, trial_id)
        assert (found.state, found.failure) == (
            (S, None) if back == "release_lease" else (F, "its worker was lost 1 times")
        )
        assert (found.attempt, found.lease_key) == (1, None)


def test_unreserved_are_those_that_wait_without_a_reservation(store: Any, trial: Callable[..., int]) -> None:
    free, reserved, lapsed, running, done = trial(), trial(), trial(), trial(), trial(OK)
    with store.begin() as tx:
        change(tx, "UPDATE work.trials SET lease_until = now() + interval '1 h' WHERE id = :id", id=reserved)
        lapse(tx, lapsed)
        started(tx, running)
        study_id = trials.get_trial(tx, done).study_id
    with store.begin() as tx:
        assert [t.id for t in trials.left_over_trials(tx, [study_id])] == [free, lapsed]
        assert trials.left_over_trials(tx, []) == trials.left_over_trials(tx, [study_id + 1]) == []


def test_a_trial_that_somebody_is_claiming_is_not_unreserved(database: Any, trial: Callable[..., int]) -> None:
    claimed, free = trial(), trial()
    with database.worker.begin() as claimer:
        study_id = trials.get_trial(claimer, claimed, lock=True).study_id
        with database.worker.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '2s'")
            assert [t.id for t in trials.left_over_trials(tx, [study_id])] == [free]


ODD = "killed \0 by \udc80 \\u0000 and \\\0"


def test_any_last_words_can_be_stored(store: Any, trial: Callable[..., int]) -> None:
    """A child may print any bytes; a failure that cannot be written would be a lost trial."""
    trial_id = trial()
    with store.begin() as tx:
        attempt = started(tx, trial_id)
        assert beat(tx, trial_id, attempt, progress={"note": ODD, "loss": math.nan, "seen": [math.inf, 1]}) is False
        assert ended(tx, trial_id, attempt, state=F, failure=ODD)
        assert trials.get_trial(tx, trial_id).failure == "killed \ufffd by ? \\u0000 and \\\ufffd"
        progress = scalar(tx, "SELECT progress FROM work.trials WHERE id = :id", id=trial_id)
    assert progress == {"note": "killed \ufffd by ? \\u0000 and \\\ufffd", "loss": None, "seen": [None, 1]}


def test_a_beat_without_news_keeps_the_last_ones(store: Any, trial: Callable[..., int]) -> None:
    trial_id = trial()
    with store.begin() as tx:
        attempt = started(tx, trial_id)
        beat(tx, trial_id, attempt, progress={"progress": 0.25})
        beat(tx, trial_id, attempt)
        assert scalar(tx, "SELECT progress FROM work.trials WHERE id = :id", id=trial_id) == {"progress": 0.25}
        started(tx, trial_id)  # a new attempt begins anew
        assert scalar(tx, "SELECT progress FROM work.trials WHERE id = :id", id=trial_id) is None


def test_outcomes_come_in_the_order_of_their_end(store: Any, make_rows: Any, succeed: Callable[..., Any]) -> None:
    study = make_rows(candidates=4)
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    with store.begin() as tx:
        waiting = trials.add_trial(tx, candidate_id=study.candidates[0], **ids)
        failed = trials.add_trial(tx, candidate_id=study.candidates[1], **ids)
        attempt = started(tx, failed)
    succeed(study, 2, quality=0.7, cost=5.0)
    with store.begin() as tx:
        ended(tx, failed, attempt, state=F, failure="crashed")
    succeed(study, 3, quality=0.9, cost=1.0)
    with store.begin() as tx:
        answer = [(o.candidate, o.state, o.quality, o.cost_seconds) for o in trials.outcomes(tx)]
        listed = trials.list_trials(tx, study.study_id)
        report = trials.trial_report(tx, failed)
    assert answer == [
        ("candidate-2", "SUCCEEDED", 0.7, 5.0),
        ("candidate-1", "FAILED", None, 2.5),
        ("candidate-3", "SUCCEEDED", 0.9, 1.0),
        ("candidate-0", "SUGGESTED", None, None),
    ]
    assert [t.trial_id for t in listed][:2] == [waiting, failed]
    assert [t.model_id is None for t in listed] == [True, True, False, False]
    assert to_json(report) == {
        "trial_id": failed,
        "study": "cancer",
        "candidate": "candidate-1",
        "state": "FAILED",
        "quality": None,
        "score": None,
        "metric": "accuracy",
        "cost_seconds": 2.5,
        "failure": "crashed",
        "failure_kind": None,
        "model_id": None,
    }


def test_the_best_model_is_of_the_newest_data_and_the_cheaper_of_equals(
    store: Any, make_rows: Any, succeed: Callable[..., Any], add_data: Callable[..., int]
) -> None:
    study = make_rows(candidates=3)
    with store.begin() as tx:
        assert models.best_model(tx, study.study_id) is None
        assert models.baseline_model(tx, study.study_id).id == study.baseline_id
    succeed(study, 0, quality=0.8, cost=9)
    _, cheaper = succeed(study, 1, quality=0.8, cost=2)
    succeed(study, 2, quality=0.7, cost=1)
    with store.begin() as tx:
        assert models.best_model(tx, study.study_id).id == cheaper
    study.version_id = add_data(study)
    with store.begin() as tx:
        assert models.best_model(tx, study.study_id) is None
    _, worse = succeed(study, 0, quality=0.6)
    with store.begin() as tx:
        assert models.best_model(tx, study.study_id).id == worse


def test_a_trial_ends_when_the_database_says_so(store: Any, make_rows: Any) -> None:
    """An end in the future would make each later one come out of turn, for all schedulers."""
    study = make_rows()
    with store.begin() as tx:
        added = {"study_id": study.study_id, "candidate_id": study.candidates[0], "data_version_id": study.version_id}
        trial_id = trials.add_trial(tx, **added)
        ended = "UPDATE work.trials SET state = 'CANCELLED', finished_at = '2999-01-01' WHERE id = :id"
        change(tx, ended, id=trial_id)
        answer = "SELECT finished_at BETWEEN now() AND clock_timestamp() FROM work.trials WHERE id = :id"
        assert scalar(tx, answer, id=trial_id) is True


def test_an_attempt_of_decades_without_a_bound_is_charged_with_what_a_column_takes(store: Any, make_rows: Any) -> None:
    """One such row must not keep all other leases from being taken back."""
    study = make_rows()
    with store.begin() as tx:
        added = {"study_id": study.study_id, "candidate_id": study.candidates[0], "data_version_id": study.version_id}
        trial_id = trials.add_trial(tx, **added)
        begin_attempt(tx, trial_id, key="k")
        past = "attempt_started_at = '2000-01-02', lost_seconds = 9e8, lease_until = now() - interval '1 s'"
        change(tx, f"UPDATE work.trials SET {past} WHERE id = :id", id=trial_id)
        assert leases.expire_leases(tx) == [trial_id]
        assert scalar(tx, "SELECT lost_seconds FROM work.trials WHERE id = :id", id=trial_id) == 1e9


def last(tx: Any, trial_id: int) -> tuple[Any, ...]:
    (found,) = rows(tx, "SELECT lease_key, last_key, last_try FROM work.trials WHERE id = :id", id=trial_id)
    return tuple(found)


def test_who_was_last_at_work_is_kept_with_the_try_of_its_task(database: Any, trial: Callable[..., int]) -> None:
    trial_id, key = trial(), "nightly/run-1/train/0"
    stores = [Store(database.url("easeml_worker"), actor=Actor("n", "task", try_number=n)) for n in (1, 2)]
    with stores[0].begin() as tx:
        assert last(tx, trial_id) == (None, None, None)
        started(tx, trial_id, key=key)
        assert last(tx, trial_id) == (key, key, 1)
        lapse(tx, trial_id)
    with database.worker.begin() as tx:
        assert leases.expire_leases(tx) == [trial_id]
        assert last(tx, trial_id) == (None, key, 1)
    with stores[1].begin() as tx:
        assert ended(tx, trial_id, started(tx, trial_id, key=key))
        assert last(tx, trial_id) == (None, key, 2)
    other = trial()
    with stores[1].begin() as tx:
        started(tx, other)
    with database.worker.begin() as tx:  # without the number of the try: that of another worker is not kept
        lapse(tx, other)
    with database.worker.begin() as tx:
        leases.release_lease(tx, other)
        started(tx, other, key="laptop")
        assert last(tx, other) == ("laptop", "laptop", None)
    for store in stores:
        store.close()


@pytest.mark.parametrize("stated", ["trainer:forest", "function:tree", "tree", ""])
def test_a_claim_that_states_another_implementation_is_none(store: Any, trial: Callable[..., int], stated: str) -> None:
    """The statement says no; and a worker that writes other SQL is refused by the schema."""
    trial_id, claim = trial(), {"lease_key": "k", "lease_seconds": 60}
    with store.begin() as tx:
        assert leases.start_trial(tx, trial_id=trial_id, executor=Executor(stated, "1"), **claim) is None
        assert trials.get_trial(tx, trial_id).attempt == 0
    forced = (
        "UPDATE work.trials SET state = 'RUNNING', attempt = attempt + 1, lease_key = 'k', lease_until = now(), "
        "attempt_started_at = now(), executor = :stated WHERE id = :id"
    )
    for value, constraint in ((stated, "trials_executor_fkey"), (None, "trials_executor_check")):
        with pytest.raises(StoreError, match=constraint), store.begin() as tx:
            change(tx, forced, id=trial_id, stated=value)


def test_an_attempt_keeps_its_executor(store: Any, trial: Callable[..., int]) -> None:
    trial_id, claim = trial(), {"lease_key": "k", "lease_seconds": 60}
    with store.begin() as tx:
        assert leases.start_trial(tx, trial_id=trial_id, executor=Executor("trainer:tree", "1"), **claim) == 1
        assert leases.start_trial(tx, trial_id=trial_id, executor=Executor("trainer:tree", "2"), **claim) == 2
    other = 'UPDATE work.trials SET executor_details = \'{"code_version": "3"}\' WHERE id = :id'
    with pytest.raises(StoreError, match="another executor claims another attempt"), store.begin() as tx:
        change(tx, other, id=trial_id)


def test_only_a_failure_of_the_task_is_retried_and_once(store: Any, make_rows: Any) -> None:
    study = make_rows(candidates=2)
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    failed = {}
    for kind, candidate in zip(FailureKind, study.candidates, strict=False):
        with store.begin() as tx:
            failed[kind] = trials.add_trial(tx, candidate_id=candidate, **ids)
            claim = {"lease_key": "k", "lease_seconds": 60, "executor": Executor("trainer:tree", "1")}
            attempt = leases.start_trial(tx, trial_id=failed[kind], **claim)
            ended = {"state": TrialState.FAILED, "failure": "no", "failure_kind": kind, "cost_seconds": 2.0}
            assert leases.finish_trial(tx, trial_id=failed[kind], attempt=attempt, **ended)
    for kind, costs in ((FailureKind.TASK, None), (FailureKind.CANDIDATE, 2.0)):
        found = "SELECT cost_seconds FROM work.trials WHERE id = :id"
        with store.begin() as tx:
            assert scalar(tx, found, id=failed[kind]) == costs
    retry = {"candidate_id": study.candidates[1], "retries": failed[FailureKind.TASK]}
    with store.begin() as tx:
        assert trials.add_trial(tx, **retry, **ids) > failed[FailureKind.TASK]
    with pytest.raises(AlreadyExistsError, match="takes the same place"), store.begin() as tx:
        trials.add_trial(tx, **retry, **ids)
    refused = {"candidate_id": study.candidates[0], "retries": failed[FailureKind.CANDIDATE]}
    with pytest.raises(StoreError, match="trials_retries_fkey"), store.begin() as tx:
        trials.add_trial(tx, **refused, **ids)

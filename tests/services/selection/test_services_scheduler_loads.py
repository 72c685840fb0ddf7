"""What a scheduler in memory loads anew, what it takes in, and that its answers are those of ``suggest_trials``."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import FailureKind, TrialState
from easeml_core.errors import BudgetExhaustedError, ConcurrentUpdateError, StoreError
from easeml_core.selection.policies.default import DefaultScheduler
from easeml_core.services.registration.register import pause_study
from easeml_core.services.selection import retry
from easeml_core.services.selection import scheduler as room
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.selection.scheduler_state import LATEST
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.studies.limits import set_study, set_tenant
from easeml_core.services.trials import execution
from easeml_core.services.trials.execution import cancel_trial
from easeml_core.store.database import lock, lock_within, waiting_briefly
from easeml_core.store.tables import decisions, leases, studies, trials
from easeml_core.store.tables.decisions import SuggestedTrial

if TYPE_CHECKING:
    from collections.abc import Sequence


# What makes it load anew, and what does not.


def warm(installation: Any, loads: list[int], **choice: Any) -> tuple[LiveScheduler, Sequence[SuggestedTrial]]:
    live = LiveScheduler(installation.store, **choice)
    given = live.ask(count=3, request_key=next(installation.keys)).trials
    loads.clear()
    return live, given


def ask(installation: Any, live: LiveScheduler, **asked: Any) -> Sequence[SuggestedTrial]:
    return live.ask(request_key=next(installation.keys), **asked).trials


def test_results_and_other_peoples_trials_are_taken_in(installation: Any, loads: list[int]) -> None:
    live, (first, second, third) = warm(installation, loads)
    installation.end(second)
    installation.end(first, TrialState.FAILED)
    installation.end(third, TrialState.CANCELLED)
    assert len(ask(installation, live)) == 1
    with installation.store.begin() as tx:  # another caller's, ended before this look
        trial = somebody_elses(tx, "zero")
    installation.end(SuggestedTrial(trial, "h-4", "zero", ""))
    assert len(ask(installation, live, device="gpu")) == 1
    assert loads == []
    assert installation.agrees(live, 100)


def somebody_elses(tx: Any, candidate: str) -> int:
    study = studies.get_study(tx, "h-4")
    version = studies.latest_data_version(tx, study.id)
    found = next(c for c in studies.list_candidates(tx, study.id) if c.name == candidate)
    return trials.add_trial(tx, study_id=study.id, candidate_id=found.id, data_version_id=version.id)


NEW = {"name": "new", "kind": "decision_tree"}


@pytest.mark.parametrize(
    "change",
    [
        lambda installation, given: cancel_trial(installation.store, trial_id=given[0].trial_id),
        lambda installation, given: pause_study(installation.store, study="h-2", paused=True),
        lambda installation, given: set_study(installation.store, study="h-1", weight=2.0),
        lambda installation, given: set_tenant(installation.store, tenant="h-1", max_parallel=4),
        lambda installation, given: add_candidates(installation.store, study="h-3", candidates=[NEW]),
        lambda installation, given: set_policy(installation.owner, changes={"guard": 0.3}, reason="a test"),
        lambda installation, given: installation.sql(
            "UPDATE work.trials SET device = 'tpu' WHERE id = :id", id=given[0].trial_id
        ),
    ],
    ids=["withdrawn", "paused", "weight", "limit", "candidate", "settings", "device"],
)
def test_what_cannot_be_added_is_loaded_anew(change: Any, installation: Any, loads: list[int]) -> None:
    live, given = warm(installation, loads)
    change(installation, given)
    ask(installation, live)
    assert len(loads) == 1
    ask(installation, live)
    assert len(loads) == 1
    assert installation.agrees(live, 100)


def test_an_end_that_was_committed_out_of_turn_is_put_into_its_place(installation: Any, loads: list[int]) -> None:
    live, (early, late, _) = warm(installation, loads)
    with installation.store.begin() as tx:
        installation.end_in(tx, early)
        installation.end(late)
        ask(installation, live)
    ask(installation, live)  # the earlier end has become visible after the later one
    assert loads == []
    assert installation.agrees(live, 100)


@pytest.mark.parametrize("policy", ["default", "hybrid"])
def test_ends_in_any_order_give_the_state_of_a_load(policy: str, installation: Any, loads: list[int]) -> None:
    """Workers with a token do not end in turn: with many of them, each decision would load everything."""
    live = LiveScheduler(installation.store, policy=policy)
    given = ask(installation, live, count=6)
    loads.clear()
    with contextlib.ExitStack() as transactions:
        waiting = []
        for trial in given:
            transaction = transactions.enter_context(contextlib.ExitStack())
            failed = TrialState.FAILED if trial.trial_id % 4 == 0 else TrialState.SUCCEEDED
            installation.end_in(transaction.enter_context(installation.store.begin()), trial, failed)
            waiting.append(transaction)
        random.Random(policy).shuffle(waiting)
        for transaction in waiting:
            transaction.close()
            ask(installation, live)
    assert loads == []
    assert installation.agrees(live, 100, policy=policy)


def test_an_end_from_before_a_study_came_is_loaded(installation: Any, loads: list[int]) -> None:
    """What it is entitled to begins with the number of ends before it."""
    live, (early, late, _) = warm(installation, loads)
    installation.end(late)
    ask(installation, live)
    memory = live._memory
    assert memory is not None
    (seen,) = [t for t in memory.open if t == early.trial_id]
    known = decisions.KnownTrial(
        seen, memory.open[seen].study_id, 0, 0, "SUCCEEDED", 0.5, 1.0, 0.0, None, None, memory.latest[0][0], False
    )
    old = memory.latest[0][0] - timedelta(seconds=1)
    assert memory._can_insert(known, 1)
    assert not memory._can_insert(known._replace(start_seconds=1.0), 1)
    assert not memory._can_insert(known, LATEST)
    study = next(iter(memory.active))
    memory.active = {**memory.active, study: replace(memory.active[study], joined_at=memory.latest[0][0])}
    assert not memory._can_insert(known._replace(finished_at=old), 1)


def test_a_lock_that_is_not_free_in_time_costs_no_load(
    installation: Any, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    live, _ = warm(installation, loads)

    def refuse(*_: object, **__: object) -> None:
        raise ConcurrentUpdateError("it holds the lock for too long")

    with monkeypatch.context() as patched:
        patched.setattr(decisions, "look", refuse)
        with pytest.raises(ConcurrentUpdateError):
            ask(installation, live)
    ask(installation, live)
    assert loads == []
    assert installation.agrees(live, 100)


def test_while_one_loads_others_decide(installation: Any, loads: list[int]) -> None:
    other, _ = warm(installation, loads)

    class Overtaken(LiveScheduler):
        def load(self, *given: Any) -> Any:
            memory = super().load(*given)
            ask(installation, other)  # under the lock, this would wait for this same call
            return memory

    live = Overtaken(installation.store)
    assert len(ask(installation, live)) == 1
    assert len(loads) == 1
    assert installation.agrees(live, 100)


def is_held(installation: Any) -> bool:
    """Whether a decision is under way."""
    try:
        with installation.store.begin() as tx, waiting_briefly(tx, 1):
            lock(tx, "suggest")
    except ConcurrentUpdateError:
        return True
    return False


def test_what_is_learnt_anew_is_learnt_without_the_lock(
    installation: Any, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At fixed numbers of results all is replayed, by every scheduler: under the lock, each would wait for the others.

    So it is after a load, and after a result that asks for it; a decision under the lock finds nothing to learn.
    """
    held: list[bool] = []
    refit = DefaultScheduler._replay

    def watched(scheduler: DefaultScheduler) -> None:
        held.append(is_held(installation))
        refit(scheduler)

    monkeypatch.setattr(DefaultScheduler, "_replay", watched)
    live, given = warm(installation, loads)
    assert held == [False]
    for trial in given:
        installation.end(trial)  # at eight results, each further one is learnt from
        (further,) = ask(installation, live)
        assert installation.reasons()[-1]["candidate"] == further.candidate
    assert held == [False] * (1 + len(given))
    assert loads == []
    monkeypatch.setattr(DefaultScheduler, "_replay", refit)
    assert installation.agrees(live, 100)


def test_a_scheduler_that_others_overtake_learns_under_the_lock_in_the_end(
    installation: Any, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends while it learns, it decides at the last of its tries, and loads nothing."""
    others = LiveScheduler(installation.store)
    waiting = list(ask(installation, others, count=8))
    live, _ = warm(installation, loads)
    installation.end(waiting.pop())
    refit, learnt = DefaultScheduler._replay, []

    def overtaken(scheduler: DefaultScheduler) -> None:
        learnt.append(1)
        refit(scheduler)
        if len(learnt) <= room.TRIES_AHEAD:
            installation.end(waiting.pop())

    monkeypatch.setattr(DefaultScheduler, "_replay", overtaken)
    assert len(ask(installation, live)) == 1
    assert len(learnt) == room.TRIES_AHEAD + 1
    assert loads == []
    monkeypatch.setattr(DefaultScheduler, "_replay", refit)
    assert installation.agrees(live, 100)


def test_the_end_of_a_trial_waits_for_another_one_but_not_for_ever(
    installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "END_WAITS_MS", 1)
    with installation.store.begin() as first, installation.store.begin() as second:
        before = second.exec_driver_sql("SHOW lock_timeout").scalar()
        assert lock_within(first, "end of a trial", 1)
        assert not lock_within(second, "end of a trial", 1)
        execution._end_in_turn(second)
        assert second.exec_driver_sql("SHOW lock_timeout").scalar() == before  # and the transaction goes on
        assert first.exec_driver_sql("SHOW lock_timeout").scalar() == before


def test_trials_of_another_study_that_end_become_part_of_the_past(installation: Any, loads: list[int]) -> None:
    with installation.store.begin() as tx:
        elsewhere = somebody_elses(tx, "zero")
    live, _ = warm(installation, loads, studies_only=["h-0", "h-1"])
    ask(installation, live)
    assert loads == []
    installation.end(SuggestedTrial(elsewhere, "h-4", "zero", ""))
    ask(installation, live)
    assert len(loads) == 1
    assert installation.agrees(live, 100, studies_only=["h-0", "h-1"])


def test_a_lost_workers_trial_is_handed_out_again_and_all_is_loaded(installation: Any, loads: list[int]) -> None:
    live, (first, *_) = warm(installation, loads)
    installation.begin(first)
    assert ask(installation, live)[0].trial_id != first.trial_id  # its lease lives
    installation.let_run_out(first)
    (again,) = ask(installation, live)
    assert (again.trial_id, len(loads)) == (first.trial_id, 1)
    assert again.reason.endswith("given again, its worker was lost in attempt 1")
    ask(installation, live)
    assert installation.agrees(live, 100)


def fail_by_task(installation: Any, trial: SuggestedTrial) -> None:
    """Let it fail because of its task, under another version of this package."""
    attempt = installation.begin(trial)
    ended = {"attempt": attempt, "state": TrialState.FAILED, "failure": "it crashed", "failure_kind": FailureKind.TASK}
    with installation.store.begin() as tx:
        assert leases.finish_trial(tx, trial_id=trial.trial_id, cost_seconds=None, **ended)


def test_what_failed_because_of_a_task_that_has_changed_is_handed_out_at_once(
    installation: Any, loads: list[int]
) -> None:
    live, (first, *_) = warm(installation, loads)
    ask(installation, live)
    fail_by_task(installation, first)
    (again,) = ask(installation, live)
    assert (again.study, again.candidate, len(loads)) == (first.study, first.candidate, 1)
    assert installation.agrees(live, 100)


def test_what_failed_because_of_its_task_waits_for_a_place_and_is_asked_for_again(
    installation: Any, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where nothing waits, the database is not asked again."""
    asked: list[bool] = []
    changed = retry.changed_tasks
    monkeypatch.setattr(room, "changed_tasks", lambda tx, **given: asked.append(True) or changed(tx, **given))
    set_tenant(installation.store, tenant="h-4", max_parallel=1)
    live = LiveScheduler(installation.store, studies_only=["h-4"])
    (first,) = ask(installation, live)
    assert ask(installation, live) == ()
    assert len(asked) == 1
    fail_by_task(installation, first)
    with installation.store.begin() as tx:
        other = SuggestedTrial(somebody_elses(tx, "zero"), "h-4", "zero", "")
    attempt = installation.begin(other)
    for _ in range(2):
        assert ask(installation, live) == ()
    with installation.store.begin() as tx:
        ended = {"attempt": attempt, "state": TrialState.CANCELLED, "cost_seconds": 1.0}
        assert leases.finish_trial(tx, trial_id=other.trial_id, **ended)
    (again,) = ask(installation, live)
    assert (again.candidate, len(asked)) == (first.candidate, 6)
    installation.end(again)
    ask(installation, live)
    ask(installation, live)
    assert len(asked) == 6


@pytest.mark.parametrize("is_lost", [True, False], ids=["lost worker", "failed task"])
def test_what_must_be_handed_out_again_is_written_first_and_then_loaded_without_the_lock(
    is_lost: bool, installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    load = LiveScheduler.load

    def watched(live: LiveScheduler, *given: Any) -> Any:
        held.append(is_held(installation))
        return load(live, *given)

    monkeypatch.setattr(LiveScheduler, "load", watched)
    live = LiveScheduler(installation.store)
    (first,) = ask(installation, live)
    if is_lost:
        installation.begin(first)
        installation.let_run_out(first)
    else:
        fail_by_task(installation, first)
    (again,) = ask(installation, live)
    assert (again.study, again.candidate) == (first.study, first.candidate)
    assert held == [False, False]
    monkeypatch.setattr(LiveScheduler, "load", load)
    assert installation.agrees(live, 100)


def test_what_nobody_started_is_handed_out_again_from_memory(installation: Any, loads: list[int]) -> None:
    live, (first, *_) = warm(installation, loads)
    installation.let_run_out(first)
    assert ask(installation, live)[0].trial_id == first.trial_id
    assert ask(installation, live)[0].trial_id != first.trial_id
    assert loads == []


def test_who_hands_many_trials_back_gets_no_more_than_its_share(installation: Any) -> None:
    """One tenant of five, of equal weight: what it has left over goes first only while it has less than a fifth."""
    own = LiveScheduler(installation.store, studies_only=["h-4"])
    for trial in ask(installation, own, count=6):
        installation.let_run_out(trial)
    live = LiveScheduler(installation.store)
    given = [trial for _ in range(10) for trial in ask(installation, live)]
    of_own = [trial for trial in given if trial.study == "h-4"]
    assert given[0].study == "h-4"  # it has none under way
    assert 2 <= len(of_own) <= 4
    assert all("is given again" in trial.reason for trial in of_own)
    rest = [trial for _ in range(40) for trial in ask(installation, live)]
    assert len([trial for trial in of_own + rest if "is given again" in trial.reason]) == 6  # none is forgotten


def test_a_transaction_that_fails_leaves_nothing_in_memory(
    installation: Any, loads: list[int], monkeypatch: Any
) -> None:
    live, _ = warm(installation, loads)
    before = installation.sql("SELECT count(*) FROM work.trials")
    with monkeypatch.context() as broken:
        broken.setattr(room.decisions, "add_decision", fails)
        with pytest.raises(StoreError, match="gone"):
            ask(installation, live)
    assert installation.sql("SELECT count(*) FROM work.trials") == before
    (trial,) = ask(installation, live)
    assert len(loads) == 1
    assert installation.reasons()[-1]["candidate"] == trial.candidate
    assert installation.agrees(live, 100)


def fails(*_: Any, **__: Any) -> Any:
    message = "the database is gone"
    raise StoreError(message)


def test_a_refusal_is_noticed_and_the_rest_goes_on(installation: Any, loads: list[int]) -> None:
    """Two open trials are allowed, so the third of four goes elsewhere; what was closed for once opens again."""
    set_tenant(installation.store, tenant="h-4", max_parallel=1)
    live = LiveScheduler(installation.store, studies_only=["h-4", "h-0"])
    given = ask(installation, live, count=4)
    assert [t.study for t in given].count("h-4") <= 1
    assert len(given) == 4
    assert installation.agrees(live, 100, studies_only=["h-4", "h-0"])


def test_a_budget_that_is_gone_closes_a_study_for_one_answer(installation: Any, loads: list[int]) -> None:
    set_study(
        installation.store,
        study="h-0",
        budget_seconds=installation.sql("SELECT sum(work.charge(t)) FROM work.trials t")[0][0],
    )
    live = LiveScheduler(installation.store, studies_only=["h-0"])
    for _ in range(3):
        while given := ask(installation, live):
            installation.end(given[0])
    with installation.store.begin() as tx:
        study = studies.get_study(tx, "h-0")
        version = studies.latest_data_version(tx, study.id)
    taken = {c for (c,) in installation.sql("SELECT candidate_id FROM work.trials")}
    (free, *_) = (
        c
        for (c,) in installation.sql("SELECT id FROM work.candidates WHERE study_id = :s", s=study.id)
        if c not in taken
    )
    new = {"study_id": study.id, "candidate_id": free, "data_version_id": version.id, "limit_seconds": 1e6}
    with pytest.raises(BudgetExhaustedError), installation.store.begin() as tx:
        trials.add_trial(tx, **new)


@pytest.mark.parametrize(("budget", "counts"), [(1e6, 1), (None, 0)])
def test_what_a_lost_worker_cost_is_loaded_where_a_budget_counts_it(
    installation: Any, loads: list[int], budget: float | None, counts: int
) -> None:
    for study in {name for (name,) in installation.sql("SELECT name FROM work.studies")}:
        set_study(installation.store, study=study, budget_seconds=budget)
    live, given = warm(installation, loads)
    installation.sql("UPDATE work.trials SET lost_seconds = lost_seconds + 5 WHERE id = :id", id=given[0].trial_id)
    ask(installation, live)
    assert len(loads) == counts
    assert live._memory is not None
    (lost,) = installation.sql("SELECT lost_seconds FROM work.trials WHERE id = :id", id=given[0].trial_id)[0]
    assert live._memory.open[given[0].trial_id].lost_seconds == lost
    assert installation.agrees(live, 100)


def test_a_deadline_comes_nearer_without_loading_anything(installation: Any, loads: list[int]) -> None:
    """Nothing that is predicted to outlast the deadline begins, although the memory is from before."""
    live, _ = warm(installation, loads)
    set_study(installation.store, study="h-4", deadline="2199-12-31T23:59:59")
    ask(installation, live)
    assert len(loads) == 1
    assert installation.agrees(live, 100)
    memory = live._memory
    assert memory is not None
    with installation.store.begin() as tx:
        seen = decisions.look(tx, request_key="?", last=memory.last_trial, known=list(memory.open))
    late = decisions.Look(seen.now.replace(year=2200), seen.catalogue, seen.settings_id, seen.batch_id, seen.trials)
    old = copy.deepcopy(memory)
    assert old.catch_up(late)
    names = {s.id: s.name for s in old.active.values()}
    assert "h-4" not in {names[s.study_id] for s in installation.next_of(old, 100)}
    assert "h-4" in {names[s.study_id] for s in installation.next_of(memory, 100)}


# The same answers as ``suggest_trials``.


def test_a_repeated_key_gets_the_same_answer_from_memory(installation: Any, loads: list[int]) -> None:
    live, _ = warm(installation, loads)
    first = live.ask(count=2, request_key="night/1")
    assert live.ask(count=2, request_key="night/1") == first
    assert suggest_trials(installation.store, count=2, request_key="night/1") == first
    assert loads == []


def test_a_batch_is_kept_also_when_nothing_is_left(installation: Any) -> None:
    live = LiveScheduler(installation.store, studies_only=["h-4"])
    assert len(ask(installation, live, count=100)) == len(installation.candidates)
    answer = live.ask(count=2, request_key="empty")
    assert (answer.trials, answer.message.split(":")[0]) == ((), "nothing to train")
    assert installation.sql("SELECT requested FROM work.suggestion_batches WHERE request_key = 'empty'") == [(2,)]
    assert live.ask(request_key="empty") == answer


def test_every_batch_names_the_settings_it_was_made_under(installation: Any, loads: list[int]) -> None:
    live, _ = warm(installation, loads)
    made = set_policy(installation.owner, changes={"policy": "greedy"}, reason="a test").id
    ask(installation, live)
    last = installation.sql("SELECT policy, settings_id FROM work.suggestion_batches ORDER BY id DESC LIMIT 1")
    assert last == [("greedy", made)]
    assert installation.reasons()[-1]["policy"] == "greedy"


def test_many_threads_share_one_scheduler(installation: Any) -> None:
    live = LiveScheduler(installation.store)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: live.ask(request_key=f"t/{n}").trials, range(24)))
    pairs = [(t.study, t.candidate) for given in answers for t in given]
    assert len(pairs) == len(set(pairs)) == 24
    assert installation.agrees(live, 100)


def test_reasons_are_stored_whole_as_plain_json(installation: Any) -> None:
    ask(installation, LiveScheduler(installation.store), count=3)
    for reasons in installation.reasons():
        assert json.loads(json.dumps(reasons)) == reasons
        assert {"mean", "std", "predicted_cost_seconds", "acquisition", "policy", "sentence", "runner_up"} <= set(
            reasons
        )
        assert 0 <= reasons["mean"] <= 1
        assert reasons["predicted_cost_seconds"] > 0

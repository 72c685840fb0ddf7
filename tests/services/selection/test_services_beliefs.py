"""What is believed of a study's candidates is what a decision goes by: its first is what is suggested next."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.entities import TrialState
from easeml_core.errors import NumericalError
from easeml_core.selection.policies.default import DefaultScheduler
from easeml_core.selection.surrogate.logit_normal import band, chance_above, density, moments
from easeml_core.services.registration.register import pause_study
from easeml_core.services.selection import beliefs as module
from easeml_core.services.selection.beliefs import Watch, beliefs, stopping_prices
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.limits import set_study, set_tenant
from easeml_core.settings.config import POLICIES
from easeml_core.store.database import lock
from easeml_core.store.rows import scalar


def suggest(installation: Any, **asked: Any) -> Any:
    """The next trial, handed out."""
    found = suggest_trials(installation.store, count=1, request_key=next(installation.keys), **asked).trials
    return found[0] if found else None


def all_beliefs(installation: Any, watch: Watch) -> dict[str, Any]:
    names = [name for (name,) in installation.sql("SELECT name FROM work.studies ORDER BY id")]
    return {name: answer for name in names if (answer := watch.of(name)) is not None}


def test_the_first_of_the_ranking_is_what_is_suggested_next_until_nothing_is_left(installation: Any) -> None:
    watch, seen = Watch(installation.store), set()
    for _ in range(60):
        answer = all_beliefs(installation, watch)
        firsts = [(name, t.next.candidate) for name, t in answer.items() if t.chosen_by is not None]
        trial = suggest(installation)
        if trial is None:
            assert firsts == []
            assert all(t.next is None and t.competing == 0 for t in answer.values())
            break
        assert firsts == [(trial.study, trial.candidate)]
        expected, chosen_by = answer[trial.study].next, answer[trial.study].chosen_by
        (reasons,) = installation.sql("SELECT reasons FROM work.suggestions WHERE trial_id = :id", id=trial.trial_id)[0]
        for name in ("mean", "std", "predicted_cost_seconds", "expected_improvement", "acquisition"):
            assert getattr(expected, name) == reasons[name], name
        assert answer[trial.study].best == reasons["best"]
        seen.add(chosen_by)
        installation.end(
            trial, TrialState.FAILED if len(seen) > 1 and trial.candidate == "zero" else TrialState.SUCCEEDED
        )
    else:
        pytest.fail("it never came to an end")
    assert {"acquisition", "learning"} <= seen


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "default"])
def test_so_it_is_under_every_policy(installation: Any, policy: str) -> None:
    set_policy(installation.owner, changes={"policy": policy}, reason="to see")
    watch = Watch(installation.store)
    for _ in range(4):
        answer = all_beliefs(installation, watch)
        firsts = [(name, t.next.candidate) for name, t in answer.items() if t.chosen_by is not None]
        trial = suggest(installation)
        assert firsts == [(trial.study, trial.candidate)]
        assert {t.policy for t in answer.values()} == {policy}
        assert all(t.position in (None, 1) for t in answer.values())
        installation.end(trial)


def test_positions_over_all_studies_are_each_study_s_best_against_everybody_s_candidates(installation: Any) -> None:
    set_policy(installation.owner, changes={"guard": 0.0, "cold_start": False}, reason="so that worth alone decides")
    answer = all_beliefs(installation, Watch(installation.store))
    worth = [e.acquisition for t in answer.values() for e in t.candidates if e.acquisition is not None]
    for t in answer.values():
        assert t.position == 1 + sum(w > t.next.acquisition for w in worth)
        assert t.competing == len(worth)
        ranks = [e.rank for e in t.candidates if e.rank is not None]
        assert ranks == list(range(1, len(ranks) + 1))
    assert sorted(t.position for t in answer.values())[0] == 1
    last = max(answer, key=lambda name: answer[name].position)
    set_study(installation.store, study=last, priority=1)
    assert Watch(installation.store).of(last).position == 1


def test_what_runs_has_no_rank_and_a_limit_takes_all_of_them(installation: Any) -> None:
    trial = suggest(installation)
    watch = Watch(installation.store)
    answer = watch.of(trial.study)
    assert [e.rank for e in answer.candidates if e.candidate == trial.candidate] == [None]
    assert answer.next is not None
    set_study(installation.store, study=trial.study, target_quality=1e-9)
    assert watch.of(trial.study).next is None or answer.best == 0.0
    pause_study(installation.store, study=trial.study, paused=True)
    assert watch.of(trial.study) is None
    assert watch.of("nothing") is None


def test_a_look_waits_for_no_decision_and_keeps_none_waiting(installation: Any) -> None:
    with installation.store.begin() as tx:
        lock(tx, "suggest")
        assert beliefs(installation.store, study="h-1") is not None
    assert installation.sql("SELECT count(*) FROM work.suggestion_batches") == [(0,)]


def test_everything_is_loaded_once_and_then_caught_up_with(installation: Any, loads: list[int]) -> None:
    watch = Watch(installation.store)
    for _ in range(5):
        trial = suggest(installation)
        installation.end(trial)
        before = len(loads)
        mine, fresh = watch.of(trial.study), Watch(installation.store).of(trial.study)
        assert (mine.candidates, mine.chosen_by, mine.position) == (fresh.candidates, fresh.chosen_by, fresh.position)
    assert len(loads) == before + 1  # the fresh one alone


def test_nothing_is_computed_anew_while_nothing_changes(installation: Any) -> None:
    watch = Watch(installation.store)
    trial = suggest(installation)
    first = watch.of(trial.study)
    assert watch.of(trial.study) is first
    installation.end(trial)
    second = watch.of(trial.study)
    assert second is not first
    assert watch.of(trial.study) is second
    set_study(installation.store, study=trial.study, deadline="2199-01-01T00:00")
    assert watch.of(trial.study) is not watch.of(trial.study), "with a deadline the time alone changes answers"


def test_a_look_from_an_older_moment_takes_nothing_back(installation: Any, loads: list[int]) -> None:
    watch = Watch(installation.store)
    with installation.store.snapshot() as older:
        scalar(older, "SELECT count(*) FROM work.trials")  # the snapshot is taken here
        trial = suggest(installation)
        newer = watch.of(trial.study)
        before = len(loads)
        assert watch.of(trial.study, older) is newer
    assert watch.of(trial.study) is newer
    assert len(loads) == before


@pytest.mark.parametrize("work", ["refit", "load"])
def test_who_has_an_answer_keeps_it_while_the_model_is_learnt_anew(
    installation: Any, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_SECONDS", 0.0)  # everything takes long
    monkeypatch.setattr(module, "REST", 0.0)
    watch, trial = Watch(installation.store), suggest(installation)
    first = watch.of(trial.study)
    begun, may_end = threading.Event(), threading.Event()
    learn = DefaultScheduler.refit

    def held(scheduler: Any) -> None:
        if scheduler.needs_refit:
            begun.set()
            assert may_end.wait(60)
        learn(scheduler)

    monkeypatch.setattr(DefaultScheduler, "refit", held)
    installation.end(trial)  # the first result: what is learnt is learnt anew
    if work == "load":
        set_policy(installation.owner, changes={"guard": 0.5}, reason="so that everything is loaded")
    assert watch.of(trial.study) is first
    assert begun.wait(60)
    assert watch.of(trial.study) is first
    may_end.set()
    for _ in range(600):
        if (answer := watch.of(trial.study)) is not first:
            break
        time.sleep(0.1)
    fresh = Watch(installation.store).of(trial.study)
    assert answer is not None
    assert fresh is not None
    assert answer.candidates == fresh.candidates


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_not_started_again_by_each_look(
    installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is looked at all the time, and each try may take a processor for minutes."""
    tries: list[int] = []

    def broken(_: Any) -> None:
        tries.append(1)
        message = "the prior is no covariance"
        raise NumericalError(message)

    watch, trial = Watch(installation.store), suggest(installation)
    first = watch.of(trial.study)
    watch._took, watch._rests_until = 2.0, 0.0  # as a large installation's
    monkeypatch.setattr(DefaultScheduler, "refit", broken)
    installation.end(trial)
    for _ in range(5):
        assert watch.of(trial.study) is first
        with watch._mutex:  # the thread has ended
            pass
    assert len(tries) == 1


def test_a_machine_without_a_thread_to_spare_is_said_and_the_next_look_tries_again(
    installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, trial = Watch(installation.store), suggest(installation)
    first = watch.of(trial.study)
    watch._took, watch._rests_until = 2.0, 0.0  # as a large installation's: a thread learns anew
    installation.end(trial)

    def refuse(_: Any) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="new thread"):
                watch.of(trial.study)
    assert watch.of(trial.study) is first
    with watch._mutex:  # the thread has ended
        pass
    assert watch.of(trial.study) is not first


@settings(deadline=None)
@given(st.floats(-6, 6), st.floats(0.02, 2.5))
def test_the_band_holds_80_percent_of_a_logit_normal_quality(mu: float, s: float) -> None:
    mean, std = moments(mu, s)
    low, high = band(mean, std)
    assert 0 <= low < high <= 1
    quality = 1 / (1 + np.exp(-(mu + s * np.random.default_rng(5).standard_normal(20_000))))
    assert ((quality > low) & (quality < high)).mean() == pytest.approx(0.8, abs=0.01)
    assert chance_above(float(np.quantile(quality, 0.7)), mean, std) == pytest.approx(0.3, abs=0.01)
    curve = density(mean, std)
    assert max(height for _, height in curve) == 1
    assert all(0 < place < 1 and 0 <= height <= 1 for place, height in curve)


def test_a_high_quality_that_is_very_uncertain_has_its_own_band() -> None:
    mean, std = moments(5.25, 1.5)  # 0.985 with 0.031: a normal variable would reach above 1
    low, high = band(mean, std)
    assert (low, high) == pytest.approx(
        (1 / (1 + np.exp(-5.25 + 1.5 * 1.28155)), 1 / (1 + np.exp(-5.25 - 1.5 * 1.28155)))
    )
    assert chance_above(0.99, mean, std) == pytest.approx(0.669, abs=0.001)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.0), (1.2, 0.1), (-0.1, 0.2), (0.5, 0.9)])
def test_where_there_is_no_such_variable_a_normal_one_stands_in(mean: float, std: float) -> None:
    low, high = band(mean, std)
    assert low <= high
    assert 0 <= chance_above(0.9, mean, std) <= 1
    assert bool(density(mean, std)) == (std > 0)


def go_on(installation: Any) -> set[str]:
    """Studies of which anything may run by what a new watch sees."""
    return {
        name for name, answer in all_beliefs(installation, Watch(installation.store)).items() if answer.next is not None
    }


def test_a_study_goes_on_up_to_its_price_and_stops_above_it(installation: Any) -> None:
    for _ in range(6):
        installation.end(suggest(installation))
    answer = stopping_prices(installation.store)
    assert (answer.price_per_hour, answer.is_heeded, answer.costs_known) == (0.0, True, True)
    limits = {entry.study: entry.stops_above for entry in answer.studies}
    assert set(limits) == go_on(installation)
    assert len(limits) > 1
    assert list(limits.values()) == sorted(limits.values(), reverse=True)
    assert sum(entry.seconds_day for entry in answer.studies) > 0
    for limit in sorted(limits.values()):
        for factor in (1 - 1e-9, 1 + 1e-9):
            price = factor * limit / 3600
            set_policy(installation.owner, changes={"price_per_second": price}, reason="to see")
            assert go_on(installation) == {name for name, most in limits.items() if most >= factor * limit}
            seen = stopping_prices(installation.store)  # what a study stops at is the same at every price
            assert {e.study: e.stops_above for e in seen.studies} == limits
            assert seen.price_per_hour == pytest.approx(factor * limit)
    (some, *_), names = limits, list(limits)
    only = stopping_prices(installation.store, studies=[some])
    assert [entry.study for entry in only.studies] == [some]
    assert stopping_prices(installation.store, studies=[]).studies == ()
    pause_study(installation.store, study=names[0], paused=True)
    assert names[0] not in [entry.study for entry in stopping_prices(installation.store).studies]


def test_a_policy_that_asks_for_no_price_stops_nobody(installation: Any) -> None:
    set_policy(installation.owner, changes={"policy": "roundrobin", "price_per_second": 1e9}, reason="to see")
    answer = stopping_prices(installation.store)
    assert not answer.is_heeded
    assert {entry.study for entry in answer.studies} == go_on(installation)
    assert {entry.stops_above for entry in answer.studies} == {math.inf}


def test_a_study_goes_on_where_it_pays_on_one_kind_of_device(installation: Any) -> None:
    """Costs differ by the kind of the free device, and a decision asks with it."""
    for number in range(9):
        kind = "gpu" if number % 3 else "cpu"
        installation.end(suggest(installation, device=kind), pace=1.0 if kind == "cpu" else 0.05)
    answer = stopping_prices(installation.store).studies
    price = sorted(entry.stops_above for entry in answer)[len(answer) // 2]
    set_policy(installation.owner, changes={"price_per_second": price / 3600}, reason="to see")
    served = {trial.study for trial in iter(lambda: suggest(installation, device="gpu"), None)}
    assert served
    assert served <= {entry.study for entry in answer if entry.stops_above >= price}


def test_a_study_that_only_waits_for_its_own_trial_has_not_stopped(installation: Any) -> None:
    for _ in range(6):
        installation.end(suggest(installation))
    for (tenant,) in installation.sql("SELECT name FROM work.tenants"):
        set_tenant(installation.store, tenant=tenant, max_parallel=1)
    running = suggest(installation).study
    assert running in {entry.study for entry in stopping_prices(installation.store).studies}

"""The guard: who is owed what, by hand, and the bound of its docstring against the worst schedulers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.selection.policies.default_choice import Guard

ALL = np.array([True, True])


def guard_of(share, *weights):
    return Guard(share, np.array(weights, dtype=np.float64))


def test_by_hand():
    """g = .2, two tenants: of 100 seconds each is entitled to 10; the second has had nothing."""
    guard = guard_of(0.2, 1, 1)
    assert guard.owed(ALL, np.array([1.0, 1.0])) is None
    guard.start(0, 0, 100.0)
    assert guard.owed(ALL, np.array([1.0, 9.9])) == 1
    assert guard.owed(ALL, np.array([1.0, 10.0])) is None
    guard.start(1, 0, 9.0)  # entitled to 10.9, charged 9
    assert guard.owed(ALL, np.array([1.0, 1.8])) == 1
    assert guard.owed(ALL, np.array([1.0, 2.0])) is None


def test_a_finished_trial_counts_with_what_it_took():
    """Predicted 100, took 40: entitled to 4 each."""
    guard = guard_of(0.2, 1, 1)
    guard.start(0, 0, 100.0)
    guard.finish(0, 0, 40.0)
    assert guard.owed(ALL, np.array([1.0, 3.9])) == 1
    assert guard.owed(ALL, np.array([1.0, 4.1])) is None
    assert guard.charged.tolist() == [40.0, 0.0]


def test_a_trial_that_was_never_announced_counts_too():
    guard = guard_of(0.2, 1, 1)
    guard.finish(0, 0, 40.0)
    assert guard.owed(ALL, np.array([1.0, 3.9])) == 1


def test_weights_share_the_entitlement():
    """Weights 1, 1, 2 of 400 seconds at g = .1: 10, 10 and 20; the furthest ahead of its next trial is served."""
    guard = guard_of(0.1, 1, 1, 2)
    guard.finish(0, 0, 400.0)
    everybody = np.ones(3, dtype=bool)
    assert guard.owed(everybody, np.array([1.0, 5.0, 5.0])) == 2
    assert guard.owed(everybody, np.array([1.0, 5.0, 19.0])) == 1
    assert guard.owed(everybody, np.array([1.0, 10.1, 20.1])) is None


def test_who_does_not_wait_is_not_served():
    guard = guard_of(0.2, 1, 1)
    guard.finish(0, 0, 100.0)
    assert guard.owed(np.array([True, False]), np.ones(2)) is None


def test_without_a_share_nobody_is_owed_anything():
    guard = guard_of(0.0, 1, 1)
    guard.finish(0, 0, 1e9)
    assert guard.owed(ALL, np.full(2, 1e-9)) is None


def test_a_finished_tenant_leaves_its_share_to_the_others():
    """Of the first 100 seconds each of three gets a third of g; once one is finished, a half of the next 100."""
    guard = guard_of(0.3, 1, 1, 1)
    guard.finish(0, 0, 100.0)
    guard.retire(0)
    guard.retire(0)
    guard.finish(1, 0, 100.0)
    waiting = np.array([False, False, True])
    assert guard.owed(waiting, np.full(3, 24.9)) == 2
    assert guard.owed(waiting, np.full(3, 25.1)) is None


def test_the_last_tenant_may_retire_too():
    guard = guard_of(0.3, 1, 1)
    guard.retire(0)
    guard.retire(1)
    guard.finish(0, 0, 1.0)
    assert guard.owed(np.zeros(2, dtype=bool), np.ones(2)) is None


def test_charging_anew_replaces_the_charge():
    guard = guard_of(0.2, 1, 1)
    guard.start(0, 0, 100.0)
    guard.start(0, 0, 50.0)
    assert guard.under_way(0) == [0]
    assert guard.under_way(1) == []
    assert guard.owed(ALL, np.array([1.0, 4.9])) == 1
    assert guard.owed(ALL, np.array([1.0, 5.1])) is None


def starve(rng, *, tenants, share, devices, steps, changes, favourites):
    """Decisions of a scheduler that serves only its favourites, with random costs; how far each was behind, each time.

    Kept apart from the guard's own books: entitlements are added up from the starts.

    Yields:
        How far each tenant is behind g times its equal share, and the cost of the trial that it waits for.
    """
    guard, behind = guard_of(share, *np.ones(tenants)), np.zeros(tenants)

    def draw():
        return float(rng.choice([0.01, 0.3, 1.0]) * (1 if rng.uniform() < 0.5 else rng.uniform(0.5, 1)))

    next_cost = np.array([draw() for _ in range(tenants)])
    running = []
    for step in range(steps):
        if len(running) == devices:
            i, arm, cost = running.pop(int(rng.integers(devices)))
            guard.finish(i, arm, cost)
            if changes:
                next_cost[i] = draw()
        yield behind, next_cost
        owed = guard.owed(np.ones(tenants, dtype=bool), next_cost)
        served = owed if owed is not None else int(rng.integers(favourites))
        cost = next_cost[served]
        guard.start(served, step, cost)
        running.append((served, step, cost))
        behind += share * cost / tenants
        behind[served] -= cost
        next_cost[served] = draw()


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 8),
    st.sampled_from((0.02, 0.1, 0.3, 0.6, 0.9)),
    st.integers(1, 6),
    st.integers(1, 8),
)
@example(0, 8, 0.9, 1, 1)
def test_nobody_falls_further_behind_than_the_bound(seed, tenants, share, devices, favourites):
    """Longest trial 1; on one device against the trial that is waited for, on several against the longest."""
    rng, favourites = np.random.default_rng(seed), min(favourites, tenants)
    slack = (1 + 1 / tenants) * share / (1 - share)
    alone = devices == 1
    run = starve(
        rng, tenants=tenants, share=share, devices=devices, steps=400, changes=not alone, favourites=favourites
    )
    for behind, next_cost in run:
        assert (behind <= (next_cost if alone else 1.0) + slack + 1e-9).all()


def test_the_bound_is_not_idle():
    """The worst of some random runs uses most of it, and without the guard it is broken at once."""
    worst, rng = 0.0, np.random.default_rng(1)
    for _ in range(60):
        slack = (1 + 1 / 8) * 0.5
        for behind, next_cost in starve(rng, tenants=8, share=1 / 3, devices=1, steps=150, changes=False, favourites=1):
            worst = max(worst, float((behind - next_cost).max()) / slack)
    assert worst > 0.3


def test_a_rate_below_all_that_is_due_owes_no_trial():
    """By the least rate that is due: never wrong, also at the very rate, and no slower answer where it is far off."""
    rng, answers = np.random.default_rng(5), Counter()
    guard, next_cost, weights = guard_of(0.3, *rng.lognormal(size=6)), rng.lognormal(size=6), np.ones(6, dtype=bool)
    for arm in range(400):
        tenant = int(rng.integers(6))
        guard.start(tenant, arm, float(rng.lognormal()))
        if arm % 3:
            guard.finish(tenant, arm, float(rng.lognormal()))
        owed, least = guard.owed(weights, next_cost), min(map(guard.due, range(6), next_cost))
        answers[owed is None, guard.owes_nothing(least)] += 1
        assert not guard.owes_nothing(guard._rate_now())
        next_cost[tenant] = rng.lognormal()
    assert answers[False, True] == answers[True, False] == 0
    assert min(answers[True, True], answers[False, False]) > 20


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_in_the_long_run_everybody_gets_its_floor(share):
    """2000 trials for one favourite of five: every other tenant has g times its equal share, up to the bound."""
    rng, total = np.random.default_rng(7), 0.0
    for behind, _ in starve(rng, tenants=5, share=share, devices=1, steps=2000, changes=False, favourites=1):
        total = float(behind.max())
    assert total <= 1 + 1.2 * share / (1 - share)
    assert behind.min() < -100  # while the favourite is far ahead


def test_a_newcomer_is_owed_nothing_of_what_was_spent_before_it_came():
    """Alone the first is entitled to all of g; of the 100 seconds after the second came each is entitled to 10."""
    guard = Guard(0.2, np.ones(2), joined=[0, 2])
    guard.finish(0, 0, 1000.0)
    guard.finish(0, 1, 1000.0)
    assert guard.owed(ALL, np.array([1.0, 0.01])) is None
    guard.finish(0, 2, 100.0)
    assert guard.owed(ALL, np.array([1e9, 9.9])) == 1
    assert guard.owed(ALL, np.array([1e9, 10.1])) is None


def test_who_comes_back_is_not_charged_with_what_it_had_before():
    guard = Guard(0.2, np.ones(2), joined=[0, 1])
    guard.finish(1, 0, 500.0)
    guard.finish(0, 0, 100.0)
    assert guard.charged.tolist() == [100.0, 0.0]
    assert guard.owed(ALL, np.array([1e9, 9.9])) == 1

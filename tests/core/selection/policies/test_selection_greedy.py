"""GREEDY and HYBRID: the candidate set, the empirical confidence bound, the freeze."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from closed_form import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.selection.policies.acquisition import Freeze, beta_multi_tenant, candidate_set
from easeml_core.selection.policies.published import choose
from easeml_core.selection.surrogate.posterior import Belief, Posterior
from easeml_core.settings.config import SelectionConfig


def play(standings, qualities, policy, *, rounds=10**6):
    """Run a policy on true qualities; yield (tenant, arm) after each run."""
    for _ in range(rounds):
        choice = choose(standings, policy)
        if choice is None:
            return
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        standings.record(tenant, arm, float(qualities[tenant, arm]), float(standings.tenants[tenant].costs[arm]))
        yield tenant, arm


def test_candidate_set_by_hand():
    """Average 0.25: only 0.5 is at least that; a tenant exactly at the average belongs to V."""
    assert candidate_set(np.array([0.5, 0.125, 0.125])).tolist() == [True, False, False]
    assert candidate_set(np.array([0.5, 0.25, 0.0])).tolist() == [True, True, False]


@settings(deadline=None, max_examples=examples(300))
@given(st.lists(st.floats(-1, 10), min_size=1, max_size=30))
def test_candidate_set_is_never_empty(confidence):
    assert candidate_set(np.array(confidence)).any()


def test_candidate_set_of_equal_tenants_is_everybody():
    """The rounded average of three times 0.1 is above 0.1."""
    assert np.full(3, 0.1).mean() > 0.1
    assert candidate_set(np.full(3, 0.1)).all()


def bounds_by_hand(standing, qualities, seen, largest):
    """B(k) of the next run from the closed form, with n = 3, K* = 5, delta = 0.1; -inf where the arm has run."""
    belief = closed_form(standing.posterior.prior, seen, qualities[seen], noise_variance=1e-4)
    beta = beta_multi_tenant(tenants=3, arms=5, run=len(seen) + 1, delta=0.1, max_cost=largest)
    bounds = belief.mean + np.sqrt(beta / standing.costs) * belief.std
    bounds[seen] = -np.inf
    return bounds


@pytest.mark.parametrize("seed", range(5))
def test_greedy_by_hand(make_standings, seed):
    """The paper's loop, written down once more with its own recurrence and the closed-form posterior.

    sigma~_s = min(B_s(a_s), y_{s-1} + sigma~_{s-1}) - y_s with B from *before* the observation (and never below the
    best so far, since run arms are dropped); V from the average of sigma~; in V the largest gap.
    """
    standings = make_standings(tenants=3, arms=5, seed=seed)
    qualities = np.random.default_rng(seed).uniform(0.3, 0.9, (3, 5))
    largest = max(t.costs.max() for t in standings.tenants)
    seen, sigma = {i: [] for i in range(3)}, {}
    for t in range(15):
        bounds = {i: bounds_by_hand(standings.tenants[i], qualities[i], seen[i], largest) for i in range(3)}
        best = {i: max(qualities[i, seen[i]], default=0.0) for i in range(3)}
        active = [i for i in range(3) if len(seen[i]) < 5]
        average = np.mean([sigma[i] for i in active]) if t >= 3 else None
        worth_serving = [t] if t < 3 else [i for i in active if sigma[i] >= average - 1e-9]
        tenant = max(worth_serving, key=lambda i: bounds[i].max() - best[i])
        arm = int(bounds[tenant].argmax())

        chosen = choose(standings, "greedy").chosen
        assert (chosen.tenant, chosen.arm) == (tenant, arm)
        assert chosen.acquisition == pytest.approx(bounds[tenant][arm], abs=1e-8)

        standings.record(tenant, arm, float(qualities[tenant, arm]), float(standings.tenants[tenant].costs[arm]))
        bound = max(bounds[tenant][arm], best[tenant])
        if seen[tenant]:
            bound = min(bound, qualities[tenant, seen[tenant][-1]] + sigma[tenant])
        sigma[tenant] = bound - qualities[tenant, arm]
        seen[tenant].append(arm)
        assert standings.tenants[tenant].confidence(standings.beta) == pytest.approx(sigma[tenant], abs=1e-8)


def test_the_bound_respects_runs_already_made(make_standings):
    """Arm 0 gave 0.9; the bound of arm 1 alone, about 0.2, says nothing about the optimum, which is still 0.9."""
    standings = make_standings(tenants=1, arms=2)
    standings.tenants[0].posterior = Posterior(Belief(np.array([0.9, 0.2]), 1e-8 * np.eye(2)), noise_variance=1e-10)
    for arm, quality in ((0, 0.9), (1, 0.2)):
        standings.record(0, arm, quality, 1.0)
    assert standings.tenants[0].confidence(standings.beta) >= 0.9 - 0.2


@pytest.mark.parametrize("seed", range(20))
def test_confidence_bounds_the_regret(make_standings, seed):
    """sigma~ >= f* - y for all tenants in all rounds, noise-free, theoretical beta.

    False-alarm chance: at most delta = 1e-9 for each of 20 seeds.
    """
    config = SelectionConfig(policy="greedy", delta=1e-9, noise_variance=1e-10)
    standings = make_standings(tenants=3, arms=6, config=config, seed=seed)
    rng = np.random.default_rng(1000 + seed)
    priors = [t.posterior.prior for t in standings.tenants]
    draws = np.array([rng.multivariate_normal(p.mean, p.cov / 100) for p in priors])
    qualities = np.clip(draws, 0, 1)
    for tenant, arm in play(standings, qualities, "greedy"):
        regret = qualities[tenant].max() - qualities[tenant, arm]
        assert standings.tenants[tenant].confidence(standings.beta) >= regret - 1e-12


def test_from_best_keeps_the_step_of_the_proof(make_standings):
    """sigma~ >= f* - b, and sigma~ <= 2 sqrt(beta) std, of the run just made; the published form breaks the second.

    Twelve arms on a line, alike when near. Noise-free. False-alarm chance: at most delta = 1e-9 for each of 5 seeds.
    """
    places, last_breaks = np.linspace(0, 1, 12), 0
    line = Belief(np.full(12, 3.0), np.exp(-((places[:, None] - places) ** 2) / 0.08) + 1e-6 * np.eye(12))
    config = SelectionConfig(policy="greedy", delta=1e-9, greedy_from_best=True)
    for seed in range(5):
        standings = make_standings(tenants=3, arms=12, config=config, costs=np.ones((3, 12)))
        for standing in standings.tenants:
            standing.posterior = Posterior(line, noise_variance=1e-9)
        qualities = np.random.default_rng(seed).multivariate_normal(line.mean, line.cov, size=3)
        while (choice := choose(standings, "greedy")) is not None:
            tenant, arm = choice.chosen.tenant, choice.chosen.arm
            standing = standings.tenants[tenant]
            limit = 2 * math.sqrt(standings.beta(standing.runs + 1)) * standing.posterior.std[arm]
            standings.record(tenant, arm, float(qualities[tenant, arm]), 1.0)
            sigma = standing.confidence(standings.beta, from_best=True)
            assert qualities[tenant].max() - standing.best - 1e-9 <= sigma <= limit + 1e-9
            last_breaks += standing.confidence(standings.beta) > limit
    assert last_breaks > 0


def test_from_best_decides_who_is_in_v(make_standings):
    """Best .9 and last .2: seen from its last run the first tenant has most to gain, seen from its best one nothing."""
    members = []
    for from_best in (False, True):
        config = SelectionConfig(policy="greedy", greedy_from_best=from_best)
        standings = make_standings(tenants=2, arms=2, config=config)
        narrow = Belief(np.array([0.9, 0.5]), 1e-8 * np.eye(2))
        for standing in standings.tenants:
            standing.posterior = Posterior(narrow, noise_variance=1e-10)
        for tenant, arm, quality in ((0, 0, 0.9), (0, 1, 0.2), (1, 1, 0.5)):
            standings.record(tenant, arm, quality, 1.0)
        members.append(standings.candidate_set([0, 1]).tolist())
    assert members == [[0], [1]]


def test_tightest_bound_never_rises_and_confidence_is_never_negative(make_standings):
    config = SelectionConfig(policy="greedy", beta_multiplier=0.01)
    standings = make_standings(tenants=2, arms=5, config=config)
    tightest = [math.inf, math.inf]
    for tenant, _ in play(standings, np.random.default_rng(4).uniform(0, 1, (2, 5)), "greedy"):
        standing = standings.tenants[tenant]
        assert standing.tightest <= tightest[tenant]
        assert standing.tightest >= 0
        tightest[tenant] = standing.tightest


def test_finished_tenants_do_not_count_in_the_average(make_standings):
    """Tenant 0 finishes early with a huge bound; without it V is one of the others, with it V would be empty."""
    standings = make_standings(tenants=3, arms=2, costs=np.ones((3, 2)), config=SelectionConfig(policy="hybrid"))
    standings.record(1, 0, 0.5, 1.0)
    standings.record(2, 0, 0.6, 1.0)
    assert standings.freeze.members is None
    for arm in (0, 1):
        standings.record(0, arm, 0.0, 1.0)
    assert standings.freeze.members <= {1, 2}
    assert standings.freeze.members
    assert standings.eligible().tolist() == [1, 2]
    assert set(standings.candidate_set(standings.eligible())) <= {1, 2}
    assert choose(standings, "greedy").chosen.tenant in (1, 2)


def test_failed_runs_leave_the_posterior_alone(make_standings):
    standings = make_standings(tenants=1, arms=3)
    standing = standings.tenants[0]
    mean = standing.posterior.mean.copy()
    standings.record(0, 1, None, 5.0)
    np.testing.assert_array_equal(standing.posterior.mean, mean)
    assert (standing.runs, standing.observations, standing.spent, standing.best) == (1, 0, 5.0, 0.0)
    assert standings.left(0).tolist() == [True, False, True]
    assert math.isfinite(standing.confidence(standings.beta))


def test_beta_counts_the_tenants_own_runs(make_standings):
    standings = make_standings(tenants=2, arms=3)
    first = standings.tenants[1].bounds(standings.beta)
    standings.record(0, 0, 0.5, 1.0)
    np.testing.assert_array_equal(standings.tenants[1].bounds(standings.beta), first)


def test_one_largest_cost_for_all_tenants(make_standings):
    standings = make_standings(tenants=2, arms=2, costs=np.array([[1.0, 2.0], [3.0, 50.0]]))
    assert (standings.beta.max_cost, standings.beta.tenants, standings.beta.arms) == (50.0, 2, 2)


def test_freeze_after_patience_rounds_without_change():
    freeze, members = Freeze(patience=3), frozenset({1, 2})
    freeze = freeze.after(members, improved=True)
    for expected in (False, False, True):
        freeze = freeze.after(members, improved=False)
        assert freeze.frozen is expected


@pytest.mark.parametrize(("members", "improved"), [(frozenset({1}), False), (frozenset({1, 2}), True), (None, False)])
def test_freeze_starts_again_after_a_change(members, improved):
    freeze = Freeze(patience=2, members=frozenset({1, 2}), rounds=1)
    assert freeze.after(frozenset({1, 2}), improved=False).frozen
    changed = freeze.after(members, improved=improved)
    assert (changed.rounds, changed.frozen) == (0, False)


def test_once_frozen_always_frozen():
    freeze = Freeze(patience=1, members=frozenset({1}), frozen=True)
    assert freeze.after(frozenset({2}), improved=True).frozen


def stuck(standings, policy):
    """Tenant 0 never improves and its bound stays the largest; tenants 1 and 2 are good at once."""
    qualities = np.full((3, 40), 0.9)
    qualities[0] = 0.1
    return [tenant for tenant, _ in play(standings, qualities, policy, rounds=30)]


def test_hybrid_turns_to_round_robin_and_greedy_never_does(make_standings):
    """With beta nearly 0 GREEDY serves whom its wrong bounds point at; after 10 rounds HYBRID goes round."""
    costs = np.ones((3, 40))
    served = {}
    for policy in ("greedy", "hybrid"):
        config = SelectionConfig(policy=policy, beta_multiplier=1e-6)
        standings = make_standings(tenants=3, arms=40, config=config, costs=costs)
        served[policy] = stuck(standings, policy)
        assert standings.freeze.frozen is (policy == "hybrid")
    frozen_from = next(t for t in range(30) if served["hybrid"][t] != served["greedy"][t])
    assert 3 + 10 <= frozen_from <= 3 + 12
    rest = served["hybrid"][frozen_from:]
    assert all((b - a) % 3 == 1 for a, b in itertools.pairwise(rest))

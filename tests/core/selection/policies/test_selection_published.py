"""The published scheduler: the same after a restart, the closed form behind its caches, learnt costs, shared trials."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from closed_form import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import at_night, examples

from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.costs.learn import learn_costs
from easeml_core.selection.policies.acquisition import beta_multi_tenant, expected_improvement
from easeml_core.selection.policies.published import PUBLISHED_POLICIES, PublishedScheduler, choose
from easeml_core.selection.policies.standings import ACQUISITIONS, MARGIN
from easeml_core.selection.problem import Arms, Past, Problem, Pull
from easeml_core.selection.scheduler_interface import next_refit
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.selection.surrogate.prior import learn_prior
from easeml_core.settings.config import PUBLISHED, SelectionConfig

NAMES = ("bayes", "knn", "tree", "forest", "boosting")
CONFIG = {"order": ("boosting", "tree", "no such candidate"), "freeze_rounds": 1, "beta_multiplier": 0.05}


def world(seed, *, tenants=3, past=4):
    """A problem without trials, the qualities and costs that its trials will have."""
    rng = np.random.default_rng(seed)
    history = tuple(
        Past(100 + j, NAMES, tuple(rng.uniform(0.4, 0.9, 5)), tuple(rng.lognormal(size=5))) for j in range(past)
    )
    problem = Problem(tuple(Arms(10 * i, 1.0 + i, NAMES) for i in range(tenants)), history=history)
    return problem, rng.uniform(0.4, 0.9, (tenants, 5)), rng.lognormal(size=(tenants, 5))


def scheduler_of(problem, costs=None, **settings_):
    known = None if costs is None else {arms.study_id: costs[i] for i, arms in enumerate(problem.studies)}
    return PublishedScheduler(problem, config=SelectionConfig(**(CONFIG | settings_)), known_costs=known)


def pairs(scheduler, *, count=100, quality=None, cost=None):
    """The next choices, each finished before the next is asked for."""
    chosen = []
    while len(chosen) < count and (choice := scheduler.choose(seed=(3,))):
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        chosen.append(choice)
        scheduler.start(tenant, arm)
        scheduler.record(tenant, arm, 0.5 if quality is None else float(quality[tenant, arm]), 1.0)
    return chosen


def schedule(scheduler, **keywords):
    return [(choice.chosen.tenant, choice.chosen.arm) for choice in pairs(scheduler, **keywords)]


def test_every_published_policy_has_its_rule():
    assert {"gp-ei-random", "gp-ei-roundrobin", *PUBLISHED} <= set(PUBLISHED_POLICIES)


@settings(deadline=None, max_examples=examples(120))
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(("hybrid", "random")) | st.sampled_from(PUBLISHED),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=20),
)
def test_a_rebuilt_scheduler_goes_on_alike(seed, policy, learns, steps):
    """Devices that finish in any order, failures; then all further decisions, with every figure, bit for bit."""
    problem, quality, cost = world(seed)
    scheduler = scheduler_of(problem, None if learns else cost, policy=policy)
    running, finished = [], []
    for wish, which, fails in steps:
        if wish == 0 and running:
            i, k = running.pop(which % len(running))
            result = (i, k, None if fails else float(quality[i, k]), float(cost[i, k]))
            finished.append(result)
            scheduler.record(*result)
        elif choice := scheduler.choose(seed=(3,)):
            running.append((choice.chosen.tenant, choice.chosen.arm))
            scheduler.start(*running[-1])
    again = scheduler_of(problem, None if learns else cost, policy=policy)
    for result in finished:
        again.record(*result)
    for trial in running:
        again.start(*trial)
    one, two = scheduler.state, again.state
    assert (one.last_served, one.given, one.freeze) == (two.last_served, two.given, two.freeze)
    assert pairs(scheduler, quality=quality) == pairs(again, quality=quality)


@pytest.mark.parametrize("policy", [*PUBLISHED, "gp-ei-random"])
@pytest.mark.parametrize("seed", [0, at_night(1), at_night(2)])
def test_what_is_kept_between_decisions_is_what_the_closed_form_gives(make_standings, policy, seed):
    """In every round, for every tenant: bounds, rates, and the two best arms of each, from scratch."""
    config = SelectionConfig(policy="mm-gp-ei" if policy == "gp-ei-random" else policy, delta=0.1)
    standings = make_standings(tenants=3, arms=6, seed=seed, config=config)
    quality, seen = np.random.default_rng(seed).uniform(0.3, 0.9, (3, 6)), {i: [] for i in range(3)}
    largest = max(t.costs.max() for t in standings.tenants)
    while choice := choose(standings, policy, seed=(standings.given,)):
        for i, standing in enumerate(standings.tenants):
            belief = closed_form(standing.posterior.prior, seen[i], quality[i, seen[i]], noise_variance=1e-4)
            best = max(quality[i, seen[i]], default=0.0)
            beta = beta_multi_tenant(tenants=3, arms=6, run=len(seen[i]) + 1, delta=0.1, max_cost=largest)
            expected = {
                "upper-bound": belief.mean + np.sqrt(beta / standing.costs) * belief.std,
                "ei-rate": expected_improvement(belief.mean, belief.std, best=best) / standing.costs,
                "ei-per-second": expected_improvement(belief.mean, belief.std, best=best + MARGIN) / standing.costs,
                "cheapness": -standing.costs,
                "order": -np.arange(6.0),
            }
            assert expected.keys() == ACQUISITIONS.keys()
            left = [k for k in range(6) if k not in seen[i]]
            for name, values in expected.items():
                two = sorted(left, key=lambda k, values=values: -values[k])[:2]
                ranking = standings.ranking(name)
                assert [k for k in ranking.arms[i] if k >= 0] == two
                np.testing.assert_allclose(ranking.values[i, : len(two)], values[two], rtol=1e-6, atol=1e-12)
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        standings.record(tenant, arm, float(quality[tenant, arm]), 1.0)
        seen[tenant].append(arm)


def test_the_forecast_by_hand():
    problem, quality, cost = world(2)
    scheduler = scheduler_of(problem, cost, policy="hybrid")
    scheduler.record(1, 2, float(quality[1, 2]), 1.0)
    prior = learn_prior(NAMES, problem.history, pseudo_studies=10.0)
    belief = closed_form(prior, [2], [quality[1, 2]], noise_variance=1e-4)
    forecast = scheduler.forecast(1, 4)
    assert forecast.mean == pytest.approx(belief.mean[4])
    assert forecast.std == pytest.approx(belief.std[4])
    assert (forecast.predicted_cost_seconds, forecast.cost_known) == (cost[1, 4], True)
    assert forecast.best == quality[1, 2]
    gain = expected_improvement(belief.mean, belief.std, best=quality[1, 2])[4]
    assert forecast.expected_improvement == pytest.approx(gain, rel=1e-6)


# Costs


def test_costs_are_learnt_anew_at_fixed_numbers_of_results():
    """At every result up to 16, then after an eighth, at most after 25."""
    points = [0]
    while points[-1] < 1000:
        points.append(next_refit(points[-1]))
    assert points[:20] == [*range(17), 18, 20, 22]
    assert max(b - a for a, b in itertools.pairwise(points)) == 25


def test_learnt_costs_are_those_of_the_cost_model():
    problem, quality, cost = world(3, past=0)
    scheduler = scheduler_of(problem, policy="cheapest")
    assert not scheduler.forecast(0, 0).cost_known
    pulls = []
    for i, k in ((0, 3), (0, 1), (1, 3), (2, 0)):
        scheduler.record(i, k, float(quality[i, k]), float(cost[i, k]))
        pulls.append(Pull(10 * i, k, float(quality[i, k]), float(cost[i, k]), order=len(pulls)))
    model = learn_costs(Problem(problem.studies, tuple(pulls)))
    for i in range(3):
        np.testing.assert_array_equal(scheduler.state.tenants[i].costs, model.predict(10 * i, NAMES))
    free = [(i, k) for i in range(3) for k in range(5) if (i, k) not in ((0, 3), (0, 1), (1, 3), (2, 0))]
    chosen = scheduler.choose().chosen
    predicted = {(i, k): model.predict(10 * i, NAMES)[k] for i, k in free}
    assert predicted[chosen.tenant, chosen.arm] == min(predicted.values())


@pytest.mark.parametrize("policy", PUBLISHED)
def test_a_policy_that_ignores_costs_does_as_if_all_were_one(policy):
    problem, quality, cost = world(4)
    blind = schedule(scheduler_of(problem, cost, policy=policy, cost_aware=False), quality=quality)
    assert blind == schedule(scheduler_of(problem, np.ones_like(cost), policy=policy), quality=quality)


def test_the_cost_model_hears_on_which_device_a_trial_ran():
    """From its start, or from its record: the same study is ten times slower on one kind of device."""
    problem, _, _ = world(3, tenants=2, past=0)
    by_start, by_record, untold = (scheduler_of(problem, policy="cheapest") for _ in range(3))
    pulls = []
    for k, device in enumerate(("cpu", "gpu", "cpu", "gpu", "cpu")):
        seconds = 10.0 if device == "cpu" else 1.0
        pulls.append(Pull(0, k, 0.5, seconds, order=k, device=device))
        by_start.start(0, k, device=device)
        by_start.record(0, k, 0.5, seconds)
        by_record.record(0, k, 0.5, seconds, device=device)
        untold.record(0, k, 0.5, seconds)
    with one_thread():
        expected = learn_costs(Problem(problem.studies, tuple(pulls))).predict(10, NAMES)
    for scheduler in (by_start, by_record):
        np.testing.assert_array_equal(scheduler.state.tenants[1].costs, expected)
    assert not np.allclose(untold.state.tenants[1].costs, expected)


def test_results_after_the_last_fit_do_not_change_costs_yet():
    """After 17 results costs are still those of the first 16, also for a scheduler that was not asked in between."""
    problem, quality, cost = world(3, tenants=4, past=0)
    asked, unasked = (scheduler_of(problem, policy="roundrobin") for _ in range(2))
    trials = [(i, k) for k in range(5) for i in range(4)][:17]
    for i, k in trials:
        for scheduler in (asked, unasked):
            scheduler.record(i, k, float(quality[i, k]), float(cost[i, k]))
        asked.choose()
    pulls = [Pull(10 * i, k, float(quality[i, k]), float(cost[i, k]), order=t) for t, (i, k) in enumerate(trials)]
    with one_thread():
        expected, newest = (learn_costs(Problem(problem.studies, tuple(pulls[:n]))).predict(0, NAMES) for n in (16, 17))
    assert not np.array_equal(expected, newest)
    for scheduler in (asked, unasked):
        np.testing.assert_array_equal(scheduler.state.tenants[0].costs, expected)


# Orders


def test_cheapest_first_over_all_pairs():
    problem, quality, cost = world(5)
    order = schedule(scheduler_of(problem, cost, policy="cheapest"), quality=quality)
    assert [cost[pair] for pair in order] == sorted(cost.ravel())


def test_equal_costs_are_spread_over_the_tenants():
    problem, quality, _ = world(5)
    order = schedule(scheduler_of(problem, np.ones((3, 5)), policy="cheapest"), quality=quality)
    assert order == [(i, k) for k in range(5) for i in range(3)]


def test_a_fixed_order_goes_round_the_tenants_and_ends_with_what_it_does_not_name():
    """boosting, tree, then bayes, knn, forest in their own order; the unknown name is passed over."""
    problem, quality, cost = world(6)
    order = schedule(scheduler_of(problem, cost, policy="order"), quality=quality)
    assert order == [(i, k) for k in (4, 2, 0, 1, 3) for i in range(3)]


def test_round_robin_goes_on_after_the_latest_start():
    """Trials that end late don't turn the circle back; when none is under way, the last that ended counts."""
    problem, *_ = world(7)
    scheduler = scheduler_of(problem, np.ones((3, 5)), policy="roundrobin")
    for tenant in (0, 1):
        scheduler.start(tenant, 0)
    scheduler.record(0, 0, 0.5, 1.0)
    assert scheduler.choose().chosen.tenant == 2
    scheduler.record(1, 0, 0.5, 1.0)
    assert scheduler.choose().chosen.tenant == 2
    scheduler.record(2, 0, 0.5, 1.0)
    assert scheduler.choose().chosen.tenant == 0


def test_one_seed_serves_a_random_schedule():
    """60 rounds among 3 tenants with 100 arms under one seed: each is Binomial(57, 1/3) + 1; outside 3..43: 1e-7."""
    names = tuple(map(str, range(100)))
    problem = Problem(tuple(Arms(i, 1.0, names) for i in range(3)))
    order = schedule(scheduler_of(problem, np.ones((3, 100)), policy="random"), count=60)
    counts = np.bincount([i for i, _ in order], minlength=3)
    assert counts.min() >= 3
    assert counts.max() <= 43


# Shared candidates


def shared_problem():
    """b of study 1 and a of study 2 are one trial; three seconds, the others one."""
    first = Arms(1, 1.0, ("a", "b", "c"), shared=(None, "x", "alone"))
    second = Arms(2, 3.0, ("a", "b"), shared=("x", None))
    return Problem((first, second)), {1: np.array([1.0, 3.0, 1.0]), 2: np.array([3.0, 1.0])}


@pytest.mark.parametrize("policy", PUBLISHED)
def test_a_shared_candidate_runs_once_and_serves_both(policy):
    problem, costs = shared_problem()
    scheduler = PublishedScheduler(problem, config=SelectionConfig(policy=policy), known_costs=costs)
    order = schedule(scheduler)
    assert len(order) == 4
    assert sum(pair in ((0, 1), (1, 0)) for pair in order) == 1
    assert [(s.runs, s.observations) for s in scheduler.state.tenants] == [(3, 3), (2, 2)]
    assert sum(s.spent for s in scheduler.state.tenants) == 4


def test_a_shared_trial_under_way_is_taken_for_both():
    problem, costs = shared_problem()
    scheduler = PublishedScheduler(problem, config=SelectionConfig(policy="mm-gp-ei"), known_costs=costs)
    scheduler.start(0, 1)
    assert [scheduler.state.left(i).tolist() for i in range(2)] == [[True, False, True], [False, True]]
    scheduler.record(0, 1, 0.8, 3.0)
    assert [s.best for s in scheduler.state.tenants] == [0.8, 0.8]
    assert [s.spent for s in scheduler.state.tenants] == [3.0, 0.0]


def test_mm_gp_ei_adds_up_what_everybody_expects_of_a_shared_candidate():
    """EIrate = (w_1 EI_1 + w_2 EI_2) / c, also after a result of either changed its part."""
    problem, costs = shared_problem()
    scheduler = PublishedScheduler(problem, config=SelectionConfig(policy="mm-gp-ei"), known_costs=costs)
    for tenant, arm in ((0, 2), (1, 1)):
        scheduler.record(tenant, arm, 0.6, 1.0)
        standings = scheduler.state
        one, two = (expected_improvement(s.posterior.mean, s.posterior.std, best=s.best) for s in standings.tenants)
        rate = (one[1] + 3.0 * two[0]) / 3.0
        ranking = standings.ranking("ei-rate")
        for i, k in ((0, 1), (1, 0)):
            assert ranking.values[i][list(ranking.arms[i]).index(k)] == pytest.approx(rate)


def test_a_shared_trial_that_both_report_counts_once_for_the_other():
    problem, costs = shared_problem()
    scheduler = PublishedScheduler(problem, config=SelectionConfig(policy="mm-gp-ei"), known_costs=costs)
    scheduler.record(0, 1, 0.8, 3.0)
    scheduler.record(1, 0, 0.8, 3.0)
    assert scheduler.state.tenants[0].observations == 1


def test_a_target_may_be_reached_by_a_trial_that_another_study_paid_for():
    first = Arms(1, 1.0, ("a", "b"), shared=("x", None))
    second = Arms(2, 1.0, ("a", "b"), shared=("x", None), target_quality=0.7)
    costs = {1: np.ones(2), 2: np.ones(2)}
    scheduler = PublishedScheduler(
        Problem((first, second)), config=SelectionConfig(policy="roundrobin"), known_costs=costs
    )
    scheduler.record(0, 0, 0.8, 1.0)
    assert schedule(scheduler) == [(0, 1)]


# GREEDY's options


def test_gap_per_cost_by_hand(make_standings):
    """V the same; in it the largest (max B - b) / cost of the arm that would run, over a whole game."""
    config = SelectionConfig(policy="greedy", greedy_gap_per_cost=True)
    standings = make_standings(tenants=4, arms=5, config=config, seed=3)
    plain = make_standings(tenants=4, arms=5, config=SelectionConfig(policy="greedy"), seed=3)
    quality, differences = np.random.default_rng(3).uniform(0.3, 0.9, (4, 5)), 0
    while choice := choose(standings, "greedy"):
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        if standings.given >= 4:
            members = standings.candidate_set(standings.eligible())
            worth = {}
            for i in members:
                s = standings.tenants[i]
                bounds = np.where(s.run, -math.inf, s.bounds(standings.beta))
                worth[i] = (bounds.max() - s.best) / s.costs[bounds.argmax()]
            assert tenant == max(worth, key=worth.get)
            differences += tenant != choose(plain, "greedy").chosen.tenant
        for each in (standings, plain):
            each.record(tenant, arm, float(quality[tenant, arm]), 1.0)
    assert differences > 0


@pytest.mark.parametrize(
    ("past", "candidates", "plain"), [(12, 8, True), (10, 18, False), (30, 40, True), (8, 8, False)]
)
def test_the_prior_is_the_papers_where_the_past_can_carry_it(past, candidates, plain):
    """With no more past studies than candidates the plain covariance is singular, and policies get worse for it."""
    rng = np.random.default_rng(past)
    names = tuple(f"m{k}" for k in range(candidates))
    history = tuple(
        Past(-i, names, tuple(rng.uniform(0.5, 0.9, candidates)), (None,) * candidates) for i in range(past)
    )
    problem = Problem((Arms(1, 1.0, names),), history=history)
    scheduler = scheduler_for(problem, config=SelectionConfig(policy="hybrid"), known_costs={1: np.ones(candidates)})
    expected = learn_prior(names, history, pseudo_studies=0.01 if plain else 10.0)
    assert scheduler.forecast(0, 0).std == pytest.approx(expected.std[0])

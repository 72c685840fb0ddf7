"""What the ``default`` policy does: ties, prices, failures, the dial, limits, shared trials, a cold start."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from attrs import evolve
from scipy.special import expit

from easeml_core.config import SelectionConfig
from easeml_core.selection.policies import default
from easeml_core.selection.policies.default_choice import LEARNING_SHARE
from easeml_core.selection.problem import Arms, Past, Problem, Quota
from easeml_core.selection.suggestion import scheduler_for

NAMES = ("bayes", "knn", "tree", "forest", "boosting")
PLAIN = SelectionConfig(guard=0.0)


def world(seed, *, tenants=3, past=12, weights=None, **arms):
    """A problem without trials, and the qualities and costs of its trials."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(1, 1, (past + tenants, 1)) + rng.normal(0, 0.5, (past + tenants, 5)) + np.linspace(-1, 1, 5)
    qualities, costs = expit(logits), np.exp(rng.normal(0, 1.5, (past + tenants, 5)))
    history = tuple(Past(100 + j, NAMES, tuple(qualities[j]), tuple(costs[j])) for j in range(past))
    weights = [1.0] * tenants if weights is None else weights
    studies = tuple(Arms(10 * i, float(weights[i]), NAMES, **arms) for i in range(tenants))
    return Problem(studies, history=history), qualities[past:], costs[past:]


def scheduler_of(problem, costs, config=PLAIN):
    return scheduler_for(problem, config=config, known_costs=known(problem, costs))


def known(problem, costs):
    return None if costs is None else {arms.study_id: row for arms, row in zip(problem.studies, costs, strict=True)}


def schedule(scheduler, qualities, costs, *, most=100, device=None):
    """The next choices, each finished before the next is asked for."""
    chosen = []
    while len(chosen) < most and (choice := scheduler.choose(device=device)):
        i, k = choice.chosen.tenant, choice.chosen.arm
        chosen.append(choice)
        scheduler.start(i, k, device=device)
        scheduler.record(i, k, float(qualities[i, k]), float(costs[i, k]), device=device)
    return chosen


def pairs(choices):
    return [(choice.chosen.tenant, choice.chosen.arm) for choice in choices]


# What the decisions do


@pytest.mark.parametrize("seed", range(4))
def test_everything_runs_once_and_then_nothing(seed):
    problem, qualities, costs = world(seed)
    scheduler = scheduler_of(problem, costs, SelectionConfig())
    order = pairs(schedule(scheduler, qualities, costs))
    assert sorted(order) == list(itertools.product(range(3), range(5)))
    assert scheduler.choose() is None
    assert scheduler.choose(device="gpu") is None


def test_what_cannot_improve_runs_last_and_cheapest_first():
    """A study at quality 1 has nothing to expect; its arms are still told apart by their cost."""
    problem, qualities, costs = world(0, tenants=2)
    scheduler = scheduler_of(problem, costs)
    scheduler.record(0, 0, 1.0, 1.0)
    order = pairs(schedule(scheduler, qualities, costs))
    assert [i for i, _ in order] == [1] * 5 + [0] * 4
    assert [k for i, k in order if i == 0] == sorted((1, 2, 3, 4), key=lambda k: costs[0, k])


@pytest.mark.parametrize("factor", [1e-4, 7.0, 1e6])
@pytest.mark.parametrize("guard", [0.0, 0.8])
def test_the_unit_of_known_costs_changes_no_decision(factor, guard):
    """Guard included, which counts in seconds; a price would not."""
    problem, qualities, costs = world(1, tenants=5)
    config = SelectionConfig(guard=guard)
    one, two = (schedule(scheduler_of(problem, c, config), qualities, c) for c in (costs, factor * costs))
    assert pairs(one) == pairs(two)
    assert any(choice.guarded for choice in one) == (guard > 0)


def test_without_cost_awareness_costs_change_no_decision_but_limits_know_them():
    problem, qualities, costs = world(2)
    config = evolve(PLAIN, cost_aware=False)
    assert pairs(schedule(scheduler_of(problem, costs, config), qualities, costs)) == pairs(
        schedule(scheduler_of(problem, costs[:, ::-1].copy(), config), qualities, costs)
    )
    assert scheduler_of(problem, costs, config).forecast(1, 2).predicted_cost_seconds == costs[1, 2]
    poor, _, _ = world(2, budget_seconds=float(np.median(costs)))
    for choice in schedule(scheduler_of(poor, costs, config), qualities, costs):
        assert costs[choice.chosen.tenant, choice.chosen.arm] <= np.median(costs)


def test_without_cost_awareness_no_cheap_lessons_are_run():
    problem, qualities, costs = world(2, past=0)
    for aware in (True, False):
        config = evolve(PLAIN, cost_aware=aware)
        choices = schedule(scheduler_of(problem, 100 * costs, config), qualities, 100 * costs)
        assert any(choice.learning for choice in choices) == aware


def test_equal_pairs_go_to_the_lowest():
    problem, *_ = world(0, tenants=3, past=0)
    scheduler = scheduler_of(problem, np.ones((3, 5)))
    choice = scheduler.choose()
    assert (choice.chosen.tenant, choice.chosen.arm) == (0, 0)
    assert (choice.runner_up.tenant, choice.runner_up.arm) == (0, 1)


def test_asking_changes_nothing():
    problem, qualities, costs = world(4, devices=(frozenset({"gpu"}), None, None, None, None))
    asked, silent = (scheduler_of(problem, costs, SelectionConfig()) for _ in range(2))
    for _ in range(9):
        first = [asked.choose(), asked.choose(device="cpu"), asked.choose(device="gpu"), asked.forecast(1, 1)]
        assert first == [asked.choose(), asked.choose(device="cpu"), asked.choose(device="gpu"), asked.forecast(1, 1)]
        choice = silent.choose()
        assert first[0] == choice
        for scheduler in (asked, silent):
            i, k = choice.chosen.tenant, choice.chosen.arm
            scheduler.record(i, k, float(qualities[i, k]), float(costs[i, k]))


def test_the_seed_changes_nothing():
    problem, _, costs = world(4)
    scheduler = scheduler_of(problem, costs)
    assert scheduler.choose(seed=(1,)) == scheduler.choose(seed=(2, 3))


def test_a_price_stops_what_is_not_worth_it():
    """Every trial run promised the price, every arm left does not, and a price of 0 stops nothing."""
    problem, qualities, costs = world(5)
    free = schedule(scheduler_of(problem, costs), qualities, costs)
    scheduler = scheduler_of(problem, costs, evolve(PLAIN, price_per_second=0.01))
    paid = schedule(scheduler, qualities, costs)
    assert 0 < len(paid) < len(free) == 15
    left = set(itertools.product(range(3), range(5))) - set(pairs(paid))
    for i, k in left:
        assert scheduler.forecast(i, k).expected_improvement < 0.01 * costs[i, k]
    assert all(choice.chosen.acquisition >= 0.01 * (1 - 1e-9) for choice in paid)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", [{}, {"budget_seconds": 3.0}, {"devices": (("gpu",),) * 2 + (None,) * 3}])
def test_a_tenant_stops_above_the_price_that_its_best_trial_pays(seed, limits):
    """So much is what the rule says at any price, from a scheduler that was made with another one, or with none."""
    problem, qualities, costs = world(seed, **limits)
    trials = pairs(schedule(scheduler_of(problem, costs), qualities, costs, most=6))

    def at(price):
        scheduler = scheduler_of(problem, costs, evolve(PLAIN, price_per_second=price))
        for i, k in trials:
            scheduler.record(i, k, float(qualities[i, k]), float(costs[i, k]))
        return scheduler

    free = at(0.0)
    for tenant, device in itertools.product(range(3), (None, "gpu", "cpu")):
        most = free.stops_above(tenant, device=device)
        assert (most > -np.inf) == bool((free.worth(tenant, device=device) > -np.inf).any())
        if most > 0:
            for price, goes_on in ((most * (1 - 1e-9), True), (most * (1 + 1e-9), False)):
                scheduler = at(price)
                assert bool((scheduler.worth(tenant, device=device) > -np.inf).any()) == goes_on
                assert scheduler.stops_above(tenant, device=device) == most


def test_a_failed_trial_costs_and_teaches_nothing():
    problem, _, costs = world(6)
    scheduler, untouched = (scheduler_of(problem, costs) for _ in range(2))
    first = scheduler.choose().chosen
    scheduler.start(first.tenant, first.arm)
    scheduler.record(first.tenant, first.arm, None, 3.0)
    for k in set(range(5)) - {first.arm}:
        assert scheduler.forecast(first.tenant, k) == untouched.forecast(first.tenant, k)
    ran = pairs(schedule(scheduler, np.full((3, 5), 0.5), costs))
    assert (first.tenant, first.arm) not in ran
    assert len(ran) == 14


def test_a_failed_trial_is_charged_to_the_budget_and_by_the_guard():
    problem, _, _ = world(6, tenants=2, budget_seconds=10.0)
    costs = np.full((2, 5), 4.0)
    scheduler = scheduler_of(problem, costs, SelectionConfig(guard=0.5))
    scheduler.record(0, 0, None, 7.0)
    assert pairs(schedule(scheduler, np.full((2, 5), 0.5), costs)) == [(1, k) for k in (4, 3)]
    other = scheduler_of(world(6, tenants=2)[0], costs, SelectionConfig(guard=0.5))
    other.record(1, 0, None, 17.0)
    assert other.choose().guarded
    assert other.choose().chosen.tenant == 0


def test_an_arm_that_is_recorded_twice_is_one_arm():
    """A study is finished, and its share the others', once all its arms have run, not after as many trials.

    Of 100 seconds at g = .5 each of three is entitled to 16.7; of two, to 25.
    """
    problem, *_ = world(6)
    scheduler = scheduler_of(problem, np.array([[1e3] * 5, [1e3] * 5, [20.0] * 5]), SelectionConfig(guard=0.5))
    for _ in range(5):
        scheduler.record(0, 0, 0.5, 1e-3)
    scheduler.record(1, 0, 0.9, 100.0)
    assert not scheduler.choose().guarded
    for k in range(1, 5):
        scheduler.record(0, k, 0.5, 1e-3)
    scheduler.record(1, 1, 0.9, 20.0)  # 16.7 and 10
    assert scheduler.choose().guarded


# The dial


@pytest.mark.parametrize("seed", range(4))
def test_the_dial_at_one_serves_the_worst_off(seed):
    """The one with the most to expect of a single trial, weights counted, whatever it costs."""
    problem, qualities, costs = world(seed, tenants=4, weights=(1, 2, 0.5, 1))
    costs[0] *= 50
    scheduler = scheduler_of(problem, costs, evolve(PLAIN, objective=1.0))
    left = set(itertools.product(range(4), range(5)))
    while (choice := scheduler.choose()) is not None:
        gains = {i: 0.0 for i, _ in left}
        for i, k in left:
            gain = problem.studies[i].weight * scheduler.forecast(i, k).expected_improvement
            gains[i] = max(gains[i], gain)
        i, k = choice.chosen.tenant, choice.chosen.arm
        assert gains[i] == max(gains.values())
        scheduler.record(i, k, float(qualities[i, k]), float(costs[i, k]))
        left.remove((i, k))
    assert not left


def test_the_dial_weighs_the_mean_against_the_worst_off():
    """The slope of tenant i is (1 - d) / n + d [i is the worst off], times its rate; n tenants, not one."""
    chosen, forgetful = [], []
    for seed, dial in itertools.product(range(12), (0.0, 0.02, 0.1, 0.3, 0.6)):
        problem, _, costs = world(seed, tenants=4)
        scheduler = scheduler_of(problem, costs, evolve(PLAIN, objective=dial))
        gains = np.array([[scheduler.forecast(i, k).expected_improvement for k in range(5)] for i in range(4)])
        rates, worst = (gains / costs).max(axis=1), np.arange(4) == gains.max(axis=1).argmax()
        assert scheduler.choose().chosen.tenant == (((1 - dial) / 4 + dial * worst) * rates).argmax()
        chosen.append(scheduler.choose().chosen.tenant)
        forgetful.append(((1 - dial + dial * worst) * rates).argmax())
    assert chosen != forgetful


# Limits, through the same bookkeeping as the published policies


def test_limits_hold():
    costs = np.tile([1.0, 2.0, 4.0, 8.0, 16.0], (3, 1))
    for arms, most in (({"budget_seconds": 7.0}, 7.0), ({"seconds_left": 4.0}, 7.0)):
        problem, qualities, _ = world(7, **arms)
        order = pairs(schedule(scheduler_of(problem, costs, SelectionConfig()), qualities, costs))
        for i in range(3):
            assert 0 < sum(costs[j, k] for j, k in order if j == i) <= most


def test_a_target_ends_a_study():
    problem, qualities, costs = world(7, target_quality=0.8)
    qualities[:] = 0.7
    qualities[1, 2] = 0.8
    order = pairs(schedule(scheduler_of(problem, costs, SelectionConfig()), qualities, costs))
    assert [k for i, k in order if i == 1][-1] == 2
    assert sum(i == 0 for i, _ in order) == 5


def test_a_quota_is_shared_by_the_studies_of_a_tenant():
    problem, qualities, _ = world(7, tenant="t")
    costs = np.full((3, 5), 2.0)
    problem = dataclasses.replace(problem, quotas={"t": Quota(seconds_left=9.0)})
    assert len(schedule(scheduler_of(problem, costs, SelectionConfig()), qualities, costs)) == 4
    problem = dataclasses.replace(problem, quotas={"t": Quota(max_parallel=2)})
    scheduler = scheduler_of(problem, costs, SelectionConfig())
    for _ in range(2):
        choice = scheduler.choose()
        scheduler.start(choice.chosen.tenant, choice.chosen.arm)
    assert scheduler.choose() is None
    scheduler.record(choice.chosen.tenant, choice.chosen.arm, 0.5, 2.0)
    assert scheduler.choose() is not None


def test_an_arm_runs_only_on_its_kind_of_device():
    problem, qualities, costs = world(7, devices=(frozenset({"gpu"}), None, frozenset({"cpu"}), None, None))
    order = pairs(schedule(scheduler_of(problem, costs, SelectionConfig()), qualities, costs, device="cpu"))
    assert len(order) == 12
    assert 0 not in {k for _, k in order}


@pytest.mark.parametrize("guard", [0.0, 0.3])
def test_priorities_come_after_the_guard_and_before_the_rate(guard):
    """Also the runner-up is of the highest priority, until nothing of that is left."""
    problem, qualities, costs = world(8)
    urgent = dataclasses.replace(problem.studies[1], priority=3, weight=1e-3)
    problem = dataclasses.replace(problem, studies=(problem.studies[0], urgent, problem.studies[2]))
    choices = schedule(scheduler_of(problem, costs, SelectionConfig(guard=guard)), qualities, costs)
    plain = [choice for choice in choices if not choice.guarded]
    assert bool(guard) == (len(plain) < 15)
    served = [choice.chosen.tenant for choice in plain]
    assert served == sorted(served, key=lambda i: i != 1)
    if not guard:
        assert [choice.runner_up.tenant for choice in choices[:4]] == [1] * 4
        assert choices[4].runner_up == choices[5].chosen
        assert choices[4].runner_up.tenant == 2
        assert choices[-1].runner_up is None


# Shared trials


def test_one_trial_serves_both_studies():
    """Its worth is the sum, its result moves both posteriors, its cost is one study's, and it runs once."""
    keys = ((None,) * 4 + ("x",), ("x",) + (None,) * 4)
    problem, qualities, costs = world(9, tenants=2)
    alone = scheduler_of(problem, costs)
    problem = dataclasses.replace(
        problem, studies=tuple(dataclasses.replace(a, shared=k) for a, k in zip(problem.studies, keys, strict=True))
    )
    scheduler = scheduler_of(problem, np.where(np.arange(5) == 4, 1e-3, 10.0) * np.ones((2, 1)))
    choice = scheduler.choose()
    assert (choice.chosen.tenant, choice.chosen.arm) == (0, 4)
    sum_ = alone.forecast(0, 4).expected_improvement + alone.forecast(1, 0).expected_improvement
    assert choice.chosen.acquisition == pytest.approx(sum_ / 1e-3)
    scheduler.start(0, 4)
    scheduler.record(0, 4, 0.9, 1e-3)
    assert [scheduler.forecast(i, 1).best for i in range(2)] == [0.9, 0.9]
    assert scheduler.forecast(1, 1).mean > alone.forecast(1, 1).mean
    order = pairs(schedule(scheduler, qualities, costs))
    assert len(order) == 8
    assert (1, 0) not in order


def test_a_target_may_be_reached_by_a_trial_of_another_study():
    keys = ((None,) * 4 + ("x",), ("x",) + (None,) * 4)
    problem, _, costs = world(9, tenants=2, target_quality=0.85)
    problem = dataclasses.replace(
        problem, studies=tuple(dataclasses.replace(a, shared=k) for a, k in zip(problem.studies, keys, strict=True))
    )
    scheduler = scheduler_of(problem, costs)
    scheduler.record(0, 4, 0.9, 1.0)
    assert scheduler.choose() is None


# A cold start


def test_lessons_take_their_share_of_the_compute():
    """The cheapest trial there is, while what was no dearer has taken at most the share; only without a past."""
    problem, qualities, costs = world(10, tenants=6, past=0)
    scheduler = scheduler_of(problem, costs)
    spent, lessons, left = [], 0, set(itertools.product(range(6), range(5)))
    for choice in schedule(scheduler, qualities, costs):
        price = min(costs[i, k] for i, k in left)
        cheap = sum(c for c in spent if c <= price) + price
        assert choice.learning == (cheap <= LEARNING_SHARE * (sum(spent) + price))
        place = (choice.chosen.tenant, choice.chosen.arm)
        if choice.learning:
            assert costs[place] == price
        lessons += choice.learning
        spent.append(costs[place])
        left.remove(place)
    assert lessons > 3
    warm, qualities, costs = world(10, tenants=6, past=10)
    assert not any(choice.learning for choice in schedule(scheduler_of(warm, costs), qualities, costs))


def test_cold_start_can_be_switched_off():
    """Then the prior is that of the short history for ever, and nothing is run for its lessons."""
    problem, qualities, costs = world(11, past=2)
    on, off = (scheduler_of(problem, costs, evolve(PLAIN, cold_start=c)) for c in (True, False))
    before = [s.forecast(2, 4) for s in (on, off)]
    assert before[0] == before[1]
    for scheduler in (on, off):
        for k in range(5):
            scheduler.record(0, k, float(qualities[0, k]), float(costs[0, k]))
    assert off.forecast(2, 4) == before[1]
    assert on.forecast(2, 4) != before[0]
    assert not any(choice.learning for choice in schedule(off, qualities, costs))


def test_live_results_shape_a_prior_that_has_no_past():
    """What was best for four tenants is expected to be best for the fifth."""
    problem, *_ = world(12, tenants=5, past=0)
    scheduler = scheduler_of(problem, None)
    means = [scheduler.forecast(4, k).mean for k in range(5)]
    assert np.ptp(means) == 0
    for i, k in itertools.product(range(4), range(5)):
        scheduler.record(i, k, float(expit(k - 1)), 1.0)
    assert np.diff([scheduler.forecast(4, k).mean for k in range(5)]).min() > 0


def test_very_many_names_need_no_covariance_over_all_of_them(monkeypatch):
    """A crowd that all call their candidates otherwise changes nothing for the others: one menu at a time."""
    rng = np.random.default_rng(0)
    names = ("bayes", "knn", "tree")
    past = tuple(Past(-i - 1, names, tuple(rng.uniform(0.5, 0.9, 3)), (None,) * 3) for i in range(12))
    crowd = tuple(Arms(10 + i, 1.0, tuple(f"own-{i}-{k}" for k in range(20))) for i in range(60))
    few = Problem((Arms(1, 1.0, names),), history=past)
    many = Problem((Arms(1, 1.0, names), *crowd), history=past)
    costs = {arms.study_id: np.ones(len(arms.names)) for arms in many.studies}
    sizes = []
    learn = default.transfer_prior
    monkeypatch.setattr(
        default, "transfer_prior", lambda rows, c, **more: sizes.append(rows.shape[1]) or learn(rows, c, **more)
    )
    one, all_ = (scheduler_for(p, config=SelectionConfig(), known_costs=costs) for p in (few, many))
    assert max(sizes) <= 20
    for arm in range(3):
        assert one.forecast(0, arm) == all_.forecast(0, arm)
    assert all_.choose() is not None

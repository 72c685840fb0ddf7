"""The ``default`` policy: ties, prices, failures, the dial, limits, shared trials, a cold start; and its definition."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from attrs import evolve
from closed_form import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.special import expit

from easeml_core.selection.policies import acquisition, default
from easeml_core.selection.policies.default_choice import LEARNING_SHARE
from easeml_core.selection.problem import Arms, Past, Problem
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.selection.surrogate import logit_normal
from easeml_core.selection.surrogate.prior import DEGREES_OF_FREEDOM, quality_rows, transfer_prior
from easeml_core.settings.config import SelectionConfig

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


@pytest.mark.parametrize("seed", range(2))
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


def test_a_target_ends_a_study():
    problem, qualities, costs = world(7, target_quality=0.8)
    qualities[:] = 0.7
    qualities[1, 2] = 0.8
    order = pairs(schedule(scheduler_of(problem, costs, SelectionConfig()), qualities, costs))
    assert [k for i, k in order if i == 1][-1] == 2
    assert sum(i == 0 for i, _ in order) == 5


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


# Every decision computed from scratch, under every setting


class Reference:
    """The rule from its definition, anew for each decision: closed form, one loop over all pairs."""

    def __init__(self, problem, costs, config):
        self.problem, self.costs, self.config = problem, costs, config
        rows = quality_rows(NAMES, problem.history)
        self.prior = transfer_prior(self.latent(rows), config)
        self.finished, self.running = [], []

    def latent(self, quality):
        return logit_normal.logit(quality) if self.config.link == "logit" else np.asarray(quality)

    def same_trial(self, tenant, arm):
        """All (tenant, arm) that are one trial."""
        shared = self.problem.studies[tenant].shared
        key = shared[arm] if shared else None
        if key is None:
            return {(tenant, arm)}
        places = itertools.product(range(len(self.problem.studies)), range(5))
        return {(i, k) for i, k in places if self.problem.studies[i].shared[k] == key}

    def gains(self, tenant):
        """EI of each arm of a tenant."""
        seen = [
            (k, q) for i, arm, q, _ in self.finished if q is not None for j, k in self.same_trial(i, arm) if j == tenant
        ]
        under_way = [k for i, arm in self.running for j, k in self.same_trial(i, arm) if j == tenant]
        under_way = under_way if self.config.believe else []
        arms, values = [k for k, _ in seen], self.latent([q for _, q in seen])
        noise = self.config.noise_variance
        belief = closed_form(self.prior, arms, values, noise_variance=noise)
        fantasies = [*values, *belief.mean[under_way]]
        std = closed_form(self.prior, [*arms, *under_way], fantasies, noise_variance=noise).std
        residual = values - self.prior.mean[arms]
        gram = self.prior.cov[np.ix_(arms, arms)] + noise * np.eye(len(arms))
        squares = float(residual @ np.linalg.solve(gram, residual)) if arms else 0.0
        if self.config.tenant_scale:
            std = std * np.sqrt((DEGREES_OF_FREEDOM + squares) / (DEGREES_OF_FREEDOM + len(arms)))
        best = max((q for _, q in seen), default=0.0)
        promised = belief.mean[under_way]
        promised = expit(promised) if self.config.link == "logit" else promised
        best = max([best, *promised.tolist()])
        rule = logit_normal if self.config.link == "logit" else acquisition
        return rule.expected_improvement(belief.mean, np.maximum(std, 1e-5), best=best)

    def rates(self):
        """Worth per second of every (tenant, arm) that may run."""
        studies = self.problem.studies
        gains = [self.gains(i) for i in range(len(studies))]
        taken = [self.same_trial(i, k) for i, k, *_ in [*self.finished, *self.running]]
        found = {}
        for i, k in itertools.product(range(len(studies)), range(5)):
            group = self.same_trial(i, k)
            worth = sum(studies[j].weight * gains[j][arm] for j, arm in group)
            promise = sum(gains[j][arm] for j, arm in group)
            if (
                not any((i, k) in trial for trial in taken)
                and promise >= self.config.price_per_second * self.costs[i, k]
            ):
                found[i, k] = worth / (self.costs[i, k] if self.config.cost_aware else 1.0)
        return found

    def owed(self, rates):
        """The tenant that the guard serves, or None: entitlements second by second from the first trial on."""
        studies = self.problem.studies
        weights = np.array([arms.weight for arms in studies])
        done, rate = [set() for _ in studies], 0.0
        for i, k, _, cost in self.finished:
            rate += cost / self.unfinished(weights, done)
            for j, arm in self.same_trial(i, k):
                done[j].add(arm)
        rate += sum(self.costs[i, k] for i, k in self.running) / self.unfinished(weights, done)
        ahead = self.config.guard * weights * rate
        for i, k, *cost in [*self.finished, *self.running]:
            ahead[i] -= cost[1] if cost else self.costs[i, k]
        for i in range(len(studies)):
            own = {k: rate for (j, k), rate in rates.items() if j == i}
            ahead[i] -= self.costs[i, max(own, key=own.get)] if own else np.inf
        return int(ahead.argmax()) if ahead.max() > 0 else None

    @staticmethod
    def unfinished(weights, done):
        return sum(w for w, arms in zip(weights, done, strict=True) if len(arms) < 5) or weights.sum()

    def choose(self):
        """(tenant, arm, rate) of the best and of the second best, and whether the guard chose."""
        rates = self.rates()
        if not rates:
            return None
        tenant = self.owed(rates) if self.config.guard else None
        among = {pair: r for pair, r in rates.items() if tenant in (None, pair[0])}
        best = max(among, key=among.get)
        others = {pair: r for pair, r in rates.items() if pair not in self.same_trial(*best)}
        second = max(others, key=others.get) if others else None
        return best, rates[best], second, others.get(second), tenant is not None


games = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), min_size=4, max_size=14)


def play(problem, qualities, costs, config, moves):
    """Devices that start and finish in any order, with failures; both schedulers are asked before every move."""
    scheduler, reference = scheduler_of(problem, costs, config), Reference(problem, costs, config)
    for what, which, fails in moves:
        yield scheduler.choose(), reference
        if what == 0 and reference.running:
            i, k = reference.running.pop(which % len(reference.running))
            quality = None if fails else float(qualities[i, k])
            cost = float(costs[i, k]) * (0.3 if fails else 1)
            scheduler.record(i, k, quality, cost)
            reference.finished.append((i, k, quality, cost))
        elif (choice := scheduler.choose()) is not None:
            reference.running.append((choice.chosen.tenant, choice.chosen.arm))
            scheduler.start(*reference.running[-1])


SWITCHES = st.fixed_dictionaries(
    {},
    optional={
        "guard": st.sampled_from((0.0, 0.3, 0.8)),
        "price_per_second": st.sampled_from((0.001, 0.02, 0.5)),
        "link": st.just("identity"),
        "blend": st.sampled_from((0.0, 1.0)),
        "tenant_scale": st.just(False),
        "believe": st.just(False),
        "cost_aware": st.just(False),
        "noise_variance": st.just(0.05),
        "pseudo_studies": st.just(50.0),
    },
)
KEYS = st.sampled_from(
    ((), (), ((None, "x", "y", None, "z"), ("x", "y", None, None, None), (None, "z", None, "x", "w")))
)


@settings(deadline=None, max_examples=examples(120))
@given(st.integers(0, 2**32 - 1), SWITCHES, KEYS, games)
def test_every_decision_is_that_of_its_definition(seed, switches, keys, moves):
    """Weights, costs, trials under way, failures, shared trials and all settings, against the closed form."""
    rng = np.random.default_rng(seed)
    problem, qualities, costs = world(seed, weights=rng.lognormal(size=3))
    if keys:
        problem = dataclasses.replace(
            problem, studies=tuple(dataclasses.replace(a, shared=k) for a, k in zip(problem.studies, keys, strict=True))
        )
    for choice, reference in play(problem, qualities, costs, SelectionConfig(**switches), moves):
        expected = reference.choose()
        if expected is None:
            assert choice is None
            continue
        best, rate, second, second_rate, guarded = expected
        assert (choice.chosen.tenant, choice.chosen.arm) in reference.same_trial(*best)
        assert choice.chosen.acquisition == pytest.approx(rate, rel=1e-5, abs=1e-12)
        assert choice.guarded == guarded
        assert not choice.learning
        if second is None:
            assert choice.runner_up is None
        else:
            assert (choice.runner_up.tenant, choice.runner_up.arm) in reference.same_trial(*second)
            assert choice.runner_up.acquisition == pytest.approx(second_rate, rel=1e-5, abs=1e-12)

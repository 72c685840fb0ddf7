"""The tenant rules of Ease.ml's earlier code, from their definitions and the closed-form posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
from closed_form import closed_form

from easeml_core.selection.policies.acquisition import beta_multi_tenant
from easeml_core.selection.policies.published import choose
from easeml_core.settings.config import SelectionConfig

RULES = ("variance-drop", "maximal-variance", "ucb-drop", "information-gain", "above-average-bonus")
TENANTS, ARMS = 4, 7


class Reference:
    """One tenant, everything computed anew from the list of its runs."""

    def __init__(self, standing, quality, largest):
        self.prior, self.costs, self.quality, self.largest = standing.posterior.prior, standing.costs, quality, largest
        self.seen = []

    def belief(self, runs):
        return closed_form(self.prior, self.seen[:runs], self.quality[self.seen[:runs]], noise_variance=1e-4)

    def beta(self, run):
        return beta_multi_tenant(tenants=TENANTS, arms=ARMS, run=run, delta=0.1, max_cost=self.largest)

    def std(self, run):
        """The std of the run's arm right after the run; of the first arm before it for run 0."""
        return self.belief(run).std[self.seen[max(run, 1) - 1]]

    def bound(self, run):
        arm = self.seen[run - 1]
        return self.belief(run).mean[arm] + math.sqrt(self.beta(run) / self.costs[arm]) * self.belief(run).std[arm]

    def following(self):
        """The arm that GP-UCB would run next, and its bonus."""
        belief, runs = self.belief(len(self.seen)), len(self.seen)
        bonus = np.sqrt(self.beta(runs + 1) / self.costs) * belief.std
        bounds = belief.mean + bonus
        bounds[self.seen] = -np.inf
        return int(bounds.argmax()), bonus[bounds.argmax()]

    def drop(self):
        return self.std(len(self.seen) - 1) - self.std(len(self.seen))


def expected_tenant(rule, references):
    active = {i: r for i, r in references.items() if len(r.seen) < ARMS}
    warm_up = 2 if rule == "ucb-drop" else 1
    fewest = min(active, key=lambda i: len(active[i].seen))
    if len(active[fewest].seen) < warm_up:
        return fewest
    if rule == "above-average-bonus":
        bonuses = {i: r.following()[1] for i, r in active.items()}
        active = {i: active[i] for i in active if bonuses[i] >= np.mean(list(bonuses.values())) - 1e-12}
    scores = {
        "variance-drop": lambda r: r.drop(),
        "information-gain": lambda r: -r.drop(),
        "ucb-drop": lambda r: r.bound(len(r.seen) - 1) - r.bound(len(r.seen)),
        "maximal-variance": lambda r: r.following()[1],
        "above-average-bonus": lambda r: r.drop(),
    }
    return max(active, key=lambda i: scores[rule](active[i]))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(2))
def test_earlier_rules_by_their_definitions(make_standings, rule, seed):
    standings = make_standings(tenants=TENANTS, arms=ARMS, config=SelectionConfig(policy=rule), seed=seed)
    quality = np.random.default_rng(seed).uniform(0.3, 0.9, (TENANTS, ARMS))
    largest = max(t.costs.max() for t in standings.tenants)
    references = {i: Reference(t, quality[i], largest) for i, t in enumerate(standings.tenants)}
    for _ in range(TENANTS * ARMS):
        chosen = choose(standings, rule).chosen
        tenant = expected_tenant(rule, references)
        assert (chosen.tenant, chosen.arm) == (tenant, references[tenant].following()[0])
        standings.record(chosen.tenant, chosen.arm, float(quality[chosen.tenant, chosen.arm]), 1.0)
        references[tenant].seen.append(chosen.arm)
    assert choose(standings, rule) is None


def test_the_rules_differ(make_standings):
    """On one game no two of them serve the tenants in the same order."""
    orders = set()
    for rule in RULES:
        standings = make_standings(tenants=TENANTS, arms=ARMS, config=SelectionConfig(policy=rule), seed=5)
        quality, order = np.random.default_rng(5).uniform(0.3, 0.9, (TENANTS, ARMS)), []
        while choice := choose(standings, rule):
            order.append(choice.chosen.tenant)
            standings.record(order[-1], choice.chosen.arm, float(quality[order[-1], choice.chosen.arm]), 1.0)
        orders.add(tuple(order))
    assert len(orders) == len(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_tenant_whose_trials_failed_is_still_served(make_standings, rule):
    standings = make_standings(tenants=2, arms=3, config=SelectionConfig(policy=rule))
    for arm in (0, 1):
        standings.record(1, arm, None, 1.0)
    served = []
    while choice := choose(standings, rule):
        served.append((choice.chosen.tenant, choice.chosen.arm))
        standings.record(*served[-1], 0.5, 1.0)
    assert sorted(served) == [(0, 0), (0, 1), (0, 2), (1, 2)]

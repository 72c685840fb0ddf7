"""The ``default`` policy against its definition: every decision computed from scratch, under every setting."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from closed_form import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.special import expit

from easeml_core.config import SelectionConfig
from easeml_core.selection.policies import acquisition
from easeml_core.selection.problem import Arms, Past, Problem
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.selection.surrogate import logit_normal
from easeml_core.selection.surrogate.prior import DEGREES_OF_FREEDOM, quality_rows, transfer_prior

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

"""Several devices at once: how MM-GP-EI gives out a batch, and how ``default`` spreads it over the tenants."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from easeml_core.config import SelectionConfig
from easeml_core.selection.expected_improvement import expected_improvement
from easeml_core.selection.policies import choose
from easeml_core.selection.posterior import closed_form
from easeml_core.selection.prior import learn_prior
from easeml_core.selection.problem import Arms, Problem, Pull
from easeml_core.selection.suggest import suggest

DEFAULT, LITERAL = SelectionConfig(), SelectionConfig(policy="mm-gp-ei")


def studies(tenants, arms, weights=None):
    names = tuple(f"c{k}" for k in range(arms))
    return tuple(Arms(i, 1.0 if weights is None else float(weights[i]), names) for i in range(tenants))


def rounds(problem, table, config, *, devices=6, cost=None, failures=()):
    """Every round's batch, each finished before the next is asked for; the problem and its batch, round after round."""
    while batch := suggest(problem, count=devices, config=config):
        yield problem, batch
        pulls = [
            Pull(s.study_id, s.arm, None if (s.study_id, s.arm) in failures else float(table[s.study_id, s.arm]), c)
            for s in batch
            for c in [1.0 if cost is None else float(cost[s.study_id, s.arm])]
        ]
        problem = Problem(problem.studies, (*problem.pulls, *pulls))


def alike(seed, tenants=8, arms=12):
    """Qualities as the exchangeable prior has them: tenants of different difficulty, independent arms."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0.75, 0.167, (tenants, 1)) + rng.normal(0, 0.11, (tenants, arms)), 0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_nobody_gets_a_second_trial_while_somebody_has_none(seed):
    """Whatever weights, costs and failures say; the tenants run out of arms one after the other."""
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(sigma=2, size=8)
    failures = {(int(i), int(k)) for i, k in rng.integers(0, (8, 5), (6, 2))}
    problem, cost = Problem(studies(8, 5, weights)), rng.lognormal(sigma=2, size=(8, 5))
    given = 0
    for before, batch in rounds(problem, alike(seed, arms=5), DEFAULT, cost=cost, failures=failures):
        left = Counter({i: 5 for i in range(8)}) - Counter(p.study_id for p in before.pulls)
        under_way = Counter()
        for s in batch:
            assert under_way[s.study_id] == min(under_way[i] for i in left), (batch, left)
            under_way[s.study_id] += 1
            left = left - Counter([s.study_id])
        given += len(batch)
    assert given == 40


def test_mm_gp_ei_gives_a_batch_to_whoever_is_best():
    """Untried arms tie and answers under way change nothing, so the best tenant takes most of round 2."""
    run = rounds(Problem(studies(8, 12)), alike(0), LITERAL)
    (_, first), (_, second) = next(run), next(run)
    assert [s.study_id for s in first] == list(range(6))
    assert [s.study_id for s in second] == [6, 7, *[second[2].study_id] * 4]


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_of_mm_gp_ei_is_the_top_of_the_ranking(make_problem, seed):
    """Against EI per second from the closed-form posterior: runs under way are excluded, nothing else."""
    problem = make_problem(studies=4, candidates=5, runs=2, seed=seed)
    suggestions = suggest(problem, count=7, config=LITERAL)
    rates = {}
    for study in problem.studies:
        own = [p for p in problem.in_order() if p.study_id == study.study_id]
        arms, qualities = [p.arm for p in own], [p.quality for p in own]
        belief = closed_form(learn_prior(study.names, ()), arms, np.array(qualities), noise_variance=1e-4)
        gains = expected_improvement(belief.mean, belief.std, best=max(qualities))
        rates |= {(study.study_id, k): gains[k] for k in range(5) if k not in arms}
    for s in suggestions:
        rates[s.study_id, s.arm] /= s.predicted_cost_seconds
        assert s.acquisition == pytest.approx(rates.pop((s.study_id, s.arm)), rel=1e-6)
    assert [s.acquisition for s in suggestions] == sorted((s.acquisition for s in suggestions), reverse=True)
    first, second = suggestions[:2]
    assert first.runner_up == {"study_id": second.study_id, "arm": second.arm, "acquisition": second.acquisition}


@pytest.mark.parametrize("seed", range(4))
def test_on_one_device_default_is_mm_gp_ei(make_standings, seed):
    """The whole choice, runner-up included, until nothing is left; every fifth trial fails."""
    one, two = (make_standings(tenants=4, arms=5, config=c, seed=seed) for c in (DEFAULT, LITERAL))
    qualities = np.random.default_rng(seed).uniform(0.3, 0.9, (4, 5))
    for t in range(20):
        choice = choose(one, "default")
        assert choice == choose(two, "mm-gp-ei")
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        for standings in (one, two):
            standings.record(tenant, arm, None if t % 5 == 3 else float(qualities[tenant, arm]), 1.0)
    assert choose(one, "default") is None


def test_default_takes_the_best_of_those_with_fewest_under_way(make_problem):
    """Each tenant's best pair first, in the order of what they promise; then each one's second best."""
    problem = make_problem(studies=3, candidates=5, runs=1)
    suggestions = suggest(problem, count=6, config=DEFAULT)
    for turn in (suggestions[:3], suggestions[3:]):
        assert {s.study_id for s in turn} == {10, 20, 30}
        assert [s.acquisition for s in turn] == sorted((s.acquisition for s in turn), reverse=True)
    best = {s.study_id: s.acquisition for s in suggestions[:3]}
    assert all(s.acquisition <= best[s.study_id] for s in suggestions[3:])


def loss_after(seed, config, *, after):
    """Mean over tenants of best there is minus best found, after some rounds of six trials of one cost."""
    table, best = alike(seed), np.zeros(8)
    for _, batch in islice(rounds(Problem(studies(8, 12)), table, config), after):
        for s in batch:
            best[s.study_id] = max(best[s.study_id], table[s.study_id, s.arm])
    return float(np.mean(table.max(axis=1) - best))


def test_spreading_the_devices_leaves_less_loss():
    """8 tenants, 12 arms, 6 devices, after 4 rounds; 60 fixed problems, both rules on each.

    If the rules were equally good, t > 3 with 59 degrees of freedom would have chance 0.002. The mean gain is about
    0.7 standard deviations of one problem's, t about 5.4, so other 60 problems would fail with chance 0.01.
    """
    losses = np.array([[loss_after(seed, c, after=4) for c in (DEFAULT, LITERAL)] for seed in range(60)])
    gain = losses[:, 1] - losses[:, 0]
    assert gain.mean() / (gain.std(ddof=1) / np.sqrt(60)) > 3, losses.mean(axis=0)

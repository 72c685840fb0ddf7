"""Several devices at once: MM-GP-EI gives the best tenant a batch, ``default`` assumes the mean of trials under way."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from attrs import evolve
from closed_form import closed_form

from easeml_core.selection.policies.acquisition import expected_improvement
from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull
from easeml_core.selection.suggestion import RunnerUp, scheduler_for, suggest
from easeml_core.selection.surrogate.prior import learn_prior
from easeml_core.settings.config import SelectionConfig

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
    assert first.runner_up == RunnerUp(second.study_id, second.arm, second.acquisition)


def promises(pending, **settings_):
    """EI of the four arms of a study with one result, while some of its arms are under way."""
    problem = Problem(studies(1, 4), (Pull(0, 0, 0.7, 1.0),), tuple(Pending(0, arm) for arm in pending))
    scheduler = scheduler_for(problem, config=SelectionConfig(**settings_))
    return np.array([scheduler.forecast(0, arm).expected_improvement for arm in range(4)])


def test_what_is_under_way_is_believed():
    """Other arms are correlated with it, so they promise less; without the belief they promise what they did."""
    alone, together = promises([]), promises([1, 2])
    assert together[3] < 0.9 * alone[3]
    assert (promises([1, 2], believe=False) == alone).all()
    assert promises([1])[3] > together[3]


def test_the_mean_of_what_is_under_way_counts_as_reached():
    """Arm b is known to be good: while it runs, arm a has to beat what b is expected to reach, not the best so far."""
    history = tuple(Past(9 + i, ("a", "b", "c"), (0.7, 0.9, 0.5), (None,) * 3) for i in range(30))
    problem = Problem((Arms(0, 1.0, ("a", "b", "c")),), (Pull(0, 2, 0.5, 1.0),), history=history)
    before = scheduler_for(problem, config=DEFAULT).forecast(0, 0)
    after = scheduler_for(replace(problem, pending=(Pending(0, 1),)), config=DEFAULT).forecast(0, 0)
    assert before.expected_improvement > 0.15
    assert after.expected_improvement < 0.02
    assert (after.mean, after.std, after.best) == (before.mean, before.std, 0.5)


def test_a_tenant_waiting_for_its_first_answer_stands_back():
    """Not by a rule: what its other arms may add to the expected answer is less than what a new tenant may reach."""
    problem = Problem(studies(3, 4, weights=(1, 2, 1)), (Pull(0, 0, 0.9, 1.0),), (Pending(1, 0),))
    assert suggest(problem, count=1, config=DEFAULT)[0].study_id == 2
    unbelieving = evolve(DEFAULT, believe=False)
    assert suggest(problem, count=1, config=unbelieving)[0].study_id == 1


def test_a_batch_is_spread_unless_one_tenant_is_worth_it():
    """Equal tenants get a trial each, and a second one each; one that counts a hundredfold gets all its four arms."""
    equal = suggest(Problem(studies(3, 4)), count=6, config=DEFAULT)
    assert [s.study_id for s in equal] == [0, 1, 2, 0, 1, 2]
    unequal = suggest(Problem(studies(3, 4, weights=(1, 100, 1))), count=6, config=evolve(DEFAULT, guard=0.0))
    assert [s.study_id for s in unequal] == [1, 1, 1, 1, 0, 2]


def test_an_answer_that_never_comes_is_no_longer_believed():
    """A failed trial leaves the posterior as if it had never started."""
    base = Problem(studies(2, 4), (Pull(0, 0, 0.7, 1.0),))
    scheduler, untouched = (scheduler_for(base, config=evolve(DEFAULT, guard=0.0)) for _ in range(2))
    for arm in (1, 2):
        scheduler.start(0, arm)
    assert scheduler.forecast(0, 3) != untouched.forecast(0, 3)
    for arm in (1, 2):
        scheduler.record(0, arm, None, 1.0)
    assert scheduler.forecast(0, 3).expected_improvement == untouched.forecast(0, 3).expected_improvement


def loss_after(seed, config, *, after):
    """Mean over tenants of best there is minus best found, after some rounds of six trials of one cost."""
    table, best = alike(seed), np.zeros(8)
    for _, batch in islice(rounds(Problem(studies(8, 12)), table, config), after):
        for s in batch:
            best[s.study_id] = max(best[s.study_id], table[s.study_id, s.arm])
    return float(np.mean(table.max(axis=1) - best))


def test_believing_leaves_less_loss():
    """8 tenants, 12 arms, 6 devices, after 2 rounds; 40 fixed problems, with and without the belief.

    If both were equally good, t > 5 with 39 degrees of freedom would have a chance below 1e-5; t is about 8.
    """
    unbelieving = evolve(DEFAULT, believe=False)
    losses = np.array([[loss_after(seed, c, after=2) for c in (DEFAULT, unbelieving)] for seed in range(40)])
    gain = losses[:, 1] - losses[:, 0]
    assert gain.mean() / (gain.std(ddof=1) / np.sqrt(40)) > 5, losses.mean(axis=0)

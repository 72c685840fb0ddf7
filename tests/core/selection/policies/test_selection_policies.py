"""One suite for all policies, then what is particular to each."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from closed_form import closed_form

from easeml_core.formats.encoding import to_json
from easeml_core.selection.policies.published import choose
from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull
from easeml_core.selection.suggestion import suggest
from easeml_core.settings.config import POLICIES, SelectionConfig

ELSEWHERE = """
import json
from easeml_core.formats.encoding import to_json
from easeml_core.settings.config import POLICIES, SelectionConfig
from easeml_core.selection.problem import Arms, Past, Problem, Pull
from easeml_core.selection.suggestion import suggest
problem = {problem!r}
configs = [SelectionConfig(policy=policy) for policy in POLICIES]
print(json.dumps(to_json([suggest(problem, count=5, config=c) for c in configs])))
"""


def pairs(suggestions):
    return [(s.study_id, s.arm) for s in suggestions]


def run_all(problem, config):
    """Run suggestion after suggestion, each with the same quality, until nothing is left."""
    order = []
    while found := suggest(problem, count=1, config=config):
        order += pairs(found)
        pull = Pull(*order[-1], 0.5, 1.0, order=len(order))
        problem = Problem(problem.studies, (*problem.pulls, pull), history=problem.history)
    return order


# The shared suite


@pytest.mark.parametrize("runs", [0, 2])
def test_suggestions_are_valid_and_the_same_for_the_same_problem(make_problem, policy, runs):
    problem, config = make_problem(runs=runs, past=3), SelectionConfig(policy=policy, seed=3)
    before = copy.deepcopy(problem)
    suggestions = suggest(problem, count=5, config=config, round_seed=5)
    assert suggestions == suggest(make_problem(runs=runs, past=3), count=5, config=config, round_seed=5)
    assert problem == before
    done = {(p.study_id, p.arm) for p in problem.pulls}
    assert len(set(pairs(suggestions))) == 5
    assert not done & set(pairs(suggestions))
    for s in suggestions:
        assert s.policy == policy
        assert s.std > 0
        assert s.predicted_cost_seconds > 0
        assert np.isfinite([s.mean, s.std, s.acquisition]).all()


def test_order_of_studies_does_not_matter(make_problem, policy):
    problem = make_problem(runs=1, past=2)
    turned = Problem(problem.studies[::-1], problem.pulls, problem.pending, problem.history)
    config = SelectionConfig(policy=policy)
    assert suggest(turned, count=3, config=config) == suggest(problem, count=3, config=config)


def test_same_in_another_process(make_problem):
    problem = make_problem(runs=2, past=2)
    code = ELSEWHERE.format(problem=problem).replace("np.float64", "float")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = to_json([suggest(problem, count=5, config=SelectionConfig(policy=p)) for p in POLICIES])
    assert json.loads(answer.stdout) == here


def test_a_batch_is_single_suggestions_with_the_earlier_ones_under_way(make_problem, policy):
    problem, config = make_problem(runs=1, past=2), SelectionConfig(policy=policy)
    batch = suggest(problem, count=5, config=config)
    singles = []
    for _ in range(5):
        [one] = suggest(problem, count=1, config=config)
        singles.append(one)
        problem = Problem(
            problem.studies, problem.pulls, (*problem.pending, Pending(one.study_id, one.arm)), problem.history
        )
    assert batch == tuple(singles)


def test_one_candidate(policy):
    problem = Problem((Arms(1, 1.0, ("only",)),))
    [suggestion] = suggest(problem, count=2, config=SelectionConfig(policy=policy))
    assert (suggestion.arm, suggestion.runner_up) == (0, None)
    assert suggestion.sentence.endswith("of only; nothing else was left")


def test_equal_scores_go_to_the_lowest(policy):
    problem = Problem((Arms(7, 1.0, ("a", "b")), Arms(3, 1.0, ("a", "b"))))
    first = suggest(problem, count=1, config=SelectionConfig(policy=policy))
    assert pairs(first) == [(3, 0)]


def test_a_failed_trial_is_not_repeated(make_problem, policy):
    base = make_problem(studies=2, candidates=3)
    failed = Pull(10, 1, None, 4.0)
    order = run_all(Problem(base.studies, (failed,)), SelectionConfig(policy=policy))
    assert (10, 1) not in order
    assert len(order) == 5


def test_each_tenant_is_warmed_up_everything_runs_once_and_then_nothing(make_problem, policy):
    """But under first come, first served, which is about exactly that, the first tenant has all the first trials."""
    order = run_all(make_problem(studies=3, candidates=4, past=3), SelectionConfig(policy=policy))
    assert len(order) == len(set(order)) == 12
    assert len({study for study, _ in order[:3]}) == (1 if policy == "fcfs" else 3)


def test_nothing_left_is_no_error(make_problem, policy):
    config = SelectionConfig(policy=policy)
    assert suggest(Problem(()), count=3, config=config) == ()
    assert suggest(make_problem(candidates=2, runs=2), count=3, config=config) == ()
    waiting = tuple(Pending(10, arm) for arm in range(2))
    assert suggest(make_problem(studies=1, candidates=2, pending=waiting), count=3, config=config) == ()


# What is particular


def test_fcfs_finishes_one_tenant_after_the_other(make_problem):
    order = run_all(make_problem(studies=2, candidates=3), SelectionConfig(policy="fcfs"))
    assert [study for study, _ in order] == [10, 10, 10, 20, 20, 20]


def test_round_robin_goes_round_and_skips_the_finished(make_problem):
    base = make_problem(studies=3, candidates=2)
    order = run_all(Problem(base.studies, (Pull(20, 0, 0.5, 1.0),)), SelectionConfig(policy="roundrobin"))
    assert [study for study, _ in order] == [30, 10, 20, 30, 10]


def test_random_depends_on_all_its_seeds(make_problem):
    problem = make_problem(studies=5, candidates=5, runs=1)

    def served(seed, round_seed):
        config = SelectionConfig(policy="random", seed=seed)
        return [s.study_id for s in suggest(problem, count=12, config=config, round_seed=round_seed)]

    assert len({tuple(served(seed, round_seed)) for seed in (-1, 0, 1) for round_seed in (0, 1)}) == 6
    assert len(set(served(0, 0))) > 1


def test_random_serves_everybody_alike(make_problem):
    """400 first picks among 4 tenants: each count is Binomial(400, 1/4); outside 40..175 has chance < 1e-8."""
    problem, config = make_problem(studies=4, runs=1), SelectionConfig(policy="random")
    picks = [suggest(problem, count=1, config=config, round_seed=r)[0].study_id for r in range(400)]
    counts = np.unique(picks, return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 40
    assert counts.max() < 175


def test_greedy_with_many_devices_does_not_serve_one_tenant_only(make_problem):
    suggestions = suggest(make_problem(studies=4, candidates=5), count=8, config=SelectionConfig(policy="greedy"))
    studies = [s.study_id for s in suggestions]
    assert studies[:4] == [10, 20, 30, 40]
    assert max(studies.count(s) for s in studies) == 2


def test_a_tenant_waiting_for_its_first_answer_stands_back(make_problem):
    """Its best is still 0, which would make every further run of it look best.

    ``default`` believes instead that the answer will be the mean: see ``test_selection_devices.py``.
    """
    base = make_problem(studies=2, candidates=3)
    problem = Problem(base.studies, (Pull(10, 0, 0.9, 1.0),), (Pending(20, 0),))
    for policy in ("mm-gp-ei", "greedy", "hybrid", "random"):
        suggestions = suggest(problem, count=3, config=SelectionConfig(policy=policy))
        assert [s.study_id for s in suggestions] == [10, 10, 20]


def test_devices_beyond_the_tenants_are_spread_evenly_at_a_cold_start(make_problem):
    problem = make_problem(studies=3, candidates=5, past=4)
    suggestions = suggest(problem, count=9, config=SelectionConfig(policy="mm-gp-ei"))
    studies = [s.study_id for s in suggestions]
    assert sorted(studies) == [10] * 3 + [20] * 3 + [30] * 3


def test_an_untried_tenant_comes_first_however_little_it_promises():
    """Its candidate is known to be slow and bad; still it gets its one run before the others go on.

    Not under ``default``, which has a guard for that.
    """
    history = (Past(9, ("slow", "fast"), (0.1, 0.9), (500.0, 1.0)),) * 30
    studies = (Arms(1, 1.0, ("fast", "other")), Arms(2, 0.01, ("slow",)))
    problem = Problem(studies, (Pull(1, 0, 0.5, 1.0),), history=history)
    for policy, first in (("mm-gp-ei", (2, 0)), ("greedy", (2, 0)), ("default", (1, 1))):
        assert pairs(suggest(problem, count=1, config=SelectionConfig(policy=policy))) == [first]


def test_while_all_wait_for_their_first_answer_no_tenant_takes_all_devices():
    """Before any answer a weight of 50 counts once, not once for each device."""
    names = ("a", "b", "c")
    problem = Problem((Arms(1, 1.0, names), Arms(2, 50.0, names)))
    suggestions = suggest(problem, count=6, config=SelectionConfig(policy="mm-gp-ei"))
    assert [s.study_id for s in suggestions] == [2, 1, 2, 1, 2, 1]


def test_weights_count():
    """The same study twice; the one with twice the weight has twice the acquisition and is served first."""
    light, heavy = Arms(1, 1.0, ("a", "b")), Arms(2, 2.0, ("a", "b"))
    problem = Problem((light, heavy), (Pull(1, 0, 0.6, 1.0), Pull(2, 0, 0.6, 1.0)))
    [suggestion] = suggest(problem, count=1, config=SelectionConfig())
    assert suggestion.study_id == 2
    assert suggestion.acquisition == pytest.approx(2 * suggestion.runner_up.acquisition)


@pytest.mark.parametrize("policy", ["greedy", "hybrid", "roundrobin", "random", "fcfs"])
@pytest.mark.parametrize("seed", range(3))
def test_one_tenant_is_plain_gp_ucb(make_standings, policy, seed):
    """n = 1: every tenant policy is cost-aware GP-UCB with beta = 2 c* ln(pi^2 K t^2 / (6 delta))."""
    standings = make_standings(tenants=1, arms=6, config=SelectionConfig(policy=policy), seed=seed)
    [standing] = standings.tenants
    quality, seen = np.random.default_rng(seed).uniform(0.3, 0.9, 6), []
    for t in range(1, 7):
        belief = closed_form(standing.posterior.prior, seen, quality[seen], noise_variance=1e-4)
        beta = 2 * standing.costs.max() * np.log(np.pi**2 * 6 * t**2 / (6 * 0.1))
        bounds = belief.mean + np.sqrt(beta / standing.costs) * belief.std
        bounds[seen] = -np.inf
        assert choose(standings, policy).chosen.arm == bounds.argmax()
        seen.append(int(bounds.argmax()))
        standings.record(0, seen[-1], float(quality[seen[-1]]), float(standing.costs[seen[-1]]))

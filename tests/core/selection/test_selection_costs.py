"""The cost model: products are learnt, units do not matter, failed trials are lower bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.config import SelectionConfig
from easeml_core.selection.costs import RIDGE, CostModel, fit_costs, learn_costs
from easeml_core.selection.problem import Arms, Past, Problem, Pull
from easeml_core.selection.suggest import stand, suggest

NAMES = ("bayes", "forest", "boosting", "network")


def factors(seed, studies=12):
    """Costs that are exactly a product of a study's and a candidate's factor."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(0, 1.5, studies))[:, None] * np.exp(rng.normal(0, 1.5, len(NAMES)))


def cells(costs):
    return [(i, name, float(c)) for i, row in enumerate(costs) for name, c in zip(NAMES, row, strict=True)]


def test_without_data_all_costs_are_equal():
    model = learn_costs(Problem((Arms(1, 1.0, NAMES),)))
    assert not model.known
    assert model == CostModel()
    assert model.predict(1, NAMES).tolist() == [1.0] * 4


def test_one_measurement_by_hand():
    """One log cost y: level m = y exactly, both effects 0, since the level costs no penalty."""
    model = fit_costs([(1, "forest", 20.0)])
    assert model.known
    np.testing.assert_allclose(model.predict(1, ["forest", "bayes"]), [20.0, 20.0])
    np.testing.assert_allclose(model.predict(9, ["forest"]), [20.0])


def test_two_candidates_by_hand():
    """Costs e and 1/e in one study: level 0, effects +-1 / (1 + RIDGE)."""
    model = fit_costs([(1, "forest", np.e), (1, "bayes", 1 / np.e)])
    np.testing.assert_allclose(np.log(model.predict(1, ["forest", "bayes"])), np.array([1, -1]) / (1 + RIDGE))


def test_agrees_with_a_dense_ridge_regression():
    rows = cells(factors(1, studies=3))[:10]
    design = np.array([[n == name for n in NAMES] + [s == i for s in range(3)] for i, name, _ in rows], dtype=float)
    logs = np.log([c for *_, c in rows])
    centre, middle = design - design.mean(axis=0), logs - logs.mean()
    effects = np.linalg.solve(centre.T @ centre + RIDGE * np.eye(7), centre.T @ middle)
    level = logs.mean() - design.mean(axis=0) @ effects
    model = fit_costs(rows)
    np.testing.assert_allclose(model.level, level, atol=1e-10)
    np.testing.assert_allclose([model.candidates[n] for n in NAMES], effects[:4], atol=1e-10)


def test_unseen_cells_of_a_product_are_predicted():
    costs = factors(2)
    seen = [cell for cell in cells(costs) if not (cell[0] >= 8 and cell[1] in ("boosting", "network"))]
    model = fit_costs(seen)
    for i in range(8, 12):
        error = np.log(model.predict(i, NAMES)) - np.log(costs[i])
        assert np.abs(error).max() < 0.25


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_unit_of_cost_does_not_matter(seed, factor):
    rows = cells(factors(seed, studies=3))[::2]
    scaled = [(i, name, c * factor) for i, name, c in rows]
    np.testing.assert_allclose(
        fit_costs(scaled).predict(1, NAMES), factor * fit_costs(rows).predict(1, NAMES), rtol=1e-8
    )


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_order_of_measurements_does_not_matter(shuffler):
    rows = cells(factors(3, studies=3))
    other = list(rows)
    shuffler.shuffle(other)
    np.testing.assert_allclose(fit_costs(other).predict(1, NAMES), fit_costs(rows).predict(1, NAMES), rtol=1e-10)


def test_failed_trials_and_the_past_teach_costs():
    studies = (Arms(1, 1.0, NAMES), Arms(2, 1.0, NAMES))
    failed = Pull(1, 3, None, 500.0)
    history = (Past(1, ("bayes",), (0.5,), (2.0,)), Past(7, ("bayes", "forest"), (None, 0.6), (3.0, None)))
    model = learn_costs(Problem(studies, (failed,), history=history))
    slow, fast = model.predict(2, ["network", "bayes"])
    assert slow > 10 * fast
    assert set(model.candidates) == {"bayes", "network"}
    assert set(model.studies) == {1, 7}


def test_a_slow_study_is_slow_for_candidates_it_never_ran():
    rows = [(1, "bayes", 1.0), (1, "forest", 10.0), (2, "bayes", 8.0)]
    assert fit_costs(rows).predict(2, ["forest"])[0] == pytest.approx(80, rel=0.3)


# Failed trials


def crowd(*pulls, candidates=("knn", "network"), studies=8, **arms):
    """Studies in each of which the first candidate took 20 seconds, and further trials."""
    rows = tuple(Arms(i, 1.0, candidates, **arms) for i in range(studies))
    return Problem(rows, (*(Pull(i, 0, 0.8, 20.0, order=i) for i in range(studies)), *pulls))


def test_a_crash_makes_nothing_cheap():
    """8 results at 20 s and one crash of another candidate at 1.2 s: fitted as if it were a result, 1.4 s for all."""
    problem = crowd(Pull(0, 1, None, 1.2, order=9))
    as_a_result = fit_costs([*((i, "knn", 20.0) for i in range(8)), (0, "network", 1.2)])
    np.testing.assert_allclose(as_a_result.predict(5, ["network"]), 1.4, atol=0.02)
    np.testing.assert_allclose([learn_costs(problem).predict(i, ("knn", "network")) for i in range(8)], 20.0)


def test_after_a_crash_the_others_do_not_all_run_the_candidate_that_crashed(policy):
    """Of two candidates that promise the same, only one that was ever slow: who crashed fast is not preferred."""
    problem = crowd(Pull(0, 2, None, 1.2, order=9), candidates=("knn", "forest", "network"))
    suggestions = suggest(problem, count=6, config=SelectionConfig(policy=policy))
    np.testing.assert_allclose([s.predicted_cost_seconds for s in suggestions], 20.0)
    assert suggestions[0].arm == 1


def test_a_crash_of_a_candidate_that_succeeded_elsewhere_changes_nothing():
    known = tuple(Pull(i, 1, 0.9, 90.0, order=10 + i) for i in range(4))
    crash = Pull(6, 1, None, 0.5, order=20)
    assert learn_costs(crowd(*known, crash)) == learn_costs(crowd(*known))


def test_past_crashes_are_told_from_past_results():
    results = Past(90, ("knn", "network"), (0.5, 0.6), (20.0, 80.0))
    crashes = Past(91, ("knn", "network"), (None, None), (0.1, 0.2))
    arms = (Arms(1, 1.0, ("knn", "network")),)
    assert learn_costs(Problem(arms, history=(results, crashes))) == learn_costs(Problem(arms, history=(results,)))


def test_a_time_out_makes_its_candidate_dear():
    """Longer than any result would take: now it is known that a result takes more, here and elsewhere."""
    timeout = Pull(0, 1, None, 3600.0, order=9)
    model = learn_costs(crowd(timeout))
    assert model == fit_costs([*((i, "knn", 20.0) for i in range(8)), (0, "network", 3600.0)])
    assert model.predict(5, ["network"])[0] > 2000
    assert learn_costs(crowd(timeout, Pull(1, 1, None, 1.2, order=10))) == model


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0))
def test_a_failed_trial_never_makes_its_own_candidate_cheaper(seed, factor):
    rng = np.random.default_rng(seed)
    pulls = [Pull(i, k, 0.5, float(rng.lognormal(2, 1))) for i in range(4) for k in range(3) if rng.uniform() < 0.6]
    arms = tuple(Arms(i, 1.0, NAMES) for i in range(4))
    before = learn_costs(Problem(arms, (Pull(0, 0, 0.5, 9.0), *pulls)))
    failed = Pull(3, 3, None, float(factor * before.predict(3, [NAMES[3]])[0]))
    after = learn_costs(Problem(arms, (Pull(0, 0, 0.5, 9.0), *pulls, failed)))
    assert after.predict(3, [NAMES[3]])[0] >= before.predict(3, [NAMES[3]])[0] * (1 - 1e-9)
    assert (after == before) == (factor <= 1) or factor == pytest.approx(1)


def test_where_nothing_succeeded_failed_trials_are_all_that_is_known():
    arms = (Arms(1, 1.0, NAMES), Arms(2, 1.0, NAMES))
    pulls = (Pull(1, 3, None, 500.0), Pull(2, 0, None, 1.5))
    assert learn_costs(Problem(arms, pulls)) == fit_costs([(1, "network", 500.0), (2, "bayes", 1.5)])


def test_budgets_are_charged_what_a_failed_trial_took():
    """15 s of crashes and 20 s of results are spent of 50: a network at 20 s no longer fits, of 60 it does."""
    crashes = (Pull(0, 1, None, 7.0, order=9), Pull(0, 2, None, 8.0, order=10))
    for budget, open_arms in ((50.0, []), (60.0, [3])):
        names = ("knn", "forest", "bayes", "network")
        problem = crowd(*crashes, candidates=names, studies=1, budget_seconds=budget)
        [standing] = stand(problem, SelectionConfig()).tenants
        assert standing.spent == 35.0
        assert np.flatnonzero(standing.left()).tolist() == open_arms

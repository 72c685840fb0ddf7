"""The cost model: products are learnt, units do not matter, failed trials count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.selection.costs import RIDGE, CostModel, fit_costs, learn_costs
from easeml_core.selection.problem import Arms, Past, Problem, Pull

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

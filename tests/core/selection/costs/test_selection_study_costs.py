"""Costs as a scheduler sees them: fitted up to a point, then moved by each result, and no result counted twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from easeml_core.selection.costs.learn import StudyCosts, learn_costs
from easeml_core.selection.problem import Arms, Problem, Pull

NAMES = ("a", "b", "c")
STUDIES = (Arms(5, 1.0, NAMES, rows=100), Arms(6, 1.0, NAMES, rows=900))
PULLS = (
    Pull(5, 0, 0.5, 1.0, device="cpu"),
    Pull(6, 0, 0.5, 4.0, device="gpu"),
    Pull(5, 1, None, 90.0, device="cpu"),
    Pull(6, 2, 0.5, 70.0, device="cpu"),
)


def reported(costs, pulls):
    for pull in pulls:
        if pull.quality is not None:
            costs.observe(pull.study_id - 5, pull.arm, pull.cost_seconds, pull.device)
    return costs


@pytest.mark.parametrize("device", [None, "cpu", "gpu", "tpu"])
def test_the_results_of_the_fit_are_not_counted_twice(device):
    """A scheduler replays all its results after a fit; the fit's own change nothing."""
    costs = reported(StudyCosts(Problem(STUDIES), fitted=PULLS), PULLS)
    model = learn_costs(Problem(STUDIES, PULLS))
    for i, arms in enumerate(STUDIES):
        np.testing.assert_allclose(costs.of(i, device), model.predict(arms.study_id, NAMES, device), rtol=1e-12)


def test_a_result_after_the_fit_moves_its_own_study():
    costs = reported(StudyCosts(Problem(STUDIES), fitted=PULLS), PULLS)
    before = [costs.of(i, "cpu").copy() for i in range(2)]
    assert costs.observe(0, 2, 1e4, "cpu")
    assert (costs.of(0, "cpu") > before[0]).all()
    np.testing.assert_array_equal(costs.of(1, "cpu"), before[1])
    model = learn_costs(Problem(STUDIES, PULLS))
    residual = np.log(1e4) - model.base(NAMES, "cpu", 100)[2]
    effect = model.effect(5).observe(float(residual), float(model.precision(NAMES)[2]))
    np.testing.assert_allclose(costs.of(0, "cpu"), np.exp(model.base(NAMES, "cpu", 100) + effect.mean), rtol=1e-12)


def test_known_costs_are_taken_as_they_are():
    table = {5: np.array([1.0, 2.0, 3.0]), 6: np.array([4.0, 5.0, 6.0])}
    costs = StudyCosts(Problem(STUDIES), known=table)
    assert costs.known
    assert not costs.observe(0, 0, 100.0)
    assert costs.of(1, "gpu").tolist() == [4.0, 5.0, 6.0]


def test_without_any_measurement_all_costs_are_one_second():
    costs = StudyCosts(Problem(STUDIES))
    assert not costs.known
    assert not costs.observe(0, 0, 100.0)
    assert costs.of(0).tolist() == [1.0, 1.0, 1.0]


def test_studies_with_other_candidates_have_their_own_costs():
    other = dataclasses.replace(STUDIES[1], names=("c", "z"))
    problem = Problem((STUDIES[0], other), PULLS[:1])
    costs = StudyCosts(problem, fitted=problem.pulls)
    model = learn_costs(problem)
    np.testing.assert_allclose(costs.of(1, "cpu"), model.predict(6, ("c", "z"), "cpu"), rtol=1e-12)

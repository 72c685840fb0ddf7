"""The values at the door: what they refuse, and that the message says value, range and remedy."""

from __future__ import annotations

import dataclasses
import math

import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull

TWO = Arms(1, 1.0, ("knn", "tree"))


@pytest.mark.parametrize("quality", [math.nan, -0.01, 1.01, math.inf, 98.2])
def test_quality_must_be_a_number_in_the_unit_interval(quality):
    with pytest.raises(InvalidInputError, match=r"study 1: quality must be a number in \[0, 1\]") as caught:
        Pull(1, 0, quality, 1.0)
    assert repr(quality) in str(caught.value)
    assert "record a trial without a usable quality as failed" in str(caught.value)


@pytest.mark.parametrize("cost", [0.0, -1.0, math.nan, math.inf])
def test_cost_must_be_positive_and_finite(cost):
    with pytest.raises(InvalidInputError, match="cost_seconds must be > 0 and finite") as caught:
        Pull(1, 0, 0.5, cost)
    assert repr(cost) in str(caught.value)
    with pytest.raises(InvalidInputError, match="past results of study 7: cost_seconds"):
        Past(7, ("knn",), (0.5,), (cost,))


def test_a_failed_trial_needs_its_cost_too():
    assert Pull(1, 0, None, 3.0).quality is None
    with pytest.raises(InvalidInputError, match="also of a failed one"):
        Pull(1, 0, None, 0.0)


def test_edges_of_the_range_are_allowed():
    assert [Pull(1, 0, q, 1e-9).quality for q in (0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ()}, r"digits: needs at least one candidate, got \(\); register the study with candidates"),
        ({"names": ("knn", "knn")}, r"candidate names must differ, got \['knn'\]"),
        ({"kinds": ("tree",)}, "kinds must be empty or one for each of the 2 candidates"),
        ({"weight": 0.0}, "weight must be > 0 and finite, got 0.0; pause a study"),
        ({"weight": math.nan}, "weight must be > 0"),
        ({"budget_seconds": -1.0}, "budget_seconds must be >= 0, or None for no limit, got -1.0"),
        ({"budget_seconds": math.nan}, "budget_seconds must be >= 0"),
    ],
)
def test_a_study_is_checked_when_made(change, message):
    with pytest.raises(InvalidInputError, match=message):
        dataclasses.replace(Arms(1, 1.0, ("knn", "tree"), study="digits"), **change)


def test_past_results_are_checked():
    with pytest.raises(InvalidInputError, match=r"must have one length, got \(2, 1, 2\)"):
        Past(7, ("knn", "tree"), (0.5,), (1.0, None))
    with pytest.raises(InvalidInputError, match="past results of study 7: quality"):
        Past(7, ("knn",), (1.5,), (None,))


@pytest.mark.parametrize("trial", [Pull(2, 0, 0.5, 1.0), Pending(2, 0)])
def test_trials_of_other_studies_belong_to_the_history(trial):
    field = "pulls" if isinstance(trial, Pull) else "pending"
    with pytest.raises(InvalidInputError, match=r"active studies \[1\], got 2; move results of other studies"):
        Problem((TWO,), **{field: (trial,)})


@pytest.mark.parametrize("arm", [-1, 2])
def test_arms_must_be_candidates_of_their_study(arm):
    with pytest.raises(InvalidInputError, match=rf"arm of study 1 must lie in 0\.\.1, got {arm}"):
        Problem((TWO,), pending=(Pending(1, arm),))


def test_a_study_is_listed_once():
    with pytest.raises(InvalidInputError, match="every study must be listed once"):
        Problem((TWO, TWO))


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TWO.weight = 2.0


def test_pulls_are_ordered_by_completion_and_equal_orders_stay():
    first, second, third = Pull(1, 0, 0.1, 1.0, order=1), Pull(1, 1, 0.2, 1.0, order=1), Pull(1, 0, 0.3, 1.0, order=0)
    assert Problem((TWO,), (first, second, third)).in_order() == (third, first, second)


def test_spent_counts_failed_trials():
    problem = Problem(
        (TWO, Arms(2, 1.0, ("knn",))), (Pull(1, 0, 0.5, 2.0), Pull(1, 1, None, 3.0), Pull(2, 0, 0.5, 7.0))
    )
    assert (problem.spent(1), problem.spent(2), problem.spent(3)) == (5.0, 7.0, 0.0)


def test_a_study_without_a_name_is_known_by_its_number():
    assert (TWO.label, Arms(1, 1.0, ("knn",), study="digits").label) == ("study 1", "digits")

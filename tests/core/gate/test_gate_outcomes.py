"""Counts of two models on one sealed set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import InvalidInputError, ShapeError
from easeml_core.gate.outcomes import Outcomes, count_outcomes


def test_counts_by_hand():
    # Both right; new only; old only; both wrong, same; both wrong, different.
    labels, old, new = [0, 1, 2, 3, 4], [0, 0, 2, 0, 0], [0, 1, 0, 0, 1]
    found = count_outcomes(labels, old, new)
    assert found == Outcomes(examples=5, wins=1, losses=1, new_correct=2, old_correct=2, disagreements=3)
    assert [found.count_of(v) for v in "nod"] == [2, 2, 3]


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1))
def test_counts_add_up_and_turn_round(rows):
    labels, old, new = np.array(rows).T
    found, turned = count_outcomes(labels, old, new), count_outcomes(labels, new, old)
    assert found.new_correct - found.old_correct == found.wins - found.losses
    assert (found.wins, found.new_correct) == (turned.losses, turned.old_correct)
    assert found.disagreements == turned.disagreements >= found.wins + found.losses
    assert isinstance(found.wins, int)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ([0, 1], [0, 1, 2], r"old predictions must have shape \(3,\), got \(2,\)"),
        ([0, 1, 2], [[0, 1, 2]], r"new predictions must have shape \(3,\), got \(1, 3\)"),
        ([0, 1, 2], [], r"new predictions must have shape \(3,\), got \(0,\)"),
    ],
)
def test_shapes_must_be_equal(old, new, message):
    with pytest.raises(ShapeError, match=message):
        count_outcomes([0, 1, 2], old, new)


def test_labels_have_one_dimension():
    with pytest.raises(ShapeError, match=r"labels must have shape \(n_examples,\), got \(\)"):
        count_outcomes(3, 3, 3)


@pytest.mark.parametrize("new", [[0.0, 1.0], ["a", "b"], [None, 1]])
def test_predictions_are_whole_numbers(new):
    with pytest.raises(InvalidInputError, match="new predictions must be whole numbers"):
        count_outcomes([0, 1], [0, 1], new)


GOOD = {"examples": 10, "wins": 2, "losses": 1, "new_correct": 6, "old_correct": 5, "disagreements": 4}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"wins": -1}, {"losses": 3}, {"new_correct": 7}, {"disagreements": 2}, {"disagreements": 7}, {"examples": 3}),
        *({"wins": None}, {"losses": None}, {"new_correct": None}, {"old_correct": None}),
        {"wins": None, "losses": None},
        {"wins": -1, "losses": 0, "new_correct": 4},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong):
    assert Outcomes(**GOOD).wins == 2
    with pytest.raises(InvalidInputError, match="these counts cannot come from one set"):
        Outcomes(**GOOD | wrong)


def test_labels_of_disagreements_give_wins_and_losses_only():
    found = count_outcomes([-1, 1, 2, -1, 4], [0, 0, 2, 3, 0], [0, 1, 0, 3, 1])
    assert (found.wins, found.losses, found.disagreements) == (1, 1, 3)
    assert found.new_correct is found.old_correct is None
    assert found.cells(with_agreements=False).tolist() == [0, 1, 1, 2, 1]
    for ask in (lambda: found.count_of("n"), lambda: found.cells(with_agreements=True)):
        with pytest.raises(InvalidInputError, match="n is not known: labels are missing"):
            ask()


def test_a_disagreement_without_a_label_leaves_nothing_but_d():
    found = count_outcomes([-1, 1], [0, 1], [1, 1])
    assert found == Outcomes(2, None, None, None, None, 1)
    assert found.count_of("d") == 1
    with pytest.raises(InvalidInputError, match="n - o is not known"):
        found.cells(with_agreements=False)


def test_a_model_that_predicts_the_sign_of_a_missing_label_is_not_right():
    assert count_outcomes([-1, 0], [0, 0], [-1, 0]).wins is None
    assert count_outcomes([-1, 0], [-1, 0], [-1, 0]) == Outcomes(2, 0, 0, None, None, 0)


def test_cells_by_hand():
    found = count_outcomes([0, 1, 2, 3, 4], [0, 0, 2, 0, 0], [0, 1, 0, 0, 1])
    assert found.cells(with_agreements=True).tolist() == [1, 1, 1, 1, 1]

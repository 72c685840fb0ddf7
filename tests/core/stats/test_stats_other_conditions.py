"""Questions about other conditions than the set's: whatever a developer asks and in which order, delta is kept.

Every course is enumerated. At each step the developer asks about the set's condition or about another one, and the
claim at hand is true or false before any answer. The worst sum of the levels of wrong answers over all that can follow
bounds the chance of a wrong one: only a false claim can get a false pass, and after that the promise is broken already,
so that only what follows the other answer still counts. Under fn-free a model that cannot be run fails without breaking
the promise, so that both answers of a claim that may fail wrongly go on.
"""

from __future__ import annotations

import math
from functools import cache

import pytest

from easeml_core.entities import Adaptivity
from easeml_core.stats.adaptivity import allocate, other_conditions_log_cost

STEPS, OTHERS = (1, 2, 3, 5), (0, 1, 2, 3)
KINDS = ("none", "full", "firstChange", "upTo:1", "upTo:2", "recycle")


def worst(adaptivity: str, mode: str, *, steps: int, others: int, halved: bool = True) -> float:
    """The largest sum of levels of wrong answers, in units of delta.

    Args:
        adaptivity: Of the set.
        mode: ``fp-free`` or ``fn-free``.
        steps: H.
        others: F.
        halved: Whether every level is lowered by F ln 2; False is the mistake.
    """
    allocation = allocate(adaptivity, steps, mode=mode, estimator="exact")
    paid = other_conditions_log_cost(others, mode=mode) if halved else 0.0

    @cache
    def budget(left: int, changes: int, asked: int) -> float:
        if not left or allocation.is_over(changes):
            return 0.0
        level = math.exp(-allocation.log_multiplicity(changes) - paid)

        def follows(*, passed: bool, other: bool) -> float:
            change = not other and allocation.is_change(passed=passed)
            return budget(left - (not other), changes + change, asked + other)

        found = []
        for other in (False, True) if asked < others else (False,):
            one, two = follows(passed=True, other=other), follows(passed=False, other=other)
            if allocation.kind is Adaptivity.NONE:  # no answer is released: there is one course
                found.append(level + max(one, two))
            else:
                found += [one + two, level + (one + two if mode == "fn-free" else two)]
        return max(found)

    return budget(steps, 0, 0)


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("adaptivity", KINDS)
def test_all_answers_together_keep_delta(adaptivity: str, mode: str) -> None:
    for steps in STEPS:
        for others in OTHERS:
            if adaptivity == "upTo:2" and steps < 2:
                continue
            assert worst(adaptivity, mode, steps=steps, others=others) <= 1 + 1e-12, (steps, others)


@pytest.mark.parametrize("adaptivity", ["full", "firstChange", "upTo:2", "recycle"])
def test_questions_about_others_that_nothing_is_paid_for_break_it(adaptivity: str) -> None:
    """Steps are the branches that are paid for; an answer about another condition is one more."""
    assert worst(adaptivity, "fp-free", steps=4, others=3, halved=False) > 1.5

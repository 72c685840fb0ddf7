"""How often a verdict is wrong, by exact enumeration of everything that a small sealed set can show.

No random trials: for each law of one example the probabilities of all outcomes are added up. So a failure here is a
mistake, never chance. The laws are drawn with a seed, most of them on the very edge of the condition.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from property_sizes import at_night
from scipy.special import gammaln, xlogy

from easeml_core.entities import Verdict
from easeml_core.gate.condition import OUTCOMES as EXAMPLE_VALUES
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import Outcomes

CONDITIONS = [
    "n > 0.6 +/- 0.1",
    "d < 0.3 +/- 0.1",
    "n - o > 0 +/- 0.1",
    "n - o > 0.2 +/- 0.1",
    "n - o > -0.3 +/- 0.1",
    "o - n < 0.1 +/- 0.1",
    "n - 0.5 * o > 0.2 +/- 0.1",
    "n - 1.1 * o < 0 +/- 0.1",
    "d < 0.5 +/- 0.1 /\\ n - o > 0.1 +/- 0.1",
    "d < 0.5 +/- 0.1 /\\ n - o > 0 +/- 0.1",
    "n > 0.4 +/- 0.1 /\\ o < 0.7 +/- 0.1 /\\ d > 0.2 +/- 0.1",
]


def all_counts(n: int) -> np.ndarray:
    """Every split of n examples over the five things that one example can show, shape (n_splits, 5)."""
    cuts = itertools.combinations(range(n + 4), 4)
    return np.array([np.diff([-1, *c, n + 4]) - 1 for c in cuts])


def to_outcomes(row: np.ndarray) -> Outcomes:
    both, wins, losses, _, apart = (int(x) for x in row)
    return Outcomes(
        examples=int(row.sum()),
        wins=wins,
        losses=losses,
        new_correct=both + wins,
        old_correct=both + losses,
        disagreements=wins + losses + apart,
    )


def laws_near(clauses, rng: np.random.Generator, count: int) -> np.ndarray:
    """Laws of one example, shape (n_laws, 5): some anywhere, most exactly on the threshold of one clause."""
    anywhere = np.concatenate([rng.dirichlet(np.full(5, a), count) for a in (0.2, 1.0)] + [np.eye(5)])
    laws = [anywhere]
    for clause in clauses:
        worth = np.array([clause.value_of(values) for values in EXAMPLE_VALUES])
        excess = anywhere @ worth - clause.threshold
        above, below = anywhere[excess > 0], anywhere[excess < 0]
        pairs = min(len(above), len(below))
        if pairs:
            one, two = above[rng.permutation(len(above))[:pairs]], below[rng.permutation(len(below))[:pairs]]
            share = (clause.threshold - two @ worth) / ((one - two) @ worth)
            laws.append(two + share[:, None] * (one - two))
    return np.clip(np.concatenate(laws), 0, 1)


def holds(clauses, law: np.ndarray) -> bool:
    """Whether a law satisfies the condition; a value on the threshold (to rounding) does not."""
    for clause in clauses:
        worth = np.array([clause.value_of(values) for values in EXAMPLE_VALUES])
        excess = float(law @ worth) - clause.threshold
        if (excess if clause.comparison == ">" else -excess) <= 1e-12:
            return False
    return True


@pytest.mark.parametrize(
    ("source", "alpha", "n"),
    [(source, 0.2, 5) for source in CONDITIONS]
    + [at_night(source, 0.2, 6) for source in CONDITIONS]
    + [at_night(source, 0.05, 6) for source in CONDITIONS[3:8:2]],
)
def test_a_wrong_verdict_is_never_likelier_than_the_level(source, alpha, n):
    rng = np.random.default_rng(20190401)
    condition = parse_condition(source)
    rows = all_counts(n)
    ways = gammaln(n + 1) - gammaln(rows + 1).sum(axis=1)
    verdicts = np.array(
        [decide_counts(condition, to_outcomes(row), log_level=math.log(alpha), mode="fp-free").verdict for row in rows]
    )
    worst = {Verdict.PASS: 0.0, Verdict.FAIL: 0.0}
    for law in laws_near(condition.clauses, rng, 150):
        chances = np.exp(ways + xlogy(rows, law).sum(axis=1))
        assert chances.sum() == pytest.approx(1)
        wrong = Verdict.FAIL if holds(condition.clauses, law) else Verdict.PASS
        worst[wrong] = max(worst[wrong], float(chances[verdicts == wrong].sum()))
    assert max(worst.values()) <= alpha * (1 + 1e-9)


def test_the_enumeration_would_notice_a_level_that_is_too_high():
    """The promise is nearly used up somewhere, so that a test at twice the level would be caught."""
    n, alpha = 7, 0.3
    condition = parse_condition("d < 0.3 +/- 0.1")
    rows = all_counts(n)
    ways = gammaln(n + 1) - gammaln(rows + 1).sum(axis=1)
    verdicts = np.array(
        [
            decide_counts(condition, to_outcomes(row), log_level=math.log(2 * alpha), mode="fp-free").verdict
            for row in rows
        ]
    )
    law = np.array([0.7, 0.3, 0, 0, 0])
    assert float(np.exp(ways + xlogy(rows, law).sum(axis=1))[verdicts == Verdict.PASS].sum()) > alpha


@pytest.mark.parametrize("n", [11, at_night(16)])
@pytest.mark.parametrize(
    ("source", "c"), [("n - o > 0 +/- .1", 0.0), ("n - o > .1 +/- .1", 0.1), ("n - o > -.2 +/- .1", -0.2)]
)
def test_the_paired_test_on_more_examples_keeps_its_level_for_every_share_of_disagreements(source, c, n):
    """Examples on which both-wrong never differ: wins and losses are all there is to see."""
    alpha = 0.2
    condition = parse_condition(source)
    splits = [(w, k) for w in range(n + 1) for k in range(n + 1 - w)]
    rows = np.array([(n - w - k, w, k, 0, 0) for w, k in splits])
    ways = gammaln(n + 1) - gammaln(rows + 1).sum(axis=1)
    passed = np.array(
        [decide_counts(condition, to_outcomes(row), log_level=math.log(alpha), mode="fp-free").passed for row in rows]
    )
    for decided in np.linspace(abs(c), 1, 101):
        law = np.array([1 - decided, (decided + c) / 2, (decided - c) / 2, 0, 0])
        assert np.exp(ways + xlogy(rows, law).sum(axis=1))[passed].sum() <= alpha * (1 + 1e-9)


@pytest.mark.parametrize(
    "source",
    ["n - o > 0 +/- 0.1", "n - o > 0.1 +/- 0.1", "2 * n - 2 * o > 0 +/- .1", "n - o > 0 +/- .1 /\\ d < .2 +/- .1"],
)
@pytest.mark.parametrize("correct", [0, 300, 1000])
def test_a_model_against_itself_is_never_better(source, correct):
    """A/A: the same predictions twice never pass a condition that asks for a gain, not even at a careless level."""
    same = Outcomes(examples=1000, wins=0, losses=0, new_correct=correct, old_correct=correct, disagreements=0)
    assert not decide_counts(parse_condition(source), same, log_level=math.log(0.5), mode="fp-free").passed

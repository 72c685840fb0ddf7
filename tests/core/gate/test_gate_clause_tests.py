"""Evidence for and against one clause: by hand, against scipy, and what must not change it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import stats

from easeml_core.entities import Verdict
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import Outcomes
from easeml_core.stats.paired import log_trinomial_tail
from easeml_core.stats.weighted import log_bentkus_tail

PASS, FAIL = Verdict.PASS, Verdict.FAIL


def outcomes(examples=1000, *, both=750, wins=0, losses=0, wrong_apart=0):
    """Counts from the five cells of an example; both wrong and alike is what remains."""
    right = (both + wins, both + losses)
    return Outcomes(examples, wins, losses, *right, disagreements=wins + losses + wrong_apart)


def judge(source, counts):
    return decide_counts(parse_condition(source), counts, log_level=math.log(0.01), mode="fp-free")


CELLS = st.tuples(*[st.integers(0, 60)] * 5).filter(lambda c: sum(c) > 0)
COUNTS = CELLS.map(lambda c: outcomes(sum(c), both=c[0], wins=c[1], losses=c[2], wrong_apart=c[3]))


def test_a_known_bound_on_d_goes_into_the_paired_test():
    counts = outcomes(wins=65, losses=10)
    decision = judge("n - o > 0.02 +/- 0.02 /\\ d < 0.12 +/- 0.02", counts)
    gain, change = decision.clauses
    assert gain.log_p_pass == log_trinomial_tail(55, 1000, decided=0.12, mean=0.02)
    assert gain.method == "trinomial, d by a clause"
    assert math.exp(change.log_p_pass) == pytest.approx(stats.binom.cdf(75, 1000, 0.12), rel=1e-9, abs=0)
    assert decision.verdict is PASS


def test_without_one_d_is_bounded_at_a_tenth_of_the_level():
    counts = outcomes(wins=60, losses=15)
    clause = judge("n - o > 0.02 +/- 0.02", counts).clauses[0]
    bound = stats.binomtest(75, 1000, alternative="less").proportion_ci(1 - 0.001).high
    tail = log_trinomial_tail(45, 1000, decided=bound, mean=0.02)
    assert math.exp(clause.log_p_pass) == pytest.approx(math.exp(tail) + 0.001, rel=1e-8, abs=0)
    assert clause.method == "trinomial, d by its upper bound"


def test_a_left_side_of_any_shape_is_judged_with_a_bound_on_its_second_moment():
    counts = outcomes(wins=100, losses=20, wrong_apart=30)
    clause = judge("n - 1.1 * o > -0.1 +/- 0.1", counts).clauses[0]
    # By hand: 0.85 - 1.1 * 0.77 = 0.003; above -0.1 an example is 0, 1.1, -1, 0.1 or 0.1, as often as 750, 100, 20,
    # 100, 30. Squares: 0, .01, 1, 1.21; at or above the last three 250, 120 and 100 examples.
    assert clause.estimate == pytest.approx(0.003)
    moment = sum(
        height * stats.binomtest(k, 1000, alternative="less").proportion_ci(1 - 0.001 * height / 1.21).high
        for height, k in ((0.01, 250), (0.99, 120), (0.21, 100))
    )
    tail = log_bentkus_tail(103.0, 1000, largest=1.1, second_moment=moment)
    assert clause.log_p_pass == pytest.approx(np.logaddexp(tail, math.log(0.001)), abs=1e-9)
    assert clause.method == "weighted"
    assert (clause.verdict, clause.log_p_fail) == (PASS, 0.0)
    assert -0.1 < clause.interval[0] < 0.003 < clause.interval[1] < 0.25


def test_where_values_spread_over_their_range_the_worst_law_on_it_decides():
    counts = outcomes(both=0, wins=540, losses=460)
    clause = judge("n - 1.1 * o > -0.1 +/- 0.1", counts).clauses[0]
    # Values 1 and -1.1 only, mean 0.034; the law on both ends with mean -0.1 has the second moment 1.0 * 1.1.
    tail = log_bentkus_tail(134.0, 1000, largest=1.1, second_moment=1.1)
    assert clause.log_p_pass == pytest.approx(np.logaddexp(tail, math.log(0.001)), abs=1e-6)
    x, c = 0.54, 1 / 2.1
    assert tail <= -1000 * (x * math.log(x / c) + (1 - x) * math.log((1 - x) / (1 - c)))


def test_a_clause_on_d_bounds_the_second_moment_too():
    counts = outcomes(both=780, wins=80, losses=10)
    alone = judge("n - 1.1 * o > -0.06 +/- 0.1", counts).clauses[0]
    bounded = judge("n - 1.1 * o > -0.06 +/- 0.1 /\\ d < 0.1 +/- 0.1", counts).clauses[0]
    assert bounded.log_p_pass < alone.log_p_pass
    assert bounded.method == "weighted, d by a clause"


def test_d_is_bounded_by_what_was_decided_where_no_clause_bounds_it():
    """Both wrong in different ways is a disagreement that cannot move n - o."""
    some = judge("n - o > 0.02 +/- 0.02", outcomes(wins=60, losses=15)).clauses[0]
    more = judge("n - o > 0.02 +/- 0.02", outcomes(wins=60, losses=15, wrong_apart=100)).clauses[0]
    assert some.log_p_pass == more.log_p_pass


def test_an_upper_bound_on_d_below_the_threshold_is_a_fail():
    clause = judge("n - o > 0.3 +/- 0.02", outcomes(wins=10, losses=0)).clauses[0]
    assert clause.verdict is FAIL
    assert clause.log_p_pass == 0
    assert clause.log_p_fail == pytest.approx(math.log(0.001), abs=1e-9)


def test_more_wins_never_hurt_a_pass():
    for source in ("n - o > 0.02 +/- .01", "n - o > 0 +/- .01", "n - 1.1 * o > 0 +/- .01", "n > 0.78 +/- .01"):
        levels = [judge(source, outcomes(wins=w, losses=20)).clauses[0].log_p_pass for w in range(20, 200, 6)]
        assert all(later <= here + 1e-9 for here, later in itertools.pairwise(levels)), source
        assert levels[-1] < levels[0]


@settings(deadline=None, max_examples=examples(40))
@given(COUNTS, st.floats(-0.5, 0.5), st.sampled_from([0.5, 2.0, 8.0]), st.sampled_from(["n - o", "n - 1.5 * o", "d"]))
def test_a_clause_times_a_number_says_the_same(counts, c, factor, left):
    c = round(c, 3)
    terms = {"n - o": f"{factor} * n - {factor} * o", "n - 1.5 * o": f"{factor} * n - {1.5 * factor} * o"}
    scaled = terms.get(left, f"{factor} * d")
    one = judge(f"{left} > {c} +/- 0.1", counts).clauses[0]
    two = judge(f"{scaled} > {c * factor} +/- {0.1 * factor}", counts).clauses[0]
    assert two.verdict is one.verdict
    assert two.log_p_pass == pytest.approx(one.log_p_pass, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=examples(40))
@given(COUNTS, st.floats(-0.9, 0.9))
def test_a_left_side_turned_round_says_the_same(counts, c):
    """``n - 1.1 * o > c`` is ``1.1 * o - n < -c``: one is tested from above, the other from below."""
    c = round(c, 3)
    one = judge(f"n - 1.1 * o > {c} +/- 0.1", counts).clauses[0]
    two = judge(f"1.1 * o - n < {-c} +/- 0.1", counts).clauses[0]
    assert one.verdict is two.verdict
    assert (one.log_p_pass, one.log_p_fail) == (two.log_p_pass, two.log_p_fail)
    assert one.interval == (-two.interval[1], -two.interval[0])


def test_a_left_side_of_any_shape_fails_where_it_is_far_below():
    # n - 1.1 * o = 0.85 - 1.1 * 0.77 = 0.003.
    counts = outcomes(wins=100, losses=20)
    assert judge("n - 1.1 * o > 0.3 +/- 0.1", counts).clauses[0].verdict is FAIL
    assert judge("n - 1.1 * o < 0.3 +/- 0.1", counts).clauses[0].verdict is PASS
    assert judge("n - 1.1 * o > -0.3 +/- 0.1", counts).clauses[0].verdict is PASS


def test_decimal_weights_add_up_to_their_threshold():
    """Two models that are always right are at -.8 and not above, though .7 + .1 in doubles is below .8."""
    source = "-0.7 * n - 0.1 * o > -0.8 +/- 0.1"
    assert parse_condition(source).clauses[0].value_of((1, 1, 0)) == -0.8
    assert judge(source, outcomes(1000, both=1000)).verdict is not Verdict.PASS

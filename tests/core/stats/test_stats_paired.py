"""Exact paired tests: against scipy, against independently searched sizes, and by enumeration of the worst case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import at_night, examples
from scipy import stats

from easeml_core.errors import InvalidInputError
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail
from easeml_core.stats.paired import (
    log_paired_p_value,
    log_sign_test,
    log_trinomial_tail,
    log_trinomial_tails,
    paired_lower_bound,
)

NONE = math.log(1e-4 / 32)
FULL = math.log(1e-4) - 32 * math.log(2)


@settings(deadline=None, max_examples=examples(100))
@given(st.integers(0, 400), st.integers(0, 400))
def test_the_sign_test_is_the_exact_mcnemar_test(wins, losses):
    expected = stats.binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue if wins + losses else 1.0
    assert math.exp(log_sign_test(wins, losses)) == pytest.approx(expected, rel=1e-9, abs=0)


def test_the_sign_test_without_underflow():
    assert log_sign_test(2000, 0) == pytest.approx(-2000 * math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "bound"), [(1, 1.0), (2, 1.0), (5, 0.55), (7, 0.9), (12, 1.0), at_night(12, 0.55), at_night(25, 1.0)]
)
@pytest.mark.parametrize("threshold", [-0.4, -0.05, 0.0, 0.1, 0.5])
def test_the_p_value_is_the_worst_case_over_all_laws(n, bound, threshold):
    """Exact size by enumeration: no q and no mean <= c makes a score likelier than its p-value says."""
    shares = np.concatenate([np.linspace(0, 1, 121), 1 - np.geomspace(1e-8, 1e-2, 20)])
    for score in range(-n, n + 1):
        p_value = log_paired_p_value(score, n, threshold=threshold, decided_bound=bound)
        for mean in (threshold, threshold - 0.01, threshold - 0.2):
            if abs(mean) > bound:
                continue
            decided = abs(mean) + (bound - abs(mean)) * shares
            worst = max(log_trinomial_tail(score, n, decided=float(min(q, bound)), mean=mean) for q in decided)
            assert worst <= p_value + 1e-9


@pytest.mark.parametrize("n", [20, 101, 376])
def test_even_and_odd_scores_are_searched_near_one(n):
    """At p = 1 the tail may be largest just below q = 1: the p-value must cover that, and not by far."""
    scores = range(2, min(n, int(5 * math.sqrt(n))), 3)
    lifted = 0
    for score in scores:
        p_value = log_paired_p_value(score, n, threshold=0.0, decided_bound=1.0)
        tails = log_trinomial_tails(score, n, decided=1 - np.geomspace(1e-6, 0.5, 200), mean=0.0)
        at_one = log_trinomial_tail(score, n, decided=1.0, mean=0.0)
        assert max(at_one, tails.max()) <= p_value + 1e-9
        assert p_value <= max(at_one, tails.max()) + 1e-3
        lifted += p_value > at_one + 1e-3
    assert lifted > 0


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(2, 500), st.floats(0.01, 1), st.floats(-1, 1), st.floats(0, 0.5), st.data())
def test_the_p_value_rises_with_threshold_and_bound_and_falls_with_the_score(n, bound, share, step, data):
    score = data.draw(st.integers(-n, n - 1))
    threshold = share * bound
    here = log_paired_p_value(score, n, threshold=threshold, decided_bound=bound)
    assert log_paired_p_value(score, n, threshold=threshold + step, decided_bound=bound) >= here - 1e-7
    # A bound at or below the threshold rules the claim out; a wider one makes it possible again.
    wider = log_paired_p_value(score, n, threshold=threshold, decided_bound=min(1, bound + step))
    assert threshold >= bound or wider >= here - 1e-7
    assert log_paired_p_value(score + 1, n, threshold=threshold, decided_bound=bound) <= here + 1e-7


def test_thresholds_that_the_bound_alone_decides():
    assert log_paired_p_value(-3, 10, threshold=-0.3, decided_bound=0.2) == -math.inf
    assert log_paired_p_value(10, 10, threshold=0.2, decided_bound=0.2) == 0.0
    assert log_paired_p_value(10, 10, threshold=7.0, decided_bound=1.0) == 0.0


@pytest.mark.parametrize("bound", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("log_level", [-2.0, -9.0, -800.0])
def test_the_lower_bound_is_where_the_test_turns(bound, log_level):
    low = paired_lower_bound(60, 1000, decided_bound=bound, log_level=log_level)
    assert log_paired_p_value(60, 1000, threshold=low, decided_bound=bound) <= log_level
    assert log_paired_p_value(60, 1000, threshold=low + 1.1e-6, decided_bound=bound) > log_level


@settings(deadline=None, max_examples=examples(30))
@given(st.floats(-3000, -0.7), st.floats(0.01, 1), st.integers(-200, 200))
def test_a_smaller_level_never_raises_the_lower_bound(log_level, bound, score):
    higher = paired_lower_bound(score, 200, decided_bound=bound, log_level=log_level)
    assert paired_lower_bound(score, 200, decided_bound=bound, log_level=log_level * 1.5) <= higher + 1.1e-6
    assert -bound <= higher <= max(-bound, score / 200)


# Sizes that the exact tests need for n - o > .02 with d <= .1, and for n > .9, so that they pass at least with
# probability 1 - beta when the truth is .04 above (from an independent search): the smallest size, the size from which
# every larger one will do.
PAIRED_SIZES = [
    (NONE, NONE, 20_173, 20_258),
    (FULL, FULL, 56_222, 56_279),
    (NONE, math.log(0.1), 8_409, 8_488),
    (FULL, math.log(0.1), 19_516, 19_594),
]
PROPORTION_SIZES = [
    (NONE, NONE, 16_669, 16_743),
    (FULL, FULL, 46_424, 46_509),
    (NONE, math.log(0.1), 7_003, 7_079),
    (FULL, math.log(0.1), 16_275, 16_363),
]


def paired_miss(n: int, log_alpha: float) -> float:
    """ln of the chance to miss a difference of .04 at q = .1, with the smallest score that rejects .02."""
    low, high = int(0.02 * n), int(0.06 * n)
    while high - low > 1:
        middle = (low + high) // 2
        rejected = log_paired_p_value(middle, n, threshold=0.02, decided_bound=0.1) <= log_alpha
        low, high = (low, middle) if rejected else (middle, high)
    return log_trinomial_tail(-(high - 1), n, decided=0.1, mean=-0.04)


def proportion_miss(n: int, log_alpha: float) -> float:
    low, high = int(0.9 * n), int(0.95 * n)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if log_upper_tail(middle, n, 0.9) <= log_alpha else (middle, high)
    return log_lower_tail(high - 1, n, 0.92)


@pytest.mark.parametrize(("log_alpha", "log_beta", "first", "always"), PAIRED_SIZES)
def test_sizes_at_which_the_paired_test_has_its_power(log_alpha, log_beta, first, always):
    assert paired_miss(first, log_alpha) <= log_beta < paired_miss(first - 1, log_alpha)
    assert paired_miss(always, log_alpha) <= log_beta < paired_miss(always - 1, log_alpha)


@pytest.mark.parametrize(("log_alpha", "log_beta", "first", "always"), PROPORTION_SIZES)
def test_sizes_at_which_the_binomial_test_has_its_power(log_alpha, log_beta, first, always):
    assert proportion_miss(first, log_alpha) <= log_beta < proportion_miss(first - 1, log_alpha)
    assert proportion_miss(always, log_alpha) <= log_beta < proportion_miss(always - 1, log_alpha)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_sign_test(-1, 2), "wins and losses must be >= 0, got -1 and 2"),
        (lambda: log_paired_p_value(0, 0, threshold=0.0, decided_bound=0.5), "need examples >= 1"),
        (lambda: log_paired_p_value(0, 5, threshold=0.0, decided_bound=1.5), r"decided_bound in \[0, 1\], got 5, 1.5"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_at_minus_the_bound_every_decided_example_is_a_loss():
    """A threshold equal to minus the bound can still be the truth; then the score is minus a binomial count."""
    found = log_paired_p_value(-3, 10, threshold=-0.5, decided_bound=0.5)
    assert found == pytest.approx(stats.binom.logcdf(3, 10, 0.5), rel=1e-9)
    assert log_paired_p_value(-3, 10, threshold=-0.501, decided_bound=0.5) == -math.inf


@pytest.mark.parametrize(
    ("n", "alpha"),
    [(20, 0.3), (20, 1e-4), (51, 0.01), (376, 0.01)]
    + [at_night(n, alpha) for n, alpha in ((20, 0.01), (51, 0.3), (51, 1e-4), (376, 0.3), (376, 1e-4))],
)
def test_a_lower_bound_is_rejected_by_the_whole_search_and_nothing_above_it_is(n, alpha):
    """The tail at q = 1 alone would put the bound higher, by up to .02, where just one of n and the score is even."""
    for score in (1, 3, 7):
        low = paired_lower_bound(score, n, decided_bound=1.0, log_level=math.log(alpha))
        assert log_paired_p_value(score, n, threshold=low, decided_bound=1.0) <= math.log(alpha)
        assert log_paired_p_value(score, n, threshold=low + 2.1e-6, decided_bound=1.0) > math.log(alpha)

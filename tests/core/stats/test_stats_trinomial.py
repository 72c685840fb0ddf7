"""The tail of a sum of values -1, 0, 1: against sums of fractions, a second formula, and long decimals."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import special, stats

from easeml_core.errors import InvalidInputError
from easeml_core.stats.paired import log_trinomial_tail, log_trinomial_tails


def exact_tail(score: int, n: int, decided: float, mean: float) -> Fraction:
    q, c = Fraction(decided), Fraction(mean)
    up, down, still = (q + c) / 2, (q - c) / 2, 1 - q
    return sum(
        (comb(n, w) * comb(n - w, k) * up**w * down**k * still ** (n - w - k))
        for w in range(n + 1)
        for k in range(n - w + 1)
        if w - k >= score
    ) + Fraction(0)


def tail_by_decided_examples(score: int, n: int, decided: float, mean: float) -> float:
    """The same tail from another formula: sum over j of Bin(j; N, q) P(Bin(j, (q + c) / (2 q)) >= (j + s) / 2)."""
    j = np.arange(max(1, abs(score)), n + 1)
    k = np.ceil((j + score) / 2)
    inner = special.betainc(np.maximum(k, 1e-300), j - k + 1, (decided + mean) / (2 * decided))
    return float(stats.binom.pmf(j, n, decided) @ np.where(k <= 0, 1.0, inner))


@settings(deadline=None, max_examples=examples(150))
@given(st.integers(1, 14), st.one_of(st.just(0.0), st.floats(1e-9, 1)), st.floats(-1, 1), st.data())
def test_small_tails_equal_sums_of_fractions(n, decided, share, data):
    score = data.draw(st.integers(-n - 1, n + 1))
    mean = decided * share
    found = log_trinomial_tail(score, n, decided=decided, mean=mean)
    exact = exact_tail(score, n, decided, mean)
    if exact < Fraction(1, 10**290):
        assert found < math.log(1e-289)
    else:
        assert math.exp(found) == pytest.approx(float(exact), rel=1e-10, abs=0)


@pytest.mark.parametrize(
    ("score", "n", "decided", "mean"),
    [
        (60, 1000, 0.1, 0.02),
        (700, 20_000, 0.1, 0.02),
        (40, 4000, 0.9, -0.01),
        (9, 376, 1.0, 0.0),
        (-30, 3000, 0.2, 0.0),
    ],
)
def test_large_tails_equal_the_sum_over_decided_examples(score, n, decided, mean):
    found = math.exp(log_trinomial_tail(score, n, decided=decided, mean=mean))
    assert found == pytest.approx(tail_by_decided_examples(score, n, decided, mean), rel=1e-8, abs=0)


@pytest.mark.parametrize(("score", "n", "decided", "mean"), [(360, 600, 0.3, 0.05), (560, 600, 0.6, 0.1)])
def test_tails_far_below_the_smallest_double(score, n, decided, mean):
    with localcontext() as context:
        context.prec = 50
        q, c, total = Decimal(decided), Decimal(mean), Decimal(0)
        up, down, still = (q + c) / 2, (q - c) / 2, 1 - q
        for losses in range((n - score) // 2 + 1):
            for wins in range(losses + score, n - losses + 1):
                ways = comb(n, wins) * comb(n - wins, losses)
                total += ways * up**wins * down**losses * still ** (n - wins - losses)
        exact = float(total.ln())
    assert exact < -300
    assert log_trinomial_tail(score, n, decided=decided, mean=mean) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("decided", [1e-320, 1e-310, 1e-258, 1e-200])
@pytest.mark.parametrize("share", [-1.0, -0.5, 0.0, 1.0])
def test_chances_near_the_smallest_double_stay_on_the_safe_side(decided, share):
    for score in range(-3, 4):
        found = log_trinomial_tail(score, 3, decided=decided, mean=decided * share)
        assert found <= 0.0
        assert math.exp(found) >= float(exact_tail(score, 3, decided, decided * share)) * (1 - 1e-9)


@settings(deadline=None, max_examples=examples(40))
@given(st.integers(2, 3000), st.floats(-0.9, 0.9), st.lists(st.floats(0.91, 1), min_size=1, max_size=5), st.data())
def test_many_shares_at_once_are_the_same_tails(n, mean, shares, data):
    score = data.draw(st.integers(math.floor(n * mean) + 1, n))
    found = log_trinomial_tails(score, n, decided=np.array(shares), mean=mean)
    for share, tail in zip(shares, found, strict=True):
        assert tail == pytest.approx(log_trinomial_tail(score, n, decided=share, mean=mean), rel=1e-9, abs=1e-12)


def test_certain_and_impossible_scores():
    assert log_trinomial_tail(-5, 5, decided=0.3, mean=0.1) == 0
    assert log_trinomial_tail(6, 5, decided=0.3, mean=0.1) == -math.inf
    assert log_trinomial_tail(1, 5, decided=0.0, mean=0.0) == -math.inf
    assert log_trinomial_tail(0, 5, decided=0.0, mean=0.0) == 0
    assert log_trinomial_tail(5, 5, decided=0.5, mean=0.1) == pytest.approx(5 * math.log(0.3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_trinomial_tail(0, 0, decided=0.5, mean=0.1), "need examples >= 1"),
        (lambda: log_trinomial_tail(0, 5, decided=0.1, mean=0.2), r"\|mean\| <= decided <= 1, got 5, 0.2, 0.1"),
        (lambda: log_trinomial_tail(0, 5, decided=math.nan, mean=0.2), "decided"),
        (lambda: log_trinomial_tails(1, 5, decided=np.array([0.1]), mean=0.5), "need N . mean < score <= N"),
        (lambda: log_trinomial_tails(1, 5, decided=np.array([0.1]), mean=0.1), "need N . mean < score <= N"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()

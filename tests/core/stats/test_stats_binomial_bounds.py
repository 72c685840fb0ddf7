"""Exact bounds of a proportion: against scipy, against exact sums, against the definition of coverage."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import special, stats

from easeml_core.errors import InvalidInputError, NumericalError
from easeml_core.stats.binomial_bounds import (
    clopper_pearson,
    log_lower_tail,
    log_upper_tail,
    lower_bound,
    upper_bound,
)


@st.composite
def counts(draw, largest: int = 5_000) -> tuple[int, int]:
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n)), n


log_levels = st.floats(-1_000, -0.01)
moderate = settings(deadline=None, max_examples=examples(150))


def exact_log_tail(k: int, n: int, p: float) -> float:
    """ln P(X >= k) by adding up all terms with 60 digits: slow, and nothing to get wrong."""
    with localcontext() as context:
        context.prec = 60
        q = 1 - Decimal(p)
        return float(sum(math.comb(n, j) * Decimal(p) ** j * q ** (n - j) for j in range(k, n + 1)).ln())


def test_bounds_agree_with_scipy_where_scipy_is_fine():
    rng = np.random.default_rng(20261125)
    for _ in range(1_500):
        n = int(10 ** rng.uniform(0, 4.7))
        k = int(rng.integers(0, n + 1))
        level = 10 ** rng.uniform(-60, -0.05)
        low, high = clopper_pearson(k, n, log_level=math.log(level))
        # rtol: scipy's own inverse is good to about 1e-11 at these sizes.
        assert low == pytest.approx(special.betaincinv(k, n - k + 1, level / 2) if k else 0.0, rel=1e-9)
        assert high == pytest.approx(special.betainccinv(k + 1, n - k, level / 2) if k < n else 1.0, rel=1e-9)


@pytest.mark.parametrize("log_level", [-0.5, -50.0, -300.0, -700.0, -1_000.0, -2_500.0])
@pytest.mark.parametrize(("k", "n"), [(7, 10), (30, 40), (200, 400), (399, 400), (500, 900)])
def test_bounds_solve_the_tail_equation_far_below_the_smallest_float(k, n, log_level):
    low = lower_bound(k, n, log_level=log_level)
    assert exact_log_tail(k, n, low) == pytest.approx(log_level, rel=1e-10)
    high = upper_bound(n - k, n, log_level=log_level)
    assert high == pytest.approx(1 - low, rel=1e-12)


@pytest.mark.parametrize("log_level", [-0.1, -3.0, -200.0, -1_000.0])
@pytest.mark.parametrize("n", [1, 2, 77, 50_000])
def test_bounds_have_closed_forms_at_the_edges(n, log_level):
    assert lower_bound(0, n, log_level=log_level) == 0.0
    assert upper_bound(n, n, log_level=log_level) == 1.0
    assert lower_bound(n, n, log_level=log_level) == pytest.approx(math.exp(log_level / n), rel=1e-14)
    assert upper_bound(0, n, log_level=log_level) == pytest.approx(-math.expm1(log_level / n), rel=1e-14)
    one_success = -math.expm1(math.log1p(-math.exp(log_level)) / n)
    assert lower_bound(1, n, log_level=log_level) == pytest.approx(one_success, rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("level", [0.5, 0.2, 0.05, 0.001])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 30])
def test_each_end_misses_the_truth_with_at_most_half_of_the_level(n, level):
    """Coverage by enumeration of every count, also just beside the ends of the intervals, where it is worst."""
    intervals = [clopper_pearson(k, n, log_level=math.log(level)) for k in range(n + 1)]
    ends = np.array(intervals).ravel()
    truths = np.clip(np.concatenate([np.linspace(0, 1, 101), ends - 1e-9, ends + 1e-9]), 0, 1)
    worst = 0.0
    for p in truths:
        mass = stats.binom.pmf(np.arange(n + 1), n, p)
        below = sum(m for m, (_, high) in zip(mass, intervals, strict=True) if high < p)
        above = sum(m for m, (low, _) in zip(mass, intervals, strict=True) if low > p)
        assert below <= level / 2 * (1 + 1e-9)
        assert above <= level / 2 * (1 + 1e-9)
        worst = max(worst, below)
    # Exact, not only safe: somewhere the whole half of the level is used up.
    assert worst == pytest.approx(level / 2, rel=1e-4)


@moderate
@given(counts(), log_levels, log_levels)
def test_intervals_are_nested_in_their_level(count, one, other):
    wide, narrow = (clopper_pearson(*count, log_level=level) for level in sorted((one, other)))
    assert wide[0] <= narrow[0] + 1e-12 <= count[0] / count[1] + 2e-12
    assert wide[1] >= narrow[1] - 1e-12 >= count[0] / count[1] - 2e-12


@moderate
@given(counts(), log_levels)
def test_both_ends_rise_with_the_count(count, log_level):
    k, n = count
    if k == n:
        return
    here, next_one = (clopper_pearson(c, n, log_level=log_level) for c in (k, k + 1))
    assert here[0] <= next_one[0]
    assert here[1] <= next_one[1]


def test_a_lower_bound_below_the_smallest_float_is_zero_the_safe_side():
    assert lower_bound(1, 100, log_level=-1_000.0) == 0.0
    assert lower_bound(2, 100, log_level=-1_000.0) > 0.0


@moderate
@given(counts(), log_levels)
def test_counting_the_failures_turns_the_interval_round(count, log_level):
    k, n = count
    low, high = clopper_pearson(k, n, log_level=log_level)
    assert clopper_pearson(n - k, n, log_level=log_level) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_tails_agree_with_scipy_and_go_on_where_it_underflows():
    rng = np.random.default_rng(1)
    for _ in range(500):
        n, p = int(10 ** rng.uniform(0, 5)), rng.uniform(0.001, 0.999)
        k = int(np.clip(rng.normal(n * p, 6 * math.sqrt(n * p * (1 - p)) + 1), 0, n))
        assert log_upper_tail(k, n, p) == pytest.approx(stats.binom.logsf(k - 1, n, p), rel=1e-8, abs=1e-10)
        assert log_lower_tail(k, n, p) == pytest.approx(stats.binom.logcdf(k, n, p), rel=1e-8, abs=1e-10)
    assert log_upper_tail(1_500, 2_000, 0.25) == pytest.approx(exact_log_tail(1_500, 2_000, 0.25), rel=1e-12)
    assert log_upper_tail(1_500, 2_000, 0.25) < -1_000


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_tails_of_a_sure_thing(p):
    assert log_upper_tail(0, 7, p) == log_lower_tail(7, 7, p) == 0.0
    assert log_upper_tail(3, 7, p) == (0.0 if p else -math.inf)
    assert log_lower_tail(3, 7, p) == (-math.inf if p else 0.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0), (2.0, 5), (2, "5"), (math.nan, 5)])
def test_wrong_counts_are_refused(k, n):
    with pytest.raises(InvalidInputError, match="counts must"):
        clopper_pearson(k, n, log_level=-1.0)


@pytest.mark.parametrize("log_level", [0.0, 0.5, math.nan, -math.inf])
def test_wrong_levels_are_refused(log_level):
    for bound in (lower_bound, upper_bound, clopper_pearson):
        with pytest.raises(InvalidInputError, match="log_level must be finite and < 0"):
            bound(1, 5, log_level=log_level)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_wrong_probabilities_are_refused(p):
    for tail in (log_upper_tail, log_lower_tail):
        with pytest.raises(InvalidInputError, match=r"probability must be in \[0, 1\]"):
            tail(1, 5, p)


def test_what_cannot_be_computed_is_an_error_not_a_number():
    with pytest.raises(NumericalError, match=r"no Clopper-Pearson bound found for K = 1 of N = 2"):
        lower_bound(1, 2, log_level=-1e-300)
    with pytest.raises(NumericalError, match="did not settle"):
        log_upper_tail(5 * 10**14, 10**15, 0.5)

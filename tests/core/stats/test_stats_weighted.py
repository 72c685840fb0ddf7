"""The test of a weighted side: the inequality behind it, its size on small sets, its power beside the optimum's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.stats import beta, binom, multinomial

from easeml_core.errors import InvalidInputError
from easeml_core.stats import weighted
from easeml_core.stats.weighted import (
    AtMost,
    log_bentkus_tail,
    log_weighted_p_value,
    second_moment_bound,
    weighted_test_size,
    widest_law,
)

VALUES = (-0.1, 1.0, -1.1, 0.0, 0.0)  # n - 1.1 o, in the order of condition.OUTCOMES
DIFFERING = (1, 2, 4)
LEVEL, MISS = math.log(0.005), math.log(0.1)
ASKED = {"threshold": 0.01, "alternative": 0.03, "differing": DIFFERING, "log_level": LEVEL, "log_miss": MISS}
# Laws at c + 2 eps: o = .8 with as few disagreements as n = .91 allows, and o = .5 with d = .3. The optimum is the
# normal approximation (z_alpha + z_beta)^2 var / (2 eps)^2 with the variance on the threshold: 4,051 and 12,234.
POINTS = [((0.8, 0.11, 0.0, 0.09, 0.0), 4_051, 0.1), ((0.39, 0.19, 0.11, 0.31, 0.0), 12_234, 0.3)]

moments = st.floats(0.01, 4.0)


@settings(deadline=None, max_examples=examples(300))
@given(
    st.lists(st.tuples(st.floats(-3, 1), st.floats(0.01, 1)), min_size=1, max_size=6),
    st.floats(-4, 2),
)
def test_the_two_point_law_has_the_largest_moment_of_every_f(points, t):
    """The inequality of one step: E (X - t)_+^2 is at most that of the law on {-m / b, b} with mean 0."""
    x, weights = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    chances = weights / weights.sum()
    x = x - max(0.0, float(chances @ x))  # a mean of at most 0
    b, m = 1.0, float(chances @ x**2) + 1e-9
    up = m / (b * b + m)
    ours = float(chances @ np.maximum(x - t, 0) ** 2)
    theirs = up * max(b - t, 0) ** 2 + (1 - up) * max(-m / b - t, 0) ** 2
    assert ours <= theirs * (1 + 1e-9) + 1e-12


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(1, 40), moments, st.floats(0.0, 1.0))
def test_the_bound_is_above_the_tail_of_the_extremal_law_and_below_chernoffs(examples, moment, part):
    """T itself is such a sum: its exact tail must be below; and Bernstein-Chernoff's infimum is a weaker bound."""
    p = moment / (1 + moment)
    count = min(examples, max(0, round(examples * (p + part * (1 - p)))))
    total = (count - examples * p) * (1 + moment)
    found = log_bentkus_tail(total, examples, largest=1.0, second_moment=moment)
    assert found >= binom.logsf(count - 1, examples, p) - 1e-9
    if examples * p + math.sqrt(examples * p * (1 - p)) < count < examples:
        share = count / examples
        kl = share * math.log(share / p) + (1 - share) * math.log((1 - share) / (1 - p))
        assert found <= -examples * kl + 1e-3


def test_known_values_of_the_bound():
    assert log_bentkus_tail(50.0, 50, largest=1.0, second_moment=0.5) == pytest.approx(50 * math.log(1 / 3))
    assert log_bentkus_tail(50.1, 50, largest=1.0, second_moment=0.5) == -math.inf
    assert log_bentkus_tail(0.0, 50, largest=1.0, second_moment=0.5) == 0.0
    # Between the exact tail and e^2 / 2 times it, but for the lattice; also at a level of 2^-5000.
    for z in (2.6, 7.5, 60.0):
        n, p = 20_000, 0.5
        count = round(n * p + z * math.sqrt(n) / 2)
        found = log_bentkus_tail(2 * (count - n * p), n, largest=1.0, second_moment=1.0)
        assert 0 <= found - binom.logsf(count - 1, n, p) < 2 if z < 30 else found > -5000
    with pytest.raises(InvalidInputError, match="second_moment > 0"):
        log_bentkus_tail(1.0, 5, largest=1.0, second_moment=0.0)


def test_no_null_law_is_rejected_more_often_than_the_level():
    """Exact sizes: every outcome of 7 examples under laws on and below the threshold; at levels up to one half."""
    n, values = 7, np.array([-0.5, 1.0, -1.5, 0.0])
    rows = np.array([row for row in itertools.product(range(n + 1), repeat=4) if sum(row) == n])
    rng = np.random.default_rng(15)
    laws = [widest_law(values, mean=0.1, differing=(1, 2), disagreement_bound=p) for p in (0.2, 0.5, 1.0)]
    for one, two in zip(rng.dirichlet(np.full(4, 0.4), 400), rng.dirichlet(np.full(4, 0.4), 400), strict=True):
        a, b = one @ values - 0.1, two @ values - 0.1
        if a * b < 0:
            laws.append(two + (b / (b - a)) * (one - two))
    for log_level in (math.log(0.5), math.log(0.05)):
        passed = np.array(
            [log_weighted_p_value(row, AtMost(values, 0.1), log_level=log_level) <= log_level for row in rows]
        )
        worst = max(float(multinomial.pmf(rows, n, law)[passed].sum()) for law in laws)
        assert worst <= math.exp(log_level)
        assert log_level < -1 or worst > 0.01  # the enumeration sees rejections


@pytest.mark.parametrize("law", [(0.8, 0.098, 0.008, 0.094, 0.0), (0.0, 0.5290476, 0.4709524, 0.0, 0.0)])
def test_size_by_simulation(law):
    """10,000 sets on the threshold: more than 1.5 % rejections at 1 % have a chance below 1e-6."""
    values, level = np.array(VALUES), math.log(0.01)
    mean = float(np.array(law) @ values)
    drawn = np.random.default_rng(4).multinomial(500, law, size=10_000)
    rows, times = np.unique(drawn, axis=0, return_counts=True)
    passed = [log_weighted_p_value(row, AtMost(values, mean), log_level=level) <= level for row in rows]
    assert times[passed].sum() <= 150


@pytest.mark.parametrize(("law", "optimum", "bound"), POINTS)
def test_the_test_and_its_plan_are_within_half_of_the_optimum(law, optimum, bound):
    """At 1.5 times the optimum the judge has power .9 at level .005; seeded, so that the share is one number."""
    drawn = np.random.default_rng(5).multinomial(math.floor(1.5 * optimum), law, size=500)
    values = np.array(VALUES)
    passed = [log_weighted_p_value(row, AtMost(values, 0.01), log_level=LEVEL) <= LEVEL for row in drawn]
    assert np.mean(passed) >= 0.88
    planned = weighted_test_size(VALUES, disagreement_bound=bound, tested=False, **ASKED)
    assert optimum < planned <= 1.5 * optimum


@pytest.mark.parametrize("tested", [False, True])
@pytest.mark.parametrize("bound", [0.1, 0.3, 1.0])
def test_the_judge_has_the_planned_power_at_the_widest_law(bound, tested):
    size = weighted_test_size(VALUES, disagreement_bound=bound, tested=tested, **ASKED)
    values = np.array(VALUES)
    law = widest_law(values, mean=0.03, differing=DIFFERING, disagreement_bound=bound)
    assert law @ values == pytest.approx(0.03)
    assert law[list(DIFFERING)].sum() <= bound + 1e-9
    null = AtMost(values, 0.01, DIFFERING, bound if tested else None)
    drawn = np.random.default_rng(6).multinomial(size, law, size=500)
    share = np.mean([log_weighted_p_value(row, null, log_level=LEVEL) <= LEVEL for row in drawn])
    assert 0.83 < share < 0.97  # five standard errors of 500 draws at .9


def test_where_no_law_has_the_mean_it_is_the_law_of_the_largest():
    values = np.array(VALUES[:4])
    law = widest_law(values, mean=2.0, differing=(1, 2), disagreement_bound=0.1)
    assert law.tolist() == [0.0, 0.1, 0.0, 0.9]


def test_the_bound_on_the_second_moment_holds_and_is_capped():
    values, rng = np.array(VALUES), np.random.default_rng(8)
    law = np.array([0.8, 0.11, 0.01, 0.08, 0.0])
    truth = float(law @ (values - 0.01) ** 2)
    drawn = rng.multinomial(400, law, size=2_000)
    below = [second_moment_bound(row, AtMost(values, 0.01), log_level=math.log(0.05)) < truth for row in drawn]
    assert np.mean(below) <= 0.08  # .05 and six standard errors
    wide = np.array([0, 0, 5, 0, 0])
    assert second_moment_bound(wide, AtMost(values, 0.01), log_level=-3.0) == pytest.approx(1.11 * 0.99)
    known = second_moment_bound(wide, AtMost(values, 0.01, DIFFERING, 0.1), log_level=-3.0)
    assert known == pytest.approx(0.11**2 + 0.1 * (1.11**2 - 0.11**2))


def test_values_at_the_smallest_add_nothing_to_the_sum():
    """5 times -.8 and once more, rounded on the way, are not above 6 times -.8."""
    values = np.array([-0.8, -0.8, 0.0])
    for counts in ([5, 1, 0], [5, 19, 0]):
        assert log_weighted_p_value(np.array(counts), AtMost(values, -0.8), log_level=-5.0) == 0.0


def test_the_p_value_is_bentkus_bound_at_the_bound_on_the_moment_with_a_tenth_of_the_level():
    """Out of scipy alone: each chance at its exact upper bound, for its height's part of alpha / 10; the best t."""
    counts, values, c, alpha = np.array([1950, 300, 10, 240, 0]), np.array(VALUES), 0.01, 0.005
    n = int(counts.sum())
    heights = sorted({(v - c) ** 2 for v in VALUES})
    steps = list(itertools.pairwise(heights))
    moment, largest = heights[0], 1 - c
    for low, high in steps:
        seen = int(counts[(values - c) ** 2 >= high].sum())
        level = alpha / 10 * (high - low) / (heights[-1] - heights[0])
        moment += (high - low) * beta.isf(level, seen + 1, n - seen)
    p = moment / (largest**2 + moment)
    point = (counts @ (values - c)) * largest / (largest**2 + moment) + n * p
    k, t = np.arange(n + 1), point - np.linspace(1, 60, 5000)
    law = binom.pmf(k, n, p)
    bound = min(law @ np.maximum(k - each, 0) ** 2 / (point - each) ** 2 for each in t)
    found = math.exp(log_weighted_p_value(counts, AtMost(values, c), log_level=math.log(alpha)))
    assert alpha / 100 < bound < alpha  # neither part of the sum is all of it
    assert found == pytest.approx(bound + alpha / 10, rel=2e-3)


@pytest.mark.parametrize(("wins", "n", "p"), [(15, 50, 0.9), (2, 400, 0.5), (60, 100, 0.62), (1, 30, 0.4)])
def test_the_lower_tail_of_a_sum_is_about_the_binomial_one(wins, n, p):
    law, worth = np.array([1 - p, p]), np.array([0.0, 1.0])
    found = weighted._log_lower_tail(wins - 0.5, n, law, worth)
    assert found == pytest.approx(binom.logcdf(wins - 1, n, p), rel=0.04, abs=0.02)


def test_the_lower_tail_is_certain_from_the_mean_upwards_and_impossible_below_every_value():
    law, worth = np.array([0.4, 0.6]), np.array([-1.0, 1.0])
    assert [weighted._log_lower_tail(total, 10, law, worth) for total in (2.0, 3.0, 10.0)] == [0.0] * 3
    assert weighted._log_lower_tail(-10.0, 10, law, worth) == -math.inf


def test_what_lies_beyond_the_counts_that_are_added_up_is_never_left_out():
    """A window that ends three counts behind the point: the series bounds the rest, by less than a fifth too much."""
    n, p, point = 400, 0.3, 150.0
    counts, below = np.arange(60, 154), np.array([1.0, 5.0, 20.0])
    found = weighted._log_ratios(point, below, counts, binom.logpmf(counts, n, p), n, p)
    k = np.arange(n + 1)
    exact = [binom.pmf(k, n, p) @ np.maximum(k - (point - b), 0) ** 2 / b**2 for b in below]
    assert (np.exp(found) >= exact).all()
    assert (np.exp(found) <= 1.2 * np.array(exact)).all()

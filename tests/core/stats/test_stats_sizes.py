"""Sizes of exact tests and intervals against direct sums of scipy's distributions, and against published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.stats import binom

from easeml_core.errors import ConfigError
from easeml_core.stats.binomial_sizes import (
    MOST_EXAMPLES,
    binomial_deviation_size,
    binomial_test_size,
    first_at_most,
    log_binomial_miss,
    log_largest_deviation,
)
from easeml_core.stats.bound_sizes import (
    bennett_deviation_size,
    bennett_test_size,
    chernoff_test_size,
    hoeffding_test_size,
    sign_test_bound_size,
)
from easeml_core.stats.paired import log_paired_miss, log_paired_p_value, paired_test_size
from easeml_core.stats.sign_test_sizes import CriticalWins, log_sign_miss, sign_test_size

DELTA = {0.9999: 1e-4, 0.99: 1e-2}


def log_level(reliability: float, log_multiplicity: float) -> float:
    return math.log(DELTA[reliability]) - log_multiplicity


NONE, FULL = math.log(32), 32 * math.log(2)
# specs: one-sided sizes of an estimate, worst p near one half; eps .1, .05, .025, .01.
ESTIMATES = [
    (0.9999, NONE, (520, 2_060, 8_203, 51_124)),
    (0.9999, FULL, (1_429, 5_704, 22_785, 142_272)),
    (0.99, NONE, (302, 1_190, 4_720, 29_350)),
    (0.99, FULL, (1_203, 4_800, 19_168, 119_664)),
]


@pytest.mark.parametrize(("reliability", "nats", "sizes"), ESTIMATES)
def test_sizes_of_an_estimate(reliability, nats, sizes):
    level = log_level(reliability, nats)
    found = tuple(binomial_deviation_size(tolerance=eps, log_level=level) for eps in (0.1, 0.05, 0.025, 0.01))
    assert found == sizes


def test_two_sides_and_the_hole():
    level = math.log(1e-4 / 32)
    assert binomial_deviation_size(tolerance=0.05, log_level=level, sides=2) == 2_181
    holds = {n: log_largest_deviation(n, 0.05, sides=2) <= level for n in range(2_170, 2_260)}
    # Up to 2,180 never, then always but at 2,190, where 2 N eps is whole and both events are closed.
    assert [n for n, ok in holds.items() if n > 2_180 and not ok] == [2_190]
    assert not any(holds[n] for n in range(2_170, 2_181))


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("eps", [0.05, 0.13, 0.25, 0.4])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 41, 80])
def test_the_largest_deviation_is_found(n, eps, sides):
    truths = np.unique(np.concatenate([np.linspace(0, 1, 4001), *[np.arange(n + 1) / n + s * eps for s in (-1, 1)]]))
    truths = truths[(truths >= 0) & (truths <= 1)]
    upper = binom.sf(np.ceil(n * (truths + eps) - 1e-9) - 1, n, truths)
    lower = binom.cdf(np.floor(n * (truths - eps) + 1e-9), n, truths) if sides == 2 else 0.0
    assert math.exp(log_largest_deviation(n, eps, sides=sides)) == pytest.approx((upper + lower).max(), rel=1e-9)


def test_no_deviation_can_be_larger_than_one():
    assert log_largest_deviation(5, 1.5) == -math.inf
    assert binomial_deviation_size(tolerance=1.5, log_level=-20.0) == 1


def binomial_miss(n: int, null: float, truth: float, level: float) -> float:
    counts = np.arange(n + 2)
    critical = int(np.argmax(binom.sf(counts - 1, n, null) <= level))
    return float(binom.cdf(critical - 1, n, truth))


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(1, 300), st.floats(0.0, 0.9), st.floats(0.02, 1.0), st.floats(1e-8, 0.4))
def test_the_miss_of_a_binomial_test(n, null, part, level):
    truth = null + (1 - null) * part
    found = log_binomial_miss(n, null=null, alternative=truth, log_level=math.log(level))
    # Where a tail equals the level to the last digit, either count may be critical.
    near = {binomial_miss(n, null, truth, level * f) for f in (1 - 1e-9, 1.0, 1 + 1e-9)}
    assert any(math.exp(found) == pytest.approx(miss, rel=1e-8, abs=1e-300) for miss in near)


@pytest.mark.parametrize(
    ("nats", "beta", "least", "most"),
    [
        (NONE, None, 16_669, 16_743),
        (NONE, 0.1, 7_003, 7_079),
        (FULL, None, 46_424, 46_509),
        (FULL, 0.1, 16_275, 16_363),
    ],
)
def test_sizes_of_a_binomial_test_lie_where_they_must(nats, beta, least, most):
    level = log_level(0.9999, nats)
    miss = level if beta is None else math.log(beta)
    found = binomial_test_size(null=0.9, alternative=0.92, log_level=level, log_miss=miss)
    assert least <= found <= most
    assert binomial_miss(found, 0.9, 0.92, math.exp(level)) <= math.exp(miss)
    assert binomial_miss(found - 1, 0.9, 0.92, math.exp(level)) > math.exp(miss)


def test_the_ends_of_the_intervals_are_where_the_requirement_first_and_always_holds():
    level = math.log(1e-4 / 32)
    holds = [
        log_binomial_miss(n, null=0.9, alternative=0.92, log_level=level) <= math.log(0.1) for n in range(6_950, 7_200)
    ]
    assert 6_950 + holds.index(True) == 7_003
    assert 6_950 + len(holds) - holds[::-1].index(False) == 7_079


def trinomial_miss(n: int, c: float, mean: float, q: float, p: float, level: float) -> float:
    """By the sum over the number of decided examples; the test takes the largest tail over a grid of shares <= p."""

    def upper(s: int, share: float, mu: float) -> float:
        j = np.arange(n + 1)
        wins = binom.sf(np.ceil((j + s) / 2) - 1, j, min(1.0, (share + mu) / (2 * share)))
        return float((binom.pmf(j, n, share) * wins).sum())

    shares = [p] if p < 0.5 else list(p - np.append(np.logspace(-4, math.log10(p - abs(c) - 1e-9), 25), 0.0))
    s = math.ceil(n * c) + 1
    while max(upper(s, share, c) for share in shares) > level:
        s += 1
    return 1 - upper(s, q, mean)


@pytest.mark.parametrize(
    ("nats", "beta", "least", "most"),
    [
        (NONE, None, 20_173, 20_258),
        (NONE, 0.1, 8_409, 8_488),
        (FULL, None, 56_222, 56_279),
        (FULL, 0.1, 19_516, 19_594),
        (math.log(5_488), None, 29_983, 30_069),
        (math.log(5_488), 0.1, 11_542, 11_621),
        (2 * NONE, None, 26_759, 26_844),
        (2 * NONE, 0.1, 10_518, 10_597),
    ],
)
def test_sizes_of_a_trinomial_test_lie_where_they_must(nats, beta, least, most):
    level = log_level(0.9999, nats)
    miss = level if beta is None else math.log(beta)
    asked = {"threshold": 0.02, "alternative": 0.04, "decided_bound": 0.1}
    found = paired_test_size(**asked, log_level=level, log_miss=miss)
    assert least <= found <= most
    assert log_paired_miss(found, **asked, log_level=level) <= miss
    assert log_paired_miss(found - 1, **asked, log_level=level) > miss


@pytest.mark.parametrize(("c", "gain", "p"), [(0.05, 0.2, 0.3), (-0.1, 0.2, 0.4), (0.1, 0.5, 1.0), (0.0, 0.5, 0.95)])
def test_a_trinomial_size_keeps_its_word_for_every_share(c, gain, p):
    level, beta = 1e-3, 0.05
    found = paired_test_size(
        threshold=c, alternative=c + gain, decided_bound=p, log_level=math.log(level), log_miss=math.log(beta)
    )
    for q in (*np.linspace(c + gain, p, 7), p - 0.3 / found, p - 1 / found, p - 3 / found):
        assert trinomial_miss(found, c, c + gain, q, p, level) <= beta * (1 + 1e-9)
    worst = max(
        trinomial_miss(found - 1, c, c + gain, q, p, level) for q in (p, p - 0.3 / found, p - 1 / found, p - 3 / found)
    )
    assert worst > beta * (1 - 1e-3)


def test_next_to_one_a_first_look_is_not_enough():
    # At q = 1 even and odd scores differ; a little below, the miss of 69 examples is 9 per cent above beta.
    asked = {"threshold": 0.19, "alternative": 0.59, "decided_bound": 1.0, "log_level": math.log(0.01)}
    assert log_paired_miss(69, **asked, proof=False) <= math.log(0.1) < log_paired_miss(69, **asked)
    found = paired_test_size(**asked, log_miss=math.log(0.1))
    assert found == 72
    assert max(trinomial_miss(found, 0.19, 0.59, 1 - u / found, 1.0, 0.01) for u in (0, 0.3, 0.7, 1.2, 2, 4)) <= 0.1


@pytest.mark.parametrize("p", [1.0, 0.97, 0.9, 0.4])
@pytest.mark.parametrize("level", [0.05, 0.01, 1e-4])
def test_the_critical_score_is_that_of_the_judge(level, p):
    log = math.log(level)
    for n in range(20, 90, 3):
        rejects = (s for s in range(n + 1) if log_paired_p_value(s, n, threshold=0.05, decided_bound=p) <= log)
        critical = next(rejects, None)
        expected = 0.0
        if critical is not None:
            expected = log_paired_p_value(1 - critical, n, threshold=-0.3, decided_bound=p)
        found = log_paired_miss(n, threshold=0.05, alternative=0.3, decided_bound=p, log_level=log)
        assert found == pytest.approx(expected, abs=1e-12)


def sign_miss(n: int, mean: float, q: float, level: float) -> float:
    total = 0.0
    for m, chance in enumerate(binom.pmf(np.arange(n + 1), n, q)):
        tails = binom.sf(np.arange(m + 2) - 1, m, 0.5) if m else np.array([1.0, 0.0])
        critical = int(np.argmax(tails <= level))
        total += chance * binom.cdf(critical - 1, m, min(1.0, (q + mean) / (2 * q)))
    return total


@pytest.mark.parametrize(("mean", "p"), [(0.15, 0.3), (0.4, 1.0), (0.2, 0.2), (0.3, 0.6)])
def test_a_sign_test_size_keeps_its_word_for_every_share(mean, p):
    level, beta = 1e-3, 0.1
    found = sign_test_size(alternative=mean, decided_bound=p, log_level=math.log(level), log_miss=math.log(beta))
    shares = [*np.linspace(mean, p, 6), *(p - u / found for u in (0.2, 0.7, 1.5, 3.0, 6.0))]
    assert all(sign_miss(found, mean, q, level) <= beta * (1 + 1e-9) for q in shares if q >= mean)
    # It is not wasteful either: a few examples fewer would not do.
    assert max(sign_miss(math.floor(found * 0.97) - 1, mean, q, level) for q in shares if q >= mean) > beta


@pytest.mark.parametrize(
    ("mean", "p", "level", "miss"),
    [
        (0.8191145238814218, 1.0, -1.00895, -1.20858),
        (0.074053054657762, 0.5511777514486779, -0.71026, -0.64508),
        (0.960778960634047, 1.0, -5.132474105917039, -1.3808520572041345),
    ],
)
def test_a_sign_test_size_is_enlarged_until_every_share_is_proven(mean, p, level, miss):
    """In the second case a share near the alternative, where no example may be decided, misses most often."""
    found = sign_test_size(alternative=mean, decided_bound=p, log_level=level, log_miss=miss)
    worst = [max(sign_miss(n, mean, q, math.exp(level)) for q in np.linspace(mean, p, 200)) for n in (found - 1, found)]
    assert worst[1] <= math.exp(miss) < worst[0]


@settings(deadline=None, max_examples=examples(25))
@given(st.integers(1, 120), st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.floats(1e-6, 0.3))
def test_the_miss_of_a_sign_test(n, q, part, level):
    mean = q * part
    critical = CriticalWins(math.log(level))
    found = log_sign_miss(n, alternative=mean, decided=q, critical=critical, log_miss=math.log(1e-6))
    near = [sign_miss(n, mean, q, level * f) for f in (1 - 1e-9, 1.0, 1 + 1e-9)]
    assert min(near) * (1 - 1e-7) <= math.exp(found) <= max(near) * (1 + 1e-7) + 2e-12


def test_what_is_left_out_of_the_sum_counts_as_missed():
    critical = CriticalWins(math.log(0.01))
    found = log_sign_miss(400, alternative=0.2, decided=0.3, critical=critical, log_miss=math.log(0.999))
    left_out = math.exp(found) - sign_miss(400, 0.2, 0.3, 0.01)
    assert 1e-9 < left_out < 1e-6


def test_critical_wins_do_not_depend_on_the_order_of_asking():
    level = math.log(1e-3)
    forth, back, far = CriticalWins(level), CriticalWins(level), CriticalWins(level)
    forth.between(0, 60)
    far.between(500, 520)
    back.between(40, 60)
    back.between(20, 45)
    expected = [next(k for k in range(m + 2) if k > m or binom.sf(k - 1, m, 0.5) <= 1e-3) for m in range(61)]
    assert forth.between(0, 60).tolist() == expected
    assert back.between(0, 60).tolist() == expected
    assert far.between(0, 60).tolist() == expected


@settings(deadline=None, max_examples=examples(25))
@given(st.floats(0.06, 0.3), st.floats(0.1, 1.0), st.floats(-25, -1.0), st.floats(-25, -1.0))
def test_bounds_in_closed_form_are_never_below_the_exact_sizes(gap, p, level, miss):
    gap = min(gap, p * 0.9)
    levels = {"log_level": level, "log_miss": miss}
    exact = paired_test_size(threshold=0.05 * p, alternative=0.05 * p + gap, decided_bound=p, **levels)
    assert exact <= bennett_test_size(gap=gap, second_moment=p, **levels)
    assert exact <= hoeffding_test_size(gap=gap, value_range=2.0, **levels)
    assert sign_test_size(alternative=gap, decided_bound=p, **levels) <= sign_test_bound_size(
        gap=gap, second_moment=p, **levels
    )
    null = (1 - gap) * 0.7
    binomial = binomial_test_size(null=null, alternative=null + gap, **levels)
    chernoff = chernoff_test_size(null=null, alternative=null + gap, **levels)
    assert binomial <= chernoff <= hoeffding_test_size(gap=gap, value_range=1.0, **levels)


def test_equal_levels_share_the_gap_evenly():
    level = math.log(1e-4 / 32)
    both = bennett_test_size(gap=0.02, second_moment=0.1, log_level=level, log_miss=level)
    assert both == bennett_deviation_size(tolerance=0.01, second_moment=0.1, log_level=level)


@pytest.mark.parametrize("deep", [-800.0, -3_474.9])
def test_levels_below_the_smallest_double(deep):
    found = binomial_test_size(null=0.5, alternative=0.7, log_level=deep, log_miss=deep)
    # Chernoff's exponents are exact at such depths, to one per cent.
    assert found == pytest.approx(
        chernoff_test_size(null=0.5, alternative=0.7, log_level=deep, log_miss=deep), rel=0.01
    )
    paired = paired_test_size(threshold=0.1, alternative=0.3, decided_bound=0.5, log_level=deep, log_miss=-2.3)
    assert paired < bennett_test_size(gap=0.2, second_moment=0.5, log_level=deep, log_miss=-2.3)
    sign = sign_test_size(alternative=0.2, decided_bound=0.5, log_level=deep, log_miss=deep)
    assert sign <= MOST_EXAMPLES
    assert sign < sign_test_bound_size(gap=0.2, second_moment=0.5, log_level=deep, log_miss=deep)


@settings(deadline=None, max_examples=examples(200))
@given(st.integers(0, 2000), st.floats(1e-3, 5.0), st.floats(-100, 3000), st.floats(1e-4, 100.0), st.data())
def test_the_search_finds_the_first_number_of_a_falling_function(answer, fall, guess, slope, data):
    low = data.draw(st.integers(0, 50))
    expected = min(max(answer, low), 1501)
    found = first_at_most(lambda k: -fall * k, -fall * answer, guess=guess, slope=slope, low=low, high=1500)
    assert found == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binomial_test_size(null=1.0, alternative=1.0, log_level=-1.0, log_miss=-1.0), "null must be"),
        (lambda: binomial_test_size(null=0.5, alternative=0.5, log_level=-1.0, log_miss=-1.0), "alternative must be"),
        (lambda: binomial_test_size(null=0.5, alternative=0.6, log_level=0.0, log_miss=-1.0), "log_level must be"),
        (lambda: binomial_deviation_size(tolerance=0.0, log_level=-1.0), "tolerance must be"),
        (lambda: binomial_deviation_size(tolerance=0.1, log_level=-1.0, sides=3), "sides must be 1 or 2"),
        (
            lambda: paired_test_size(threshold=0.2, alternative=0.3, decided_bound=0.1, log_level=-1.0, log_miss=-1.0),
            "threshold must be",
        ),
        (
            lambda: sign_test_size(alternative=0.3, decided_bound=0.1, log_level=-1.0, log_miss=-1.0),
            "alternative must be",
        ),
        (lambda: hoeffding_test_size(gap=0.0, value_range=1.0, log_level=-1.0, log_miss=-1.0), "gap must be"),
    ],
)
def test_arguments_out_of_range(call, message):
    with pytest.raises(ConfigError, match=message):
        call()

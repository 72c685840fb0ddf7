"""Hoeffding's and Bennett's sizes against closed forms, the published numbers of Ease.ml/ci, and exact tails."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import stats

from easeml_core.errors import ConfigError
from easeml_core.stats.concentration import (
    bennett_disagreement_labels,
    bennett_h,
    bennett_sample_size,
    hoeffding_half_width,
    hoeffding_sample_size,
)
from easeml_core.stats.paired import log_trinomial_tail

LN_HALF_DELTA = math.log(1e-4 / 2)
NONE, FULL = math.log(32), 32 * math.log(2)

LEVELS = st.floats(-4000, -1e-3)
TOLERANCES = st.floats(1e-3, 0.9)


@pytest.mark.parametrize(
    ("tolerance", "delta", "value_range", "expected"),
    # By hand: ln(1/delta) r^2 / (2 eps^2), e.g. ln(1000) / 0.005 = 1381.55.
    [(0.05, 1e-3, 1, 1382), (0.05, 1e-3, 2, 5527), (0.01, 1e-4, 1, 46052), (0.5, 0.5, 1, 2)],
)
def test_sample_size_by_hand(tolerance, delta, value_range, expected):
    found = hoeffding_sample_size(tolerance=tolerance, log_level=math.log(delta), value_range=value_range)
    assert found == expected


@settings(deadline=None, max_examples=examples(100))
@given(TOLERANCES, LEVELS, st.floats(0.1, 10))
def test_size_and_width_are_one_formula(tolerance, log_level, value_range):
    n = hoeffding_sample_size(tolerance=tolerance, log_level=log_level, value_range=value_range)
    assert hoeffding_half_width(n, log_level=log_level, value_range=value_range) <= tolerance * (1 + 1e-12)
    if n > 1:
        assert hoeffding_half_width(n - 1, log_level=log_level, value_range=value_range) > tolerance * (1 - 1e-12)


@settings(deadline=None, max_examples=examples(100))
@given(st.integers(1, 10**7), st.integers(1, 10**6), LEVELS)
def test_more_labels_never_widen_the_interval(examples, more, log_level):
    wider = hoeffding_half_width(examples, log_level=log_level)
    assert hoeffding_half_width(examples + more, log_level=log_level) <= wider


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("n", [5, 60, 400])
def test_the_width_covers_the_exact_binomial_tail(n, p):
    for log_level in (-0.1, -1.0, -5.0, -20.0):
        least = math.ceil(n * (p + hoeffding_half_width(n, log_level=log_level)) - 1e-9)
        assert stats.binom.logsf(least - 1, n, p) <= log_level + 1e-9


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"tolerance": 0.0, "log_level": -1.0}, "tolerance"),
        ({"tolerance": math.nan, "log_level": -1.0}, "tolerance"),
        ({"tolerance": 0.1, "log_level": 0.0}, "log_level"),
        ({"tolerance": 0.1, "log_level": -math.inf}, "log_level"),
        ({"tolerance": 0.1, "log_level": -1.0, "value_range": 0.0}, "value_range"),
    ],
)
def test_wrong_ranges_are_named(arguments, field):
    with pytest.raises(ConfigError, match=f"{field} must be"):
        hoeffding_sample_size(**arguments)


def test_no_examples_are_refused():
    with pytest.raises(ConfigError, match="examples must be >= 1, got 0"):
        hoeffding_half_width(0, log_level=-1.0)


@pytest.mark.parametrize("u", [1e-12, 1e-7, 0.000999, 0.001001, 0.01, 0.1, 1, 1e3, 1e6])
def test_h_on_every_scale(u):
    with localcontext() as context:
        context.prec = 60
        exact = float((1 + Decimal(u)) * (1 + Decimal(u)).ln() - Decimal(u))
    # 1e-9: at u = 0.001 six of sixteen digits are lost on one side of the seam, the series' next term on the other.
    assert bennett_h(u) == pytest.approx(exact, rel=1e-9, abs=0)


def test_h_of_nothing_is_nothing():
    assert bennett_h(0) == 0


@pytest.mark.parametrize(
    ("p", "none", "full"),
    # Sizes of n - o > C +/- 0.01 at delta = 1e-4 and 32 steps; 29K and 67K are the paper's own.
    [(0.1, 29_048, 67_706), (0.2, 57_180, 133_277), (0.5, 141_559, 329_952)],
)
def test_published_sizes(p, none, full):
    assert bennett_sample_size(tolerance=0.01, log_level=LN_HALF_DELTA - NONE, second_moment=p) == none
    assert bennett_sample_size(tolerance=0.01, log_level=LN_HALF_DELTA - FULL, second_moment=p) == full


@pytest.mark.parametrize(
    ("p", "paper", "none", "full"),
    [(0.1, 2_189, 2_905, 6_771), (0.2, 8_617, 11_436, 26_655), (0.5, 53_335, 70_779, 164_976)],
)
def test_published_labels_per_submission(p, paper, none, full):
    for log_tests, expected in ((0, paper), (NONE, none), (FULL, full)):
        found = bennett_disagreement_labels(tolerance=0.01, log_level=LN_HALF_DELTA - log_tests, second_moment=p)
        assert found == expected


def test_without_a_small_change_hoeffding_is_better():
    level = LN_HALF_DELTA - NONE
    two_sided_hoeffding = hoeffding_sample_size(tolerance=0.01, log_level=level - math.log(2), value_range=2)
    assert bennett_sample_size(tolerance=0.01, log_level=level, second_moment=1) > two_sided_hoeffding


@pytest.mark.parametrize("p", [0.05, 0.2])
def test_the_size_keeps_the_exact_tail_below_the_level(p):
    n = bennett_sample_size(tolerance=0.05, log_level=math.log(0.01), second_moment=p)
    tail = log_trinomial_tail(math.ceil(n * 0.05), n, decided=p, mean=0.0)
    assert tail <= math.log(0.01 / 2)


@pytest.mark.parametrize("p", [0, -0.1, 1.1, math.nan])
def test_a_second_moment_outside_of_its_range_is_refused(p):
    with pytest.raises(ConfigError, match="second_moment must be > 0 and <= 1"):
        bennett_sample_size(tolerance=0.1, log_level=-1, second_moment=p)


@pytest.mark.parametrize("size", [bennett_sample_size, bennett_disagreement_labels])
@pytest.mark.parametrize(
    ("change", "field"),
    [({"tolerance": 0.0}, "tolerance"), ({"tolerance": math.inf}, "tolerance"), ({"log_level": 0.0}, "log_level"),
     ({"log_level": -math.inf}, "log_level")],
)  # fmt: skip
def test_other_arguments_outside_of_their_ranges_are_refused(size, change, field):
    with pytest.raises(ConfigError, match=f"{field} must be"):
        size(**{"tolerance": 0.1, "log_level": -1.0, "second_moment": 0.5} | change)


def test_a_negative_ratio_is_refused():
    with pytest.raises(ConfigError, match="ratio must be >= 0"):
        bennett_h(-0.1)

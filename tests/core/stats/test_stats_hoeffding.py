"""Hoeffding's sizes and widths against closed forms and the exact binomial tail."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import stats

from easeml_core.errors import ConfigError
from easeml_core.stats.concentration import hoeffding_half_width, hoeffding_sample_size

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

"""Hoeffding's sizes, widths and tails against closed forms and the exact binomial tail."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import stats

from easeml_core.errors import ConfigError
from easeml_core.stats.hoeffding import (
    chernoff_log_tail,
    hoeffding_half_width,
    hoeffding_log_tail,
    hoeffding_sample_size,
)

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
def test_size_width_and_tail_are_one_formula(tolerance, log_level, value_range):
    n = hoeffding_sample_size(tolerance=tolerance, log_level=log_level, value_range=value_range)
    assert hoeffding_half_width(n, log_level=log_level, value_range=value_range) <= tolerance * (1 + 1e-12)
    assert hoeffding_log_tail(tolerance, n, value_range=value_range) <= log_level * (1 - 1e-12)
    if n > 1:
        assert hoeffding_half_width(n - 1, log_level=log_level, value_range=value_range) > tolerance * (1 - 1e-12)


@settings(deadline=None, max_examples=examples(100))
@given(st.integers(1, 10**7), st.integers(1, 10**6), LEVELS)
def test_more_labels_never_widen_the_interval(examples, more, log_level):
    wider = hoeffding_half_width(examples, log_level=log_level)
    assert hoeffding_half_width(examples + more, log_level=log_level) <= wider


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("n", [5, 60, 400])
def test_the_tail_bounds_the_exact_binomial_tail(n, p):
    for k in range(n + 1):
        exact = stats.binom.logsf(k - 1, n, p)
        assert exact <= hoeffding_log_tail(k / n - p, n) + 1e-12


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
    with pytest.raises(ConfigError, match="examples must be >= 1, got 0"):
        hoeffding_log_tail(0.1, 0)


@settings(deadline=None, max_examples=examples(100))
@given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1))
@example(n=1, share=1.0, p=5e-324)
def test_the_chernoff_bound_is_sharper_and_still_a_bound(n, share, p):
    k = round(share * n)
    bound = chernoff_log_tail(k / n, p, n)
    assert bound <= hoeffding_log_tail(k / n - p, n) + 1e-9
    assert stats.binom.logsf(k - 1, n, p) <= bound + 1e-9


@pytest.mark.parametrize("values", [[-1.1, -0.1, 0.0, 1.0], [0.0, 1.0, 2.0]])
def test_the_chernoff_bound_holds_for_every_law_on_the_range(values):
    """All outcomes of five draws from laws of three and four values, exactly."""
    n, low, high, worth = 5, min(values), max(values), np.array(values)
    draws = np.array(list(itertools.product(range(len(values)), repeat=n)))
    means = worth[draws].mean(axis=1)
    for law in np.random.default_rng(63).dirichlet(np.full(len(values), 0.4), 60):
        chances, truth = law[draws].prod(axis=1), float(law @ worth)
        for mean in np.unique(means):
            bound = math.exp(chernoff_log_tail(float(mean), truth, n, low=low, high=high))
            assert chances[means >= mean - 1e-12].sum() <= bound + 1e-12


def test_the_edges_of_the_chernoff_bound():
    assert chernoff_log_tail(0.5, 0.0, 10) == -math.inf
    assert chernoff_log_tail(0.0, 0.0, 10) == 0.0
    assert chernoff_log_tail(0.5, -0.1, 10) == -math.inf
    assert chernoff_log_tail(1.0, 0.5, 10) == pytest.approx(10 * math.log(0.5))
    assert chernoff_log_tail(0.4, 0.5, 10) == 0.0
    with pytest.raises(ConfigError, match="high must be > 1, the smallest value"):
        chernoff_log_tail(1, 1, 10, low=1, high=1)

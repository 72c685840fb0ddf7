"""The validation set as a resource: sizes against scipy, states and advice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attrs import evolve
from figures.meter import promises as validation
from figures.meter.promises import exact_validation_minimum
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from easeml_core.errors import ConfigError
from easeml_core.meter.planner import validation_minimum
from easeml_core.meter.validation_set import (
    ValidationState,
    ValidationUse,
    heritage,
    rows_for_looks,
    validation_report,
)
from easeml_core.settings.config import MeterConfig

CONFIG = MeterConfig(ranges=(0.05, 0.3), reliability=0.99)


def outside(n: np.ndarray, rate: np.ndarray, b_1: float) -> np.ndarray:
    """P(|X / n - rate| >= b_1) by scipy; counts at the edge are outside."""
    low, high = np.floor(n * (rate - b_1) + 1e-9), np.ceil(n * (rate + b_1) - 1e-9)
    return stats.binom.cdf(low, n, rate) + stats.binom.sf(high - 1, n, rate)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("b_1", "reliability"), [(0.05, 0.99), (0.1, 0.95), (0.02, 0.9), (0.3, 0.999)])
def test_exact_size_is_the_least_from_which_all_meet_the_rule_by_scipys_binomial(rate, b_1, reliability):
    n = exact_validation_minimum(ranges=(b_1,), reliability=reliability, error_rate=rate)
    most = validation_minimum(ranges=(b_1,), reliability=reliability)
    assert n is not None
    assert most is not None
    assert n <= most
    larger = np.arange(n, most + 100)
    assert outside(larger, rate, b_1).max() <= (1 - reliability) * (1 + 1e-9)
    assert n == 1 or outside(np.array(n - 1), rate, b_1) > (1 - reliability)


@pytest.mark.parametrize(
    ("b_1", "size", "least"),
    [(0.02, 1_526, 1_459), (0.05, 247, 234), (0.1, 66, 61)],
)
def test_the_least_size_that_meets_the_rule_is_smaller_and_not_enough(b_1, size, least):
    """All three numbers of each row by looking at every n with scipy."""
    assert exact_validation_minimum(ranges=(b_1,), reliability=0.99, error_rate=0.1) == size
    assert outside(np.array(least), 0.1, b_1) <= 0.01 < outside(np.array(size - 1), 0.1, b_1)


@pytest.mark.parametrize(("b_1", "reliability", "size"), [(0.1, 0.95, None), (0.1, 0.99, 171), (0.05, 0.99, 681)])
def test_exact_size_for_the_worst_rate_holds_for_all(b_1, reliability, size):
    n = exact_validation_minimum(ranges=(b_1,), reliability=reliability)
    most = validation_minimum(ranges=(b_1,), reliability=reliability)
    assert n is not None
    assert most is not None
    assert size in (None, n)
    rates = np.linspace(0, 1, 501)[:, None]
    assert outside(np.arange(n, most + 1), rates, b_1).max() <= (1 - reliability) * (1 + 1e-9)
    worst = np.arange(1, n) / (n - 1) - b_1
    assert outside(np.array(n - 1), worst[(worst >= 0)], b_1).max() > 1 - reliability


@given(
    few=st.integers(1, 400),
    more=st.integers(0, 60),
    rate=st.floats(0, 1),
    b_1=st.floats(0.001, 0.5),
    at=st.floats(0, 1),
)
def test_the_bound_of_a_stretch_holds_for_each_number_in_it(few, more, rate, b_1, at):
    n = few + round(at * more)
    one = validation._log_deviation(n, n, rate, b_1)
    assert one <= validation._log_deviation(few, few + more, rate, b_1) + 1e-9
    assert validation._log_worst_deviation(n, n, b_1) <= (validation._log_worst_deviation(few, few + more, b_1) + 1e-9)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["ab"], []),
        (["ab", "cd"], []),
        (["ab", "abc"], [0]),
        (["ab", "abcd"], []),  # as many are new
        (["ab", "abc", "abcd"], [0, 1]),
        (["ab", "abcd", "abcde"], [1]),  # the second one was fresh
        (["ab", "cd", "abe"], [0]),  # back to one that was replaced
        (["ab", "cd", "ace"], [1]),  # of each the same number: the newest
        (["abc", "abx", "abcy"], [0]),
        (["a", "a", "a"], [0, 1]),
    ],
)
def test_a_set_goes_on_with_what_most_of_its_rows_have_seen(parts, expected):
    assert heritage([{letter.encode() for letter in part} for part in parts]) == expected


def test_inherited_looks_and_signals_count_like_its_own():
    fresh = ValidationUse(rows=2_000)
    for use, state, add in (
        (replace(fresh, inherited_looks={"trials": 3}), "used", 0),
        (replace(fresh, inherited_looks={"trials": 500}), "worn", 303),
        (replace(fresh, looks={"trials": 250}, inherited_looks={"trials": 250}), "worn", 303),
        (replace(fresh, inherited_signals=[1, 3]), "worn", 0),
        (replace(fresh, signals=[1], looks={"trials": 1}, inherited_signals=[3]), "used", 0),
        (replace(fresh, signals=[3], inherited_signals=[1]), "worn", 0),
    ):
        report = validation_report(use, CONFIG)
        assert (report.state, report.add_rows) == (state, add)


def test_no_size_is_enough_below_a_boundary_that_is_not_above_zero():
    assert exact_validation_minimum(ranges=(0.0,), reliability=0.9) is None
    assert rows_for_looks(10, ranges=(-0.1,), reliability=0.9) is None
    report = validation_report(ValidationUse(rows=5, looks={"trials": 3}), evolve(CONFIG, ranges=(0.0, 0.3)))
    assert (report.state, report.minimum, report.add_rows) == (ValidationState.USED, None, 0)


@pytest.mark.parametrize(
    ("use", "state", "add", "words"),
    [
        (ValidationUse(rows=2_000), "fresh", 0, "go on"),
        (ValidationUse(rows=1_000), "fresh", 60, "add 60 rows: 1,000 are too few to keep its own noise in range 1"),
        (ValidationUse(rows=2_000, looks={"trials": 20, "rungs": 5}), "used", 0, "go on"),
        (ValidationUse(rows=2_000, looks={"trials": 400, "nights": 100}), "worn", 303, "add 303 rows: 2,000 are too"),
        (ValidationUse(rows=5_000, looks={"trials": 5}, signals=(1, 2)), "worn", 0, "add 5,000 or more new rows"),
        (ValidationUse(rows=5_000, looks={"trials": 5}, signals=(2, 1)), "used", 0, "go on"),
        (ValidationUse(rows=5_000, looks={"submissions": 5}, signals=(3,)), "worn", 0, "replace it by at least 5,000"),
        (ValidationUse(rows=5_000, signals=(3,), replaced=True), "replaced", 0, "use the set that has taken"),
    ],
)
def test_states_and_advice(use, state, add, words):
    report = validation_report(use, CONFIG)
    assert (report.state, report.add_rows) == (state, add)
    assert words in report.advice
    assert report.minimum == 1_060


def test_the_rows_that_are_advised_are_enough():
    use = ValidationUse(rows=300, looks={"trials": 700})
    report = validation_report(use, CONFIG)
    again = validation_report(replace(use, rows=300 + report.add_rows), CONFIG)
    assert (again.state, again.add_rows, again.advice) == (ValidationState.USED, 0, "go on")
    one_less = validation_report(replace(use, rows=299 + report.add_rows), CONFIG)
    assert one_less.state is ValidationState.WORN


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": 0}, "rows must be >= 1"),
        ({"rows": 9, "looks": {"glances": 1}}, "looks must be one of trials, rungs, submissions, nights"),
        ({"rows": 9, "looks": {"trials": -1}}, r"looks\[trials\] must be >= 0"),
        ({"rows": 9, "inherited_looks": {"glances": 1}}, "inherited_looks must be one of trials"),
        ({"rows": 9, "inherited_looks": {"trials": -1}}, r"inherited_looks\[trials\] must be >= 0"),
    ],
)
def test_wrong_input_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ValidationUse(**wrong)
    with pytest.raises(ConfigError, match="signals must be from 1 to 3"):
        validation_report(ValidationUse(rows=9, signals=(4,)), CONFIG)
    with pytest.raises(ConfigError, match="signals must be from 1 to 3"):
        validation_report(ValidationUse(rows=9, inherited_signals=(4,)), CONFIG)

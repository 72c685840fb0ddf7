"""The validation set as a resource: sizes against scipy, states and advice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from easeml_core.config import MeterConfig
from easeml_core.errors import ConfigError
from easeml_core.meter.planner import validation_minimum
from easeml_core.meter.validation_set import (
    ValidationState,
    ValidationUse,
    exact_validation_minimum,
    rows_for_looks,
    validation_report,
)

CONFIG = MeterConfig(ranges=(0.05, 0.3), reliability=0.99)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("b_1", "reliability"), [(0.05, 0.99), (0.1, 0.95), (0.02, 0.9)])
def test_exact_size_meets_the_rule_by_scipys_binomial(rate, b_1, reliability):
    n = exact_validation_minimum(ranges=(b_1,), reliability=reliability, error_rate=rate)
    assert n is not None

    def outside(n: int) -> float:
        off = [k for k in range(n + 1) if abs(k / n - rate) >= b_1 - 1e-12]
        return float(stats.binom.pmf(off, n, rate).sum())

    assert outside(n) <= (1 - reliability) * (1 + 1e-9)
    assert n == 1 or outside(n - 1) > (1 - reliability)
    assert n <= (validation_minimum(ranges=(b_1,), reliability=reliability) or 0)


def test_exact_size_for_the_worst_rate_holds_for_all():
    n = exact_validation_minimum(ranges=(0.1,), reliability=0.95)
    assert n is not None
    assert n <= (validation_minimum(ranges=(0.1,), reliability=0.95) or 0)
    for rate in [i / 50 for i in range(51)]:
        off = [k for k in range(n + 1) if abs(k / n - rate) >= 0.1 - 1e-12]
        assert stats.binom.pmf(off, n, rate).sum() <= 0.05 * (1 + 1e-9)


def test_no_size_is_enough_below_a_boundary_that_is_not_above_zero():
    assert exact_validation_minimum(ranges=(0.0,), reliability=0.9) is None
    assert rows_for_looks(10, ranges=(-0.1,), reliability=0.9) is None
    report = validation_report(ValidationUse(rows=5, looks={"trials": 3}), replace(CONFIG, ranges=(0.0, 0.3)))
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
    ],
)
def test_wrong_input_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ValidationUse(**wrong)
    with pytest.raises(ConfigError, match="signals must be from 1 to 3"):
        validation_report(ValidationUse(rows=9, signals=(4,)), CONFIG)

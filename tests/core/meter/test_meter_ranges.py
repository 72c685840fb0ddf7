"""Ranges: a gap on a boundary has one right answer, whatever floats make of it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import ConfigError
from easeml_core.meter.ranges import exact, narrowest_inner_range, signal_of

moderate = settings(deadline=None, max_examples=examples(200))
boundaries = st.lists(st.integers(-999, 999), min_size=1, max_size=8, unique=True).map(
    lambda thousandths: tuple(t / 1_000 for t in sorted(thousandths))
)


def test_a_gap_on_a_boundary_belongs_to_the_range_below():
    assert [signal_of(gap, (0.1, 0.2, 0.3)) for gap in (-1, 0, 0.1, 0.2, 0.3, 1)] == [1, 1, 1, 2, 3, 4]
    assert [signal_of(gap + 1e-9, (0.1, 0.2, 0.3)) for gap in (0.1, 0.2, 0.3)] == [2, 3, 4]
    assert signal_of(-0.2, (-0.2, 0.0)) == 1


def test_float_differences_that_round_the_wrong_way_still_lie_on_the_boundary():
    assert 0.4 - 0.1 > 0.3  # floats: 0.30000000000000004
    assert signal_of(0.4 - 0.1, (0.3,)) == 1
    assert 13 / 30 - 1 / 3 != 0.1
    assert signal_of(13 / 30 - 1 / 3, (0.1,)) == 1
    assert signal_of(Fraction(13, 30) - exact(1 / 3), (0.1,)) == 1


@moderate
@given(st.integers(1, 1_000_000), st.data())
def test_shares_and_their_complements_are_recognised(n, data):
    k = data.draw(st.integers(0, n))
    assert exact(k / n) == Fraction(k, n)
    assert exact(1 - (n - k) / n) == Fraction(k, n)


@moderate
@given(st.floats(-1, 1), st.floats(-1, 1))
def test_exact_keeps_the_order_and_hardly_moves(one, other):
    low, high = sorted((one, other))
    assert exact(low) <= exact(high)
    assert abs(exact(one) - Fraction(one)) <= Fraction(1, 10**13)


@moderate
@given(boundaries, st.floats(-1, 1), st.floats(-1, 1))
def test_signal_rises_with_the_gap_and_names_the_range(ranges, one, other):
    low, high = sorted((one, other))
    assert 1 <= signal_of(low, ranges) <= signal_of(high, ranges) <= len(ranges) + 1
    edges = [-math.inf, *ranges, math.inf]
    signal = signal_of(Fraction(one), ranges)
    assert edges[signal - 1] <= one + 1e-12
    assert one <= edges[signal] + 1e-12


@moderate
@given(boundaries)
def test_every_boundary_itself_gets_the_signal_of_its_place(ranges):
    assert [signal_of(b, ranges) for b in ranges] == list(range(1, len(ranges) + 1))


@pytest.mark.parametrize("gap", [math.nan, math.inf, -math.inf])
def test_a_gap_that_is_no_number_is_refused(gap):
    with pytest.raises(ConfigError, match="value must be a finite number"):
        signal_of(gap, (0.1,))


def test_narrowest_inner_range_is_exact():
    assert narrowest_inner_range((0.1,)) is None
    assert narrowest_inner_range((0.1, 0.5, 0.8)) == Fraction(3, 10)
    assert narrowest_inner_range((-0.1, 0.2, 0.3)) == Fraction(1, 10)

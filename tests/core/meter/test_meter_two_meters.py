"""Two meters: what follows for tuning and for drift, on every pair of true parts."""

from __future__ import annotations

import itertools
import math

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_oracles import combine_signals
from property_sizes import examples

from easeml_core.errors import ConfigError
from easeml_core.meter.drift import (
    Said,
    both_reliability,
    combine,
    split_meters,
)
from easeml_core.meter.ranges import exact, shifted, signal_of
from easeml_core.meter.sentences import TwoSignals, drift_alert, drift_sentence
from easeml_core.settings.config import MeterConfig

CONFIG = MeterConfig(ranges=(0.1, 0.3, 0.5), tolerance=0.04, reliability=0.95)


@given(st.floats(0.5, 0.9999), st.floats(0.01, 0.99))
def test_the_failure_probability_is_split_and_never_exceeded(reliability, share):
    total, direct = split_meters(evolve(CONFIG, reliability=reliability), direct_share=share)
    both = (1 - total.reliability) + (1 - direct.reliability)
    assert both <= 1 - reliability
    assert both == pytest.approx(1 - reliability, rel=1e-9)
    assert 1 - direct.reliability == pytest.approx(share * (1 - reliability), rel=1e-9)
    assert evolve(total, reliability=0.9) == evolve(direct, reliability=0.9) == evolve(CONFIG, reliability=0.9)


@settings(deadline=None, max_examples=examples(300))
@given(st.floats(-0.4, 0.7), st.floats(-0.4, 0.7), st.floats(-0.04, 0.04), st.floats(-0.04, 0.04))
def test_the_true_drift_is_inside_whenever_both_claims_hold(direct, drift, noise, other):
    """Measured parts are off by at most the tolerance, in all ways at once."""
    signals = signal_of(direct + drift + noise, CONFIG.ranges), signal_of(direct + other, CONFIG.ranges)
    found = combine_signals(total=signals[0], direct=signals[1], config=CONFIG)
    assert found.drift_low - 1e-9 <= drift <= found.drift_high + 1e-9
    if found.drift == "certain":
        assert abs(drift) > 1e-12


def test_every_pair_of_signals_has_its_sentence():
    for total, direct in itertools.product(range(1, 5), repeat=2):
        found = combine_signals(total=total, direct=direct, config=CONFIG)
        assert f"test signal {total}, validation signal {direct}" in found.sentence
        assert ("drift, the test distribution" in found.sentence) == (total != direct)
        assert (found.drift == "none seen") == (total == direct)
        assert (found.drift == "certain") == (abs(total - direct) >= 2)
    assert "more of the old kind does not help" in combine_signals(total=3, direct=1, config=CONFIG).sentence
    assert "hides tuning" in combine_signals(total=1, direct=3, config=CONFIG).sentence
    assert "go on" in combine_signals(total=1, direct=1, config=CONFIG).sentence
    assert "renew it from the same source" in combine_signals(total=2, direct=2, config=CONFIG).sentence


def test_the_outermost_ranges_say_nothing_on_their_open_side():
    assert combine_signals(total=1, direct=1, config=CONFIG).drift_low == -math.inf
    assert combine_signals(total=4, direct=4, config=CONFIG).drift_high == math.inf
    assert combine_signals(total=4, direct=1, config=CONFIG).drift_low == pytest.approx(0.5 - 0.1 - 0.08)


def test_wrong_input_is_refused():
    with pytest.raises(ConfigError, match="direct must be a signal from 1 to 4"):
        combine_signals(total=1, direct=5, config=CONFIG)
    with pytest.raises(ConfigError, match="direct_share must be > 0 and < 1"):
        split_meters(CONFIG, direct_share=1.0)


def test_a_side_that_a_method_does_not_promise_is_no_ground_for_certainty():
    one_sided = evolve(CONFIG, method="ratchet", one_sided=True)
    for weak in (evolve(CONFIG, method="ratchet"), one_sided):
        assert combine(Said(4, CONFIG), Said(1, CONFIG)).drift == "certain"
        assert combine(Said(4, weak), Said(1, CONFIG)).drift == "likely"  # the worst so far, not this submission's
        assert combine(Said(4, CONFIG), Said(1, weak)).drift == "certain"  # the upper end is promised
        assert combine(Said(1, weak), Said(4, weak)).drift_low == -math.inf


def test_each_answer_counts_with_its_own_boundaries_and_tolerance():
    shifted = Said(3, CONFIG, edges=(0.3, 0.5, 0.7), tolerance=0.01)
    found = combine(shifted, Said(1, CONFIG))
    assert found.drift_low == pytest.approx(0.5 - 0.01 - (0.1 + 0.04))
    assert found.drift_high == math.inf
    assert combine(Said(2, CONFIG), Said(1, CONFIG)).drift_low == pytest.approx(-0.08)


def test_failure_probabilities_add_up():
    total, direct = split_meters(evolve(CONFIG, reliability=0.95))
    assert both_reliability(total, direct) == 0.95
    assert both_reliability(evolve(CONFIG, reliability=0.99), evolve(CONFIG, reliability=0.9)) == 0.89


def test_where_no_reliability_is_left_nothing_is_certain():
    weak = [evolve(CONFIG, reliability=r) for r in (0.5, 0.3)]
    assert both_reliability(*weak) == 0.0
    assert both_reliability(evolve(CONFIG, reliability=0.5), evolve(CONFIG, reliability=0.5)) == 0.0
    assert combine(Said(4, weak[0]), Said(1, weak[1])).drift == "likely"
    assert combine(Said(4, weak[0]), Said(1, CONFIG)).drift == "certain"
    certain = TwoSignals(4, 1, 0.12, math.inf, "certain")
    assert drift_alert(certain, 0.0) is None
    assert drift_alert(certain, 0.45) == f"{certain.sentence} (harder by at least 0.12, with probability 0.45)"


def test_no_figure_of_the_alert_is_rounded_up():
    """A probability of 1 is never claimed, nor more drift than there is."""
    almost = evolve(CONFIG, reliability=1 - 1e-9)
    assert 0.999999997 < both_reliability(almost, almost) <= 1 - 2e-9
    assert both_reliability(evolve(CONFIG, reliability=1 - 1e-14), evolve(CONFIG, reliability=1 - 1e-14)) < 1
    reported = drift_alert(TwoSignals(3, 1, 0.12345678, math.inf, "certain"), both_reliability(almost, almost))
    assert (reported or "").endswith("(harder by at least 0.123456, with probability 0.999999)")
    easier = drift_alert(TwoSignals(1, 3, -math.inf, -0.29999999, "certain"), 0.7)
    assert (easier or "").endswith("(easier by at least 0.299999, with probability 0.7)")
    assert drift_alert(TwoSignals(2, 1, -0.1, 0.3, "likely"), 0.9) is None


def test_drift_does_not_hide_that_the_validation_set_is_overfitted_too():
    for drift in ("likely", "certain"):
        assert "overfitted" not in drift_sentence(3, 1, drift)
        assert drift_sentence(3, 2, drift).endswith(
            "more of the old kind does not help; the validation set itself is overfitted, too: replace it, do not only "
            "add to it"
        )


EQUAL = MeterConfig(ranges=(0.1, 0.3, 0.5), tolerance=0.04, method="dithered")
SHIFTS = st.floats(0, 0.2 - 1e-9)
"""Less than a range is wide, by more than the rounding of a boundary."""


@settings(deadline=None, max_examples=examples(500))
@given(st.floats(-0.4, 0.9), st.floats(-0.4, 0.9), SHIFTS, SHIFTS)
def test_signals_with_boundaries_of_their_own_are_compared_as_ranges(total_gap, direct_gap, total_shift, direct_shift):
    """A cached answer and a fresh one: what differs by the shifts alone is no drift."""
    said = []
    for gap, shift in ((total_gap, total_shift), (direct_gap, direct_shift)):
        edges = tuple(map(float, shifted(EQUAL.ranges, shift)))
        said.append(Said(signal_of(gap, edges), EQUAL, edges))
    found, same = combine(*said), combine(said[0], said[0])
    assert same.drift == "none seen"
    if exact(total_gap) == exact(direct_gap):
        assert found.drift == "none seen"
    if found.drift != "none seen":  # then the direction is that of the signals, and the sentence names it
        assert (total_gap > direct_gap) == (found.total > found.direct)
        assert found.total != found.direct
    if total_shift == direct_shift:
        assert (found.drift == "none seen") == (found.total == found.direct)


@pytest.mark.parametrize(("gap", "total", "direct"), [(0.25, 1, 2), (0.45, 2, 3)])
def test_one_gap_read_with_two_shifts_is_no_drift(gap, total, direct):
    shifted_far, plain = Said(total, EQUAL, edges=(0.28, 0.48, 0.68)), Said(direct, EQUAL, edges=EQUAL.ranges)
    assert [signal_of(gap, said.edges) for said in (shifted_far, plain)] == [total, direct]
    for found in (combine(shifted_far, plain), combine(plain, shifted_far)):
        assert found.drift == "none seen"
        assert "read with different boundaries, so that their difference shows no drift" in found.sentence
        assert "seems" not in found.sentence
        assert ("overfitted" in found.sentence) == (found.direct > 1)
    far = combine(Said(3, EQUAL, edges=(0.28, 0.48, 0.68)), Said(1, EQUAL, edges=EQUAL.ranges))
    assert far.drift == "certain"  # above .48 and at most .1
    assert combine(Said(2, EQUAL, edges=(0.13, 0.33, 0.53)), Said(1, EQUAL, edges=EQUAL.ranges)).drift == "likely"

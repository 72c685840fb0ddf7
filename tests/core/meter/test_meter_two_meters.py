"""Two meters: what follows for tuning and for drift, on every pair of true parts."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.config import MeterConfig
from easeml_core.errors import ConfigError
from easeml_core.meter.ranges import signal_of
from easeml_core.meter.two_meters import Said, both_reliability, combine, combine_signals, split_meters

CONFIG = MeterConfig(ranges=(0.1, 0.3, 0.5), tolerance=0.04, reliability=0.95)


@given(st.floats(0.5, 0.9999), st.floats(0.01, 0.99))
def test_the_failure_probability_is_split_and_never_exceeded(reliability, share):
    total, direct = split_meters(replace(CONFIG, reliability=reliability), direct_share=share)
    both = (1 - total.reliability) + (1 - direct.reliability)
    assert both <= 1 - reliability
    assert both == pytest.approx(1 - reliability, rel=1e-9)
    assert 1 - direct.reliability == pytest.approx(share * (1 - reliability), rel=1e-9)
    assert replace(total, reliability=0.9) == replace(direct, reliability=0.9) == replace(CONFIG, reliability=0.9)


@settings(deadline=None, max_examples=300)
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
    one_sided = replace(CONFIG, method="ratchet", one_sided=True)
    for weak in (replace(CONFIG, method="ratchet"), one_sided):
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
    total, direct = split_meters(replace(CONFIG, reliability=0.95))
    assert both_reliability(total, direct) == 0.95
    assert both_reliability(replace(CONFIG, reliability=0.99), replace(CONFIG, reliability=0.9)) == 0.89

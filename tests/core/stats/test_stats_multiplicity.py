"""How many tests one sealed set must be right about at once."""

from __future__ import annotations

import math

import pytest

from easeml_core.errors import ConfigError
from easeml_core.stats.multiplicity import log_multiplicity


@pytest.mark.parametrize("steps", [1, 2, 32, 5000])
def test_one_bit_per_step_doubles_the_transcripts(steps):
    assert log_multiplicity("full", steps) == pytest.approx(steps * math.log(2), rel=1e-15)
    assert log_multiplicity("none", steps) == log_multiplicity("firstChange", steps) == math.log(steps)


def test_full_at_32_steps_costs_22_nats():
    # Golden: ln 2^32, computed by whole numbers.
    assert log_multiplicity("full", 32) == pytest.approx(math.log(2**32), rel=1e-15)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "3"])
def test_steps_must_be_a_whole_number(steps):
    with pytest.raises(ConfigError, match="steps must be a whole number >= 1"):
        log_multiplicity("full", steps)


def test_an_unknown_adaptivity_is_refused():
    with pytest.raises(ConfigError, match="adaptivity must be one of none, full, firstChange, got 'Full'"):
        log_multiplicity("Full", 3)

"""The alert: when it is raised, what it says, and that it tells nothing but the signal."""

from __future__ import annotations

import pytest

from easeml_core.config import MeterConfig
from easeml_core.errors import ConfigError
from easeml_core.meter.budget import advice, breach


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 9])
def test_only_signals_above_the_budget_raise_an_alert(budget):
    config = MeterConfig(ranges=(0.1, 0.2, 0.3), overfitting_budget=budget)
    assert [signal for signal in (1, 2, 3, 4) if breach(signal, config)] == list(range(budget + 1, 5))


def test_alert_says_what_where_and_what_to_do():
    config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05)
    middle, top = breach(2, config), breach(3, config)
    assert middle is not None
    assert "signal 2 of 3 exceeds the budget of 1" in middle
    assert "above 0.1 and at most 0.3 (+/- 0.05)" in middle
    assert "get new validation data" in middle
    assert top is not None
    assert "above 0.3 (+/- 0.05)" in top
    assert "replace the validation set" in top


def test_advice_follows_the_range():
    assert [advice(signal, 4).split()[0] for signal in (1, 2, 3, 4)] == ["go", "get", "get", "replace"]
    assert [advice(signal, 2).split()[0] for signal in (1, 2)] == ["go", "replace"]


@pytest.mark.parametrize("signal", [0, 4, -1])
def test_a_signal_that_does_not_exist_is_refused(signal):
    with pytest.raises(ConfigError, match="signal must be from 1 to 3"):
        breach(signal, MeterConfig(ranges=(0.1, 0.3)))
    with pytest.raises(ConfigError, match="signal must be from 1 to 3"):
        advice(signal, 3)

"""What a signal means for the study: the alert when it exceeds the overfitting budget, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.meter.ranges import range_text

if TYPE_CHECKING:
    from easeml_core.config import MeterConfig


def breach(signal: int, config: MeterConfig) -> str | None:
    """The sentence of the alert when a signal exceeds the overfitting budget.

    It tells the signal and what the study declared, nothing else of the sealed set.

    Args:
        signal: 1..m, from the meter.
        config: Ranges, tolerance and overfitting budget of the study.

    Returns:
        The sentence, or None when the signal is within the budget.

    Raises:
        ConfigError: If there is no such signal.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> breach(1, MeterConfig()) is None
        True
        >>> config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, overfitting_budget=1)
        >>> print(breach(3, config))  # doctest: +NORMALIZE_WHITESPACE
        overfitting signal 3 of 3 exceeds the budget of 1: the gap between the loss on unseen data and the validation
        loss is above 0.3 (+/- 0.05); replace the validation set: it has lost its value for choosing models
    """
    signals = len(config.ranges) + 1
    _check_signal(signal, signals)
    if signal <= config.overfitting_budget:
        return None
    return (
        f"overfitting signal {signal} of {signals} exceeds the budget of {config.overfitting_budget}: "
        f"the gap between the loss on unseen data and the validation loss is {range_text(signal, config.ranges)} "
        f"(+/- {config.tolerance:g}); {advice(signal, signals)}"
    )


def advice(signal: int, signals: int) -> str:
    """What a developer should do after a signal.

    Args:
        signal: 1..m.
        signals: m >= 2.

    Returns:
        Half a sentence.

    Raises:
        ConfigError: If there is no such signal.

    Example:
        >>> advice(1, 3)
        'go on: the validation set is still representative'
    """
    _check_signal(signal, signals)
    if signal == 1:
        return "go on: the validation set is still representative"
    if signal < signals:
        return "get new validation data, regularise, or stop tuning on the present validation set"
    return "replace the validation set: it has lost its value for choosing models"


def _check_signal(signal: int, signals: int) -> None:
    require(1 <= signal <= signals, "signal", signal, f"from 1 to {signals}; a retired set gives none")

"""What everybody may know of a reading: the signals, what they promise, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.config import MeterConfig
from easeml_core.meter.two_meters import both_reliability, drift_sentence
from easeml_core.services.joint_sets import meter_settings_of

if TYPE_CHECKING:
    from sqlalchemy import Row

_NO_SECOND_ANSWER = (
    "the second validation sample is retired and gave no answer: this reading cannot tell tuning from drift"
)


def shown_reading(found: Row[Any]) -> dict[str, Any]:
    """The public side of a reading, as plain JSON.

    Args:
        found: As of ``store.releases.get_reading``.

    Returns:
        ``{"signal", "signals", "boundaries", "tolerance", "submissions_left", "retired", "cached", "alert",
        "direct_signal", "drift", "sentence", "reliability"}``. ``signal`` is None where the set was retired instead.
        ``direct_signal`` is what the meter on the second validation sample says, ``drift`` is ``none seen``, ``likely``
        or ``certain``, ``sentence`` what both mean and what to do; all None where the study has no such sample.
        ``reliability`` is that of all signals of the set together, with a second sample that of all signals of both.
    """
    config = meter_settings_of(found)
    return {
        "signal": found.signal,
        "signals": found.signals,
        "boundaries": found.edges or list(config.ranges),
        "tolerance": found.tolerance or config.tolerance,
        "submissions_left": found.submissions_left,
        "retired": found.signal is None,
        "cached": found.cached,
        "alert": found.alert,
        "direct_signal": found.direct_signal,
        "drift": found.drift,
        "sentence": _sentence(found),
        "reliability": _reliability(found, config),
    }


def _sentence(found: Row[Any]) -> str | None:
    if found.drift is not None:
        return drift_sentence(found.signal, found.direct_signal, found.drift)
    return None if found.direct_test_set_id is None else _NO_SECOND_ANSWER


def _reliability(found: Row[Any], config: MeterConfig) -> float:
    if found.direct_plan is None:
        return round(config.reliability, 12)
    return both_reliability(config, MeterConfig.from_json(found.direct_plan))

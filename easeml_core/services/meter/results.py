"""What may be known of a reading: the signals, what they promise, what they mean, and who is shown them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from easeml_core.config import MeterConfig
from easeml_core.meter.budget import claim
from easeml_core.meter.drift import both_reliability, drift_sentence
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.tables import test_sets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row

    from easeml_core.store.tables.ledger import MeterEntry

_DATA = re.compile(r".* data (\d+)", re.DOTALL)
_NO_SECOND_ANSWER = (
    "the second validation sample is retired and gave no answer: this reading cannot tell tuning from drift"
)


def shown_reading(found: Row[Any]) -> dict[str, Any]:
    """The public side of a reading, as plain JSON.

    Args:
        found: As of ``store.releases.get_reading``.

    Returns:
        ``{"signal", "signals", "boundaries", "tolerance", "submissions_left", "retired", "cached", "alert",
        "direct_signal", "drift", "meaning", "sentence", "reliability"}``. ``signal`` is None where the set was retired
        instead. ``meaning`` is what the signal says of the gap, and no more than the method promises; None without one.
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
        "meaning": _meaning(found, config),
        "sentence": _sentence(found),
        "reliability": _reliability(found, config),
    }


def _meaning(found: Row[Any], config: MeterConfig) -> str | None:
    if found.signal is None:
        return None
    return claim(found.signal, config, edges=found.edges or (), tolerance=found.tolerance, gap="the gap")


def _sentence(found: Row[Any]) -> str | None:
    if found.drift is not None:
        return drift_sentence(found.signal, found.direct_signal, found.drift)
    return None if found.direct_test_set_id is None else _NO_SECOND_ANSWER


def _reliability(found: Row[Any], config: MeterConfig) -> float:
    if found.direct_plan is None:
        return round(config.reliability, 12)
    return both_reliability(config, MeterConfig.from_json(found.direct_plan))


def whose_alert(tx: Connection, reading: Mapping[str, Any]) -> int | None:
    """The team that alone may be shown what follows from a reading; None for everybody, where there is one team.

    Args:
        tx: A transaction of any role.
        reading: Columns of ``work.meter_readings``, with ``test_set_id`` and ``team``.
    """
    teams = meter_settings_of(test_sets.get_set(tx, reading["test_set_id"])).teams
    return int(reading["team"]) if teams > 1 else None


def data_version_of(entry: MeterEntry) -> int:
    """Number of the data version on whose validation part the loss of an entry was measured.

    It stands in the key by which a repeated submission is recognised (``services/meter/reading.py``), unless it is
    1.
    """
    found = _DATA.fullmatch(entry.cache_key)
    return 1 if found is None else int(found[1])

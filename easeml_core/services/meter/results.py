"""The public side of readings: the signals, what they promise and mean, and which team sees them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.meter.drift import both_reliability
from easeml_core.meter.sentences import claim, drift_sentence
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.tables import test_sets

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.config import MeterConfig
    from easeml_core.store.tables.ledger import MeterEntry
    from easeml_core.store.tables.releases import Reading, ReadingRow

_DATA = re.compile(r".* data (\d+)", re.DOTALL)
_NO_SECOND_ANSWER = (
    "the second validation sample is retired and gave no answer: this reading cannot tell tuning from drift"
)


@typed_record
class ShownReading:
    """The public side of a reading.

    Attributes:
        signal: 1..m; None where the set was retired instead.
        signals: m.
        boundaries: Of the ranges, m - 1.
        tolerance: What is promised with the signal.
        submissions_left: Of the team; None where there is no last one.
        retired: Whether the set was retired instead.
        cached: Whether it is the answer that was given to the same artifact before.
        alert: The alert of the overfitting budget, or None.
        direct_signal: What the meter on the second validation sample says; None without.
        drift: ``none seen``, ``likely`` or ``certain``; None without a second sample.
        meaning: The signal's statement about the gap, no more than the method promises; None without one.
        sentence: What both signals mean and what to do; None without a second sample.
        reliability: Of all signals of the set together; with a second sample of all signals of both.
    """

    signal: int | None
    signals: int
    boundaries: list[float]
    tolerance: float
    submissions_left: int | None
    retired: bool
    cached: bool
    alert: str | None
    direct_signal: int | None
    drift: str | None
    meaning: str | None
    sentence: str | None
    reliability: float


def shown_reading(found: ReadingRow) -> ShownReading:
    """Return the public side of a reading."""
    config = meter_settings_of(found)
    return ShownReading(
        signal=found.signal,
        signals=found.signals,
        boundaries=list(found.edges or config.ranges),
        tolerance=found.tolerance or config.tolerance,
        submissions_left=found.submissions_left,
        retired=found.signal is None,
        cached=found.cached,
        alert=found.alert,
        direct_signal=found.direct_signal,
        drift=found.drift,
        meaning=_meaning(found, config),
        sentence=_sentence(found),
        reliability=_reliability(found, config),
    )


def _meaning(found: ReadingRow, config: MeterConfig) -> str | None:
    if found.signal is None:
        return None
    return claim(found.signal, config, edges=found.edges or (), tolerance=found.tolerance, gap="the gap")


def _sentence(found: ReadingRow) -> str | None:
    if found.drift is not None and found.signal is not None and found.direct_signal is not None:
        return drift_sentence(found.signal, found.direct_signal, found.drift)
    return None if found.direct_test_set_id is None else _NO_SECOND_ANSWER


def _reliability(found: ReadingRow, config: MeterConfig) -> float:
    if found.direct_plan is None:
        return round(config.reliability, 12)
    return both_reliability(config, found.direct_plan)


def whose_alert(tx: Connection, reading: Reading) -> int | None:
    """Return the team that alone may be shown what follows from a reading; None for all, where there is one team."""
    teams = meter_settings_of(test_sets.get_set(tx, reading.test_set_id)).teams
    return reading.team if teams > 1 else None


def data_version_of(entry: MeterEntry) -> int:
    """Return the number of the data version on whose validation part the loss of an entry was measured.

    It is in the key of a repeated submission (``services/meter/reading.py``), unless it is 1.
    1.
    """
    found = _DATA.fullmatch(entry.cache_key)
    return 1 if found is None else int(found[1])

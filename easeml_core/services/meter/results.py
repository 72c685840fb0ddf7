"""The results of readings: the signals, what they promise and mean, who sees them, and the history of a meter set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.formats.encoding import typed_record
from easeml_core.meter.drift import both_reliability
from easeml_core.meter.overfitting_budget import parse_budget
from easeml_core.meter.sentences import claim, drift_sentence, promised_sides
from easeml_core.services.test_sets.answers import meter_settings_of
from easeml_core.services.test_sets.lifecycle import shown
from easeml_core.store.tables import ledger, releases, studies, test_sets
from easeml_core.store.tables.ledger import METER, RETIRED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.services.test_sets.lifecycle import ShownSet
    from easeml_core.settings.config import MeterConfig
    from easeml_core.store.database import Store
    from easeml_core.store.tables.ledger import LedgerEntry
    from easeml_core.store.tables.releases import Reading, ReadingRow
    from easeml_core.store.tables.test_sets import SealedSet


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


MOST_ANSWERS = 1000
"""Largest number of plotted answers, the newest."""

MOST_SETS = 20
"""Largest number of listed sets, the newest."""

METERED = (SealedSetPurpose.METER, SealedSetPurpose.JOINT)


@dataclass(frozen=True, slots=True)
class MeterAnswer:
    """One entry of a meter set's ledger, without the fields of a verdict.

    Attributes:
        step: Which answer of its system it was, from 1.
        system: ``gate``, ``meter`` or ``other``.
        signal: What was answered; None for a verdict, and where the set was retired instead.
        is_retired: Whether the set was retired instead.
        gap: Sealed loss minus validation loss, in [-1, 1].
        tolerance: epsilon_t of the answer.
        reachable: Ranges that could have been the answer, >= 1.
        cost: Its price in nats.
        level: The error probability that it was allowed.
        log_level: Its logarithm.
        team: Whose submission it was.
        edges: The boundaries that were used, where they were shifted; else empty.
        promised: The promised tolerance; None for that of the plan.
        why: Why no answer was given; empty for an answer.
        model_id: The model.
        decided_at: When it was decided.
        answered_at: When it left; None while it waits.
    """

    step: int
    system: str
    signal: int | None
    is_retired: bool
    gap: float | None
    tolerance: float | None
    reachable: int | None
    cost: float
    level: float
    log_level: float
    team: int
    edges: tuple[float, ...]
    promised: float | None
    why: str
    model_id: int | None
    decided_at: datetime
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class SecondSample:
    """The second validation sample, and its last answer; None before the first."""

    found: ShownSet
    answer: MeterAnswer | None


@dataclass(frozen=True, slots=True)
class MeterHistory:
    """The meter of a study.

    Attributes:
        sets: The study's meter sets, newest first.
        chosen: The one that is shown.
        settings: The meter's plan for it.
        sides: The ends of a range that are promised.
        budget: The rules of the overfitting budget.
        answers: The meter's, oldest first.
        second: The second validation sample; None without one.
        reading: The study's last reading; None before the first.
        entries: A page of the ledger, those of gate and meter, newest first.
        entry_count: How many there are.
        validation_rows: Of the newest data.
    """

    sets: Sequence[ShownSet]
    chosen: ShownSet
    settings: MeterConfig
    sides: Sequence[str]
    budget: Sequence[str]
    answers: Sequence[MeterAnswer]
    second: SecondSample | None
    reading: ShownReading | None
    entries: Sequence[MeterAnswer]
    entry_count: int
    validation_rows: int


def meter_history(
    store: Store, *, study: str, test_set_id: int | None = None, page: int = 1, size: int = 20
) -> MeterHistory | None:
    """Return the meter of a study; None where it has no meter set yet."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        every = test_sets.list_sets(tx, found.id)
        sets = [s for s in every if s.purpose in METERED and s.state != SealedSetState.PLANNED][:MOST_SETS]
        chosen = _chosen(sets, test_set_id)
        if chosen is None:
            return None
        settings = meter_settings_of(chosen)
        entries = ledger.set_ledger(tx, chosen.id, limit=size, skip=(max(page, 1) - 1) * size)
        reading = releases.newest_reading(tx, found.id, team=1)
        version = studies.latest_data_version(tx, found.id)
        return MeterHistory(
            sets=[shown(one) for one in sets],
            chosen=shown(chosen),
            settings=settings,
            sides=sorted(promised_sides(settings)),
            budget=[rule.text for rule in parse_budget(settings)],
            answers=_answers(tx, chosen),
            second=_second(tx, every),
            reading=None if reading is None else shown_reading(reading),
            entries=[_meter_answer(entry) for entry in entries],
            entry_count=ledger.next_step(tx, chosen.id) - 1,
            validation_rows=version.validation_rows,
        )


def _chosen(sets: Sequence[SealedSet], test_set_id: int | None) -> SealedSet | None:
    """Return the set of this number, else the live one, else the newest."""
    named = [found for found in sets if found.id == test_set_id]
    live = [found for found in sets if found.state == SealedSetState.LIVE]
    return next(iter([*named, *live, *sets]), None)


def _answers(tx: Connection, chosen: SealedSet) -> list[MeterAnswer]:
    entries = ledger.set_ledger(tx, chosen.id, system=METER, limit=MOST_ANSWERS)
    return [_meter_answer(entry) for entry in reversed(entries)]


def _second(tx: Connection, sets: Sequence[SealedSet]) -> SecondSample | None:
    """Return the last answer of the second validation sample, with its set; None without one."""
    for found in sets:
        if found.purpose == SealedSetPurpose.DIRECT and found.state == SealedSetState.LIVE:
            entries = ledger.set_ledger(tx, found.id, system=METER, limit=1)
            return SecondSample(shown(found), _meter_answer(entries[0]) if entries else None)
    return None


def _meter_answer(entry: LedgerEntry) -> MeterAnswer:
    report, is_meter = entry.reading, entry.system == METER
    is_retired = is_meter and entry.answer == RETIRED
    return MeterAnswer(
        step=entry.system_step,
        system=entry.system,
        signal=int(entry.answer) if is_meter and not is_retired else None,
        is_retired=is_retired,
        gap=report.gap if is_meter else None,
        tolerance=entry.tolerance if is_meter else None,
        reachable=report.reachable if is_meter else None,
        cost=entry.log_cost,
        level=math.exp(entry.log_level),
        log_level=entry.log_level,
        team=report.team,
        edges=report.edges,
        promised=report.promised_tolerance,
        why=report.why,
        model_id=report.model_id,
        decided_at=entry.decided_at,
        answered_at=entry.answered_at,
    )

"""The answers, measurements and costs of a meter set: the referee's view of overfitting. Not for developers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.meter.overfitting_budget import parse_budget
from easeml_core.meter.sentences import promised_sides
from easeml_core.services.meter.results import shown_reading
from easeml_core.services.test_sets.lifecycle import shown
from easeml_core.services.test_sets.shared_set import meter_settings_of
from easeml_core.store.tables import ledger, releases, studies, test_sets
from easeml_core.store.tables.ledger import METER, RETIRED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.config import MeterConfig
    from easeml_core.services.meter.results import ShownReading
    from easeml_core.services.test_sets.lifecycle import ShownSet
    from easeml_core.store.database import Store
    from easeml_core.store.tables.ledger import LedgerEntry
    from easeml_core.store.tables.test_sets import SealedSet

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
    """Return the meter of a study; None where it has no meter set yet.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        test_set_id: One of its meter sets, or None for the live one, else the newest. An unknown one counts as None.
        page: Of the ledger, from 1; newest entries first.
        size: Entries a page.

    Raises:
        NotFoundError: There is no such study.
    """
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

"""Queries over a set's ledger; ``sealed.py`` writes the entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.entities import JsonObject, SealedSetPurpose, SealedSetState
from easeml_core.formats.encoding import from_json, typed_record
from easeml_core.gate.report import VerdictReport
from easeml_core.store.rows import record, records, row, rows, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection


GATE, METER, OTHER = "gate", "meter", "other"
"""The system of an entry: several share a ``joint`` set. ``other``: the gate's, about another condition than
the one sealed with the set; its ``step`` is beyond the set's own, of which it uses none."""

RETIRED = "retired"
"""The answer of a meter set that gave none."""

# Reports of the meter leave out what is usual (services/meter/reading.py); a whole one is long, and read by people
# only.
_TEAM = "coalesce((report ->> 'team')::int, 1)"
_ENDS = f"(answer = '{RETIRED}' OR coalesce((report ->> 'ends')::boolean, false))"


@typed_record
class Judged:
    """A model that was judged on a set, its identity, what it was compared with, and what its verdict names instead."""

    model_id: int
    model: str
    incumbent_id: int
    named_id: int


@typed_record
class Usage:
    """The state of a set's ledger before the next verdict.

    Attributes:
        gate_steps: The gate's answers about the set's condition.
        gate_changes: How many of them were changes (``stats/adaptivity.py``).
        other_steps: The gate's answers about other conditions.
        entries: Answers of gate and meter together, those about other conditions left out.
        log_costs: What each answer so far has cost, of every system, >= 0, in nats.
        known_step: The system's own step at which the very same question was answered; None where it was not.
        known_answer: That answer.
    """

    gate_steps: int
    gate_changes: int
    other_steps: int
    entries: int
    log_costs: Sequence[float]
    known_step: int | None
    known_answer: str | None

    @property
    def log_weight(self) -> float:
        """The cost of all answers so far, in nats."""
        return math.fsum(self.log_costs)


def usage(tx: Connection, test_set_id: int, cache_key: str) -> Usage:
    """Return the state of a set's ledger before a verdict."""
    found = record(
        tx,
        Usage,
        "SELECT count(*) FILTER (WHERE system = :gate) AS gate_steps, "
        "count(*) FILTER (WHERE system = :gate AND is_change) AS gate_changes, "
        "count(*) FILTER (WHERE system = :other) AS other_steps, count(*) FILTER (WHERE system <> :other) AS entries, "
        "coalesce(array_agg(log_cost), '{}') AS log_costs, "
        "max(system_step) FILTER (WHERE cache_key = :key) AS known_step, "
        "max(answer) FILTER (WHERE cache_key = :key) AS known_answer FROM sealed.ledger WHERE test_set_id = :id",
        id=test_set_id,
        key=cache_key,
        gate=GATE,
        other=OTHER,
    )
    assert found is not None  # an aggregate has a row
    return found


def used(tx: Connection, test_set_id: int, system: str = GATE) -> tuple[int, int]:
    """Steps that the system has used so far, and how many of its answers were changes (``stats/adaptivity.py``)."""
    found = row(
        tx,
        "SELECT count(*) AS steps, count(*) FILTER (WHERE is_change) AS changes FROM sealed.ledger "
        "WHERE test_set_id = :id AND system = :system",
        id=test_set_id,
        system=system,
    )
    assert found is not None  # an aggregate has a row
    return int(found.steps), int(found.changes)


def next_step(tx: Connection, test_set_id: int) -> int:
    """The place that the next answer of gate or meter has in the set's ledger, from 1."""
    query = "SELECT count(*) FROM sealed.ledger WHERE test_set_id = :id AND system <> :other"
    return 1 + int(scalar(tx, query, id=test_set_id, other=OTHER))


def joint_log_weight(tx: Connection, test_set_id: int) -> float:
    """Return the cost of all answers so far, of either system; >= 0, in nats."""
    found = rows(tx, "SELECT log_cost FROM sealed.ledger WHERE test_set_id = :id ORDER BY step", id=test_set_id)
    return math.fsum(entry.log_cost for entry in found)


def meter_has_retired(tx: Connection, test_set_id: int) -> bool:
    """Whether the meter has answered that it can give no further signal."""
    found = scalar(
        tx,
        "SELECT EXISTS (SELECT 1 FROM sealed.ledger WHERE test_set_id = :id AND system = :system "
        "AND answer = :retired)",
        id=test_set_id,
        system=METER,
        retired=RETIRED,
    )
    return bool(found)


def last_judged(tx: Connection, test_set_id: int, *, could_run: bool = False) -> Judged | None:
    """The last model that the gate judged on a set, or None; with ``could_run`` the last that could be run on it."""
    return record(
        tx,
        Judged,
        "SELECT (report ->> 'model_id')::bigint AS model_id, report ->> 'model' AS model, "
        "(report ->> 'incumbent_id')::bigint AS incumbent_id, (report ->> 'named_id')::bigint AS named_id "
        "FROM sealed.ledger WHERE test_set_id = :id AND system = :system "
        "AND (report ->> 'failure' IS NULL OR NOT :could_run) ORDER BY step DESC LIMIT 1",
        id=test_set_id,
        system=GATE,
        could_run=could_run,
    )


class MeterEntry(NamedTuple):
    """One earlier submission to a meter; attributes as the columns of the ledger.

    Attributes:
        step: Its place among the meter's own answers, from 1.
        cache_key: Artifact, and team where there are several.
        signal: What was answered; None when the set was retired instead.
        log_cost: What it cost.
        team: Whose it was.
        edges: The boundaries that were used, where they were shifted; else empty.
        tolerance: What was promised with the signal; None for that of the plan.
        ends: Whether the set ended with it (for its team).
    """

    step: int
    cache_key: str
    signal: int | None
    log_cost: float
    team: int
    edges: tuple[float, ...]
    tolerance: float | None
    ends: bool


def meter_answers_anew(tx: Connection, test_set_id: int, *, cache_key: str, team: int) -> bool:
    """Whether a submission would use a step of the meter: it was not answered before, and the team has not ended.

    An answer that ends the set for its team is the team's last one, so that one entry tells, however many there are.
    """
    found = scalar(
        tx,
        "SELECT NOT EXISTS (SELECT 1 FROM sealed.ledger WHERE test_set_id = :id AND cache_key = :key) AND NOT coalesce("
        f"(SELECT {_ENDS} FROM sealed.ledger WHERE test_set_id = :id AND system = :system AND {_TEAM} = :team "
        "ORDER BY system_step DESC LIMIT 1), false)",
        id=test_set_id,
        key=cache_key,
        system=METER,
        team=team,
    )
    return bool(found)


def meter_entries(tx: Connection, test_set_id: int) -> list[MeterEntry]:
    """All submissions to the meter on this set so far, in order; verdicts of a gate that shares it are left out."""
    found = rows(
        tx,
        f"SELECT system_step, cache_key, CASE answer WHEN '{RETIRED}' THEN NULL ELSE answer::integer END, log_cost, "
        f"{_TEAM}, report -> 'edges', (report ->> 'promised_tolerance')::float8, {_ENDS} FROM sealed.ledger "
        "WHERE test_set_id = :id AND system = :system ORDER BY step",
        id=test_set_id,
        system=METER,
    )
    return [
        MeterEntry(step, cache_key, signal, log_cost, team, tuple(edges or ()), tolerance, ends)
        for step, cache_key, signal, log_cost, team, edges, tolerance, ends in map(tuple, found)
    ]


@typed_record
class MeterReport:
    """The ledger's report of one reading of the meter; see ``meter.reading.Reading``.

    Entries leave out what is usual (``services/meter/reading.py``).

    Attributes:
        model_id: The model that was read.
        gap: Sealed loss minus validation loss, in [-1, 1].
        reachable: Ranges that could have been the answer, >= 1.
        team: Whose submission it was, 1..K.
        edges: The boundaries that were used, where they were shifted; else empty.
        promised_tolerance: What was promised with the signal; None for that of the plan.
        why: Why no answer was given; empty for an answer.
    """

    model_id: int | None = None
    gap: float | None = None
    reachable: int | None = None
    team: int = 1
    edges: tuple[float, ...] = ()
    promised_tolerance: float | None = None
    why: str = ""


@typed_record
class LedgerEntry:
    """One answer of a sealed set: the referee's view.

    Attributes:
        test_set_id: The set.
        test_set: Its name, or None.
        purpose: Which systems draw on it.
        state: Where in its life it is now.
        step: Which answer of the set it was, from 1.
        steps: Answers that the set can give.
        system: ``gate``, ``meter`` or ``other``.
        system_step: Which answer of the system it was, from 1.
        system_steps: Answers that the system can give on the set.
        request_id: Who asked.
        answer: What was released: a symbol, a signal, or ``retired``.
        is_change: Whether it was a change (``stats/adaptivity.py``).
        log_level: ln of the level of the test.
        log_cost: By how many nats it lowers the level of later answers.
        tolerance: Of a reading, epsilon_t; None for a verdict.
        report: The whole report as it is stored and committed to by the chain: a ``VerdictReport`` or ``MeterReport``.
        decided_at: When it was decided.
        answered_at: When the answer left; None while it waits.
        isolation: What the model was kept from when it ran; None where it was not run.
    """

    test_set_id: int
    test_set: str | None
    purpose: SealedSetPurpose
    state: SealedSetState
    step: int
    steps: int
    system: str
    system_step: int
    system_steps: int
    request_id: int
    answer: str
    is_change: bool
    log_level: float
    log_cost: float
    tolerance: float | None
    report: JsonObject
    decided_at: datetime
    answered_at: datetime | None
    isolation: JsonObject | None

    @property
    def verdict(self) -> VerdictReport:
        """The report of a verdict."""
        return from_json(self.report, VerdictReport)

    @property
    def reading(self) -> MeterReport:
        """The report of a reading."""
        return from_json(self.report, MeterReport)


def study_ledger(tx: Connection, study_id: int) -> list[LedgerEntry]:
    """All entries of a study's sealed sets, oldest first: the referee's view."""
    return records(tx, LedgerEntry, _ENTRIES + "WHERE t.study_id = :id ORDER BY l.id", id=study_id)


def set_ledger(
    tx: Connection, test_set_id: int, *, limit: int, skip: int = 0, system: str | None = None
) -> list[LedgerEntry]:
    """Entries of one set, newest first: the referee's view, a page at a time."""
    query = _ENTRIES + (
        "WHERE l.test_set_id = :id AND (l.system = :system OR CAST(:system AS text) IS NULL) "
        "ORDER BY l.id DESC LIMIT :most OFFSET :skip"
    )
    return records(tx, LedgerEntry, query, id=test_set_id, system=system, most=limit, skip=skip)


def newest_of_model(tx: Connection, test_set_id: int, model_id: int) -> LedgerEntry | None:
    """The gate's last entry about a model on a set, or None."""
    query = _ENTRIES + (
        "WHERE l.test_set_id = :id AND l.system = :system AND (l.report ->> 'model_id')::bigint = :model "
        "ORDER BY l.step DESC LIMIT 1"
    )
    return record(tx, LedgerEntry, query, id=test_set_id, system=GATE, model=model_id)


_ENTRIES = """
SELECT t.id AS test_set_id, t.name AS test_set, t.purpose, t.state, l.step, l.steps, l.system, l.system_step,
       l.system_steps, l.request_id, l.answer, l.is_change, l.log_level, l.log_cost, l.tolerance, l.report,
       l.decided_at, a.answered_at, p.isolation
FROM sealed.ledger l JOIN work.test_sets t ON t.id = l.test_set_id
LEFT JOIN sealed.predictions p ON p.test_set_id = l.test_set_id AND p.model = l.report ->> 'model'
LEFT JOIN work.answers a ON a.request_id = l.request_id
"""

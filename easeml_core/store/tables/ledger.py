"""What the ledger says of a set so far; entries themselves are written by ``store/tables/sealed.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.encoding import typed_record
from easeml_core.store.rows import record, row, rows, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection


GATE, METER, OTHER = "gate", "meter", "other"
"""Whose answer an entry is: several systems share a ``joint`` set. ``other``: the gate's, about another condition than
the one sealed with the set; its ``step`` is beyond the set's own, of which it uses none."""

RETIRED = "retired"
"""The answer of a meter set that gave none."""

# Reports of the meter leave out what is usual (services/meter/reading.py); a whole one is long, and read by people
# only.
_TEAM = "coalesce((report ->> 'team')::int, 1)"
_ENDS = f"(answer = '{RETIRED}' OR coalesce((report ->> 'ends')::boolean, false))"


@dataclass(frozen=True, slots=True)
class Judged:
    """A model that was judged on a set, its identity, what it was compared with, and what its verdict names instead."""

    model_id: int
    model: str
    incumbent_id: int
    named_id: int


@typed_record
class Usage:
    """What a set's ledger says before the next verdict.

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
        """What all answers so far have cost together, in nats."""
        return math.fsum(self.log_costs)


def usage(tx: Connection, test_set_id: int, cache_key: str) -> Usage:
    """What the ledger of a set says before a verdict.

    Args:
        tx: Transaction of the referee's role that holds the set.
        test_set_id: The set.
        cache_key: The question: condition and models.
    """
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
    """What all answers so far, of either system, have cost together; >= 0, in nats."""
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
    found = row(
        tx,
        "SELECT (report ->> 'model_id')::bigint AS model_id, report ->> 'model' AS model, "
        "(report ->> 'incumbent_id')::bigint AS incumbent_id, (report ->> 'named_id')::bigint AS named_id "
        "FROM sealed.ledger WHERE test_set_id = :id AND system = :system "
        "AND (report ->> 'failure' IS NULL OR NOT :could_run) ORDER BY step DESC LIMIT 1",
        id=test_set_id,
        system=GATE,
        could_run=could_run,
    )
    return None if found is None else Judged(**found._mapping)


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


def study_ledger(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """All entries of a study's sealed sets, oldest first: the referee's view."""
    return [dict(r._mapping) for r in rows(tx, _ENTRIES + "WHERE t.study_id = :id ORDER BY l.id", id=study_id)]


def set_ledger(
    tx: Connection, test_set_id: int, *, limit: int, skip: int = 0, system: str | None = None
) -> list[dict[str, Any]]:
    """Entries of one set, newest first: the referee's view, a page at a time.

    Args:
        tx: Transaction of the referee's role.
        test_set_id: The set.
        limit: Entries at most.
        skip: How many of the newest to leave out.
        system: Those of one system; None for all.
    """
    query = _ENTRIES + (
        "WHERE l.test_set_id = :id AND (l.system = :system OR CAST(:system AS text) IS NULL) "
        "ORDER BY l.id DESC LIMIT :most OFFSET :skip"
    )
    found = rows(tx, query, id=test_set_id, system=system, most=limit, skip=skip)
    return [dict(r._mapping) for r in found]


def newest_of_model(tx: Connection, test_set_id: int, model_id: int) -> dict[str, Any] | None:
    """The gate's last entry about a model on a set, as of ``set_ledger``, or None."""
    query = _ENTRIES + (
        "WHERE l.test_set_id = :id AND l.system = :system AND (l.report ->> 'model_id')::bigint = :model "
        "ORDER BY l.step DESC LIMIT 1"
    )
    found = row(tx, query, id=test_set_id, system=GATE, model=model_id)
    return None if found is None else dict(found._mapping)


_ENTRIES = """
SELECT t.id AS test_set_id, t.name AS test_set, t.purpose, t.state, t.plan, l.step, l.steps, l.system, l.system_step,
       l.system_steps, l.request_id, l.answer, l.is_change, l.log_level, l.log_cost, l.tolerance, l.report,
       l.decided_at, a.answered_at, p.isolation
FROM sealed.ledger l JOIN work.test_sets t ON t.id = l.test_set_id
LEFT JOIN sealed.predictions p ON p.test_set_id = l.test_set_id AND p.model = l.report ->> 'model'
LEFT JOIN work.answers a ON a.request_id = l.request_id
"""

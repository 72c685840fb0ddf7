"""Decisions at the rungs of trials, and what ended trials teach about a rung."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from easeml_core.encoding import row_of, typed_record
from easeml_core.store.rows import change, record, records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

_MOST_TRIALS = 1000
"""Ended trials that are looked at: those of the study first, then the latest ones."""

# Trials that a rung has stopped are left out: their final quality is unknown; and results that did not hold.
_ENDED = """
SELECT c.quality, e.final, e.is_here, c.average FROM (
  SELECT t.id, t.study_id = :study_id AS is_here, o.quality AS final
  FROM work.trials t JOIN work.candidates k ON k.id = t.candidate_id JOIN work.observations o ON o.trial_id = t.id
  WHERE k.kind = ANY(:kinds) AND t.reevaluates IS NULL
  AND NOT EXISTS (SELECT FROM work.rungs r WHERE r.trial_id = t.id AND NOT r.goes_on)
  AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = t.id AND q.outcome = 'not held')
  ORDER BY is_here DESC, t.finished_at DESC, t.id DESC LIMIT :most) e
CROSS JOIN LATERAL (
  SELECT avg(p.quality) AS average, max(p.quality) FILTER (WHERE p.step = p.rung) AS quality
  FROM (SELECT step, quality, least("of", greatest(1, ceil(:share * "of" - 1e-9)::integer)) AS rung
    FROM work.curves WHERE trial_id = e.id) p WHERE p.step <= p.rung) c
WHERE c.quality IS NOT NULL
"""


@typed_record
class RungDecision:
    """Whether a trial went on after one rung, and the numbers that decided it.

    Attributes:
        rung: Its number, from 1.
        step: The step at which it was decided, of ``of``.
        of: Steps of the whole training.
        quality: Of the trial at this step, in [0, 1].
        hoped: Quality that the trial may reach; None for unknown.
        needed: What ``hoped`` must not be below; None for nothing.
        known: How many trials the decision rests on.
        rule: ``gains`` or ``median``.
        goes_on: Whether the rest of the epochs is trained.
    """

    rung: int
    step: int
    of: int
    quality: float
    hoped: float | None
    needed: float | None
    known: int
    rule: str
    goes_on: bool


class Ended(NamedTuple):
    """The result of an ended trial for a rung.

    Attributes:
        quality: Reported at the rung, in [0, 1].
        final: Of the model that it ended with.
        is_here: Whether it is of the study that asks.
        average: Of the qualities reported up to the rung.
    """

    quality: float
    final: float
    is_here: bool
    average: float


def ended_after(tx: Connection, *, study_id: int, kinds: Collection[str], share: float) -> list[Ended]:
    """Return ended trials of these kinds that reported their quality at this share of their steps, at most 1,000."""
    found = rows(tx, _ENDED, study_id=study_id, kinds=list(kinds), share=share, most=_MOST_TRIALS)
    return [Ended(**r._mapping) for r in found]


def best_of_study(tx: Connection, *, study_id: int, data_version_id: int) -> float | None:
    """The best quality that a study's trials have reached on these data, as far as it holds; None for none."""
    found = scalar(
        tx,
        "SELECT max(o.quality) FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
        "WHERE t.study_id = :study_id AND t.data_version_id = :version "
        "AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = t.id AND q.outcome = 'not held')",
        study_id=study_id,
        version=data_version_id,
    )
    return None if found is None else float(found)


def add_decision(tx: Connection, *, trial_id: int, attempt: int, decision: RungDecision) -> None:
    """Store a decision, unless its rung has one, or the trial does not belong to this attempt any more.

    Args:
        tx: The transaction.
        trial_id: The trial.
        attempt: The attempt that decides.
        decision: For one rung.
    """
    change(
        tx,
        'INSERT INTO work.rungs (trial_id, rung, step, "of", quality, hoped, needed, known, rule, goes_on) '
        "SELECT id, :rung, :step, :of, :quality, :hoped, :needed, :known, :rule, :goes_on FROM work.trials "
        "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt ON CONFLICT DO NOTHING",
        id=trial_id,
        attempt=attempt,
        **row_of(decision),
    )


_DECISION = (
    'SELECT rung, step, "of", quality, hoped, needed, known, rule, goes_on FROM work.rungs WHERE trial_id = :id '
)


def decision_at(tx: Connection, trial_id: int, rung: int) -> RungDecision | None:
    """Return the decision at this rung; None where there is none."""
    return record(tx, RungDecision, _DECISION + "AND rung = :rung", id=trial_id, rung=rung)


def decisions_of(tx: Connection, trial_id: int) -> tuple[RungDecision, ...]:
    """Return the decisions at the trial's rungs, in their order."""
    return tuple(records(tx, RungDecision, _DECISION + "ORDER BY rung", id=trial_id))

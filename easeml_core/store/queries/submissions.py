"""Queries about submitted models: their order and the public facts that were released about each.

A model is submitted when a user submits it or files a gate or meter request for it. Its number is its place in that
order, the same for developers and the referee.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.entities import Symbol
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import records, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


@typed_record
class Submission:
    """A submitted model with what was released about it.

    Attributes:
        number: Its place in the order of all submissions, from 1.
        total: How many submissions there are.
        called: Its candidate, or the first line of the message that it was submitted with.
        gate_waits: Whether the gate has been asked about it and has not answered.
        symbol: Last symbol, one on the sealed condition before others; ``planned`` says whether it is about that.
        refusal: Why the gate refused it last; ``meter_refusal`` likewise.
        meter_waits: Whether the meter has been asked about it and has not answered.
        meter_too_late: Whether the meter was asked after its last set had ended, and none is live.
        signal: Last signal, in 1..signals; None where none was released, or its set ended with this model.
        teams: That share the set of the signal.
    """

    number: int
    model_id: int
    handed_in_at: datetime
    total: int
    called: str
    in_production: bool
    gate_waits: bool
    symbol: Symbol | None
    planned: bool | None
    refusal: str | None
    meter_waits: bool
    meter_too_late: bool
    meter_refusal: str | None
    signal: int | None
    signals: int | None
    teams: int | None


@typed_record
class Submittable:
    """A model that can be submitted; ``quality`` is in [0, 1], on the validation part."""

    model_id: int
    called: str
    quality: float


@typed_record
class GivenSignal:
    """An answer of the meter on a set; ``place`` counts them from 1, and ``signal`` is None where the set ended."""

    model_id: int
    place: int
    signal: int | None
    signals: int


_NUMBERED = """
WITH asked AS (
  SELECT model_id, requested_at AS at FROM work.requests WHERE study_id = :study AND kind IN ('gate', 'meter')
  UNION ALL SELECT model_id, submitted_at FROM work.submissions WHERE study_id = :study),
numbered AS (
  SELECT model_id, min(at) AS handed_in_at, row_number() OVER (ORDER BY min(at), model_id) AS number
  FROM asked GROUP BY model_id)
"""

_CALLED = "coalesce(k.name, left(split_part(u.message, E'\\n', 1), 80), 'baseline')"
_ORIGIN = """
LEFT JOIN work.trials t ON t.id = m.trial_id LEFT JOIN work.candidates k ON k.id = t.candidate_id
LEFT JOIN work.submissions u ON u.model_id = m.id
"""

# The verdict on the sealed condition comes before one on another, which is advice. Where several teams share a meter
# set, this query acts for none of them.
_LIST = f"""{_NUMBERED}, shown AS MATERIALIZED (
  SELECT model_id, handed_in_at, number, count(*) OVER () AS total FROM numbered
  ORDER BY number DESC LIMIT :most OFFSET :skip)
SELECT n.number, n.model_id, n.handed_in_at, n.total, {_CALLED} AS called,
       p.model_id IS NOT NULL AS in_production,
       EXISTS (SELECT FROM work.requests r WHERE r.study_id = :study AND r.kind = 'gate' AND r.model_id = n.model_id
               AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id)) AS gate_waits,
       v.symbol, v.planned, refusal.message AS refusal,
       w.asked_at IS NOT NULL AS meter_waits,
       w.asked_at > (SELECT max(x.retired_at) FROM work.test_sets x WHERE x.study_id = :study
                     AND x.purpose IN ('meter', 'joint') HAVING bool_and(x.state <> 'live')) IS TRUE AS meter_too_late,
       meter_refusal.message AS meter_refusal,
       s.signal, s.signals, s.teams
FROM shown n JOIN work.models m ON m.id = n.model_id {_ORIGIN}
LEFT JOIN work.production p ON p.study_id = :study AND p.model_id = n.model_id
LEFT JOIN LATERAL (
  SELECT symbol, planned FROM work.gate_verdicts WHERE study_id = :study AND model_id = n.model_id
  ORDER BY planned DESC, request_id DESC LIMIT 1) v ON true
LEFT JOIN LATERAL (
  SELECT a.message FROM work.requests r JOIN work.answers a ON a.request_id = r.id
  WHERE r.study_id = :study AND r.kind = 'gate' AND r.model_id = n.model_id AND a.refused
  ORDER BY r.id DESC LIMIT 1) refusal ON true
LEFT JOIN LATERAL (
  SELECT min(r.requested_at) AS asked_at FROM work.requests r WHERE r.study_id = :study AND r.kind = 'meter'
  AND r.model_id = n.model_id AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id)) w ON true
LEFT JOIN LATERAL (
  SELECT a.message FROM work.requests r JOIN work.answers a ON a.request_id = r.id
  WHERE r.study_id = :study AND r.kind = 'meter' AND r.model_id = n.model_id AND a.refused
  ORDER BY r.id DESC LIMIT 1) meter_refusal ON true
LEFT JOIN LATERAL (
  SELECT r.signal, r.signals, coalesce((x.plan ->> 'teams')::int, 1) AS teams FROM work.meter_readings r
  JOIN work.test_sets x ON x.id = r.test_set_id WHERE r.study_id = :study AND r.model_id = n.model_id
  ORDER BY r.request_id DESC LIMIT 1) s ON true
ORDER BY n.number DESC
"""


def list_submissions(tx: Connection, study_id: int, *, limit: int, skip: int = 0) -> list[Submission]:
    """Return submissions, the newest first."""
    return records(tx, Submission, _LIST, study=study_id, most=limit, skip=skip)


def answer_times(tx: Connection, study_id: int, *, limit: int) -> tuple[list[datetime], datetime]:
    """Return the times of the last answers of gate and meter, newest first, and the present, in UTC."""
    found = rows(
        tx,
        "SELECT a.answered_at FROM work.requests r JOIN work.answers a ON a.request_id = r.id "
        "WHERE r.study_id = :study AND r.kind IN ('gate', 'meter') ORDER BY a.answered_at DESC LIMIT :most",
        study=study_id,
        most=limit,
    )
    return [r.answered_at for r in found], scalar(tx, "SELECT clock_timestamp()")


def numbers_of(tx: Connection, study_id: int, model_ids: Sequence[int]) -> dict[int, int]:
    """Return the number of each of these models that was submitted."""
    query = _NUMBERED + "SELECT model_id, number FROM numbered WHERE model_id = ANY (:ids)"
    return {r.model_id: r.number for r in rows(tx, query, study=study_id, ids=list(model_ids))}


def model_of_number(tx: Connection, study_id: int, number: int) -> int | None:
    """Return the model that was submitted under this number, or None."""
    found = row(tx, _NUMBERED + "SELECT model_id FROM numbered WHERE number = :number", study=study_id, number=number)
    return None if found is None else int(found.model_id)


def names_of(tx: Connection, model_ids: Sequence[int]) -> dict[int, str]:
    """Return the display name of each model: its candidate, or the first line of its submission's message."""
    query = f"SELECT m.id, {_CALLED} AS called FROM work.models m {_ORIGIN} WHERE m.id = ANY (:ids)"
    return {r.id: r.called for r in rows(tx, query, ids=list(model_ids))}


def submittable_models(tx: Connection, study_id: int, *, limit: int) -> list[Submittable]:
    """Return the study's best models on its newest data, the best first, without the one in production."""
    query = (
        f"SELECT m.id AS model_id, {_CALLED} AS called, coalesce(o.quality, 1 - m.validation_loss) AS quality "
        f"FROM work.models m {_ORIGIN} LEFT JOIN work.observations o ON o.trial_id = m.trial_id "
        "WHERE m.study_id = :study AND m.removed_at IS NULL AND (m.trial_id IS NOT NULL OR m.submitted) "
        "AND m.data_version_id = "
        "(SELECT id FROM work.data_versions WHERE study_id = :study ORDER BY version DESC LIMIT 1) "
        "AND NOT EXISTS (SELECT FROM work.production p WHERE p.study_id = :study AND p.model_id = m.id) "
        "AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = m.trial_id AND q.outcome = 'not held') "
        "ORDER BY quality DESC, m.id LIMIT :most"
    )
    return records(tx, Submittable, query, study=study_id, most=limit)


def list_signals(tx: Connection, study_id: int, test_set_id: int, *, limit: int) -> list[GivenSignal]:
    """Return the last signals of a meter set, oldest first; a model that was submitted again has one answer."""
    query = (
        "SELECT model_id, row_number() OVER (ORDER BY request_id) AS place, signal, signals FROM work.meter_readings "
        "WHERE study_id = :study AND test_set_id = :set AND NOT cached ORDER BY request_id DESC LIMIT :most"
    )
    return records(tx, GivenSignal, query, study=study_id, set=test_set_id, most=limit)[::-1]

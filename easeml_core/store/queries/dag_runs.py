"""Queries about what one task, or one run of a DAG, has requested and trained, found by its request keys.

A run's keys begin with ``DAG/RUN/``, those of one task are ``DAG/RUN/TASK/INDEX``, some with more behind it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.entities import Symbol
from easeml_core.store.queries.study import TrialFacts
from easeml_core.store.rows import clean, records

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

MOST = 200
"""Trials, and things asked for, that one look gives."""

NEWEST = 50_000
"""Newest trials that are searched for one that the run trained and another run had requested."""


@typed_record
class DagRunTrial(TrialFacts):
    """A trial that a run or a task handed out (``is_asked``), or trained last (``is_trained``)."""

    study: str
    is_asked: bool
    is_trained: bool


@typed_record
class DagRunRequest:
    """A request, submission or feed of a run or task.

    Attributes:
        request_id: None of a submission and of a feed.
        kind: A ``RequestKind``, ``submission`` or ``feed``.
        symbol: Of a verdict that was released.
        signal: Of a meter set that one team alone uses, in 1..signals.
    """

    request_id: int | None
    kind: str
    study: str
    model_id: int | None
    at: datetime
    is_answered: bool
    is_refused: bool
    symbol: Symbol | None
    signal: int | None
    signals: int | None


def _is_of(column: str, key: str) -> str:
    """The condition that a key is this one, or has more behind it; an index on the column finds both."""
    return f"({column} = :{key} OR starts_with({column}, :{key} || '/'))"


_SEEN = "(CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))"

# A trial is handed out in one task and trained in another one, perhaps of another run: the first by the batches, which
# have an index on the key, the second by the key of its last lease.
_TRIALS = f"""
WITH asked AS (
  SELECT z.trial_id, bool_or({_is_of("b.request_key", "key")}) AS is_asked
  FROM work.suggestion_batches b JOIN work.suggestions z ON z.batch_id = b.id
  WHERE {_is_of("b.request_key", "run")} GROUP BY z.trial_id),
named AS (
  SELECT trial_id FROM asked UNION
  SELECT id FROM work.trials
  WHERE id > (SELECT max(id) FROM work.trials) - {NEWEST} AND {_is_of("last_key", "key")}),
marked AS (
  SELECT n.trial_id, coalesce(a.is_asked, false) AS is_asked,
         coalesce({_is_of("x.last_key", "key")}, false) AS is_trained
  FROM named n JOIN work.trials x ON x.id = n.trial_id LEFT JOIN asked a ON a.trial_id = n.trial_id)
SELECT t.id AS trial_id, s.name AS study, c.name AS candidate, t.state, t.failure, t.cost_seconds,
       t.start_seconds, t.lost_seconds, t.cancel_requested, t.reevaluates, t.suggested_at, t.started_at,
       t.attempt_started_at, t.finished_at, o.quality, w.measured, n.is_asked, n.is_trained
FROM marked n JOIN work.trials t ON t.id = n.trial_id JOIN work.candidates c ON c.id = t.candidate_id
JOIN work.studies s ON s.id = t.study_id LEFT JOIN work.observations o ON o.trial_id = t.id
LEFT JOIN work.quality_checks w ON w.trial_id = t.id AND w.outcome = 'not held'
WHERE (n.is_asked OR n.is_trained) AND {_SEEN} ORDER BY t.id DESC LIMIT :most
"""

# Of what was answered only what left: a symbol, and a signal where one team alone uses the set.
_ASKED = f"""
WITH asked AS (
  SELECT r.id, r.kind, r.study_id, r.model_id, r.requested_at AS at FROM work.requests r
  WHERE {_is_of("r.request_key", "key")}
  UNION ALL SELECT NULL, 'submission', u.study_id, u.model_id, u.submitted_at FROM work.submissions u
  WHERE {_is_of("u.request_key", "key")}
  UNION ALL SELECT NULL, 'feed', f.study_id, NULL, f.fed_at FROM work.feeds f
  WHERE {_is_of("f.request_key", "key")})
SELECT q.id AS request_id, q.kind, s.name AS study, q.model_id, q.at, w.request_id IS NOT NULL AS is_answered,
       coalesce(w.refused, false) AS is_refused, v.symbol, m.signal, m.signals
FROM asked q JOIN work.studies s ON s.id = q.study_id LEFT JOIN work.answers w ON w.request_id = q.id
LEFT JOIN work.gate_verdicts v ON v.request_id = q.id
LEFT JOIN LATERAL (
  SELECT g.signal, g.signals FROM work.meter_readings g JOIN work.test_sets x ON x.id = g.test_set_id
  WHERE g.request_id = q.id AND coalesce((x.plan ->> 'teams')::int, 1) = 1) m ON true
WHERE {_SEEN} ORDER BY q.at DESC, q.id DESC LIMIT :most
"""


def trials_of(tx: Connection, *, run: str, key: str, studies: Collection[str] | None) -> list[DagRunTrial]:
    """Return trials that were handed out or trained there, newest first, at most MOST.

    Args:
        tx: Role ``easeml_worker``.
        run: ``DAG/RUN``.
        key: The same for the whole run, or the request key of one of its tasks.
        studies: Names of the studies that may be shown; None for all.
    """
    return records(tx, DagRunTrial, _TRIALS, names=_names(studies), most=MOST, run=clean(run), key=clean(key))


def requests_of(tx: Connection, *, key: str, studies: Collection[str] | None) -> list[DagRunRequest]:
    """Return what was asked of the referee, submitted and fed there, newest first, at most MOST.

    Args:
        tx: Role ``easeml_worker``.
        key: ``DAG/RUN`` of a run, or the request key of a task.
        studies: Names of the studies that may be shown; None for all.
    """
    return records(tx, DagRunRequest, _ASKED, names=_names(studies), most=MOST, key=clean(key))


def _names(studies: Collection[str] | None) -> list[str] | None:
    return None if studies is None else list(studies)

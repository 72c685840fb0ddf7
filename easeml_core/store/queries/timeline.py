"""What happened: the events of a study in the order of time, and what one run of a DAG, or one task, asked and trained.

Public facts, from the tables of the schema ``work`` alone. A run's keys begin with ``DAG/RUN/``, those of one task are
``DAG/RUN/TASK/INDEX``, some with more behind it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from easeml_core.entities import SealedSetPurpose, SealedSetState, Symbol, TrialState
from easeml_core.formats.encoding import typed_record
from easeml_core.store.queries.study import TrialFacts
from easeml_core.store.rows import clean, records, rows, scalar
from easeml_core.store.tables.releases import IS_OPEN

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


class EventKind(StrEnum):
    """The kind of an event."""

    REGISTERED = "registered"
    DATA = "data"
    FED = "fed"
    SWITCHED = "switched"
    TRIAL = "trial"
    SUBMITTED = "submitted"
    VERDICT = "verdict"
    READING = "reading"
    MOVED = "moved"
    SEALED = "sealed"
    RETIRED = "retired"
    ALERT = "alert"


@typed_record
class Registered:
    """The study was registered."""

    program: str | None


@typed_record
class NewData:
    """A data version; the numbers of rows are None where a part has none."""

    version: int
    validation_only: bool | None
    train_rows: int | None
    validation_rows: int | None
    refreshed: bool


@typed_record
class Fed:
    """Examples were fed; ``reason`` says why they were refused."""

    rows: int
    by: str
    origin: str
    state: str
    reason: str | None


@typed_record
class Switched:
    """Examples were switched on or off."""

    rows: int
    is_on: bool
    by: str
    reason: str


@typed_record
class EndedTrial:
    """A trial ended; ``quality`` is in [0, 1], None without a result; ``seconds`` include lost attempts."""

    candidate: str
    state: TrialState
    quality: float | None
    seconds: float
    device: str | None
    measured_anew: bool
    failure: str | None


@typed_record
class Submitted:
    """A model was submitted."""

    model: int
    what: str
    message: str
    by: str


@typed_record
class VerdictEvent:
    """The gate answered; ``cached`` where the same model had been answered before."""

    model: int
    symbol: Symbol
    step: int
    set: int
    cached: bool


@typed_record
class Reading:
    """The meter answered; ``signal`` is in 1..signals, None where the set was retired instead."""

    model: int
    signal: int | None
    signals: int
    drift: str | None
    set: int
    cached: bool


@typed_record
class Moved:
    """Production moved to a model; ``how`` is ``promote``, ``rollback`` or ``force``."""

    how: str
    model: int
    by: str | None
    reason: str | None


@typed_record
class Sealed:
    """A test set was sealed; ``state`` is its present one."""

    set: str
    purpose: SealedSetPurpose
    rows: int
    steps: int
    state: SealedSetState


@typed_record
class Retired:
    """A test set was retired, and perhaps released since."""

    set: str
    purpose: SealedSetPurpose
    why: str | None
    released: bool


@typed_record
class Alerted:
    """An alert was raised; ``what`` is its kind."""

    what: str
    message: str
    is_open: bool
    is_cleared: bool


EventFacts = (
    Registered
    | NewData
    | Fed
    | Switched
    | EndedTrial
    | Submitted
    | VerdictEvent
    | Reading
    | Moved
    | Sealed
    | Retired
    | Alerted
)

_FACTS: dict[EventKind, type[EventFacts]] = {
    EventKind.REGISTERED: Registered,
    EventKind.DATA: NewData,
    EventKind.FED: Fed,
    EventKind.SWITCHED: Switched,
    EventKind.TRIAL: EndedTrial,
    EventKind.SUBMITTED: Submitted,
    EventKind.VERDICT: VerdictEvent,
    EventKind.READING: Reading,
    EventKind.MOVED: Moved,
    EventKind.SEALED: Sealed,
    EventKind.RETIRED: Retired,
    EventKind.ALERT: Alerted,
}


@typed_record
class EventRow:
    """One event; ``ref`` is its number among those of its kind."""

    at: datetime
    kind: EventKind
    ref: int
    facts: EventFacts


# Signals of a meter set that several teams share are left out, and so are alerts for one of them.
_EVENTS = f"""
SELECT created_at AS at, 'registered' AS kind, id AS ref, jsonb_build_object('program', program) AS facts
FROM work.studies WHERE id = :id
UNION ALL
SELECT v.created_at, 'data', v.id, jsonb_build_object('version', v.version, 'validation_only', v.same_training_as
  IS NOT NULL AND v.same_training_as <> v.id, 'train_rows', (SELECT rows FROM work.data_parts p
  WHERE p.data_version_id = v.id AND part = 'train'), 'validation_rows', (SELECT rows FROM work.data_parts p
  WHERE p.data_version_id = v.id AND part = 'validation'), 'refreshed', EXISTS (SELECT FROM work.refreshes f
  WHERE f.data_version_id = v.id))
FROM work.data_versions v WHERE v.study_id = :id
UNION ALL
SELECT fed_at, 'fed', id, jsonb_build_object('rows', rows, 'by', fed_by, 'origin', origin, 'state', state,
  'reason', reason)
FROM work.feeds WHERE study_id = :id
UNION ALL
SELECT min(switched_at), 'switched', min(id), jsonb_build_object('rows', count(*), 'is_on', bool_and(is_on),
  'by', min(switched_by), 'reason', min(reason))
FROM work.switches WHERE study_id = :id GROUP BY request_key
UNION ALL
SELECT t.finished_at, 'trial', t.id, jsonb_build_object('candidate', c.name,
  'state', CASE WHEN w.trial_id IS NULL THEN t.state ELSE 'FAILED' END,
  'quality', CASE WHEN w.trial_id IS NULL THEN o.quality END,
  'seconds', t.charged_seconds, 'device', t.device, 'measured_anew',
  t.reevaluates IS NOT NULL, 'failure', CASE WHEN w.trial_id IS NULL
  THEN left(split_part(t.failure, chr(10), 1), 200) ELSE 'its stated quality did not hold' END)
FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id LEFT JOIN work.observations o ON o.trial_id = t.id
LEFT JOIN work.quality_checks w ON w.trial_id = t.id AND w.outcome = 'not held'
WHERE t.study_id = :id AND t.finished_at IS NOT NULL
UNION ALL
SELECT submitted_at, 'submitted', id, jsonb_build_object('model', model_id, 'what', kind, 'message', left(message, 200),
  'by', submitted_by)
FROM work.submissions WHERE study_id = :id
UNION ALL
SELECT decided_at, 'verdict', request_id, jsonb_build_object('model', model_id, 'symbol', symbol, 'step', step,
  'set', test_set_id, 'cached', cached)
FROM work.gate_verdicts WHERE study_id = :id
UNION ALL
SELECT r.read_at, 'reading', r.request_id, jsonb_build_object('model', r.model_id, 'signal', r.signal,
  'signals', r.signals, 'drift', r.drift, 'set', r.test_set_id, 'cached', r.cached)
FROM work.meter_readings r JOIN work.test_sets e ON e.id = r.test_set_id
WHERE r.study_id = :id AND coalesce((e.plan ->> 'teams')::int, 1) = 1
UNION ALL
SELECT promoted_at, 'moved', id, jsonb_build_object('how', kind, 'model', model_id, 'by', who, 'reason', left(why, 200))
FROM work.promotions WHERE study_id = :id
UNION ALL
SELECT created_at, 'sealed', id, jsonb_build_object('set', coalesce(name, id::text), 'purpose', purpose, 'rows', rows,
  'steps', steps, 'state', state)
FROM work.test_sets WHERE study_id = :id
UNION ALL
SELECT retired_at, 'retired', id, jsonb_build_object('set', coalesce(name, id::text), 'purpose', purpose,
  'why', retired_why, 'released', state = 'released')
FROM work.test_sets WHERE study_id = :id AND retired_at IS NOT NULL
UNION ALL
SELECT created_at, 'alert', id, jsonb_build_object('what', kind, 'message', left(message, 300), 'is_open', {IS_OPEN},
  'is_cleared', cleared_at IS NOT NULL)
FROM work.alerts a WHERE study_id = :id AND team IS NULL
"""


def events(tx: Connection, study_id: int, *, limit: int, offset: int = 0) -> list[EventRow]:
    """Return what has happened to a study, newest first."""
    query = f"SELECT * FROM ({_EVENTS}) every ORDER BY at DESC, kind, ref DESC LIMIT :limit OFFSET :offset"
    found = rows(tx, query, id=study_id, limit=limit, offset=offset)
    return [
        EventRow(r.at, kind, r.ref, msgspec.convert(r.facts, _FACTS[kind]))
        for r in found
        for kind in (EventKind(r.kind),)
    ]


def count_events(tx: Connection, study_id: int) -> int:
    """Return how many events there are."""
    return int(scalar(tx, f"SELECT count(*) FROM ({_EVENTS}) every", id=study_id))


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
    """Return trials that were handed out or trained there, newest first, at most MOST."""
    return records(tx, DagRunTrial, _TRIALS, names=_names(studies), most=MOST, run=clean(run), key=clean(key))


def requests_of(tx: Connection, *, key: str, studies: Collection[str] | None) -> list[DagRunRequest]:
    """Return what was asked of the referee, submitted and fed there, newest first, at most MOST."""
    return records(tx, DagRunRequest, _ASKED, names=_names(studies), most=MOST, key=clean(key))


def _names(studies: Collection[str] | None) -> list[str] | None:
    return None if studies is None else list(studies)

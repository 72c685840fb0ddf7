"""Queries of a study's page: counts, shares of the compute, trials and their curves, and what candidates wait for."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.entities import TrialState
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import record, records, row, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection


MOST_POINTS = 2000
"""Ended trials that the plot of a study holds; of more, the latest."""


@typed_record
class TrialFacts:
    """The facts of a trial in every list.

    Attributes:
        failure: Why it failed; the first line says it in short.
        cost_seconds: Device seconds of the attempt that ended it.
        start_seconds: Device seconds of starting its process, where the cost is without them.
        lost_seconds: Device seconds of lost attempts.
        reevaluates: The trial whose model it measured anew; None for a training.
        quality: In [0, 1]; None without a result.
        measured: Quality that the referee has measured where the stated one did not hold; None else.
    """

    trial_id: int
    candidate: str
    state: TrialState
    failure: str | None
    cost_seconds: float | None
    start_seconds: float | None
    lost_seconds: float
    cancel_requested: bool
    reevaluates: int | None
    suggested_at: datetime
    started_at: datetime | None
    attempt_started_at: datetime | None
    finished_at: datetime | None
    quality: float | None
    measured: float | None


@typed_record
class StudyTrial(TrialFacts):
    """One trial of a study, with the prediction of its last hand-out.

    Attributes:
        progress_quality: Quality that a running trial has reported; None where it reported none.
        last_key: Request key of the task that worked on it last, and ``last_try`` the try of that task.
        batch_key: Request key of the batch that handed it out last.
        mean: Predicted quality; None where nothing was predicted. Likewise ``std`` and ``predicted_seconds``.
        curve: Learning curve, thinned: pairs of the share of the steps in [0, 1] and the quality.
    """

    attempt: int
    progress_quality: float | None
    device: str | None
    last_key: str | None
    last_try: int | None
    data_version: int
    batch_key: str | None
    mean: float | None
    std: float | None
    predicted_seconds: float | None
    curve: list[list[float]]

    @property
    def learning_curve(self) -> list[tuple[float, float]]:
        """Return the learning curve as points of a plot."""
        return [(share, quality) for share, quality in self.curve]


@typed_record
class ListedTrial(StudyTrial):
    """One trial of a study; ``on_page`` where it is on the page of the list that was asked for."""

    on_page: bool


@typed_record
class EndedPoint:
    """A trial that has ended, in the order of their ends.

    Attributes:
        cost: Its device seconds, those of lost attempts included.
        spent: Device seconds of the study's trials up to its end.
        is_present: Whether it ran on the present data.
    """

    trial_id: int
    candidate: str
    state: TrialState
    quality: float | None
    cost: float
    spent: float
    is_present: bool
    finished_at: datetime


@typed_record
class KnownThen:
    """The scheduler's knowledge when it chose a trial.

    Attributes:
        succeeded: Trials of the study on the same training data that had ended with a result; ``failed`` without one.
        own_open: Those that waited or ran.
        open: Trials of all studies that waited or ran.
        taken: Candidates of the study that any trial had taken.
    """

    succeeded: int
    failed: int
    own_open: int
    open: int
    taken: int


@typed_record
class GuardSeconds:
    """Device seconds of the last day, and those of trials that the guard has chosen."""

    seconds: float
    guarded: float


@typed_record
class DataFacts:
    """The newest data of a study.

    Attributes:
        version: Its number; ``versions`` is how many there are, and ``since`` when it was made.
        train_rows: Training examples; ``validation_rows`` validation examples.
        switched_off: Examples that are switched off.
        fed_at: When the last examples were fed; None before the first. ``fed_rows`` is how many.
    """

    version: int
    versions: int
    since: datetime
    train_rows: int
    validation_rows: int
    switched_off: int
    fed_at: datetime | None
    fed_rows: int | None


def _number(of: str, name: str, called: str) -> str:
    """Return a column that holds a number of a JSON object, NULL where it is none."""
    is_number = f"jsonb_typeof({of} -> '{name}') = 'number'"
    return f"CASE WHEN {is_number} THEN ({of} ->> '{name}')::double precision END AS {called}"


# On the present data, also where only its validation part is another.
_PRESENT = """
present AS (
  SELECT d.id FROM work.data_versions d JOIN (
    SELECT coalesce(same_training_as, id) AS training FROM work.data_versions WHERE study_id = :id
    ORDER BY version DESC LIMIT 1) n ON n.training = coalesce(d.same_training_as, d.id) WHERE d.study_id = :id)
"""
MOST_OPEN = 100
"""Open trials that a list of a study has beside its page."""

# Of a learning curve about :most points: the first, the last, and others at equal distances.
_CURVE = """
LEFT JOIN LATERAL (
  SELECT array_agg(ARRAY[least(1, step::double precision / greatest("of", 1)), quality] ORDER BY step) AS curve FROM (
    SELECT step, "of", quality, row_number() OVER (ORDER BY step) AS n, count(*) OVER () AS all_of
    FROM work.curves WHERE trial_id = t.id AND quality IS NOT NULL) c
  WHERE mod(n, greatest(1, all_of / :most)) = 0 OR n = all_of OR n = 1) q ON true
"""
_TRIALS = f"""
SELECT t.id AS trial_id, c.name AS candidate, t.state, t.attempt, t.failure, t.cost_seconds, t.start_seconds,
       t.lost_seconds, t.device, t.reevaluates, t.cancel_requested, t.suggested_at, t.started_at, t.attempt_started_at,
       t.finished_at, t.last_key, t.last_try, o.quality, w.measured, v.version AS data_version,
       g.request_key AS batch_key,
       {_number("t.progress", "quality", "progress_quality")}, {_number("g.reasons", "mean", "mean")},
       {_number("g.reasons", "std", "std")}, {_number("g.reasons", "predicted_cost_seconds", "predicted_seconds")},
       coalesce(q.curve, ARRAY[]::double precision[]) AS curve%s
FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id
JOIN work.data_versions v ON v.id = t.data_version_id LEFT JOIN work.observations o ON o.trial_id = t.id
LEFT JOIN work.quality_checks w ON w.trial_id = t.id AND w.outcome = 'not held'
LEFT JOIN LATERAL (
  SELECT z.reasons, b.request_key FROM work.suggestions z JOIN work.suggestion_batches b ON b.id = z.batch_id
  WHERE z.trial_id = t.id ORDER BY b.id DESC LIMIT 1) g ON true
{_CURVE}"""
_ONE_TRIAL = _TRIALS % "" + "WHERE t.id = :id"
_LISTED = f"""
WITH page AS (SELECT id FROM work.trials WHERE study_id = :id ORDER BY id DESC LIMIT :limit OFFSET :skip),
open AS (
  SELECT id FROM work.trials WHERE study_id = :id AND finished_at IS NULL ORDER BY state, id LIMIT {MOST_OPEN})
{_TRIALS % ", t.id IN (SELECT id FROM page) AS on_page"}
WHERE t.id IN (SELECT id FROM page UNION SELECT id FROM open) ORDER BY t.id DESC
"""
_POINTS = f"""
WITH {_PRESENT}
SELECT * FROM (
  SELECT t.id AS trial_id, c.name AS candidate, CASE WHEN w.trial_id IS NULL THEN t.state ELSE 'FAILED' END AS state,
         CASE WHEN w.trial_id IS NULL THEN o.quality END AS quality,
         t.charged_seconds AS cost,
         sum(t.charged_seconds) OVER (ORDER BY t.finished_at, t.id) AS spent,
         present.id IS NOT NULL AS is_present, t.finished_at
  FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id
  LEFT JOIN present ON present.id = t.data_version_id LEFT JOIN work.observations o ON o.trial_id = t.id
  LEFT JOIN work.quality_checks w ON w.trial_id = t.id AND w.outcome = 'not held'
  WHERE t.study_id = :id AND t.finished_at IS NOT NULL AND t.reevaluates IS NULL
  ORDER BY t.finished_at DESC, t.id DESC LIMIT :most) p ORDER BY finished_at, trial_id
"""
# What the scheduler had taken in by then: a trial joins when it is chosen, and its candidate is not chosen again.
_KNOWN = """
WITH chosen AS (
  SELECT t.id, t.study_id, coalesce(d.same_training_as, d.id) AS training
  FROM work.trials t JOIN work.data_versions d ON d.id = t.data_version_id WHERE t.id = :id),
before AS (
  SELECT x.study_id = c.study_id AND coalesce(d.same_training_as, d.id) = c.training AS is_own, x.candidate_id,
         CASE WHEN x.finished_at <= :moment THEN x.state ELSE 'OPEN' END AS state
  FROM chosen c JOIN work.trials x ON x.id < c.id JOIN work.data_versions d ON d.id = x.data_version_id
  WHERE x.reevaluates IS NULL AND (x.study_id = c.study_id OR x.finished_at IS NULL OR x.finished_at > :moment))
SELECT count(*) FILTER (WHERE is_own AND state = 'SUCCEEDED') AS succeeded,
       count(*) FILTER (WHERE is_own AND state = 'FAILED') AS failed,
       count(*) FILTER (WHERE is_own AND state = 'OPEN') AS own_open, count(*) FILTER (WHERE state = 'OPEN') AS open,
       count(DISTINCT candidate_id) FILTER (WHERE is_own) AS taken
FROM before
"""
_GUARD = """
SELECT coalesce(sum(seconds), 0) AS seconds, coalesce(sum(seconds) FILTER (WHERE is_guarded), 0) AS guarded FROM (
  SELECT CASE WHEN x.state = 'RUNNING' THEN work.device_weight(x.device)
           * extract(epoch FROM least(now(), x.lease_until) - greatest(
           coalesce(x.attempt_started_at, x.started_at), now() - interval '1 day'))::double precision
         ELSE x.charged_seconds END AS seconds,
         EXISTS (SELECT FROM work.suggestions g WHERE g.trial_id = x.id AND g.reasons -> 'guarded' = 'true'::jsonb)
           AS is_guarded
  FROM work.trials x
  WHERE x.reevaluates IS NULL AND (x.finished_at > now() - interval '1 day' OR x.state = 'RUNNING')) w
"""
_DATA = """
SELECT v.version, v.created_at AS since, (SELECT count(*) FROM work.data_versions WHERE study_id = :id) AS versions,
       (SELECT coalesce(sum(rows), 0)::bigint FROM work.data_parts WHERE data_version_id = v.id AND part = 'train')
         AS train_rows,
       (SELECT coalesce(sum(rows), 0)::bigint FROM work.data_parts WHERE data_version_id = v.id
        AND part = 'validation') AS validation_rows,
       (SELECT count(*) FROM (SELECT DISTINCT ON (hash) is_on FROM work.switches WHERE study_id = :id
          ORDER BY hash, id DESC) last WHERE NOT is_on) AS switched_off, f.fed_at, f.rows AS fed_rows
FROM (SELECT id, version, created_at FROM work.data_versions WHERE study_id = :id ORDER BY version DESC LIMIT 1) v
LEFT JOIN (SELECT fed_at, rows FROM work.feeds WHERE study_id = :id ORDER BY id DESC LIMIT 1) f ON true
"""


def moment(tx: Connection) -> datetime:
    """Return the start of the transaction, by the database's clock."""
    found: datetime = scalar(tx, "SELECT now()")
    return found


def points(tx: Connection, study_id: int) -> list[EndedPoint]:
    """Return ended trials in the order of their end, at most the latest ``MOST_POINTS``."""
    return records(tx, EndedPoint, _POINTS, id=study_id, most=MOST_POINTS)


def listed_trials(tx: Connection, study_id: int, *, skip: int, limit: int) -> list[ListedTrial]:
    """Return a page of a study's trials, and the open ones, at most ``MOST_OPEN``; newest first."""
    return records(tx, ListedTrial, _LISTED, id=study_id, limit=limit, skip=skip, most=60)


def one_trial(tx: Connection, trial_id: int) -> StudyTrial | None:
    """Return one trial, with about 200 points of its learning curve; None where there is none."""
    return record(tx, StudyTrial, _ONE_TRIAL, id=trial_id, most=200)


def study_of_trial(tx: Connection, trial_id: int) -> str | None:
    """Name of the study that the trial is of; None where there is no such trial."""
    found = row(
        tx, "SELECT s.name FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE t.id = :id", id=trial_id
    )
    return None if found is None else str(found.name)


def known_at(tx: Connection, trial_id: int, *, moment: datetime) -> KnownThen:
    """Return what there was when the trial was chosen."""
    (found,) = records(tx, KnownThen, _KNOWN, id=trial_id, moment=moment)
    return found


def guard_of_day(tx: Connection) -> GuardSeconds:
    """Return device seconds of the last day, and those of trials that the guard has chosen."""
    (found,) = records(tx, GuardSeconds, _GUARD)
    return found


def data_facts(tx: Connection, study_id: int) -> DataFacts | None:
    """Return the newest data of a study, with what has been fed and switched off; None before they are sealed."""
    return record(tx, DataFacts, _DATA, id=study_id)


ASKED_WITHIN = "interval '7 days'"
"""Callers that asked for trials within this time count as active; covers a weekly DAG."""


class WaitKind(StrEnum):
    """What candidates wait for.

    ``implementation``: nothing that asks for trials can execute them. ``function``: a task that executes their training
    function, whether one has asked or not. ``repair``: of their task, since their trials failed because of it.
    """

    IMPLEMENTATION = "implementation"
    FUNCTION = "function"
    REPAIR = "repair"


@typed_record
class CandidateWait:
    """Candidates of a study that wait for the same.

    Attributes:
        study: The study.
        kind: What they wait for.
        implementation: Such as ``function:NAME`` or ``trainer:KIND``; None for ``repair``.
        candidates: How many.
        names: For ``function``: their names, in alphabetical order; else empty, likewise the following.
        asked_at: When a caller with this function last asked for trials of the study; None where none has.
        has_others: Whether candidates wait, too, that a device can run.
        trials: For ``repair``: the failed trials, oldest first.
    """

    study: str
    kind: WaitKind
    implementation: str | None
    candidates: int
    names: list[str]
    asked_at: datetime | None
    has_others: bool
    trials: list[int]


_IS_UNTRIED = """NOT EXISTS (
    SELECT FROM work.trials t WHERE t.candidate_id = c.id AND t.data_version_id = s.data
    AND (t.state <> 'SUGGESTED' OR t.lease_until >= now()))"""
"""SQL: whether a candidate has no trial on the present data, or one that no worker holds."""

# Where no caller has asked for trials of a study within the time, its candidates wait for a DAG and not for an
# implementation.
_WAITS = f"""
WITH chosen AS (
  SELECT s.id, s.name, (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = s.id) AS data FROM work.studies s
  WHERE s.state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))),
asking AS (
  SELECT o.study, CASE WHEN o.implementation = 'trainer' THEN NULL ELSE o.implementation END AS implementation
  FROM work.offers o WHERE o.asked_at > now() - {ASKED_WITHIN}),
missing AS (
  SELECT s.name AS study, need.implementation, count(*) AS candidates
  FROM chosen s JOIN work.candidates c ON c.study_id = s.id
  CROSS JOIN LATERAL (
    SELECT CASE WHEN c.kind = 'function' THEN c.implementation END AS offered,
           CASE WHEN c.kind IN ('function', 'command', 'container') THEN c.implementation
           ELSE 'trainer:' || c.kind END AS implementation) need
  WHERE c.withdrawn_at IS NULL AND EXISTS (SELECT FROM asking a WHERE a.study IN ('', s.name))
  AND NOT EXISTS (
    SELECT FROM asking a WHERE a.study IN ('', s.name) AND a.implementation IS NOT DISTINCT FROM need.offered)
  AND {_IS_UNTRIED} GROUP BY s.name, need.implementation),
untried AS (
  SELECT s.name AS study, c.name, c.kind, c.implementation FROM chosen s
  JOIN work.candidates c ON c.study_id = s.id AND c.withdrawn_at IS NULL WHERE :functions AND {_IS_UNTRIED})
SELECT study, 'implementation' AS kind, implementation, candidates, CAST('{{}}' AS text[]) AS names,
       CAST(NULL AS timestamptz) AS asked_at, false AS has_others, CAST('{{}}' AS bigint[]) AS trials FROM missing
UNION ALL
SELECT u.study, 'function', u.implementation, count(*), array_agg(u.name ORDER BY u.name),
       (SELECT max(o.asked_at) FROM work.offers o
        WHERE o.implementation = u.implementation AND o.study IN ('', u.study)),
       EXISTS (SELECT FROM untried x WHERE x.study = u.study AND x.kind <> 'function'), '{{}}'
FROM untried u WHERE u.kind = 'function' GROUP BY u.study, u.implementation
UNION ALL
SELECT s.name, 'repair', NULL, count(*), '{{}}', NULL, false, array_agg(t.id ORDER BY t.id)
FROM work.trials t JOIN chosen s ON s.id = t.study_id AND s.data = t.data_version_id
JOIN work.candidates c ON c.id = t.candidate_id AND c.withdrawn_at IS NULL
WHERE t.failure_kind = 'task' AND NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = t.id) GROUP BY s.name
ORDER BY study, kind DESC, implementation
"""


def candidate_waits(tx: Connection, *, names: Iterable[str] | None, functions: bool = True) -> list[CandidateWait]:
    """Return what candidates of active studies wait for, by study.

    A candidate whose function nothing that asks can execute is counted twice: for the implementation, and for a task
    with the function.
    """
    return records(tx, CandidateWait, _WAITS, names=None if names is None else list(names), functions=functions)

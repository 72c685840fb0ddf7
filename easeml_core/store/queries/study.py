"""What the page of one study shows, as rows: counts, shares of the compute, trials page by page, and their curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

MOST_POINTS = 2000
"""Ended trials that the plot of a study holds; of more, the latest."""

# On the present data, also where only its validation part is another.
_PRESENT = """
present AS (
  SELECT d.id FROM work.data_versions d JOIN (
    SELECT coalesce(same_training_as, id) AS training FROM work.data_versions WHERE study_id = :id
    ORDER BY version DESC LIMIT 1) n ON n.training = coalesce(d.same_training_as, d.id) WHERE d.study_id = :id)
"""
_COUNTS = f"""
WITH {_PRESENT}
SELECT count(*) FILTER (WHERE state = 'SUCCEEDED' AND reevaluates IS NULL AND present.id IS NOT NULL) AS succeeded,
       count(*) FILTER (WHERE state = 'FAILED' AND present.id IS NOT NULL AND (failure_kind IS DISTINCT FROM 'task'
         OR NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = trials.id))) AS failed,
       count(*) FILTER (WHERE state = 'CANCELLED' AND present.id IS NOT NULL) AS cancelled,
       count(*) FILTER (WHERE state = 'RUNNING') AS running, count(*) FILTER (WHERE state = 'SUGGESTED') AS waiting,
       count(*) AS trials, coalesce(sum(lost_seconds + coalesce(cost_seconds, 0)), 0) AS used_seconds,
       coalesce(sum(limit_seconds - lost_seconds) FILTER (WHERE finished_at IS NULL), 0) AS reserved_seconds
FROM work.trials LEFT JOIN present ON present.id = data_version_id WHERE study_id = :id
"""
_BEST = """
SELECT o.quality, k.name AS candidate, x.id AS trial_id, x.finished_at
FROM work.observations o JOIN work.trials x ON x.id = o.trial_id JOIN work.candidates k ON k.id = x.candidate_id
WHERE x.study_id = :id AND x.data_version_id = (
  SELECT id FROM work.data_versions WHERE study_id = :id ORDER BY version DESC LIMIT 1)
AND (CAST(:before AS timestamptz) IS NULL OR x.finished_at < :before)
ORDER BY o.quality DESC, o.cost_seconds, x.id LIMIT 1
"""
# As ``board.totals`` counts for all: ended trials by what they took, running ones by the time of their attempt.
_DAY = """
SELECT coalesce(sum(seconds), 0) FROM (
  SELECT lost_seconds + coalesce(cost_seconds, 0) AS seconds FROM work.trials
  WHERE study_id = :id AND finished_at > now() - interval '1 day'
  UNION ALL
  SELECT extract(epoch FROM now() - greatest(attempt_started_at, now() - interval '1 day'))::double precision
  FROM work.trials WHERE study_id = :id AND state = 'RUNNING') w
"""
_TRIALS = """
SELECT t.id AS trial_id, c.name AS candidate, t.state, t.attempt, t.failure, t.progress, t.cost_seconds, t.lost_seconds,
       t.device, t.reevaluates, t.cancel_requested, t.suggested_at, t.started_at, t.attempt_started_at, t.finished_at,
       t.last_key, t.last_try, o.quality, v.version AS data_version, g.reasons, g.request_key AS batch_key
FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id
JOIN work.data_versions v ON v.id = t.data_version_id LEFT JOIN work.observations o ON o.trial_id = t.id
LEFT JOIN LATERAL (
  SELECT z.reasons, b.request_key FROM work.suggestions z JOIN work.suggestion_batches b ON b.id = z.batch_id
  WHERE z.trial_id = t.id ORDER BY b.id DESC LIMIT 1) g ON true
"""
_POINTS = f"""
WITH {_PRESENT}
SELECT * FROM (
  SELECT t.id AS trial_id, c.name AS candidate, t.state, o.quality,
         t.lost_seconds + coalesce(t.cost_seconds, 0) AS cost,
         sum(t.lost_seconds + coalesce(t.cost_seconds, 0)) OVER (ORDER BY t.finished_at, t.id) AS spent,
         present.id IS NOT NULL AS is_present, t.finished_at
  FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id
  LEFT JOIN present ON present.id = t.data_version_id LEFT JOIN work.observations o ON o.trial_id = t.id
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
  SELECT CASE WHEN x.state = 'RUNNING' THEN extract(epoch FROM least(now(), x.lease_until) - greatest(
           coalesce(x.attempt_started_at, x.started_at), now() - interval '1 day'))::double precision
         ELSE x.lost_seconds + coalesce(x.cost_seconds, 0) END AS seconds,
         EXISTS (SELECT FROM work.suggestions g WHERE g.trial_id = x.id AND g.reasons -> 'guarded' = 'true'::jsonb)
           AS is_guarded
  FROM work.trials x
  WHERE x.reevaluates IS NULL AND (x.finished_at > now() - interval '1 day' OR x.state = 'RUNNING')) w
"""
_CHANGES = """
SELECT (SELECT count(*) FROM (SELECT DISTINCT ON (hash) is_on FROM work.switches WHERE study_id = :id
          ORDER BY hash, id DESC) last WHERE NOT is_on) AS switched_off, f.fed_at, f.rows AS fed_rows
FROM (SELECT) one LEFT JOIN (
  SELECT fed_at, rows FROM work.feeds WHERE study_id = :id ORDER BY id DESC LIMIT 1) f ON true
"""


def moment(tx: Connection) -> datetime:
    """When the transaction began, by the database's clock."""
    found: datetime = scalar(tx, "SELECT now()")
    return found


def counts(tx: Connection, study_id: int) -> dict[str, Any]:
    """Trials by their state (ended ones on the present data), all of them, and device seconds used and reserved."""
    (found,) = rows(tx, _COUNTS, id=study_id)
    return dict(found._mapping)


def best(tx: Connection, study_id: int, *, before: datetime | None = None) -> dict[str, Any] | None:
    """The best result on the present data, as of now or before a moment; None where there was none."""
    found = row(tx, _BEST, id=study_id, before=before)
    return None if found is None else dict(found._mapping)


def seconds_of_day(tx: Connection, study_id: int) -> float:
    """Device seconds that the study had in the last day."""
    return float(scalar(tx, _DAY, id=study_id))


def points(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """Ended trials in the order of their end, with the device seconds that the study had ``spent`` by then."""
    return [dict(r._mapping) for r in rows(tx, _POINTS, id=study_id, most=MOST_POINTS)]


def trials_page(tx: Connection, study_id: int, *, skip: int, limit: int) -> list[dict[str, Any]]:
    """Trials, newest first; each with the reasons of its last hand-out and the request key of that batch."""
    found = rows(
        tx,
        _TRIALS + "WHERE t.study_id = :id ORDER BY t.id DESC LIMIT :limit OFFSET :skip",
        id=study_id,
        limit=limit,
        skip=skip,
    )
    return [dict(r._mapping) for r in found]


def one_trial(tx: Connection, trial_id: int) -> dict[str, Any] | None:
    """One trial as of ``trials_page``; None where there is none."""
    found = row(tx, _TRIALS + "WHERE t.id = :id", id=trial_id)
    return None if found is None else dict(found._mapping)


def study_of_trial(tx: Connection, trial_id: int) -> str | None:
    """Name of the study that the trial is of; None where there is no such trial."""
    found = row(
        tx, "SELECT s.name FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE t.id = :id", id=trial_id
    )
    return None if found is None else str(found.name)


def open_trials(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """Trials that wait or run, oldest first, at most 100."""
    found = rows(
        tx,
        _TRIALS + "WHERE t.study_id = :id AND t.finished_at IS NULL ORDER BY t.state, t.id LIMIT 100",
        id=study_id,
    )
    return [dict(r._mapping) for r in found]


def sparks(tx: Connection, trial_ids: Sequence[int], *, most: int = 60) -> dict[int, list[tuple[float, float]]]:
    """Learning curves of these trials, thinned to about ``most`` points each: (share of the steps, quality)."""
    found = rows(
        tx,
        'SELECT trial_id, step::double precision / greatest("of", 1) AS share, quality FROM ('
        'SELECT trial_id, step, "of", quality, row_number() OVER w AS n, '
        "count(*) OVER (PARTITION BY trial_id) AS all_of "
        "FROM work.curves WHERE trial_id = ANY(:ids) AND quality IS NOT NULL WINDOW w AS "
        "(PARTITION BY trial_id ORDER BY step)) c "
        "WHERE n % greatest(1, all_of / :most) = 0 OR n = all_of OR n = 1 ORDER BY trial_id, step",
        ids=list(trial_ids),
        most=most,
    )
    told: dict[int, list[tuple[float, float]]] = {}
    for r in found:
        told.setdefault(r.trial_id, []).append((min(1.0, float(r.share)), float(r.quality)))
    return told


def known_at(tx: Connection, trial_id: int, *, moment: datetime) -> dict[str, int]:
    """What there was when the trial was chosen.

    Returns:
        ``{"succeeded", "failed", "own_open", "open", "taken"}``: trials of its study on the same training data that had
        ended, and that waited or ran; those of all studies that waited or ran; and how many candidates of its study any
        trial had taken.
    """
    (found,) = rows(tx, _KNOWN, id=trial_id, moment=moment)
    return dict(found._mapping)


def guard_of_day(tx: Connection) -> dict[str, float]:
    """Device seconds of the last day, and those of trials that the guard has chosen."""
    (found,) = rows(tx, _GUARD)
    return {name: float(value) for name, value in found._mapping.items()}


def last_verdict(tx: Connection, study_id: int) -> str | None:
    """The one symbol of the newest verdict on a set's own condition; None before the first."""
    query = "SELECT symbol FROM work.gate_verdicts WHERE study_id = :id AND planned ORDER BY request_id DESC LIMIT 1"
    found = row(tx, query, id=study_id)
    return None if found is None else str(found.symbol)


def versions(tx: Connection, study_id: int) -> dict[str, Any]:
    """How many data versions there are, and since when there is the newest."""
    (found,) = rows(
        tx,
        "SELECT count(*) AS versions, max(created_at) AS newest FROM work.data_versions WHERE study_id = :id",
        id=study_id,
    )
    return dict(found._mapping)


def changes(tx: Connection, study_id: int) -> dict[str, Any]:
    """How many rows are ``switched_off``, and when the last pairs were fed and how many, both None before the first."""
    (found,) = rows(tx, _CHANGES, id=study_id)
    return dict(found._mapping)

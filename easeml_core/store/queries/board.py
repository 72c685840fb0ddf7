"""What stands beside the table of tenants: quality over time, devices by the hour, verdicts of a week, promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import row, rows

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

_IMPROVEMENTS = """
SELECT study, observed_at, quality FROM (
  SELECT s.name AS study, o.observed_at, o.quality, max(o.quality) OVER (
    PARTITION BY s.id ORDER BY o.observed_at, o.trial_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM work.studies s JOIN LATERAL (
    SELECT id FROM work.data_versions WHERE study_id = s.id ORDER BY version DESC LIMIT 1) v ON true
  JOIN work.trials x ON x.study_id = s.id AND x.data_version_id = v.id
  JOIN work.observations o ON o.trial_id = x.id
  WHERE s.state <> 'REFUSED' AND s.name = ANY(CAST(:names AS text[]))) every
WHERE before IS NULL OR quality > before ORDER BY study, observed_at
"""

_BUSY = """
WITH day AS MATERIALIZED (
  SELECT x.started_at, coalesce(x.finished_at, least(now(), x.lease_until)) AS ended FROM work.trials x
  JOIN work.studies s ON s.id = x.study_id
  WHERE x.started_at IS NOT NULL AND coalesce(x.finished_at, now()) > now() - interval '24 h'
  AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[]))))
SELECT coalesce(sum(extract(epoch FROM least(ended, h + interval '1 h') - greatest(started_at, h)))
         FILTER (WHERE ended > h), 0)::double precision / 3600 AS devices
FROM generate_series(now() - interval '24 h', now() - interval '1 h', interval '1 h') h
LEFT JOIN day ON started_at < h + interval '1 h' AND ended > h GROUP BY h ORDER BY h
"""

_WEEK = """
WITH chosen AS (SELECT id FROM work.studies WHERE CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[]))),
verdicts AS (SELECT symbol FROM work.gate_verdicts
  WHERE planned AND decided_at > now() - interval '7 days' AND study_id IN (SELECT id FROM chosen)),
moves AS (SELECT kind FROM work.promotions
  WHERE promoted_at > now() - interval '7 days' AND study_id IN (SELECT id FROM chosen))
SELECT (SELECT count(*) FROM verdicts WHERE symbol = 'pass') AS passed,
       (SELECT count(*) FROM verdicts WHERE symbol = 'fail') AS failed,
       (SELECT count(*) FROM verdicts WHERE symbol = 'withheld') AS withheld,
       (SELECT count(*) FROM moves WHERE kind <> 'rollback') AS promoted,
       (SELECT count(*) FROM moves WHERE kind = 'rollback') AS rolled_back
"""

_PROMISES = """
SELECT DISTINCT ON (x.study_id) s.name AS study, c.name AS candidate,
       (g.reasons ->> 'expected_improvement')::double precision AS gain,
       (g.reasons ->> 'predicted_cost_seconds')::double precision AS seconds
FROM work.studies s JOIN work.trials x ON x.study_id = s.id JOIN work.candidates c ON c.id = x.candidate_id
JOIN work.suggestions g ON g.trial_id = x.id
WHERE s.name = ANY(CAST(:names AS text[])) AND jsonb_typeof(g.reasons -> 'expected_improvement') = 'number'
AND jsonb_typeof(g.reasons -> 'predicted_cost_seconds') = 'number'
ORDER BY x.study_id, g.batch_id DESC, g.position DESC
"""


def improvements(tx: Connection, names: Collection[str]) -> dict[str, list[tuple[datetime, float]]]:
    """Each study's best quality over time, on its newest data: when it rose, and to what; oldest first."""
    found: dict[str, list[tuple[datetime, float]]] = {}
    for r in rows(tx, _IMPROVEMENTS, names=list(names)):
        found.setdefault(r.study, []).append((r.observed_at, r.quality))
    return found


def busy_devices(tx: Connection, names: Collection[str] | None) -> list[float]:
    """Devices that trained on average in each of the last 24 hours, oldest first; of these studies, or of all."""
    return [r.devices for r in rows(tx, _BUSY, names=None if names is None else list(names))]


def week(tx: Connection, names: Collection[str] | None) -> dict[str, int]:
    """What the last seven days brought: passed, failed, withheld, promoted, rolled_back."""
    found = row(tx, _WEEK, names=None if names is None else list(names))
    assert found is not None  # counts are always there
    return dict(found._mapping)


def promises(tx: Connection, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What each study's last choice promised: candidate, gain of quality, seconds of device time."""
    return {r.study: dict(r._mapping) for r in rows(tx, _PROMISES, names=list(names))}


def totals(tx: Connection) -> dict[str, float]:
    """Of the whole installation: ``seconds`` of device time in the last day, and ``weight`` of all active studies."""
    found = row(
        tx,
        "SELECT (SELECT coalesce(sum(lost_seconds + coalesce(cost_seconds, 0)), 0) FROM work.trials "
        "WHERE finished_at > now() - interval '1 day') + (SELECT coalesce(extract(epoch FROM sum(now() - "
        "greatest(attempt_started_at, now() - interval '1 day'))), 0)::double precision FROM work.trials "
        "WHERE state = 'RUNNING') AS seconds, (SELECT coalesce(sum(s.weight * t.weight), 0) FROM work.studies s "
        "JOIN work.tenants t ON t.id = s.tenant_id WHERE s.state = 'ACTIVE') AS weight",
    )
    assert found is not None  # sums are always there
    return dict(found._mapping)

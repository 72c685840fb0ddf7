"""One row per study with everything a table of tenants shows: symbols only, by one query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Trials are counted on the present data: what ran on earlier ones says nothing of what is left to do, unless only the
# validation part is another.
_SUMMARY = """
WITH present AS (
  SELECT d.id FROM work.data_versions d JOIN (
    SELECT DISTINCT ON (study_id) study_id, coalesce(same_training_as, id) AS training FROM work.data_versions
    ORDER BY study_id, version DESC) n ON n.study_id = d.study_id AND n.training = coalesce(d.same_training_as, d.id))
SELECT t.name AS tenant, s.name AS study, s.state, d.source, s.weight, s.budget_seconds, s.priority, s.deadline,
       extract(epoch FROM s.deadline - now())::double precision AS seconds_left, s.target_quality, s.active_since,
       coalesce(r.reserved_seconds, 0) AS reserved_seconds, t.quota_seconds AS tenant_quota_seconds,
       coalesce(q.charged, 0) AS tenant_charged_seconds, t.max_parallel AS tenant_max_parallel,
       coalesce(q.open, 0) AS tenant_open_trials,
       coalesce(c.n, 0) AS candidates, coalesce(r.succeeded, 0) AS trials, coalesce(r.running, 0) AS running,
       coalesce(r.waiting, 0) AS waiting, coalesce(r.failed, 0) AS failed, coalesce(r.cancelled, 0) AS cancelled,
       best.quality AS best_quality, coalesce(r.device_seconds, 0) AS device_seconds, best.candidate AS best_candidate,
       g.symbol AS verdict, g.model_id AS verdict_model_id, m.signal, m.signals, m.direct_signal, m.drift,
       ms.retired AS meter_retired, ms.teams,
       p.model_id AS production_model_id, p.candidate AS production_candidate, coalesce(a.n, 0) AS open_alerts,
       a.kind AS alert_kind,
       EXISTS (SELECT FROM work.test_sets e WHERE e.study_id = s.id AND e.purpose IN ('gate', 'joint')
         AND e.state = 'live') AS gate_set_live,
       refusal.message AS refusal
FROM work.studies s
JOIN work.tenants t ON t.id = s.tenant_id
JOIN work.data_sets d ON d.id = s.data_set_id
LEFT JOIN (SELECT study_id, count(*) AS n FROM work.candidates GROUP BY study_id) c ON c.study_id = s.id
LEFT JOIN (
  SELECT study_id,
         count(*) FILTER (WHERE state = 'SUCCEEDED' AND reevaluates IS NULL AND present.id IS NOT NULL) AS succeeded,
         count(*) FILTER (WHERE state = 'RUNNING') AS running, count(*) FILTER (WHERE state = 'SUGGESTED') AS waiting,
         count(*) FILTER (WHERE state = 'FAILED' AND present.id IS NOT NULL) AS failed,
         count(*) FILTER (WHERE state = 'CANCELLED' AND present.id IS NOT NULL) AS cancelled,
         sum(lost_seconds + coalesce(cost_seconds, 0)) AS device_seconds,
         sum(limit_seconds - lost_seconds) FILTER (WHERE finished_at IS NULL) AS reserved_seconds
  FROM work.trials LEFT JOIN present ON present.id = data_version_id GROUP BY study_id) r ON r.study_id = s.id
LEFT JOIN (
  SELECT z.tenant_id, sum(work.charge(x)) AS charged, count(*) FILTER (WHERE x.finished_at IS NULL) AS open
  FROM work.trials x JOIN work.studies z ON z.id = x.study_id GROUP BY z.tenant_id) q ON q.tenant_id = t.id
LEFT JOIN LATERAL (
  SELECT k.name AS candidate, o.quality FROM work.observations o JOIN work.trials x ON x.id = o.trial_id
  JOIN work.candidates k ON k.id = x.candidate_id WHERE x.study_id = s.id AND x.data_version_id = (
    SELECT id FROM work.data_versions WHERE study_id = s.id ORDER BY version DESC LIMIT 1)
  ORDER BY o.quality DESC, o.cost_seconds, x.id LIMIT 1) best ON true
LEFT JOIN LATERAL (
  SELECT symbol, model_id FROM work.gate_verdicts WHERE study_id = s.id ORDER BY request_id DESC LIMIT 1) g ON true
LEFT JOIN LATERAL (
  SELECT y.signal, y.signals, y.direct_signal, y.drift FROM work.meter_readings y
  JOIN work.test_sets e ON e.id = y.test_set_id
  WHERE y.study_id = s.id AND coalesce((e.plan ->> 'teams')::int, 1) = 1 ORDER BY y.request_id DESC LIMIT 1) m ON true
LEFT JOIN (
  SELECT study_id, bool_or(state = 'retired') AND NOT bool_or(state = 'live') AS retired,
         (array_agg(coalesce((plan ->> 'teams')::int, 1) ORDER BY state = 'live' DESC, id DESC))[1] AS teams
  FROM work.test_sets WHERE purpose IN ('meter', 'joint') GROUP BY study_id) ms ON ms.study_id = s.id
LEFT JOIN (
  SELECT pr.study_id, pr.model_id, k.name AS candidate FROM work.production pr JOIN work.models w ON w.id = pr.model_id
  LEFT JOIN work.trials x ON x.id = w.trial_id LEFT JOIN work.candidates k ON k.id = x.candidate_id) p
  ON p.study_id = s.id
LEFT JOIN (
  SELECT study_id, count(*) AS n, (array_agg(kind ORDER BY array_position(
    ARRAY['overfitting', 'drift', 'new-test-set'], kind)))[1] AS kind
  FROM work.alerts WHERE cleared_at IS NULL AND team IS NULL GROUP BY study_id) a ON a.study_id = s.id
LEFT JOIN LATERAL (
  SELECT message FROM work.requests q JOIN work.answers w ON w.request_id = q.id
  WHERE q.study_id = s.id AND q.kind = 'seal' AND w.refused ORDER BY q.id DESC LIMIT 1) refusal ON true
WHERE s.state <> 'REFUSED' OR NOT EXISTS (SELECT FROM work.studies z WHERE z.name = s.name AND z.id > s.id)
ORDER BY t.name, s.name LIMIT :limit
"""


def study_summaries(tx: Connection, *, limit: int = 1000) -> list[dict[str, Any]]:
    """Everything a developer may know of each study, at most ``limit`` of them, by tenant and name.

    Signals and alerts of one of several teams are none of it: nobody says here which team is asking.
    """
    return [dict(r._mapping) for r in rows(tx, _SUMMARY, limit=limit)]


def policies_used(tx: Connection) -> list[str]:
    """Policies that have suggested trials, most recent first."""
    found = rows(tx, "SELECT policy, max(id) AS last FROM work.suggestion_batches GROUP BY policy ORDER BY last DESC")
    return [r.policy for r in found]

"""What a registry outside may be told, as rows: ended trials, and models that were let out. Any role may read this.

Of sealed sets only the symbol of a released verdict is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_STUDIES = """
SELECT s.id, s.name AS study, t.name AS tenant, s.metric, p.model_id AS production_model_id,
       (SELECT count(*) FROM work.trials x WHERE x.study_id = s.id AND x.finished_at IS NOT NULL) AS ended
FROM work.studies s JOIN work.tenants t ON t.id = s.tenant_id LEFT JOIN work.production p ON p.study_id = s.id
WHERE s.name = ANY (CAST(:names AS text[])) OR CAST(:names AS text[]) IS NULL ORDER BY t.name, s.name
"""

_ENDED = """
SELECT t.id AS trial_id, c.name AS candidate, c.kind, c.parameters, t.state, t.failure, t.attempt, t.device,
       t.failure_kind, t.executor AS implementation, t.executor_details,
       t.reevaluates, d.version AS data_version, o.quality, t.cost_seconds,
       coalesce(t.started_at, t.suggested_at) AS started_at, t.finished_at
FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id JOIN work.data_versions d ON d.id = t.data_version_id
LEFT JOIN work.observations o ON o.trial_id = t.id
WHERE t.study_id = :id AND t.finished_at IS NOT NULL AND t.id > :after ORDER BY t.id LIMIT :limit
"""

_LET_OUT = """
SELECT m.id AS model_id, m.trial_id, m.format, m.artifact, 1 - m.validation_loss AS quality, d.version AS data_version,
       m.created_at, v.passed
FROM work.models m JOIN work.data_versions d ON d.id = m.data_version_id
CROSS JOIN LATERAL (
  SELECT coalesce(bool_or(symbol = 'pass'), false) AS passed FROM work.gate_verdicts
  WHERE study_id = :id AND model_id = m.id AND planned) v
WHERE m.study_id = :id AND (v.passed OR EXISTS (
  SELECT FROM work.promotions WHERE study_id = :id AND model_id = m.id)) ORDER BY m.id
"""


def mirrored_studies(tx: Connection, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Studies by tenant and name, each with the model in production and the number of its ended trials.

    Args:
        tx: Transaction of any role.
        names: Those that are wanted; None for all.
    """
    given = None if names is None else list(names)
    return [dict(r._mapping) for r in rows(tx, _STUDIES, names=given)]


def ended_trials(tx: Connection, study_id: int, *, after_id: int = 0, limit: int = 500) -> list[dict[str, Any]]:
    """Ended trials of the study with an id above ``after_id``, by id, at most ``limit``; what has ended stays so."""
    return [dict(r._mapping) for r in rows(tx, _ENDED, id=study_id, after=after_id, limit=limit)]


def models_let_out(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """The study's models that have ever passed the gate on its sealed condition, or been in production; by id."""
    return [dict(r._mapping) for r in rows(tx, _LET_OUT, id=study_id)]

"""The open facts of one study as rows, for a file that leaves the installation. Nothing of sealed sets but symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

_QUERIES = {
    "data_versions": """
SELECT v.version, v.content_hash, v.artifact, v.features, v.class_names, v.feature_names, v.layout, v.created_at,
       (SELECT jsonb_object_agg(p.part, p.rows) FROM work.data_parts p
        WHERE p.data_version_id = v.id AND p.part IN ('train', 'validation')) AS rows
FROM work.data_versions v WHERE v.study_id = :id ORDER BY v.version""",
    "candidates": """
SELECT c.name, c.kind, c.parameters, c.devices FROM work.candidates c WHERE c.study_id = :id ORDER BY c.id""",
    "trials": """
SELECT t.id AS trial, c.name AS candidate, v.version AS data_version, t.state, t.attempt, t.device, t.failure,
       t.failure_kind, t.executor, t.executor_details,
       t.cost_seconds, t.lost_seconds, t.suggested_at, t.started_at, t.finished_at, o.quality, o.score, o.observed_at
FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id JOIN work.data_versions v ON v.id = t.data_version_id
LEFT JOIN work.observations o ON o.trial_id = t.id
WHERE t.study_id = :id AND t.finished_at IS NOT NULL ORDER BY t.id""",
    "curves": """
SELECT k.trial_id AS trial, k.step, k."of", k.quality, k.loss, k.seconds
FROM work.curves k JOIN work.trials t ON t.id = k.trial_id
WHERE t.study_id = :id AND t.finished_at IS NOT NULL ORDER BY k.trial_id, k.step""",
    "models": """
SELECT m.id AS model, m.trial_id AS trial, v.version AS data_version, m.format, m.artifact, m.validation_loss,
       m.submitted, m.created_at
FROM work.models m JOIN work.data_versions v ON v.id = m.data_version_id WHERE m.study_id = :id ORDER BY m.id""",
    "verdicts": """
SELECT g.request_id AS request, g.model_id AS model, g.symbol, g.planned, g.decided_at
FROM work.gate_verdicts g WHERE g.study_id = :id ORDER BY g.request_id""",
    "signals": """
SELECT r.request_id AS request, r.model_id AS model, r.signal, r.signals, r.read_at
FROM work.meter_readings r WHERE r.study_id = :id ORDER BY r.request_id""",
    "promotions": """
SELECT p.request_id AS request, p.model_id AS model, p.promoted_at
FROM work.promotions p WHERE p.study_id = :id ORDER BY p.id""",
}
TABLES = tuple(_QUERIES)


def open_facts(tx: Connection, study_id: int) -> dict[str, list[dict[str, Any]]]:
    """Every table of ``TABLES`` for one study, oldest first; what still runs is left out.

    Args:
        tx: A snapshot, so that the tables agree.
        study_id: The study.
    """
    return {name: [dict(r._mapping) for r in rows(tx, sql, id=study_id)] for name, sql in _QUERIES.items()}

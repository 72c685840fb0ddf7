"""Rows of a made-up installation, for measuring speed; written in bulk, and taken away again by their key.

Only the owner of the schemas may do this. The rows are valid ones, so every service works on them; nothing was ever
trained, so there are no models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store.rows import as_json, change, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sqlalchemy import Connection


def holds_anything(tx: Connection) -> bool:
    """Whether the database has a tenant, and with it anything that matters."""
    return bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.tenants)"))


def fill(
    tx: Connection,
    *,
    key: str,
    candidates: Sequence[str],
    config: Mapping[str, Any],
    trials: Sequence[tuple[int, int, float, float]],
    rows: Sequence[int],
) -> None:
    """Active studies, one of each tenant, with finished trials.

    Args:
        tx: A transaction of the owner.
        key: Begins every name, followed by ``-``; what ``clear`` takes away.
        candidates: Names of the candidates, the same in each study.
        config: Settings of each study.
        trials: (study, candidate, quality, seconds) of each finished trial in the order of their end; studies and
            candidates are counted from 0.
        rows: Training rows of each study.
    """
    change(tx, _TENANTS, key=key, n=len(rows))
    change(tx, _DATA_SETS, key=key)
    change(tx, _STUDIES, key=key, config=as_json(config))
    change(tx, _VERSIONS, key=key)
    change(tx, _PARTS, key=key, rows=list(rows))
    change(tx, _CANDIDATES, key=key, names=list(candidates))
    studies, arms, qualities, seconds = (list(column) for column in zip(*trials, strict=True)) if trials else ([],) * 4
    values = {"studies": studies, "arms": arms, "qualities": qualities, "seconds": seconds}
    change(tx, _TRIALS, key=key, names=list(candidates), **values)
    change(tx, _OBSERVATIONS, key=key, names=list(candidates), **values)


def analyse(tx: Connection) -> None:
    """Let the planner know of the new rows, as the server does by itself after a minute."""
    for table in ("tenants", "studies", "candidates", "data_versions", "data_parts", "trials", "observations"):
        change(tx, f"ANALYZE work.{table}")


def clear(tx: Connection, *, key: str) -> None:
    """Take away the rows of ``fill``, and the suggestions that were made under request keys ``KEY-...``."""
    mine = "IN (SELECT id FROM work.studies WHERE starts_with(name, :key || '-'))"
    trials = f"IN (SELECT id FROM work.trials WHERE study_id {mine})"
    versions = f"IN (SELECT id FROM work.data_versions WHERE study_id {mine})"
    tenants = "IN (SELECT id FROM work.tenants WHERE starts_with(name, :key || '-'))"
    for statement in (
        f"DELETE FROM work.suggestions WHERE trial_id {trials}",
        "DELETE FROM work.suggestion_batches WHERE starts_with(request_key, :key || '-')",
        f"DELETE FROM work.observations WHERE trial_id {trials}",
        f"DELETE FROM work.trials WHERE study_id {mine}",
        f"DELETE FROM work.candidates WHERE study_id {mine}",
        f"DELETE FROM work.data_parts WHERE data_version_id {versions}",
        f"DELETE FROM work.data_versions WHERE study_id {mine}",
        "DELETE FROM work.studies WHERE starts_with(name, :key || '-')",
        f"DELETE FROM work.data_sets WHERE tenant_id {tenants}",
        "DELETE FROM work.tenants WHERE starts_with(name, :key || '-')",
    ):
        change(tx, statement, key=key)


_TENANTS = """
INSERT INTO work.tenants (name) SELECT :key || '-' || i FROM generate_series(0, :n - 1) AS i ORDER BY i
"""
_DATA_SETS = """
INSERT INTO work.data_sets (tenant_id, source)
SELECT id, 'benchmark' FROM work.tenants WHERE starts_with(name, :key || '-') ORDER BY id
"""
_STUDIES = """
INSERT INTO work.studies (name, tenant_id, data_set_id, state, metric, config, request_key)
SELECT t.name, t.id, d.id, 'ACTIVE', 'accuracy', CAST(:config AS jsonb), t.name
FROM work.tenants t JOIN work.data_sets d ON d.tenant_id = t.id WHERE starts_with(t.name, :key || '-') ORDER BY t.id
"""
_VERSIONS = """
INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, class_names)
SELECT id, data_set_id, 1, name, 'sha256:' || repeat('0', 64), 10, '["no", "yes"]'
FROM work.studies WHERE starts_with(name, :key || '-') ORDER BY id
"""
_PARTS = """
INSERT INTO work.data_parts (data_version_id, part, rows)
SELECT v.id, 'train', r.rows FROM unnest(CAST(:rows AS integer[])) WITH ORDINALITY AS r (rows, number)
JOIN work.studies s ON s.name = :key || '-' || (r.number - 1) JOIN work.data_versions v ON v.study_id = s.id
"""
_CANDIDATES = """
INSERT INTO work.candidates (study_id, name, kind)
SELECT s.id, c.name, 'decision_tree' FROM work.studies s
CROSS JOIN unnest(CAST(:names AS text[])) WITH ORDINALITY AS c (name, number)
WHERE starts_with(s.name, :key || '-') ORDER BY s.id, c.number
"""
_RESULTS = """
unnest(CAST(:studies AS integer[]), CAST(:arms AS integer[]), CAST(:qualities AS double precision[]),
       CAST(:seconds AS double precision[])) WITH ORDINALITY AS r (study, arm, quality, seconds, number)
JOIN work.studies s ON s.name = :key || '-' || r.study
JOIN work.candidates c ON c.study_id = s.id AND c.name = (CAST(:names AS text[]))[r.arm + 1]
JOIN work.data_versions v ON v.study_id = s.id
"""
_TRIALS = f"""
INSERT INTO work.trials (study_id, candidate_id, data_version_id, state, attempt, cost_seconds, started_at, finished_at,
  executor)
SELECT s.id, c.id, v.id, 'SUCCEEDED', 1, r.seconds, now(), now() + r.number * interval '1 microsecond', c.implementation
FROM {_RESULTS} ORDER BY r.number
"""
_OBSERVATIONS = f"""
INSERT INTO work.observations (trial_id, quality, cost_seconds)
SELECT t.id, r.quality, r.seconds FROM {_RESULTS}
JOIN work.trials t ON t.candidate_id = c.id AND t.data_version_id = v.id
"""

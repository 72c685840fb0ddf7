"""Who handed what in, and why, as rows: one submission a model, kept for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.database import notify
from easeml_core.store.rows import row, rows, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST = 1000
"""Rows that one look reads at most."""


def add_submission(
    tx: Connection,
    *,
    study_id: int,
    study: str,
    model_id: int,
    kind: str,
    message: str,
    bundle: str | None,
    bundle_version: str | None,
    request_key: str,
) -> int:
    """Record a submission and wake whoever waits for those of the study, or of all studies (topic ``submission:*``).

    Args:
        tx: Role ``easeml_worker``.
        study_id: The study.
        study: Its name.
        model_id: A model that was added as submitted, and has no submission yet.
        kind: ``artifact``, ``command`` or ``bundle``.
        message: What is new about it, 1 to 2000 characters.
        bundle: Name of the DAG bundle; for the kind ``bundle`` alone.
        bundle_version: The commit of the bundle whose run made the model.
        request_key: Not used before.

    Returns:
        Id of the submission.
    """
    submission_id = scalar(
        tx,
        "INSERT INTO work.submissions (study_id, model_id, kind, message, bundle, bundle_version, request_key) "
        "VALUES (:study_id, :model_id, :kind, :message, :bundle, :bundle_version, :request_key) RETURNING id",
        study_id=study_id,
        model_id=model_id,
        kind=kind,
        message=message,
        bundle=bundle,
        bundle_version=bundle_version,
        request_key=request_key,
    )
    notify(tx, f"submission:{study}")
    notify(tx, "submission:*")
    return int(submission_id)


def submission_of_key(tx: Connection, request_key: str) -> dict[str, Any] | None:
    """What this key has handed in, or None.

    Returns:
        ``{"submission_id", "study", "model_id", "kind", "message", "bundle", "bundle_version", "format", "artifact",
        "validation_loss"}``.
    """
    found = row(
        tx,
        "SELECT u.id AS submission_id, s.name AS study, u.model_id, u.kind, u.message, u.bundle, u.bundle_version, "
        "m.format, m.artifact, m.validation_loss FROM work.submissions u JOIN work.studies s ON s.id = u.study_id "
        "JOIN work.models m ON m.id = u.model_id WHERE u.request_key = :key",
        key=request_key,
    )
    return None if found is None else dict(found._mapping)


def list_submissions(tx: Connection, study_id: int | None = None) -> list[dict[str, Any]]:
    """Submissions of one study, or of all, the newest first, with what was released about each; at most MOST.

    The symbol is that of the last verdict on the sealed condition that has left. A refusal is no verdict and takes none
    back: ``refused`` says that all answers so far were refusals, if there were any.

    Returns:
        ``{"submission_id", "study", "model_id", "kind", "format", "message", "bundle", "bundle_version",
        "submitted_at", "submitted_by", "validation_loss", "asked", "answered", "refused", "symbol", "in_production"}``
        each; ``asked`` and ``answered`` are counts of gate requests.
    """
    found = rows(
        tx,
        "SELECT u.id AS submission_id, s.name AS study, u.model_id, u.kind, m.format, u.message, u.bundle, "
        "u.bundle_version, u.submitted_at, u.submitted_by, m.validation_loss, "
        "(SELECT count(*) FROM work.requests r WHERE r.model_id = u.model_id AND r.kind = 'gate') AS asked, "
        "(SELECT count(*) FROM work.requests r JOIN work.answers a ON a.request_id = r.id "
        "WHERE r.model_id = u.model_id AND r.kind = 'gate') AS answered, "
        "coalesce(last.refused, false) AS refused, last.symbol, "
        "EXISTS (SELECT FROM work.production p WHERE p.study_id = u.study_id AND p.model_id = u.model_id) "
        "AS in_production "
        "FROM work.submissions u JOIN work.studies s ON s.id = u.study_id JOIN work.models m ON m.id = u.model_id "
        "LEFT JOIN LATERAL (SELECT a.refused, v.symbol FROM work.requests r "
        "JOIN work.answers a ON a.request_id = r.id LEFT JOIN work.gate_verdicts v ON v.request_id = r.id "
        "WHERE r.model_id = u.model_id AND r.kind = 'gate' AND r.arguments ->> 'condition' IS NULL "
        "ORDER BY a.refused, r.id DESC LIMIT 1) last ON true "
        "WHERE CAST(:study_id AS bigint) IS NULL OR u.study_id = :study_id ORDER BY u.id DESC LIMIT :most",
        study_id=study_id,
        most=MOST,
    )
    return [dict(r._mapping) for r in found]


def production_versions(tx: Connection) -> list[dict[str, Any]]:
    """Which version of a DAG bundle stands in production, by study; studies without one are left out.

    Returns:
        ``{"study", "model_id", "bundle", "bundle_version"}`` each, by study name.
    """
    found = rows(
        tx,
        "SELECT s.name AS study, p.model_id, u.bundle, u.bundle_version FROM work.production p "
        "JOIN work.studies s ON s.id = p.study_id JOIN work.submissions u ON u.model_id = p.model_id "
        "WHERE u.kind = 'bundle' ORDER BY s.name",
    )
    return [dict(r._mapping) for r in found]

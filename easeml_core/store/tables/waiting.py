"""Submissions that nobody has asked the gate about yet, as rows: the inbox of continuous integration.

A submission waits until a gate request for its model, on the sealed condition, is filed. So nothing has to remember
what it has seen: who was away finds in these rows what came meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST = 1000
"""Rows that one look reads at most, the oldest first; the others are seen once these are dealt with."""


def waiting_submissions(tx: Connection, study_id: int | None = None) -> list[dict[str, Any]]:
    """Submissions without a gate request, the oldest first.

    A request on a condition of the asker's own is advice and leaves the submission waiting.

    Args:
        tx: A transaction of any role that may read `work`.
        study_id: The study, or None for all.

    Returns:
        ``{"submission_id", "study", "model_id"}`` each.
    """
    found = rows(
        tx,
        "SELECT u.id AS submission_id, s.name AS study, u.model_id FROM work.submissions u "
        "JOIN work.studies s ON s.id = u.study_id "
        "WHERE (CAST(:study_id AS bigint) IS NULL OR u.study_id = :study_id) AND NOT EXISTS "
        "(SELECT FROM work.requests r WHERE r.kind = 'gate' AND r.study_id = u.study_id AND r.model_id = u.model_id "
        "AND r.arguments ->> 'condition' IS NULL) "
        "ORDER BY u.id LIMIT :most",
        study_id=study_id,
        most=MOST,
    )
    return [dict(r._mapping) for r in found]

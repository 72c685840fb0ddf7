"""How a study's data came to be what it is, as rows: its versions, and what each refresh has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

_VERSIONS = """
SELECT v.version, v.created_at, v.features, jsonb_array_length(v.class_names) AS classes,
       coalesce(v.layout ->> 'kind', 'table') AS kind, f.version AS training_of, r.request_id IS NOT NULL AS refreshed,
       max(p.rows) FILTER (WHERE p.part = 'train') AS train_rows,
       max(p.rows) FILTER (WHERE p.part = 'validation') AS validation_rows
FROM work.data_versions v LEFT JOIN work.data_parts p ON p.data_version_id = v.id
LEFT JOIN work.data_versions f ON f.id = v.same_training_as LEFT JOIN work.refreshes r ON r.data_version_id = v.id
WHERE v.study_id = :id GROUP BY v.id, f.version, r.request_id ORDER BY v.version DESC LIMIT :limit
"""

_REFRESHES = """
SELECT q.id AS request_id, q.requested_at, a.answered_at, coalesce(a.refused, false) AS refused, a.message, v.version
FROM work.requests q LEFT JOIN work.answers a ON a.request_id = q.id
LEFT JOIN work.refreshes r ON r.request_id = q.id LEFT JOIN work.data_versions v ON v.id = r.data_version_id
WHERE q.study_id = :id AND q.kind = 'refresh' ORDER BY q.id DESC LIMIT :limit
"""


def version_history(tx: Connection, study_id: int, *, limit: int) -> list[dict[str, Any]]:
    """The versions of a study's data, newest first, with the rows of their open parts.

    ``training_of`` is the version whose training part it goes on with, None where it has one of its own; ``refreshed``
    says that pairs that were fed made it.
    """
    return [dict(r._mapping) for r in rows(tx, _VERSIONS, id=study_id, limit=limit)]


def refresh_history(tx: Connection, study_id: int, *, limit: int) -> list[dict[str, Any]]:
    """The refreshes that were asked for, newest first; ``version`` is what one made, None where nothing was new."""
    return [dict(r._mapping) for r in rows(tx, _REFRESHES, id=study_id, limit=limit)]

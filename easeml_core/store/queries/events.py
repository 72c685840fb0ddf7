"""What has happened lately in all studies, as rows, for whoever tells people of it: from the schema ``work`` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import rows, scalar

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

# A fail on a condition of one's own is advice, and the same answer again is no news. An alert that is for one of
# several teams is told to nobody here, since nobody says which team is asking.
_LATELY = """
SELECT 'promotion-' || p.id AS id, CASE p.kind WHEN 'rollback' THEN 'rollback' ELSE 'promotion' END AS kind,
       p.study_id, p.promoted_at AS at,
       jsonb_build_object('model', p.model_id, 'how', p.kind, 'by', p.who, 'why', left(p.why, 500), 'head',
         (SELECT e.head FROM work.evidence e WHERE e.request_id = p.gate_request_id)) AS facts
FROM work.promotions p WHERE p.promoted_at >= :since
UNION ALL
SELECT 'rejection-' || v.request_id, 'rejection', v.study_id, v.decided_at,
       jsonb_build_object('model', v.model_id, 'set', v.test_set_id, 'step', v.step, 'head',
         (SELECT e.head FROM work.evidence e WHERE e.request_id = v.request_id))
FROM work.gate_verdicts v WHERE v.decided_at >= :since AND v.symbol = 'fail' AND v.planned AND NOT EXISTS (
  SELECT FROM work.gate_verdicts o WHERE o.study_id = v.study_id AND o.model_id = v.model_id AND o.symbol = 'fail'
  AND o.planned AND o.test_set_id = v.test_set_id AND (o.decided_at, o.request_id) < (v.decided_at, v.request_id))
UNION ALL
SELECT 'alert-' || a.id, a.kind, a.study_id, a.created_at,
       jsonb_build_object('alert', a.id, 'purpose', t.purpose, 'message', left(a.message, 1000))
FROM work.alerts a LEFT JOIN work.test_sets t ON t.id = a.test_set_id
WHERE a.created_at >= :since AND a.team IS NULL
"""
_OF_STUDIES = (
    "SELECT e.id, e.kind, s.name AS study, t.name AS tenant, e.at, e.facts FROM "
    f"({_LATELY}) e JOIN work.studies s ON s.id = e.study_id JOIN work.tenants t ON t.id = s.tenant_id "
    "WHERE NOT e.id = ANY (:known) ORDER BY e.at, e.id LIMIT :limit"
)


def lately(tx: Connection, *, since: datetime, known: Collection[str], limit: int) -> list[dict[str, Any]]:
    """Promotions, rollbacks, rejections and alerts since a moment, oldest first: what everybody may know of them.

    Args:
        tx: Any role.
        since: Those at this moment and later.
        known: Ids of those to leave out.
        limit: So many at most.

    Returns:
        ``{"id", "kind", "study", "tenant", "at", "facts"}`` each.
    """
    return [dict(r._mapping) for r in rows(tx, _OF_STUDIES, since=since, known=list(known), limit=limit)]


def clock(tx: Connection) -> datetime:
    """Now, by the database's clock."""
    now: datetime = scalar(tx, "SELECT clock_timestamp()")
    return now

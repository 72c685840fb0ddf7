"""Queries over the audit: who did what, when, through which interface and why; and recent events for notifications.

Triggers write the audit (``migrations/initial/evidence.sql``). Notifications are read from the schema ``work`` alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.entities import JsonObject
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


class Filter(NamedTuple):
    """Which rows of the audit.

    Attributes:
        studies: Names of the studies that may be shown, and their tenants with them; None for all there is.
        study: Of this study only; None for all.
        acts: Of these acts only; None for all.
        who: Of this person or task only; None for all.
        text: In who, study, tenant, reason or a set's name; empty for all.
        since: From then on; None for all time.
    """

    studies: Collection[str] | None = None
    study: str | None = None
    acts: Collection[str] | None = None
    who: str | None = None
    text: str = ""
    since: datetime | None = None


# A user who is limited to some studies sees no alert of a team. A change of the whole installation has neither study
# nor tenant.
_ROWS = """
FROM work.audit a LEFT JOIN work.studies s ON s.id = a.study_id LEFT JOIN work.tenants t ON t.id = a.tenant_id
WHERE (CAST(:studies AS text[]) IS NULL OR (a.after ->> 'team' IS NULL AND (s.name = ANY(CAST(:studies AS text[]))
  OR (a.study_id IS NULL AND a.tenant_id IN (
    SELECT tenant_id FROM work.studies WHERE name = ANY(CAST(:studies AS text[])))))))
AND (CAST(:study AS text) IS NULL OR s.name = :study)
AND (CAST(:acts AS text[]) IS NULL OR a.act = ANY(CAST(:acts AS text[])))
AND (CAST(:who AS text) IS NULL OR a.who = :who)
AND (CAST(:since AS timestamptz) IS NULL OR a.at >= :since)
AND (:text = '' OR position(lower(:text) IN lower(concat_ws(' ', a.who, s.name, t.name, a.reason, a.after ->> 'name')))
  > 0)
"""


_REFUSAL = """CASE a.act WHEN 'study refused' THEN (
SELECT left(w.message, 1000) FROM work.requests q JOIN work.answers w ON w.request_id = q.id
WHERE q.study_id = a.study_id AND q.kind = 'seal' AND w.refused ORDER BY q.id DESC LIMIT 1) END"""


@typed_record
class AuditRow:
    """One act.

    Attributes:
        id: Rising with time.
        at: When.
        who: Name of the person or the task.
        door: How the act was done: ``page``, ``task``, ``database`` and so on.
        role: The database role that wrote it.
        act: What was done, such as ``study changed``.
        study: Name of the study; None for none.
        tenant: Name of the tenant; None for none.
        before: What was changed, as the trigger of that version wrote it.
        after: What it was changed to, likewise.
        reason: Why; of a refused study the referee's answer.
        is_open: Whether a request still waits for its answer.
    """

    id: int
    at: datetime
    who: str
    door: str
    role: str
    act: str
    study: str | None
    tenant: str | None
    before: JsonObject
    after: JsonObject
    reason: str | None
    is_open: bool


def events(tx: Connection, wanted: Filter, *, limit: int, offset: int = 0) -> list[AuditRow]:
    """Return rows of the audit, newest first."""
    return records(
        tx,
        AuditRow,
        "SELECT a.id, a.at, a.who, a.door, a.role, a.act, s.name AS study, t.name AS tenant, a.before, a.after, "
        f"coalesce(a.reason, {_REFUSAL}) AS reason, a.act LIKE '%asked' AND NOT EXISTS (SELECT FROM work.answers w "
        "WHERE w.request_id = (a.after ->> 'request')::bigint) AS is_open "
        f"{_ROWS} ORDER BY a.id DESC LIMIT :limit OFFSET :offset",
        limit=limit,
        offset=offset,
        **_values(wanted),
    )


def counts(tx: Connection, wanted: Filter) -> dict[str, int]:
    """Count the rows of each act."""
    return {r.act: r.n for r in rows(tx, f"SELECT a.act, count(*) AS n {_ROWS} GROUP BY a.act", **_values(wanted))}


def forced_that_wait(tx: Connection, studies: Collection[str] | None) -> int:
    """Forced promotions that were asked for and not answered yet."""
    return int(
        scalar(
            tx,
            "SELECT count(*) FROM work.requests q JOIN work.studies s ON s.id = q.study_id WHERE q.kind = 'force' "
            "AND NOT EXISTS (SELECT FROM work.answers w WHERE w.request_id = q.id) "
            "AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))",
            names=None if studies is None else list(studies),
        )
    )


def _values(wanted: Filter) -> dict[str, object]:
    return wanted._asdict() | {
        "studies": None if wanted.studies is None else list(wanted.studies),
        "acts": None if wanted.acts is None else list(wanted.acts),
    }


# A fail on the asker's own condition is advice, and a repeated answer is not news. An alert for one of several teams is
# left out, since the recipients' team is unknown here.
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
UNION ALL
SELECT 'not-held-' || q.trial_id, 'not-held', q.study_id, q.checked_at,
       jsonb_build_object('trial', q.trial_id, 'model', q.model_id, 'stated', q.claimed, 'measured', q.measured)
FROM work.quality_checks q WHERE q.checked_at >= :since AND q.outcome = 'not held'
"""
_OF_STUDIES = (
    "SELECT e.id, e.kind, s.name AS study, t.name AS tenant, e.at, e.facts FROM "
    f"({_LATELY}) e JOIN work.studies s ON s.id = e.study_id JOIN work.tenants t ON t.id = s.tenant_id "
    "WHERE s.state <> 'ARCHIVED' AND NOT e.id = ANY (:known) ORDER BY e.at, e.id LIMIT :limit"
)


@typed_record
class Happening:
    """A promotion, a rollback, a rejection, an alert or a result that did not hold: its public facts.

    ``facts`` are those of its kind, see ``services/operations/notifications.py``.
    """

    id: str
    kind: str
    study: str
    tenant: str
    at: datetime
    facts: JsonObject


def lately(tx: Connection, *, since: datetime, known: Collection[str], limit: int) -> list[Happening]:
    """Return the events of ``Happening`` since a moment, oldest first."""
    return records(tx, Happening, _OF_STUDIES, since=since, known=list(known), limit=limit)


def clock(tx: Connection) -> datetime:
    """Now, by the database's clock."""
    now: datetime = scalar(tx, "SELECT clock_timestamp()")
    return now

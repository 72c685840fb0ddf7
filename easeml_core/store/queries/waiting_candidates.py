"""What candidates of active studies wait for: an implementation, a task with their function, or a repair of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.store.rows import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

ASKED_WITHIN = "interval '7 days'"
"""Callers that asked for trials within this time count as active; covers a weekly DAG."""


class WaitKind(StrEnum):
    """What candidates wait for.

    ``implementation``: nothing that asks for trials can execute them. ``function``: a task that executes their training
    function, whether one has asked or not. ``repair``: of their task, since their trials failed because of it.
    """

    IMPLEMENTATION = "implementation"
    FUNCTION = "function"
    REPAIR = "repair"


@typed_record
class CandidateWait:
    """Candidates of a study that wait for the same.

    Attributes:
        study: The study.
        kind: What they wait for.
        implementation: Such as ``function:NAME`` or ``trainer:KIND``; None for ``repair``.
        candidates: How many.
        names: For ``function``: their names, in alphabetical order; else empty, likewise the following.
        asked_at: When a caller with this function last asked for trials of the study; None where none has.
        has_others: Whether candidates wait, too, that a device can run.
        trials: For ``repair``: the failed trials, oldest first.
    """

    study: str
    kind: WaitKind
    implementation: str | None
    candidates: int
    names: list[str]
    asked_at: datetime | None
    has_others: bool
    trials: list[int]


_IS_UNTRIED = """NOT EXISTS (
    SELECT FROM work.trials t WHERE t.candidate_id = c.id AND t.data_version_id = s.data
    AND (t.state <> 'SUGGESTED' OR t.lease_until >= now()))"""
"""SQL: whether a candidate has no trial on the present data, or one that no worker holds."""

# Where no caller has asked for trials of a study within the time, its candidates wait for a DAG and not for an
# implementation.
_WAITS = f"""
WITH chosen AS (
  SELECT s.id, s.name, (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = s.id) AS data FROM work.studies s
  WHERE s.state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))),
asking AS (
  SELECT o.study, CASE WHEN o.implementation = 'trainer' THEN NULL ELSE o.implementation END AS implementation
  FROM work.offers o WHERE o.asked_at > now() - {ASKED_WITHIN}),
missing AS (
  SELECT s.name AS study, need.implementation, count(*) AS candidates
  FROM chosen s JOIN work.candidates c ON c.study_id = s.id
  CROSS JOIN LATERAL (
    SELECT CASE WHEN c.kind = 'function' THEN c.implementation END AS offered,
           CASE WHEN c.kind IN ('function', 'command', 'container') THEN c.implementation
           ELSE 'trainer:' || c.kind END AS implementation) need
  WHERE c.withdrawn_at IS NULL AND EXISTS (SELECT FROM asking a WHERE a.study IN ('', s.name))
  AND NOT EXISTS (
    SELECT FROM asking a WHERE a.study IN ('', s.name) AND a.implementation IS NOT DISTINCT FROM need.offered)
  AND {_IS_UNTRIED} GROUP BY s.name, need.implementation),
untried AS (
  SELECT s.name AS study, c.name, c.kind, c.implementation FROM chosen s
  JOIN work.candidates c ON c.study_id = s.id AND c.withdrawn_at IS NULL WHERE :functions AND {_IS_UNTRIED})
SELECT study, 'implementation' AS kind, implementation, candidates, CAST('{{}}' AS text[]) AS names,
       CAST(NULL AS timestamptz) AS asked_at, false AS has_others, CAST('{{}}' AS bigint[]) AS trials FROM missing
UNION ALL
SELECT u.study, 'function', u.implementation, count(*), array_agg(u.name ORDER BY u.name),
       (SELECT max(o.asked_at) FROM work.offers o
        WHERE o.implementation = u.implementation AND o.study IN ('', u.study)),
       EXISTS (SELECT FROM untried x WHERE x.study = u.study AND x.kind <> 'function'), '{{}}'
FROM untried u WHERE u.kind = 'function' GROUP BY u.study, u.implementation
UNION ALL
SELECT s.name, 'repair', NULL, count(*), '{{}}', NULL, false, array_agg(t.id ORDER BY t.id)
FROM work.trials t JOIN chosen s ON s.id = t.study_id AND s.data = t.data_version_id
JOIN work.candidates c ON c.id = t.candidate_id AND c.withdrawn_at IS NULL
WHERE t.failure_kind = 'task' AND NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = t.id) GROUP BY s.name
ORDER BY study, kind DESC, implementation
"""


def candidate_waits(tx: Connection, *, names: Iterable[str] | None, functions: bool = True) -> list[CandidateWait]:
    """Return what candidates of active studies wait for, by study.

    A candidate whose function nothing that asks can execute is counted twice: for the implementation, and for a task
    with the function.

    Args:
        tx: Any role.
        names: Of these studies only; None for all.
        functions: Whether to look for waits of kind ``function``, too: a second look at candidates without a trial.
    """
    return records(tx, CandidateWait, _WAITS, names=None if names is None else list(names), functions=functions)

"""Which files of models may go, and learning curves that no rule reads any more (ADR 0035).

The row says first that its file is removed: from then on no row names it, and it is an orphan like any other
(``store/artifacts/orphans.py``), which goes once nothing has written it for long enough. A process that is killed in
between leaves a file that the next sweep finds.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.store.rows import records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


@typed_record
class RemovableModel:
    """A trained model whose file nothing needs.

    Attributes:
        study: Its study.
        tenant: The study's tenant.
        model_id: Its number.
        candidate: What was trained.
        created_at: When.
    """

    study: str
    tenant: str
    model_id: int
    candidate: str
    created_at: datetime


# The best are taken on the newest data with a result, and likewise of results that were not measured anew: by these
# ``best`` is chosen while new validation data wait. A model that was measured anew has a row for each measurement: all
# of them stay. A model that waits to be measured is kept. A row that an open transaction refers to, such as a new
# request, is passed over.
_REMOVABLE = """
WITH results AS (
  SELECT k.own, x.study_id, x.data_version_id, coalesce(x.reevaluates, x.id) AS trial_id, o.quality, o.cost_seconds
  FROM work.trials x JOIN work.observations o ON o.trial_id = x.id
  JOIN LATERAL (SELECT true AS own WHERE x.reevaluates IS NULL UNION ALL SELECT false) k ON true
  WHERE NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = x.id AND q.outcome = 'not held')),
newest AS (
  SELECT DISTINCT ON (r.own, r.study_id) r.own, r.study_id, r.data_version_id FROM results r
  JOIN work.data_versions v ON v.id = r.data_version_id ORDER BY r.own, r.study_id, v.version DESC),
best AS (
  SELECT trial_id FROM (
    SELECT r.trial_id, row_number() OVER (PARTITION BY r.own, r.study_id ORDER BY r.quality DESC, r.cost_seconds,
      r.trial_id) AS place FROM results r JOIN newest n USING (own, study_id, data_version_id)) p WHERE place <= :keep)
SELECT s.name AS study, n.name AS tenant, m.id AS model_id, c.name AS candidate, m.created_at
FROM work.models m JOIN work.studies s ON s.id = m.study_id JOIN work.tenants n ON n.id = s.tenant_id
JOIN work.trials t ON t.id = m.trial_id JOIN work.candidates c ON c.id = t.candidate_id
WHERE NOT m.submitted AND m.removed_at IS NULL AND m.created_at < now() - make_interval(secs => 86400 * :days)
AND coalesce(t.reevaluates, t.id) NOT IN (SELECT trial_id FROM best)
AND NOT EXISTS (SELECT FROM work.requests r WHERE r.study_id = m.study_id AND r.model_id = m.id)
AND NOT EXISTS (SELECT FROM work.gate_verdicts g WHERE g.study_id = m.study_id AND g.incumbent_id = m.id)
AND NOT EXISTS (SELECT FROM work.promotions p WHERE p.study_id = m.study_id AND p.model_id = m.id)
AND NOT EXISTS (
  SELECT FROM work.data_versions e JOIN work.data_versions w ON w.study_id = e.study_id AND w.version > e.version
    AND w.same_training_as = coalesce(e.same_training_as, e.id)
  WHERE e.id = m.data_version_id AND NOT EXISTS (
    SELECT FROM work.trials x WHERE x.candidate_id = t.candidate_id AND x.data_version_id = w.id)
  AND NOT EXISTS (SELECT FROM work.data_versions z WHERE z.study_id = w.study_id AND z.version > w.version))
ORDER BY m.id LIMIT :most {lock}
"""


def removable_models(tx: Connection, *, keep: int, days: float, most: int, holds: bool = False) -> list[RemovableModel]:
    """Return trained models that nothing needs: of no request, verdict or promotion, and not among the best.

    Args:
        tx: Role ``easeml_referee``.
        keep: How many of the best models of each study stay, >= 1.
        days: Age of a model in days from which on it may go.
        most: So many at most, the oldest first.
        holds: Whether to lock their rows, so that no request about one is filed meanwhile.
    """
    lock = "FOR UPDATE OF m SKIP LOCKED" if holds else ""
    return records(tx, RemovableModel, _REMOVABLE.format(lock=lock), keep=keep, days=days, most=most)


def note_removed(tx: Connection, model_ids: Sequence[int], why: str) -> set[int]:
    """Note that the files of these models, whose rows this transaction holds, are removed; return which are.

    A request that was committed after the look for removable models and before their rows were held keeps its model.
    """
    found = rows(
        tx,
        "UPDATE work.models m SET removed_at = clock_timestamp(), removed_why = :why WHERE m.id = ANY (:ids) "
        "AND NOT EXISTS (SELECT FROM work.requests r WHERE r.study_id = m.study_id AND r.model_id = m.id) RETURNING id",
        ids=list(model_ids),
        why=why,
    )
    return {r.id for r in found}


def removed_why(tx: Connection, model_id: int) -> str | None:
    """Return why and when a model's file was removed; None while it is there."""
    asked = (
        "SELECT to_char(removed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ': ' || removed_why FROM work.models "
        "WHERE id = :id AND removed_at IS NOT NULL"
    )
    found: str | None = scalar(tx, asked, id=model_id)
    return found


def lost_candidates(tx: Connection) -> dict[int, set[int]]:
    """First data version of a training part to the candidates whose models, trained on it, have all lost their files.

    After a new validation set they cannot be measured, and are trained again.
    """
    of_part = "coalesce(v.same_training_as, v.id)"
    trained = "work.models m JOIN work.trials t ON t.id = m.trial_id AND t.reevaluates IS NULL"
    found = rows(
        tx,
        f"SELECT DISTINCT {of_part} AS part, t.candidate_id FROM {trained} "
        "JOIN work.data_versions v ON v.id = t.data_version_id WHERE m.removed_at IS NOT NULL AND NOT EXISTS ("
        "SELECT FROM work.trials k JOIN work.models f ON f.trial_id = k.id AND f.removed_at IS NULL "
        "JOIN work.data_versions w ON w.id = k.data_version_id WHERE k.candidate_id = t.candidate_id "
        f"AND k.reevaluates IS NULL AND coalesce(w.same_training_as, w.id) = {of_part})",
    )
    lost: dict[int, set[int]] = {}
    for r in found:
        lost.setdefault(r.part, set()).add(r.candidate_id)
    return lost


def forget_curves(tx: Connection, days: float) -> int:
    """Remove learning curves of a thousand trials at most; how many points that were.

    Only of trials that ended so long ago, of an archived study or on earlier training data: no decision on a running
    trial is made from those.

    Args:
        tx: Role ``easeml_referee``.
        days: Since the end of the trial, >= 1.
    """
    return int(scalar(tx, "SELECT work.forget_curves(:days)", days=days))

"""What becomes of a study's models: promotions that move the production pointer, and files that are removed (ADR 0035).

A model's row says first that its file is removed: from then on no row names it, and it is an orphan like any other
(``store/artifacts/orphans.py``), which goes once nothing has written it for long enough. A process that is killed in
between leaves a file that the next sweep finds. Learning curves that no rule reads any more go, too.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.entities import RequestKind, Symbol
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import change, records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


@typed_record
class Promotion:
    """One move of a study's production pointer.

    Attributes:
        id: Rising with time.
        kind: ``promote`` (on a verdict), ``rollback`` (to what ``restores`` put there) or ``force`` (a person's word).
        model_id: What stands from then on.
        gate_request_id: Whose verdict it stands on; None but for ``promote``.
        restores: The promotion that had put the model there; None but for ``rollback``.
        who: Who forced it; None but for ``force``.
        why: The reason given; None for ``promote``.
        promoted_at: When.
    """

    id: int
    kind: RequestKind
    model_id: int
    gate_request_id: int | None
    restores: int | None
    who: str | None
    why: str | None
    promoted_at: datetime


def add_promotion(
    tx: Connection,
    *,
    request_id: int,
    study_id: int,
    model_id: int,
    gate_request_id: int,
    symbol: Symbol = Symbol.PASS,
) -> int:
    """Record a promotion and move the production pointer; the schema refuses one without a recorded verdict."""
    given = {"gate_request_id": gate_request_id, "symbol": symbol.value, "planned": True}
    return _record(tx, RequestKind.PROMOTE, request_id, study_id, model_id, **given)


def add_rollback(
    tx: Connection, *, request_id: int, study_id: int, model_id: int, restores: int, why: str | None
) -> int:
    """Put a model back that was in production; ``restores`` is the promotion that had put it there."""
    return _record(tx, RequestKind.ROLLBACK, request_id, study_id, model_id, restores=restores, why=why)


def add_forced(tx: Connection, *, request_id: int, study_id: int, model_id: int, who: str, why: str) -> int:
    """Put a model into production by a person's decision, without a verdict."""
    return _record(tx, RequestKind.FORCE, request_id, study_id, model_id, who=who, why=why)


def _record(tx: Connection, kind: RequestKind, request_id: int, study_id: int, model_id: int, **ground: Any) -> int:
    given = {"gate_request_id": None, "symbol": None, "planned": None, "restores": None, "who": None, "why": None}
    promotion_id = int(
        scalar(
            tx,
            "INSERT INTO work.promotions (request_id, kind, study_id, model_id, gate_request_id, symbol, planned, "
            "restores, who, why) VALUES (:request_id, :kind, :study_id, :model_id, :gate_request_id, :symbol, "
            ":planned, :restores, :who, :why) RETURNING id",
            request_id=request_id,
            kind=kind.value,
            study_id=study_id,
            model_id=model_id,
            **given | ground,
        )
    )
    change(
        tx,
        "INSERT INTO work.production (study_id, model_id, promotion_id) VALUES (:study_id, :model_id, :id) "
        "ON CONFLICT ON CONSTRAINT production_pkey DO UPDATE SET model_id = :model_id, promotion_id = :id",
        study_id=study_id,
        model_id=model_id,
        id=promotion_id,
    )
    return promotion_id


def has_moved(tx: Connection, request_id: int) -> bool:
    """Whether this request has moved the production pointer."""
    found = "SELECT EXISTS (SELECT FROM work.promotions WHERE request_id = :id)"
    return bool(scalar(tx, found, id=request_id))


def history(tx: Connection, study_id: int) -> list[Promotion]:
    """All moves of the study's production pointer, oldest first; the last one stands."""
    return records(
        tx,
        Promotion,
        "SELECT id, kind, model_id, gate_request_id, restores, who, why, promoted_at FROM work.promotions "
        "WHERE study_id = :id ORDER BY id",
        id=study_id,
    )


@typed_record
class Standing:
    """A model in production, with the move that put it there."""

    promotion_id: int
    study: str
    model_id: int
    request_id: int
    kind: RequestKind


def standing(tx: Connection, study_id: int | None = None) -> list[Standing]:
    """Return the models in production, each with the move that put it there; the oldest move first."""
    return records(
        tx,
        Standing,
        "SELECT p.id AS promotion_id, s.name AS study, p.model_id, p.request_id, p.kind FROM work.production w "
        "JOIN work.promotions p ON p.id = w.promotion_id JOIN work.studies s ON s.id = w.study_id "
        "WHERE s.state <> 'ARCHIVED' AND (CAST(:study_id AS bigint) IS NULL OR w.study_id = :study_id) ORDER BY p.id",
        study_id=study_id,
    )


def last_id(tx: Connection) -> int:
    """The newest move of any study's production pointer; 0 before the first."""
    return int(scalar(tx, "SELECT coalesce(max(id), 0) FROM work.promotions"))


_MODELS = """
SELECT m.id AS model_id,
       CASE WHEN m.trial_id IS NOT NULL THEN k.name WHEN m.submitted THEN 'submitted' ELSE 'baseline' END AS origin,
       m.format, 1 - m.validation_loss AS validation_quality, d.version AS data_version, v.symbol AS verdict,
       v.request_id AS gate_request_id,
       p.model_id IS NOT NULL AS in_production, b.kind AS moved_by, b.promoted_at, b.who, b.why,
       m.removed_why AS removed
FROM work.models m JOIN work.data_versions d ON d.id = m.data_version_id
LEFT JOIN work.trials t ON t.id = m.trial_id LEFT JOIN work.candidates k ON k.id = t.candidate_id
LEFT JOIN work.production p ON p.study_id = m.study_id AND p.model_id = m.id
LEFT JOIN LATERAL (
  SELECT symbol, request_id FROM work.gate_verdicts WHERE study_id = :id AND model_id = m.id AND planned
  ORDER BY request_id DESC LIMIT 1) v ON true
LEFT JOIN LATERAL (
  SELECT kind, promoted_at, who, why FROM work.promotions WHERE study_id = :id AND model_id = m.id
  ORDER BY id DESC LIMIT 1) b ON true
WHERE m.study_id = :id ORDER BY m.id DESC
"""


@typed_record
class ListedModel:
    """A model with its last verdict and how it last came into production.

    Attributes:
        model_id: Its number.
        origin: Name of the candidate, ``submitted`` or ``baseline``.
        format: Of its file.
        validation_quality: Share of right answers on the validation part of ``data_version``.
        data_version: Version of the data.
        verdict: The last one on the sealed condition; None without one.
        gate_request_id: Of that verdict.
        in_production: Whether it is.
        moved_by: How it last came into production; None where it never did.
        promoted_at: When.
        who: Who forced it.
        why: The reason given.
        removed: Why its file was removed; None while it is there.
    """

    model_id: int
    origin: str
    format: str
    validation_quality: float
    data_version: int
    verdict: Symbol | None
    gate_request_id: int | None
    in_production: bool
    moved_by: RequestKind | None
    promoted_at: datetime | None
    who: str | None
    why: str | None
    removed: str | None


def list_models(tx: Connection, study_id: int) -> list[ListedModel]:
    """The study's models, newest first, each with its last verdict and how it last came into production."""
    return records(tx, ListedModel, _MODELS, id=study_id)


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
    """Return trained models that nothing needs: of no request, verdict or promotion, and not among the best."""
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
    """
    return int(scalar(tx, "SELECT work.forget_curves(:days)", days=days))

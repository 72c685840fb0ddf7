"""Promotions, rollbacks and forced promotions, and the production pointer that they move."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.encoding import typed_record
from easeml_core.entities import RequestKind, Symbol
from easeml_core.store.rows import change, records, scalar

if TYPE_CHECKING:
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
    """Record a promotion and move the production pointer; the schema refuses one without a recorded verdict.

    Args:
        tx: Transaction of the referee's role.
        request_id: Who asked.
        study_id: The study.
        model_id: The model.
        gate_request_id: The gate request whose verdict it stands on.
        symbol: What the verdict says: ``pass``, or ``withheld`` where every verdict is.
    """
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
    """Return the models in production, each with the move that put it there; the oldest move first.

    Args:
        tx: A transaction of any role that may read ``work``.
        study_id: The study, or None for all; one that has nothing in production, or is archived, is left out.
    """
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

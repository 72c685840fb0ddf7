"""Batches of suggestions with their reasons, as rows; the batch of a request key is made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import NotFoundError
from easeml_core.store.rows import as_json, change, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


def add_batch(tx: Connection, *, request_key: str, policy: str, requested: int) -> int | None:
    """A new batch of suggestions, or None when this request key has one already.

    It names the settings that hold now; whoever changes them holds the lock ``suggest``, as the scheduler does.
    """
    found = scalar(
        tx,
        "INSERT INTO work.suggestion_batches (request_key, policy, requested, settings_id) "
        "VALUES (:key, :policy, :requested, (SELECT max(id) FROM work.selection_settings)) "
        "ON CONFLICT ON CONSTRAINT suggestion_batches_request_key DO NOTHING RETURNING id",
        key=request_key,
        policy=policy,
        requested=requested,
    )
    return None if found is None else int(found)


def batch_of_request(tx: Connection, request_key: str) -> tuple[str, list[dict[str, Any]]]:
    """Policy and suggestions of the batch that this request key has made, in their order."""
    found = rows(
        tx,
        "SELECT b.policy, g.trial_id, s.name AS study, c.name AS candidate, g.reasons "
        "FROM work.suggestion_batches b LEFT JOIN work.suggestions g ON g.batch_id = b.id "
        "LEFT JOIN work.trials t ON t.id = g.trial_id LEFT JOIN work.studies s ON s.id = t.study_id "
        "LEFT JOIN work.candidates c ON c.id = t.candidate_id WHERE b.request_key = :key ORDER BY g.position",
        key=request_key,
    )
    if not found:
        raise NotFoundError(kind="batch of suggestions for request", name=request_key)
    keys = ("trial_id", "study", "candidate", "reasons")
    return found[0].policy, [{k: r._mapping[k] for k in keys} for r in found if r.trial_id is not None]


def add_suggestion(
    tx: Connection, *, batch_id: int, position: int, trial_id: int, reasons: Mapping[str, Any], reserve_seconds: float
) -> None:
    """Put a trial on a batch and reserve it for whoever asked."""
    change(
        tx,
        "INSERT INTO work.suggestions (batch_id, position, trial_id, reasons) "
        "VALUES (:batch_id, :position, :trial_id, CAST(:reasons AS jsonb))",
        batch_id=batch_id,
        position=position,
        trial_id=trial_id,
        reasons=as_json(reasons),
    )
    change(
        tx,
        "UPDATE work.trials SET lease_until = now() + make_interval(secs => :seconds) WHERE id = :id",
        id=trial_id,
        seconds=reserve_seconds,
    )


def suggestions_of_trial(tx: Connection, trial_id: int) -> list[dict[str, Any]]:
    """Every time the trial was handed out, oldest first: its batch, the settings behind it, and the reasons."""
    found = rows(
        tx,
        "SELECT b.id AS batch_id, g.position, b.requested, b.created_at, b.policy, b.settings_id, s.config, g.reasons "
        "FROM work.suggestions g JOIN work.suggestion_batches b ON b.id = g.batch_id "
        "LEFT JOIN work.selection_settings s ON s.id = b.settings_id WHERE g.trial_id = :id ORDER BY b.id",
        id=trial_id,
    )
    return [dict(r._mapping) for r in found]


def outcome_of_trial(tx: Connection, trial_id: int) -> dict[str, Any]:
    """What the trial told, and the best that its study had on the same data when it ended, both None before.

    ``reevaluates`` is the trial whose model it measured anew; None where it trained one itself.
    """
    (found,) = rows(tx, _OUTCOME, id=trial_id)
    return dict(found._mapping)


_OUTCOME = """
SELECT o.quality, t.cost_seconds, t.reevaluates, (
  SELECT max(b.quality) FROM work.observations b JOIN work.trials x ON x.id = b.trial_id
  WHERE x.study_id = t.study_id AND x.data_version_id = t.data_version_id
  AND (x.finished_at, x.id) < (t.finished_at, t.id)) AS best_before
FROM work.trials t LEFT JOIN work.observations o ON o.trial_id = t.id WHERE t.id = :id
"""

"""What the referee has released, as rows: test sets' public side, verdicts, readings, promotions, alerts.

Only symbols stand here; counts, levels and intervals are in ``sealed`` (``easeml_core.store.sealed``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import Model, SealedSetPurpose, Symbol
from easeml_core.store.database import notify
from easeml_core.store.rows import change, row, rows, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection


def public_test_sets(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """What everybody may know of the study's sealed sets, newest first."""
    found = rows(
        tx,
        "SELECT id, purpose, state, rows, steps, plan FROM work.test_sets WHERE study_id = :id ORDER BY id DESC",
        id=study_id,
    )
    return [dict(r._mapping) for r in found]


def live_test_set(tx: Connection, study_id: int, purpose: SealedSetPurpose, *, lock: bool = False) -> Any | None:
    """Row of the study's live sealed set for this purpose, locked until the transaction ends when asked."""
    return row(
        tx,
        "SELECT id, rows, steps, plan FROM work.test_sets WHERE study_id = :id AND purpose = :purpose "
        "AND state = 'live'" + (" FOR UPDATE" if lock else ""),
        id=study_id,
        purpose=purpose,
    )


def hold_study(tx: Connection, study_id: int) -> None:
    """Keep other referees off the study's sealed sets and production until the transaction ends.

    The lock is on rows that no worker may lock, so that nobody can make the referee wait.
    """
    rows(tx, "SELECT id FROM work.test_sets WHERE study_id = :id ORDER BY id FOR UPDATE", id=study_id)


def retire_test_set(tx: Connection, test_set_id: int) -> None:
    """End the life of a sealed set: no further answer will come from it."""
    change(
        tx,
        "UPDATE work.test_sets SET state = 'retired', retired_at = now() WHERE id = :id AND state = 'live'",
        id=test_set_id,
    )


def production_model(tx: Connection, study_id: int) -> Model | None:
    """The study's model in production, or None."""
    found = row(
        tx,
        "SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss FROM work.production p "
        "JOIN work.models m ON m.id = p.model_id WHERE p.study_id = :id",
        id=study_id,
    )
    return None if found is None else Model(**found._mapping)


def add_verdict(
    tx: Connection,
    *,
    request_id: int,
    study_id: int,
    model_id: int,
    incumbent_id: int,
    test_set_id: int,
    step: int,
    symbol: Symbol,
    planned: bool,
    cached: bool,
) -> None:
    """Release one symbol; ``planned`` says that it is about the condition sealed with the set."""
    change(
        tx,
        "INSERT INTO work.gate_verdicts (request_id, study_id, model_id, incumbent_id, test_set_id, step, symbol, "
        "planned, cached) VALUES (:request_id, :study_id, :model_id, :incumbent_id, :test_set_id, :step, :symbol, "
        ":planned, :cached)",
        request_id=request_id,
        study_id=study_id,
        model_id=model_id,
        incumbent_id=incumbent_id,
        test_set_id=test_set_id,
        step=step,
        symbol=symbol,
        planned=planned,
        cached=cached,
    )


def get_verdict(tx: Connection, request_id: int) -> dict[str, Any] | None:
    """The released verdict of a request, or None."""
    found = row(
        tx,
        "SELECT v.study_id, v.model_id, v.incumbent_id, v.step, t.steps, v.symbol, v.planned, v.cached "
        "FROM work.gate_verdicts v JOIN work.test_sets t ON t.id = v.test_set_id WHERE v.request_id = :id",
        id=request_id,
    )
    return None if found is None else dict(found._mapping)


def add_reading(
    tx: Connection,
    *,
    request_id: int,
    study_id: int,
    model_id: int,
    test_set_id: int,
    step: int,
    signal: int | None,
    signals: int,
    cached: bool,
) -> None:
    """Release one signal, or that the set was retired instead (None)."""
    change(
        tx,
        "INSERT INTO work.meter_readings (request_id, study_id, model_id, test_set_id, step, signal, signals, cached) "
        "VALUES (:request_id, :study_id, :model_id, :test_set_id, :step, :signal, :signals, :cached)",
        request_id=request_id,
        study_id=study_id,
        model_id=model_id,
        test_set_id=test_set_id,
        step=step,
        signal=signal,
        signals=signals,
        cached=cached,
    )


def get_reading(tx: Connection, request_id: int) -> dict[str, Any] | None:
    """The released reading of a request with the plan of its set, or None."""
    found = row(
        tx,
        "SELECT r.signal, r.signals, r.step, t.steps, t.plan, r.cached, a.message AS alert FROM work.meter_readings r "
        "JOIN work.test_sets t ON t.id = r.test_set_id LEFT JOIN work.alerts a ON a.request_id = r.request_id "
        "WHERE r.request_id = :id",
        id=request_id,
    )
    return None if found is None else dict(found._mapping)


def add_promotion(tx: Connection, *, request_id: int, study_id: int, model_id: int, gate_request_id: int) -> int:
    """Record a promotion and move the production pointer; without a recorded pass the schema refuses."""
    promotion_id = int(
        scalar(
            tx,
            "INSERT INTO work.promotions (request_id, study_id, model_id, gate_request_id) "
            "VALUES (:request_id, :study_id, :model_id, :gate_request_id) RETURNING id",
            request_id=request_id,
            study_id=study_id,
            model_id=model_id,
            gate_request_id=gate_request_id,
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


def add_alert(tx: Connection, *, study_id: int, study: str, request_id: int, message: str) -> None:
    """Record an alert and wake whoever watches the study, or all studies."""
    change(
        tx,
        "INSERT INTO work.alerts (study_id, request_id, message) VALUES (:study_id, :request_id, :message)",
        study_id=study_id,
        request_id=request_id,
        message=message,
    )
    announce_alert(tx, study)


def announce_alert(tx: Connection, study: str) -> None:
    """Wake whoever watches the alerts of the study, or of all studies (topic ``alert:*``)."""
    notify(tx, f"alert:{study}")
    notify(tx, "alert:*")


def list_alerts(
    tx: Connection, study_id: int | None, *, after_id: int = 0, open_only: bool = False
) -> list[dict[str, Any]]:
    """Alerts of one study, or of all, with an id above ``after_id``; oldest first."""
    found = rows(
        tx,
        "SELECT a.id AS alert_id, s.name AS study, a.message, a.created_at, a.cleared_at, r.signal, r.signals, "
        "r.model_id FROM work.alerts a JOIN work.meter_readings r ON r.request_id = a.request_id "
        "JOIN work.studies s ON s.id = a.study_id WHERE (a.study_id = :id OR CAST(:id AS bigint) IS NULL) "
        "AND a.id > :after AND (a.cleared_at IS NULL OR NOT :open_only) ORDER BY a.id",
        id=study_id,
        after=after_id,
        open_only=open_only,
    )
    return [dict(r._mapping) for r in found]


def clear_alert(tx: Connection, alert_id: int) -> bool:
    """Mark an alert as dealt with; False when it was already, or is unknown."""
    return bool(
        change(
            tx,
            "UPDATE work.alerts SET cleared_at = now() WHERE id = :id AND cleared_at IS NULL",
            id=alert_id,
        )
    )

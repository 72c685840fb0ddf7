"""The referee's view of what a study's sealed sets have said, and at which price. Not for developers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easeml_core.store.tables import ledger, studies

if TYPE_CHECKING:
    from easeml_core.store.database import Store


def study_ledger(store: Store, *, study: str) -> list[dict[str, Any]]:
    """Every answer of the study's sealed sets, oldest first, as plain JSON.

    Args:
        store: Role ``easeml_referee``.
        study: The study.

    Returns:
        ``{"test_set_id", "test_set", "purpose", "set_state", "system", "step", "steps", "system_step", "system_steps",
        "request_id", "model_id", "incumbent_id", "condition", "verdict", "released", "is_change", "level", "log_level",
        "log_cost", "decided_at", "answered_at", "isolation", "report"}`` each. ``step`` counts the answers of
        gate and meter on the set together, ``system_step`` those of ``system`` alone. ``level`` is the chance of error
        that the test was allowed; ``log_cost`` is the answer's price in nats, by which it lowers the logarithm of all
        later levels; ``answered_at`` is None while the answer waits for its time; ``isolation`` says what the model was
        kept from when it ran.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        found = ledger.study_ledger(tx, studies.get_study(tx, study).id)
    return [shown_entry(entry) for entry in found]


def shown_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of ``store.ledger`` as plain JSON, with the keys of ``study_ledger``."""
    report, log_level = entry["report"], entry["log_level"]
    is_gate = entry["system"] == ledger.GATE
    return {
        "test_set_id": entry["test_set_id"],
        "test_set": entry["test_set"],
        "purpose": entry["purpose"],
        "set_state": entry["state"],
        "system": entry["system"],
        "step": entry["step"],
        "steps": entry["steps"],
        "system_step": entry["system_step"],
        "system_steps": entry["system_steps"],
        "request_id": entry["request_id"],
        "model_id": report.get("model_id"),
        "incumbent_id": report.get("incumbent_id"),
        "condition": report.get("condition"),
        "verdict": report.get("verdict") if is_gate else entry["answer"],
        "released": entry["answer"],
        "is_change": entry["is_change"],
        "level": math.exp(log_level),
        "log_level": log_level,
        "log_cost": entry["log_cost"],
        "decided_at": entry["decided_at"].isoformat(),
        "answered_at": None if entry["answered_at"] is None else entry["answered_at"].isoformat(),
        "isolation": entry["isolation"],
        "report": report,
    }

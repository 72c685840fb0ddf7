"""The referee moves the production pointer, on a recorded pass that is still about the model in production."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import Symbol
from easeml_core.errors import StateError
from easeml_core.store import models, releases, studies
from easeml_core.store.database import notify

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.requests import Request


def promote(tx: Connection, request: Request) -> str:
    """Answer a promotion request. The schema itself refuses a promotion without a recorded pass.

    Returns:
        The public message of the answer.

    Raises:
        StateError: The gate request has no pass for this model, or production has changed since that verdict.
    """
    study = studies.study_by_id(tx, request.study_id)
    releases.hold_study(tx, study.id)  # what stands now must still stand when this commits
    gate_request_id = int(request.arguments["gate_request_id"])
    model_id = request.model_id or 0
    verdict = releases.get_verdict(tx, gate_request_id)
    if verdict is None or (verdict["study_id"], verdict["model_id"]) != (study.id, model_id):
        message = f"gate request {gate_request_id} has no verdict on model {model_id} of study {study.name!r}"
        raise StateError(message)
    if verdict["symbol"] != Symbol.PASS:
        message = f"the gate answered {verdict['symbol']!r} for model {model_id}; only a pass may be promoted"
        raise StateError(message)
    if not verdict["planned"]:
        message = (
            f"gate request {gate_request_id} asked for another condition than the one sealed with the set; "
            "such a pass is advice: ask the gate again without a condition"
        )
        raise StateError(message)
    incumbent = releases.production_model(tx, study.id) or models.baseline_model(tx, study.id)
    if incumbent.id != verdict["incumbent_id"]:
        message = (
            f"model {incumbent.id} stands now, but the verdict compared with model {verdict['incumbent_id']}; "
            "ask the gate again"
        )
        raise StateError(message)
    releases.add_promotion(
        tx, request_id=request.id, study_id=study.id, model_id=model_id, gate_request_id=gate_request_id
    )
    notify(tx, f"study:{study.name}")
    return f"model {model_id} is in production for study {study.name}"

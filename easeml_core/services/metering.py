"""The referee's reading on one submission: how far the validation set flatters it, as one signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import MeterConfig
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.meter.budget import breach
from easeml_core.meter.path_adaptive import read_meter
from easeml_core.services.evaluation import sealed_predictions, validation_loss
from easeml_core.store import models, releases, sealed, studies
from easeml_core.store.database import notify

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import Model
    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.requests import Request

_RETIRED = "retired"


def meter(tx: Connection, artifacts: ArtifactStore, request: Request) -> str:
    """Answer a meter request: one signal, or the set's retirement when its guarantee would not hold any more.

    The same artifact is answered from the ledger and costs nothing.

    Returns:
        The public message of the answer.

    Raises:
        StateError: The study has no live meter set.
    """
    study = studies.study_by_id(tx, request.study_id)
    test_set = releases.live_test_set(tx, study.id, SealedSetPurpose.METER, lock=True)
    if test_set is None:
        message = f"study {study.name!r} has no live meter set; the referee must seal a new one"
        raise StateError(message)
    config = MeterConfig.from_json(test_set.plan)
    model = models.get_model(tx, study.id, request.model_id or 0)
    entry = sealed.cached_entry(tx, test_set.id, model.identity)
    if entry is None:
        step, signal = _read(tx, artifacts, request, test_set, config, model)
    else:
        step, signal = entry.step, None if entry.answer == _RETIRED else int(entry.answer)
    signals = len(config.ranges) + 1
    releases.add_reading(
        tx,
        request_id=request.id,
        study_id=study.id,
        model_id=model.id,
        test_set_id=test_set.id,
        step=step,
        signal=signal,
        signals=signals,
        cached=entry is not None,
    )
    alert = _alert(signal, config)
    if alert is not None:
        releases.add_alert(
            tx, study_id=study.id, study=study.name, request_id=request.id, message=f"{study.name}: {alert}"
        )
    notify(tx, f"study:{study.name}")
    return "the sealed set is retired" if signal is None else f"signal {signal} of {signals}"


def _alert(signal: int | None, config: MeterConfig) -> str | None:
    if signal is None:
        return "the sealed meter set is retired, it can give no further answer; the referee must seal a new one"
    return breach(signal, config)


def _read(
    tx: Connection, artifacts: ArtifactStore, request: Request, test_set: Any, config: MeterConfig, model: Model
) -> tuple[int, int | None]:
    """Use one step of the set: its number and the signal, None when the set is retired instead."""
    used, log_weight = sealed.spent(tx, test_set.id)
    loss = validation_loss(tx, artifacts, model)  # first: it is about open data, and nothing is spent if it fails
    predictions, failure = sealed_predictions(tx, artifacts, model, test_set.id)
    labels = sealed.sealed_labels(tx, test_set.id)
    errors = len(labels) if predictions is None else int(np.sum(predictions != labels))
    reading = read_meter(
        errors=errors, examples=len(labels), validation_loss=loss, config=config, log_weight=log_weight
    )
    report = reading.to_json() | {"errors": errors, "validation_loss": loss, "failure": failure, "model_id": model.id}
    sealed.add_entry(
        tx,
        test_set_id=test_set.id,
        step=used + 1,
        steps=test_set.steps,
        request_id=request.id,
        cache_key=model.identity,
        answer=_RETIRED if reading.signal is None else str(reading.signal),
        log_level=reading.log_level,
        log_cost=reading.log_cost,
        tolerance=reading.tolerance_now,
        report=report,
    )
    if reading.signal is None or used + 1 == test_set.steps:
        releases.retire_test_set(tx, test_set.id)
    return used + 1, reading.signal

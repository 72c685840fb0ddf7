"""After a validation set was replaced: models that are trained already are measured on the new one, one at a time.

Each measurement is a trial of the new version that names the one it measures anew, committed by itself: whoever is
killed loses the model that was running, and the next call goes on there. Nothing sealed takes part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.errors import ArtifactError, StateError
from easeml_core.services.evaluation import NotRunError, Preparation
from easeml_core.store import models, studies, validation
from easeml_core.store.database import lock, notify

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.validation import Waiting


@dataclass(frozen=True, slots=True)
class Measurement:
    """What became of one model.

    Attributes:
        waiting: The model.
        quality: On the newest validation part, in [0, 1]; None where it was not recorded.
        trial_id: The trial that says so; None where none was written.
        model_id: The model's row on the new version; None likewise.
        why: What was in the way; None where nothing was.
    """

    waiting: Waiting
    quality: float | None = None
    trial_id: int | None = None
    model_id: int | None = None
    why: str | None = None


def silent(_: str) -> None:
    """No log was asked for."""


def remeasure(
    store: Store, artifacts: ArtifactStore, study: str, *, log: Callable[[str], None] = silent
) -> dict[str, Any]:
    """Measure all models of a study that its newest validation part does not know; may be repeated, and interrupted.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        study: The study.
        log: Receives one line for each model.

    Returns:
        ``{"study", "version", "measured", "failed", "left", "under_way"}``: ``measured`` has ``{"candidate",
        "trial_id", "model_id", "quality", "before"}`` each, ``failed`` has ``{"candidate", "trial_id", "why"}``;
        ``left`` is how many models still wait, ``under_way`` how many trials on earlier data have not ended.

    Raises:
        NotFoundError: There is no such study, or it has no data yet.
    """
    with store.begin() as tx:
        study_id = studies.get_study(tx, study).id
        studies.latest_data_version(tx, study_id)
        wanted, _ = validation.count_waiting(tx, study_id)
    done: list[Measurement] = []
    failed: list[Measurement] = []
    while True:
        found = measure_next(store, artifacts, study_id=study_id, skip=[m.waiting.trial_id for m in failed])
        if found is None:
            break
        (done if found.why is None else failed).append(found)
        log(f"{_line(found)} ({len(done) + len(failed)} of {max(wanted, len(done) + len(failed))})")
    with store.begin() as tx:
        version = studies.latest_data_version(tx, study_id).version
        left, under_way = validation.count_waiting(tx, study_id)
    return {
        "study": study,
        "version": version,
        "measured": [_measured(m) for m in done if m.quality is not None],
        "failed": [
            {"candidate": m.waiting.candidate, "trial_id": m.waiting.trial_id, "why": m.why or ""} for m in failed
        ],
        "left": left,
        "under_way": under_way,
    }


def _line(found: Measurement) -> str:
    name = found.waiting.candidate
    if found.why is not None:
        return f"{name}: not measured, {found.why}"
    if found.quality is None:
        return f"{name}: measured by somebody else, or on data that were replaced meanwhile"
    return f"{name}: quality {found.quality:.4f}, was {found.waiting.quality:.4f}"


def _measured(found: Measurement) -> dict[str, Any]:
    return {
        "candidate": found.waiting.candidate,
        "trial_id": found.trial_id,
        "model_id": found.model_id,
        "quality": found.quality,
        "before": found.waiting.quality,
    }


def measure_next(
    store: Store, artifacts: ArtifactStore, *, study_id: int | None = None, skip: Collection[int] = ()
) -> Measurement | None:
    """Measure the best model that waits, and keep what it is worth; None where none waits.

    No transaction is open while the model runs. When it ends is no secret: its inputs are open.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        study_id: Of this study; None for all.
        skip: Trials whose models are passed over.

    Raises:
        StoreError: The database cannot be reached, or somebody was in the way; nothing was written.
    """
    with store.begin() as tx:
        found = validation.waiting_models(tx, study_id, skip=list(skip))
    if not found:
        return None
    waiting = found[0]
    ready, began = Preparation(store, artifacts), time.monotonic()
    ready.run(NotRunError(waiting.model, None))
    seconds = max(time.monotonic() - began, 1e-6)
    loss = ready.loss(waiting.model, waiting.artifact)
    if loss is None:
        error = ready.missing(waiting.model, None)
        if isinstance(error, NotRunError):  # the run was on newer data: what it said is not about these
            return Measurement(waiting)
        if isinstance(error, (StateError, ArtifactError)):
            return Measurement(waiting, why=str(error))
        raise error
    return _keep(store, waiting, quality=1.0 - loss, seconds=seconds)


def _keep(store: Store, waiting: Waiting, *, quality: float, seconds: float) -> Measurement:
    with store.begin() as tx:
        lock(tx, "suggest")  # so that no scheduler misses the trial
        trial_id = validation.add_remeasurement(tx, waiting, quality=quality, seconds=seconds)
        if trial_id is None:
            return Measurement(waiting)
        model_id = models.add_model(
            tx,
            study_id=waiting.model.study_id,
            data_version_id=waiting.data_version_id,
            trial_id=trial_id,
            format=waiting.model.format,
            artifact=waiting.model.artifact,
            validation_loss=1.0 - quality,
        )
        notify(tx, f"trial:{trial_id}")
        notify(tx, f"study:{waiting.study}")
    return Measurement(waiting, quality, trial_id, model_id)

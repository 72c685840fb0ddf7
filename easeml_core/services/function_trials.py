"""A trial with a tenant's own training function: the same lease, heartbeat, cost and record as any other trial."""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.services.leases import LOOK_SECONDS, silent
from easeml_core.services.trials import claim, explained, record_failure, record_success, trial_state
from easeml_core.training.child import score_on_validation
from easeml_core.training.formats import load_predictor, save_model
from easeml_core.training.function_models import predictor_of
from easeml_core.training.job import TrainingResult
from easeml_core.training.parts import load_open_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.services.leases import Lease, Log
    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.training.parts import OpenParts


def run_function_trial(
    store: Store,
    artifacts: ArtifactStore,
    *,
    trial_id: int,
    request_key: str,
    function: Callable[..., Any],
    log: Log = silent,
) -> dict[str, Any]:
    """Run a trial with ``function(data, parameters, report)`` in place of the candidate's own trainer.

    Runs in this process, so its limits are the task's (``execution_timeout``), not the study's. Where a compute budget
    holds, ``report`` ends the function once its reservation is over, and no result counts that comes later.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models and data lie.
        trial_id: The trial.
        request_key: A retry with the same key takes over its own lease.
        function: Gets the open parts, the candidate's parameters, and ``report(step, quality)``; gives what
            ``function_models.predictor_of`` takes, such as a fitted scikit-learn classifier whose classes are the
            labels.
        log: Receives one line per piece of news.

    Returns:
        As ``run_trial``. An error of the function is a FAILED trial with its reason; a trial of another function is
        given back.

    Raises:
        NotFoundError: There is no such trial.
        TrialStateError: Another worker holds the trial, or has taken it over meanwhile.
    """
    named = getattr(function, "__name__", "")
    lease = claim(store, trial_id=trial_id, request_key=request_key, log=log, functions=(named,))
    if lease is not None:
        lease.begin_anew("a training function has no checkpoints")
        with tempfile.TemporaryDirectory(prefix="easeml-trial-") as folder, _heartbeat(lease):
            try:
                result = _fit(lease, load_open_parts(artifacts.path(lease.artifact)), function, Path(folder))
            except (TrainingError, ArtifactError) as error:
                record_failure(store, lease, explained(str(error), lease))
            else:
                record_success(store, artifacts, lease, result)
    return trial_state(store, trial_id=trial_id)


@contextlib.contextmanager
def _heartbeat(lease: Lease) -> Iterator[None]:
    """Beat, and look for a cancel, from a thread of its own while the function works in this one."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(min(lease.config.lease_seconds / 4, LOOK_SECONDS)):
            lease.should_stop()

    thread = threading.Thread(target=beat, name="easeml-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _fit(lease: Lease, data: OpenParts, function: Callable[..., Any], folder: Path) -> TrainingResult:
    def report(step: float, quality: float | None = None) -> None:
        told = {"step": float(step), "quality": math.nan if quality is None else float(quality)}
        if known := {name: value for name, value in told.items() if math.isfinite(value)}:
            lease.progress(known)
        if lease.cancelled or lease.lost:
            message = "cancelled"
            raise TrainingError(message)

    with _tenants_code("the training function raised"):
        returned = function(data, dict(lease.trial.parameters), report)
    path = folder / "model"
    with _tenants_code("what the training function returned cannot be used:"):
        predictor = predictor_of(returned, data, folder)
        score, quality, predictions = score_on_validation(lease.trial.kind, predictor, data, lease.metric)
        model_format = save_model(predictor, path)
    load_predictor(path, model_format)  # what the referee would refuse to load is refused now, with the reason
    return TrainingResult(quality, lease.age_seconds, path, model_format, np.asarray(predictions), score)


@contextlib.contextmanager
def _tenants_code(what: str) -> Iterator[None]:
    """Within this block anything may be raised, and all of it is a failed trial with a reason."""
    try:
        yield
    except (TrainingError, ArtifactError):
        raise
    except Exception as error:
        message = f"{what} {type(error).__name__}: {error}"
        raise TrainingError(message) from error

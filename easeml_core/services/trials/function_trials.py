"""Trials with a tenant's training function: the same lease, heartbeat, cost and record as for any other trial."""

from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.parts import load_open_parts
from easeml_core.entities import FailureKind
from easeml_core.errors import ArtifactError, TrainingError, TrainingTaskError, TrialStateError
from easeml_core.files import scratch_folder
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.services.selection.executors import executors_of
from easeml_core.services.trials.devices import announced, claimed_of, require_room
from easeml_core.services.trials.execution import (
    attempts,
    explained,
    is_of_machine,
    kind_of,
    putting_off,
    record_failure,
    record_success,
    train,
    trial_state,
)
from easeml_core.services.trials.interruption import handing_back
from easeml_core.services.trials.lease import LOOK_SECONDS, silent
from easeml_core.training.child import score_on_validation
from easeml_core.training.devices import NO_CLAIM, shown
from easeml_core.training.function_models import predictor_of
from easeml_core.training.job import TrainingResult
from easeml_core.training.supervisor import never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import Trial
    from easeml_core.services.selection.executors import Executors
    from easeml_core.services.trials.interruption import TimeLimit
    from easeml_core.services.trials.lease import Lease, Log
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.trials import TrialReport
    from easeml_core.training.devices import Claim

OF_TASK = (ImportError, SyntaxError, NameError, AttributeError, KeyError, OSError)
"""Errors of a function that are its code's or its worker's fault: a package, a name, a column or a file is missing. All
others may be caused by the candidate's parameters."""


def run_routed_trial(
    store: Store,
    artifacts: ArtifactStore,
    *,
    trial_id: int,
    request_key: str,
    executors: Executors,
    log: Log = silent,
    slot: str | None = None,
    most_devices: int | None = None,
    should_stop: Callable[[], bool] = never,
    time_limit: TimeLimit | None = None,
) -> TrialReport:
    """Run a trial with its candidate's implementation: one of some training functions, or a trainer of this package.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models and data lie.
        trial_id: The trial.
        request_key: A retry with the same key takes over its own lease.
        executors: The functions, and whether the trainers are available too.
        log: Receives one line per piece of news.
        slot: What the trainers train on, as in ``run_trial``; functions choose for themselves.
        most_devices: How many devices the caller holds; None for as many as the trial asks for.
        should_stop: Asked five times a second, also from another thread; True ends the training and hands the trial
            back, which counts as no attempt. A function ends when it calls ``report``.
        time_limit: Of the caller, which is ended by its exception; None for none.

    Returns:
        As ``run_trial``. A trial without an implementation here is given back, and one that is stopped is handed back:
        SUGGESTED.

    Raises:
        ConfigError: The slot is none, or the trial asks for more devices.
        StateError: This machine has no GPU for the slot, or fewer than the trial asks for.
        DevicesHeldError: Others hold the GPUs; the trial stays as it is.
        NotFoundError: There is no such trial.
        TrialStateError: Another worker holds the trial, or has taken it over meanwhile.
    """
    trial = require_room(store, trial_id=trial_id, slot=slot, most_devices=most_devices)
    with claimed_of(trial, slot=slot, log=log, should_stop=should_stop) as claim:
        if claim is not None:
            given: dict[str, Any] = {"executors": executors, "log": log, "slot": slot, "should_stop": should_stop}
            _run_routed(store, artifacts, trial, request_key=request_key, claim=claim, time_limit=time_limit, **given)
    return trial_state(store, trial_id=trial_id)


def _run_routed(
    store: Store,
    artifacts: ArtifactStore,
    trial: Trial,
    *,
    request_key: str,
    executors: Executors,
    log: Log,
    slot: str | None,
    should_stop: Callable[[], bool],
    time_limit: TimeLimit | None,
    claim: Claim,
) -> None:
    for lease in attempts(
        store,
        artifacts,
        trial_id=trial.id,
        request_key=request_key,
        log=log,
        executors=executors,
        should_stop=should_stop,
    ):
        try:
            with (
                handing_back(lease, request_key, should_stop, time_limit=time_limit),
                announced(store, device=trial.device, holder=request_key, slot=slot, claim=claim, log=log),
            ):
                execute(store, artifacts, lease, executors, slot=slot, claim=claim)
        except TrialStateError:
            if not lease.handed_back:
                raise
        if lease.handed_back:
            break


def execute(
    store: Store,
    artifacts: ArtifactStore,
    lease: Lease,
    executors: Executors,
    *,
    slot: str | None = None,
    claim: Claim = NO_CLAIM,
) -> None:
    """Train the trial of a lease with its candidate's implementation, and record its end."""
    if lease.trial.function is None:
        train(store, artifacts, lease, slot=slot, claim=claim)
    else:
        with shown(claim):
            _run_function(store, artifacts, lease, executors.functions[lease.trial.function])


def run_function_trial(
    store: Store,
    artifacts: ArtifactStore,
    *,
    trial_id: int,
    request_key: str,
    function: Callable[..., Any],
    log: Log = silent,
    dag_version: str | None = None,
    should_stop: Callable[[], bool] = never,
    time_limit: TimeLimit | None = None,
) -> TrialReport:
    """Run a trial with ``function(data, parameters, report)``, if its candidate names that function.

    Runs in this process, so its limits are the task's (``execution_timeout``), not the study's. Where a compute budget
    holds, ``report`` ends the function once its reservation is over, and no result counts that comes later.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models and data lie.
        trial_id: The trial.
        request_key: A retry with the same key takes over its own lease.
        function: Receives the open parts, the candidate's parameters, and ``report(step, quality)``; returns what
            ``function_models.predictor_of`` accepts, such as a fitted scikit-learn classifier whose classes are the
            labels.
        log: Receives one line per piece of news.
        dag_version: Version of the DAG bundle that holds the function; None where it has none.
        should_stop: As in ``run_routed_trial``.
        time_limit: Likewise.

    Returns:
        As ``run_trial``. An error of the function is a FAILED trial with its reason; a trial of any other candidate is
        given back.

    Raises:
        InvalidInputError: The function has no name.
        NotFoundError: There is no such trial.
        TrialStateError: Another worker holds the trial, or has taken it over meanwhile.
    """
    executors = executors_of([function], trainers=False, dag_version=dag_version)
    return run_routed_trial(
        store,
        artifacts,
        trial_id=trial_id,
        request_key=request_key,
        executors=executors,
        log=log,
        should_stop=should_stop,
        time_limit=time_limit,
    )


def _run_function(store: Store, artifacts: ArtifactStore, lease: Lease, function: Callable[..., Any]) -> None:
    """Run the function under the lease, and record the end of its trial; a full disk puts it off, as in ``train``."""
    lease.begin_anew("a training function has no checkpoints")
    with putting_off(store, lease), scratch_folder("trial") as folder, _heartbeat(lease):
        try:
            data = _data(artifacts, lease)
            lease.begun = True
            result = _fit(lease, data, function, Path(folder))
        except (TrainingError, ArtifactError) as error:
            if is_of_machine(error):
                raise
            # A model that no file format can hold is the candidate's failure, not that of a missing file.
            kind = kind_of(error) if isinstance(error, TrainingError) else FailureKind.CANDIDATE
            record_failure(store, lease, explained(str(error), lease), kind=kind)
        else:
            record_success(store, artifacts, lease, result)


def _data(artifacts: ArtifactStore, lease: Lease) -> OpenParts:
    """Return the open parts; a failure to read them is not the candidate's."""
    try:
        with artifacts.of_tenant(lease.tenant).staged(lease.artifact) as data:
            return load_open_parts(data.path)
    except ArtifactError as error:
        if is_of_machine(error):  # also of the network: the store is not an address that a tenant gave
            raise
        raise TrainingTaskError(str(error)) from error


@contextlib.contextmanager
def _heartbeat(lease: Lease) -> Iterator[None]:
    """Beat, and look for a cancel, from a separate thread while the function works in this one."""
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
        values = {"step": float(step), "quality": math.nan if quality is None else float(quality)}
        if known := {name: value for name, value in values.items() if math.isfinite(value)}:
            lease.progress(known)
        if lease.cancelled or lease.lost:
            message = "cancelled"
            raise TrainingError(message)

    with _tenants_code("the training function raised", of_task=OF_TASK):
        returned = function(data, dict(lease.trial.parameters), report)
    path = folder / "model"
    with _tenants_code("what the training function returned cannot be used:"):
        predictor = predictor_of(returned, data, folder)
        score, quality, predictions = score_on_validation(lease.trial.kind, predictor, data, lease.metric)
        model_format = save_model(predictor, path)
    load_predictor(path, model_format)  # a file that the referee would refuse is refused now, with the reason
    return TrainingResult(quality, lease.age_seconds, path, model_format, np.asarray(predictions), score)


@contextlib.contextmanager
def _tenants_code(what: str, *, of_task: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn any exception within this block into a failed trial with a reason.

    Errors of the kinds ``of_task`` are the task's, unless they are also value errors: scikit-learn's NotFittedError is
    an AttributeError.
    """
    try:
        yield
    except (TrainingError, ArtifactError):
        raise
    except Exception as error:
        message = f"{what} {type(error).__name__}: {error}"
        is_of_task = isinstance(error, of_task) and not isinstance(error, ValueError)
        raise (TrainingTaskError if is_of_task else TrainingError)(message) from error

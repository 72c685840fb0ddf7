"""One attempt at a trial with its candidate's implementation, which it may end before the training does.

A tenant's training function has the same lease, heartbeat, cost and record as a trainer of this package. A living
worker gives an attempt up when it is stopped from outside, or when its caller's time is over. A stop hands the trial
back, and does not count. The end of the caller's time counts where the attempt has trained and has recorded no
checkpoint: what hangs is tried ``max_attempts`` times, each of which goes on from the last checkpoint, and is a failure
of its task then, which may be tried again. No candidate is used up by it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.parts import load_open_parts
from easeml_core.entities import FailureKind, TrialState
from easeml_core.errors import ArtifactError, EasemlError, TrainingError, TrainingTaskError, TrialStateError
from easeml_core.files.local import scratch_folder
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.services.selection.executors import executors_of
from easeml_core.services.trials.devices import announced, claimed_of, require_room
from easeml_core.services.trials.execution import (
    STOP_SECONDS,
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
from easeml_core.services.trials.lease import LOOK_SECONDS, silent
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.tables import leases, trials
from easeml_core.store.tables.leases import MOST_EXCUSED
from easeml_core.training.child import score_on_validation
from easeml_core.training.devices import NO_CLAIM, shown
from easeml_core.training.function_models import predictor_of
from easeml_core.training.job import TrainingResult
from easeml_core.training.supervisor import never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.data.parts import OpenParts
    from easeml_core.services.selection.executors import Executors
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
    """Run a trial with its candidate's implementation: one of some training functions, or a trainer of this package."""
    trial = require_room(store, trial_id=trial_id, slot=slot, most_devices=most_devices)
    how: dict[str, Any] = {"log": log, "should_stop": should_stop}
    with claimed_of(trial, slot=slot, **how) as claim:
        taken: dict[str, Any] = {"trial_id": trial_id, "request_key": request_key, "executors": executors}
        for lease in () if claim is None else attempts(store, artifacts, **taken, **how):
            held = claim or NO_CLAIM
            try:
                with (
                    handing_back(lease, request_key, should_stop, time_limit=time_limit),
                    announced(store, device=trial.device, holder=request_key, slot=slot, claim=held, log=log),
                ):
                    execute(store, artifacts, lease, executors, slot=slot, claim=held)
            except TrialStateError:
                if not lease.handed_back:
                    raise
            if lease.handed_back:
                break
    return trial_state(store, trial_id=trial_id)


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


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """Time of the caller, at whose end an exception is raised anywhere in its main thread, once.

    Attributes:
        error: Class of the exception.
        seconds: Wall seconds from the caller's beginning, > 0; waiting for room or for a device is a part of them.
        name: What messages call it, such as ``the task's execution_timeout``.
    """

    error: type[BaseException]
    seconds: float
    name: str

    def __str__(self) -> str:
        """Name it with its seconds."""
        return f"{self.name} ({self.seconds:,.0f} s)"


def hand_back(store: Store, *, trial_id: int, request_key: str, token: str | None = None, counts: bool = False) -> bool:
    """Give up an open trial of this key, so that the next caller gets it; False when this key has lost it.

    The attempt keeps its number, so that the next one can fence it off. A role that claims with a token shows it, and
    can lock no trial of another lease.
    """
    with store.begin() as tx:
        leases.show(tx, token)
        trial = trials.get_trial(tx, trial_id, lock=token is None)
        ours = trial.lease_key == request_key if trial.state == TrialState.RUNNING else True
        if trial.state not in (TrialState.SUGGESTED, TrialState.RUNNING) or not ours:
            return False
        if trial.cancel_requested:  # no other caller gets it
            leases.give_up(tx, trial_id)
        else:
            leases.release_lease(tx, trial_id, alive=not counts)
        notify(tx, f"trial:{trial_id}")
        notify_pages(tx, trial.study)
    return True


@contextlib.contextmanager
def handing_back(
    lease: Lease, request_key: str, should_stop: Callable[[], bool], *, time_limit: TimeLimit | None = None
) -> Iterator[None]:
    """Check from a thread whether to stop, and then hand the trial back; also when any exception is raised.

    The database comes first: the ended attempt can then record nothing, not even a failure. The exception of the time
    limit is passed on, unless the trial has ended: its result is the caller's then, as after any other end.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(STOP_SECONDS):
            if should_stop() and _give(lease, request_key):
                return

    if time_limit is not None:
        _compare(lease, time_limit)
    watcher = threading.Thread(target=watch, name="easeml-stop", daemon=True)
    watcher.start()
    try:
        yield
    except EasemlError:
        raise
    except BaseException as error:
        if time_limit is None or not isinstance(error, time_limit.error) or should_stop():
            _give(lease, request_key)
            raise
        _end(lease, request_key, time_limit)
        if not lease.ended:
            raise
    finally:
        done.set()
        watcher.join()


def _give(lease: Lease, request_key: str, *, counts: bool = False) -> bool:
    number = lease.trial.id
    try:
        if hand_back(lease.store, trial_id=number, request_key=request_key, token=lease.token, counts=counts):
            lease.handed_back = True
            lease.log(f"trial {number} is handed back: it is free for the next one that asks")
    except EasemlError as error:
        lease.log(f"trial {number} could not be handed back, its lease will run out instead: {error}")
        return False
    lease.lost = True
    return True


def _compare(lease: Lease, limit: TimeLimit) -> None:
    """Log where the study allows a training longer than the caller's time; a function has no limit but that."""
    if lease.trial.function is None and lease.time_limit_seconds > limit.seconds:
        lease.log(
            f"trial {lease.trial.id}: its study allows it {lease.time_limit_seconds:,.0f} s (time_limit_seconds), and "
            f"{limit} is shorter: a longer training is interrupted, and goes on from its last checkpoint if it has one"
        )


def _end(lease: Lease, request_key: str, limit: TimeLimit) -> None:
    """End the attempt at the end of the caller's time, or the trial where it was the last one that counts."""
    if not lease.ended:
        lease.beat()  # this process lives, and learns whether the trial is still its own
    if lease.ended or lease.lost:
        return
    why = f"attempt {lease.attempt} was ended after {lease.age_seconds:,.0f} s by {limit}"
    counts = (lease.begun and not lease.saved) or lease.trial.excused >= MOST_EXCUSED
    if lease.cancelled or (counts and lease.is_last_attempt):
        remedy = f"raise {limit.name} above the time of the training and of what it waits for"
        if lease.trial.function is None:
            remedy += f"; its study allows a training {lease.config.time_limit_seconds:,.0f} s (time_limit_seconds)"
        try:
            record_failure(lease.store, lease, f"{why}, and no attempt is left; {remedy}", kind=FailureKind.TASK)
        except EasemlError as error:
            lease.log(f"trial {lease.trial.id} could not be ended, its lease will run out instead: {error}")
        return
    counted = "it has recorded a checkpoint" if lease.begun else "its training had not begun"
    lease.log(f"trial {lease.trial.id}: {why}; " + ("it counts" if counts else f"it does not count, since {counted}"))
    _give(lease, request_key, counts=counts)

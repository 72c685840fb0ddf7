"""One trial from its claim to its end: lease, training in a child process, heartbeat, record. Nothing counts twice."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.data.parts import load_validation_labels
from easeml_core.entities import FailureKind, Trial, TrialState
from easeml_core.errors import (
    ArtifactError,
    Blame,
    InvalidInputError,
    TrainingCancelled,
    TrainingError,
    TrainingKilled,
    TrainingMachineError,
    TrainingTaskError,
    TrialStateError,
    blame_of,
    reason_of,
)
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.metrics.metric import wrong
from easeml_core.services.selection.executors import TRAINERS_ONLY
from easeml_core.services.telemetry import (
    ARTIFACT_BYTES,
    ARTIFACT_USES,
    START_SECONDS,
    TRIAL_SECONDS,
    TRIALS_ENDED,
    span,
)
from easeml_core.services.trials.devices import announced, claimed_of, require_room
from easeml_core.services.trials.lease import FINAL, Lease, claim, notify_trial, silent
from easeml_core.services.trials.rungs import Ladder
from easeml_core.settings.device_requests import DeviceRequest, request_of
from easeml_core.store.artifacts.disk import await_room
from easeml_core.store.artifacts.orphans import files_of, remove_ended
from easeml_core.store.database import lock_within, notify
from easeml_core.store.logins import needs_token
from easeml_core.store.tables import leases, models, scheduler_requests, trials
from easeml_core.store.tables.trials import CurvePoint, RungDecision, TrialLife
from easeml_core.training.devices import NO_CLAIM
from easeml_core.training.job import TrainingJob
from easeml_core.training.supervisor import run_job
from easeml_core.training.trainers import TRAINERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection

    from easeml_core.services.selection.executors import Executors
    from easeml_core.services.trials.lease import Log
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.trials import TrialReport
    from easeml_core.training.devices import Claim
    from easeml_core.training.job import TrainingResult

__all__ = [
    "FINAL",
    "STOP_SECONDS",
    "Lease",
    "TrialDetails",
    "attempts",
    "cancel_trial",
    "claim",
    "expire_leases",
    "explained",
    "finished_trial",
    "is_of_machine",
    "putting_off",
    "record_failure",
    "record_success",
    "run_trial",
    "silent",
    "train",
    "trial_details",
    "trial_state",
]

STOP_SECONDS = 0.2
"""Interval of the check whether a stoppable training must stop."""

PAUSES = (2.0, 5.0, 15.0, 30.0, 60.0, 120.0)
"""Seconds after a fault of this machine until the trial's next attempt here, by the number of the attempt."""

END_WAITS_MS = 5000
"""Longest time that the end of a trial waits for another one to be committed."""

_ROUNDING = 1e-6


def run_trial(
    store: Store,
    artifacts: ArtifactStore,
    *,
    trial_id: int,
    request_key: str,
    log: Log = silent,
    slot: str | None = None,
) -> TrialReport:
    """Train one suggested trial on this machine and record its result.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models and data lie.
        trial_id: The trial.
        request_key: A retry with the same key takes over its own lease; a finished trial is reported, not repeated.
        log: Receives one line per piece of news.
        slot: What to train on: ``cpu``, ``cuda`` or ``cuda:N``. None for the CPU where the trial was handed out for a
            device of the kind ``cpu``, else for a GPU if there is one.

    Returns:
        The trial's report. Its state is SUGGESTED where nothing here executes the trial: it is given back (``claim``).

    Raises:
        ConfigError: The slot is none of these, or one device, and the trial asks for several.
        StateError: The slot is a GPU, and there is none on this machine, or fewer than the trial asks for.
        DevicesHeldError: Others hold the GPUs; the trial stays as it is.
        NotFoundError: There is no such trial.
        TrialStateError: Another worker holds the trial, or has taken it over meanwhile.
    """
    trial = require_room(store, trial_id=trial_id, slot=slot)
    with claimed_of(trial, slot=slot, log=log) as claim:
        for lease in attempts(store, artifacts, trial_id=trial_id, request_key=request_key, log=log):
            with announced(store, device=trial.device, holder=request_key, slot=slot, claim=claim or NO_CLAIM, log=log):
                train(store, artifacts, lease, slot=slot, claim=claim or NO_CLAIM)
    return trial_state(store, trial_id=trial_id)


def attempts(
    store: Store,
    artifacts: ArtifactStore,
    *,
    trial_id: int,
    request_key: str,
    log: Log = silent,
    executors: Executors = TRAINERS_ONLY,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Lease]:
    """Yield one attempt after the other until one has ended the trial: a killed process ends only its attempt.

    While a disk that the training writes to has too little room, none begins: it would fail, and count.
    """
    take = partial(claim, store, trial_id=trial_id, request_key=request_key, log=log, executors=executors)
    folders = (artifacts.root, tempfile.gettempdir())
    while await_room(folders, log, should_stop) and (lease := take()) is not None:
        trial = lease.trial
        with span("easeml.trial", trial=trial.id, study=trial.study, candidate=trial.candidate, attempt=lease.attempt):
            yield lease
        if lease.ended:
            return


def train(
    store: Store, artifacts: ArtifactStore, lease: Lease, *, slot: str | None = None, claim: Claim = NO_CLAIM
) -> None:
    """Train the trial of a lease in a child process and record its end.

    Where the process was killed from outside and another attempt is left, nothing is recorded: the next claim, possible
    at once under the same request key, continues from the last checkpoint.
    """
    with putting_off(store, lease):
        _train(store, artifacts, lease, slot=slot, claim=claim)


@contextlib.contextmanager
def putting_off(store: Store, lease: Lease) -> Iterator[None]:
    """Hand the trial back after a fault of this machine's disk or system within this block, for any machine.

    This machine pauses before it claims the trial again. The last attempt is a failure of the task, not of the
    candidate.
    """
    try:
        yield
    except (OSError, ArtifactError, TrainingError) as error:
        if lease.ended or not is_of_machine(error):
            raise
        why = f"this machine cannot train now: {reason_of(error)}"
        if lease.is_last_attempt or lease.cancelled:
            record_failure(store, lease, why, kind=FailureKind.TASK)
        else:
            _put_off(lease, why)


def _put_off(lease: Lease, why: str) -> None:
    """Hand the trial back and pause, until the device is to stop or the time is over."""
    with lease.begin() as tx:
        trial = trials.get_trial(tx, lease.trial.id, lock=lease.token is None)  # a token's role locks no row
        if trial.state != TrialState.RUNNING or trial.attempt != lease.attempt:
            return  # another attempt has it, or it has ended: the next claim finds out
        leases.release_lease(tx, trial.id, alive=True)
        notify_trial(tx, trial)
    seconds = PAUSES[min(lease.attempt, len(PAUSES)) - 1]
    lease.log(f"trial {trial.id}: {why}; any machine may go on with it, this one tries again in {seconds:g} s")
    wake = time.monotonic() + seconds
    while not lease.lost and (left := wake - time.monotonic()) > 0:
        time.sleep(min(left, STOP_SECONDS))


def _train(store: Store, artifacts: ArtifactStore, lease: Lease, *, slot: str | None, claim: Claim) -> None:
    artifacts = artifacts.of_tenant(lease.tenant)
    with contextlib.ExitStack() as stack:
        try:
            data = stack.enter_context(artifacts.staged(lease.artifact, lease.staging))
        except TrainingCancelled as error:  # missing data is this worker's fault and not the candidate's
            record_failure(store, lease, str(error))
            return
        lease.staged_seconds = data.seconds
        ARTIFACT_USES.note(1, source="network" if data.fetched else "cache")
        ARTIFACT_BYTES.note(data.fetched)
        folder = stack.enter_context(scratch_folder("trial"))
        stack.callback(lease.finish_upload)
        resume, ladder = _resumed(stack, artifacts, lease), Ladder(lease)
        try:
            files = _files_of(stack, lease.trial, artifacts)
            job = _job(lease, data.path, Path(folder), files=files, slot=slot, claim=claim)
            lease.begun = True
            result = run_job(
                replace(job, resume=resume),
                on_progress=ladder.progress,
                should_stop=lease.should_stop,
                on_checkpoint=partial(lease.keep, artifacts),
                should_end=ladder.is_over,
            )
        except TrainingKilled as error:
            if not lease.is_last_attempt:
                lease.beat()  # this process lives, and knows when the attempt has ended
                lease.log(f"trial {lease.trial.id}: attempt {lease.attempt} is over, {error}")
                return
            record_failure(store, lease, explained(str(error), lease))
        except (TrainingError, ArtifactError) as error:
            if is_of_machine(error):
                raise
            record_failure(store, lease, explained(str(error), lease), kind=kind_of(error))
        else:
            counted = replace(result, cost_seconds=result.cost_seconds + data.seconds)
            record_success(store, artifacts, lease, counted)
    remove_ended(store, artifacts)


def _job(
    lease: Lease, data: Path, folder: Path, *, files: Mapping[str, Path], slot: str | None, claim: Claim
) -> TrainingJob:
    trial, config = lease.trial, lease.config
    request = request_of(trial.device) or DeviceRequest("")
    slot = slot or ("cpu" if request.kind == "cpu" else None)
    if claim.gpus and slot is not None:
        slot = "cuda"  # the child counts the GPUs that it sees, which are those of the claim
    return TrainingJob(
        kind=trial.kind,
        parameters=trial.parameters,
        data_path=data,
        output_dir=folder,
        seed=config.seed,
        time_limit_seconds=lease.time_limit_seconds,
        memory_limit_mb=config.memory_limit_mb,
        metric=lease.metric,
        device=slot,
        gpus=claim.gpus,
        devices=request.count,
        memory_parts=request.parts,
        distributed_backend=config.distributed_backend,
        checkpoint_seconds=config.checkpoint_seconds,
        patience=config.patience if config.early_stopping else None,
        mixed_precision=config.mixed_precision,
        files=files,
    )


def _resumed(stack: contextlib.ExitStack, artifacts: ArtifactStore, lease: Lease) -> Path | None:
    """Return the checkpoint's file, checked and private until the stack is left; None for the beginning."""
    if lease.checkpoint is None:
        return None
    try:
        files = files_of(artifacts, lease.trial.id)
        return stack.enter_context(files.copy(lease.checkpoint.reference))
    except ArtifactError as error:
        if is_of_machine(error) and not lease.is_last_attempt:  # the file may be there for the next attempt
            raise
        lease.begin_anew(str(error))
        return None


def _files_of(stack: contextlib.ExitStack, trial: Trial, artifacts: ArtifactStore) -> dict[str, Path]:
    """Return the files of the candidate, whose references are in its parameters, until the stack is left."""
    trainer = TRAINERS.get(trial.kind)
    found = {name: str(trial.parameters.get(name)) for name in (trainer.files if trainer else ())}
    return {name: stack.enter_context(artifacts.staged(reference)).path for name, reference in found.items()}


def explained(reason: str, lease: Lease) -> str:
    """Return the reason; when the compute budget cut the trial short, that instead."""
    if lease.lost and not lease.cancelled and math.isfinite(lease.reserved_seconds):
        return f"stopped: the {lease.reserved_seconds:,.1f} s that were reserved for it are over"
    if reason.startswith("out of time") and lease.is_cut_short:
        return (
            f"out of time: not finished after {lease.time_limit_seconds:.1f} s, which is what was reserved for it of "
            "its study's or tenant's compute budget; raise the budget with `easeml study set` or `easeml tenant set`"
        )
    return reason


def is_of_machine(error: Exception) -> bool:
    """Whether a fault of this machine that passes has ended an attempt, such as a full disk."""
    return isinstance(error, TrainingMachineError) or blame_of(error) is Blame.PASSING


def kind_of(error: Exception) -> FailureKind:
    """Return the kind of a failure: a file of the candidate that is missing here is the worker's fault."""
    return FailureKind.TASK if isinstance(error, TrainingTaskError | ArtifactError) else FailureKind.CANDIDATE


def record_failure(store: Store, lease: Lease, reason: str, *, kind: FailureKind = FailureKind.CANDIDATE) -> None:
    """End the trial as FAILED with its reason, or as CANCELLED when that was asked for.

    The cost of a failed candidate is kept. A failure of the task has none: its seconds are charged as lost, and the
    candidate may be tried again (``services/selection/retry.py``).
    """
    with lease.begin() as tx:
        if lease.cancelled:
            _finish(tx, lease, TrialState.CANCELLED, lease.age_seconds)
        else:
            _finish(tx, lease, TrialState.FAILED, lease.age_seconds, failure=reason, failure_kind=kind)
    lease.ended = True
    TRIALS_ENDED.note(1, state=TrialState.CANCELLED if lease.cancelled else TrialState.FAILED)


def record_success(store: Store, artifacts: ArtifactStore, lease: Lease, result: TrainingResult) -> None:
    """End the trial as SUCCEEDED: observation, model and validation predictions in one transaction."""
    if not 0 <= result.quality <= 1:  # the model, whose loss follows from it, would be refused in other words
        message = f"quality must be a number in [0, 1], which NaN is not, got {result.quality!r}"
        raise InvalidInputError(message)
    artifacts = artifacts.of_tenant(lease.tenant)
    artifact, loss = artifacts.put(result.artifact_path), _loss(artifacts, lease, result)
    with lease.begin() as tx:
        is_counted = _finish(
            tx,
            lease,
            TrialState.SUCCEEDED,
            result.cost_seconds,
            start_seconds=None if result.start_seconds is None else lease.weight * result.start_seconds,
            add_result=lambda: _add_model(tx, lease, result, artifact, loss),
        )
        if is_counted:
            _add_observation(tx, lease, result)
    lease.ended = True
    TRIALS_ENDED.note(1, state=TrialState.SUCCEEDED)
    TRIAL_SECONDS.note(result.cost_seconds)
    if result.start_seconds is not None:
        START_SECONDS.note(result.start_seconds)


def _loss(artifacts: ArtifactStore, lease: Lease, result: TrainingResult) -> float:
    """Return the share of validation rows that the model gets wrong, as gate and meter count, whatever the metric."""
    if lease.metric == lease.hit:
        return 1.0 - result.quality
    with artifacts.staged(lease.artifact) as data:
        labels = load_validation_labels(data.path)
    return float(wrong(lease.hit, labels, result.validation_predictions).mean())


def _finish(
    tx: Connection,
    lease: Lease,
    state: TrialState,
    seconds: float,
    *,
    start_seconds: float | None = None,
    failure: str | None = None,
    failure_kind: FailureKind | None = None,
    add_result: Callable[[], None] = lambda: None,
) -> bool:
    """End the trial with the cost of this attempt and of resumed work; False when that exceeded the reservation.

    ``add_result`` writes what belongs to an end that is counted, and does not depend on its time.
    """
    lease.forget(tx)
    cost = lease.cost_seconds(seconds)
    is_certain = _hold(tx, lease, 0.0 if failure_kind == FailureKind.TASK else cost, start_seconds or 0.0)
    if is_certain:  # written before others wait for this end
        add_result()
        _tell(tx, lease)
    _end_in_turn(tx)
    done = leases.finish_trial(
        tx,
        trial_id=lease.trial.id,
        attempt=lease.attempt,
        state=state,
        cost_seconds=cost,
        start_seconds=start_seconds,
        failure=failure,
        failure_kind=failure_kind,
        progress=lease.last_news,
    )
    assert done or not is_certain  # nothing but this transaction could change the trial
    if not is_certain:
        if done:
            add_result()
        else:
            _end_late(tx, lease, lease.weight * seconds + (start_seconds or 0.0))
        _tell(tx, lease)
    return done


def _hold(tx: Connection, lease: Lease, cost: float, start: float) -> bool:
    """Hold the trial's row, and return whether an end of this attempt is counted; False for a role that may not.

    Each end holds its trial first, then waits for other ends: no two wait for each other.
    """
    if needs_token(tx):
        return False
    trial = trials.get_trial(tx, lease.trial.id, lock=True)
    is_ours = trial.state == TrialState.RUNNING and trial.attempt == lease.attempt
    # The sum of ``finish_trial``, in its order: another one could be rounded otherwise.
    return is_ours and (trial.limit_seconds is None or trial.lost_seconds + cost + start <= trial.limit_seconds)


def _end_in_turn(tx: Connection) -> None:
    """Let other ends wait until this one is committed, where the role may hold them up.

    A scheduler takes ends in by their time: one that becomes visible after a later one makes it replay all trials.
    Where another end takes long, or was frozen, this one is written all the same: schedulers are slower, never wrong.
    From here on nothing is written but the end and what needs it: all other ends wait.
    """
    if not needs_token(tx):
        lock_within(tx, "end of a trial", END_WAITS_MS)


def _tell(tx: Connection, lease: Lease) -> None:
    """Write the last points of the curve, and notify who waits for the trial."""
    lease.tell(tx)
    notify_trial(tx, lease.trial)


def _add_observation(tx: Connection, lease: Lease, result: TrainingResult) -> None:
    cost = lease.cost_seconds(result.cost_seconds)
    models.add_observation(tx, trial_id=lease.trial.id, quality=result.quality, cost_seconds=cost, score=result.score)


def _add_model(tx: Connection, lease: Lease, result: TrainingResult, artifact: str, loss: float) -> None:
    trial = lease.trial
    model_id = models.add_model(
        tx,
        study_id=trial.study_id,
        data_version_id=trial.data_version_id,
        trial_id=trial.id,
        format=result.format,
        artifact=artifact,
        validation_loss=loss,
    )
    models.add_validation_predictions(tx, model_id, result.validation_predictions)
    notify(tx, f"study:{trial.study}")


def _end_late(tx: Connection, lease: Lease, seconds: float) -> None:
    """End an attempt that took more than was reserved for it.

    The excess is charged to no budget: it is the time of a worker that had lost its lease, for instance while frozen.
    """
    why = f"took {seconds:,.1f} s, and {lease.reserved_seconds:,.1f} s were reserved for it; its result is not counted"
    late = seconds > lease.reserved_seconds - _ROUNDING
    if not (late and leases.end_overrun(tx, trial_id=lease.trial.id, attempt=lease.attempt, why=why)):
        raise TrialStateError(lease.trial.id, "taken over by another attempt", f"RUNNING in attempt {lease.attempt}")


def trial_state(store: Store, *, trial_id: int) -> TrialReport:
    """Return the trial's state and result."""
    with store.begin() as tx:
        return trials.trial_report(tx, trial_id)


@typed_record
class TrialDetails(TrialLife):
    """A trial with its learning curve and the decisions at its rungs."""

    curve: tuple[CurvePoint, ...]
    rungs: tuple[RungDecision, ...]


def trial_details(store: Store, *, trial_id: int) -> TrialDetails:
    """Return the trial's report with its attempts, its last progress, its curve, and the decisions at its rungs."""
    with store.begin() as tx:
        life = row_of(trials.trial_life(tx, trial_id))
        return TrialDetails(**life, curve=trials.curve_of(tx, trial_id), rungs=trials.decisions_of(tx, trial_id))


def finished_trial(store: Store, *, trial_id: int) -> TrialReport | None:
    """Return the trial's report once it has ended, or None; for a sensor."""
    report = trial_state(store, trial_id=trial_id)
    return report if report.state in FINAL else None


def cancel_trial(store: Store, *, trial_id: int) -> TrialReport:
    """Cancel a waiting trial at once, a running one within two seconds; a finished one stays as it is."""
    with store.begin() as tx:
        trial = trials.get_trial(tx, trial_id)
        trials.request_cancel(tx, trial_id)
        notify_trial(tx, trial)
    scheduler_requests.wait_until_made(store, study_id=trial.study_id, trial_id=trial_id)
    return trial_state(store, trial_id=trial_id)


def expire_leases(store: Store) -> list[int]:
    """Take back the trials of silent workers and return their ids. The next suggestion hands them out again."""
    with store.begin() as tx:
        return leases.expire_leases(tx)

"""Take the lease of a trial, stating who executes it.

The role ``easeml_worker`` decides here, with the trial's row locked. A tenant's login or a device cannot lock it: the
database decides by the same rules (``work.claim_trial``), and grants a token.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from easeml_core.config import TrainingConfig
from easeml_core.entities import StudyState, TrialState, implementation_text
from easeml_core.errors import TrialStateError
from easeml_core.services.selection.executors import TRAINERS_ONLY
from easeml_core.services.trials.lease import Lease, silent
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.logins import needs_token
from easeml_core.store.tables import leases, studies, trials

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import Executor, Trial
    from easeml_core.services.selection.executors import Executors
    from easeml_core.services.trials.lease import Log
    from easeml_core.store.database import Store

FINAL = (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED)

_LEAST_SECONDS = 0.5


def claim(
    store: Store, *, trial_id: int, request_key: str, log: Log = silent, executors: Executors = TRAINERS_ONLY
) -> Lease | None:
    """Take the trial's lease, stating its executor.

    Args:
        store: Role ``easeml_worker``.
        trial_id: The trial.
        request_key: A retry with the same key takes over its own lease.
        log: Receives a line where the trial is given back.
        executors: The implementations of this worker.

    Returns:
        None when the trial has ended (also when this claim was one attempt too many), and where this worker cannot
        execute it: then it is SUGGESTED as before, and the next caller that has its implementation gets it.

    Raises:
        NotFoundError: There is no such trial.
        TrialStateError: Another worker holds the trial.
    """
    with store.begin() as tx:
        if needs_token(tx):
            return _claim_by_token(tx, store, trial_id, request_key, log, executors)
        trial = trials.get_trial(tx, trial_id, lock=True)
        study = studies.study_by_id(tx, trial.study_id)
        config = TrainingConfig.from_json(study.config["training"])
        if trial.state == TrialState.RUNNING:
            if trial.lease_key != request_key and not leases.lease_is_over(tx, trial_id):
                raise TrialStateError(trial_id, "RUNNING on another worker", "SUGGESTED")
            leases.release_lease(tx, trial_id)
            trial = trials.get_trial(tx, trial_id)  # less the time of the lost attempt
        if study.state is StudyState.ARCHIVED:  # its row was held when the study was archived
            trials.request_cancel(tx, trial_id)
            notify_trial(tx, trial)
        if trial.state in FINAL or study.state is StudyState.ARCHIVED:
            return None
        checkpoint = leases.checkpoint_of(tx, trial_id)
        left = _left(trial, checkpoint)
        if trial.cancel_requested or trial.counted_attempts >= config.max_attempts or left < _LEAST_SECONDS:
            why = (
                "lost workers used up what was reserved for it" if trial.counted_attempts < config.max_attempts else ""
            )
            leases.give_up(tx, trial_id, why=why)
            notify_trial(tx, trial)
            return None
        executor = executors.executor_of(trial)
        attempt = None if executor is None else _start(tx, trial, executor, request_key, config, checkpoint)
        if executor is None or attempt is None:
            leases.release_lease(tx, trial_id)
            notify_trial(tx, trial)
            log(given_back(trial_id, trial.study, trial.candidate, trial.implementation, executors))
            return None
        notify_pages(tx, trial.study)
        artifact = studies.data_artifact(tx, trial.data_version_id)
    return Lease(
        store=store,
        trial=trial,
        attempt=attempt,
        config=config,
        artifact=artifact,
        tenant=study.tenant,
        log=log,
        executor=executor,
        metric=study.metric,
        hit=study.hit,
        checkpoint=checkpoint,
        reserved_seconds=left,
    )


def _claim_by_token(
    tx: Connection, store: Store, trial_id: int, request_key: str, log: Log, executors: Executors
) -> Lease | None:
    """As ``claim``, for a tenant's login or a device: the database decides, and grants a token."""
    trial = trials.get_trial(tx, trial_id)
    study, checkpoint = studies.study_by_id(tx, trial.study_id), leases.checkpoint_of(tx, trial_id)
    executor = executors.executor_of(trial)
    if executor is not None:
        executor = _resuming(trial, executor, checkpoint)
    claimed = leases.claim_by_token(tx, trial_id=trial_id, lease_key=request_key, executor=executor)
    if claimed.outcome == "held":
        raise TrialStateError(trial_id, "RUNNING on another worker", "SUGGESTED")
    if claimed.outcome == "ended" and trial.state in FINAL:
        return None
    notify_trial(tx, trial)
    if claimed.outcome != "claimed" or executor is None:
        if claimed.outcome == "elsewhere":
            log(given_back(trial_id, trial.study, trial.candidate, trial.implementation, executors))
        return None
    trial = trials.get_trial(tx, trial_id)
    return Lease(
        store=store,
        trial=trial,
        attempt=trial.attempt,
        config=TrainingConfig.from_json(study.config["training"]),
        artifact=studies.data_artifact(tx, trial.data_version_id),
        tenant=study.tenant,
        log=log,
        executor=executor,
        metric=study.metric,
        hit=study.hit,
        checkpoint=checkpoint,
        reserved_seconds=_left(trial, checkpoint),
        token=claimed.token,
    )


def notify_trial(tx: Connection, trial: Trial) -> None:
    """Notify listeners of the trial and the pages of its study."""
    notify(tx, f"trial:{trial.id}")
    notify_pages(tx, trial.study)


def _start(
    tx: Connection,
    trial: Trial,
    executor: Executor,
    key: str,
    config: TrainingConfig,
    checkpoint: leases.Checkpoint | None,
) -> int | None:
    """Begin the next attempt; None where the store finds that the candidate names another implementation."""
    return leases.start_trial(
        tx,
        trial_id=trial.id,
        lease_key=key,
        lease_seconds=config.lease_seconds,
        executor=_resuming(trial, executor, checkpoint),
    )


def _resuming(trial: Trial, executor: Executor, checkpoint: leases.Checkpoint | None) -> Executor:
    """Return the executor, with the version of the code that wrote the checkpoint where that is another one."""
    before = (trial.executor_details or {}).get("code_version")
    is_other = checkpoint is not None and before not in (None, executor.code_version)
    return replace(executor, resumed_from=before) if is_other else executor


def given_back(trial_id: int, study: str, candidate: str, implementation: str, executors: object) -> str:
    """Return a sentence on why a trial was given back."""
    return (
        f"trial {trial_id} ({study}, {candidate}) is given back: only {implementation_text(implementation)} may train "
        f"it, and this task executes {executors}; the next task that asks and has it is handed the trial"
    )


def _left(trial: Trial, checkpoint: leases.Checkpoint | None) -> float:
    """Return the reservation less lost attempts and saved work; infinite where nothing limits the trial."""
    saved = checkpoint.seconds if checkpoint is not None else 0.0
    return math.inf if trial.limit_seconds is None else trial.limit_seconds - trial.lost_seconds - saved

"""One trial from its claim to its end: lease, training in a child process, heartbeat, record. Nothing counts twice."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.config import TrainingConfig
from easeml_core.entities import Trial, TrialState
from easeml_core.errors import (
    ArtifactError,
    ConcurrentUpdateError,
    StoreUnavailableError,
    TrainingError,
    TrialStateError,
)
from easeml_core.services.reservation import training_seconds
from easeml_core.store import models, studies, trials
from easeml_core.store.database import notify
from easeml_core.training.job import TrainingJob
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.training.job import TrainingResult

    Log = Callable[[str], None]

_LEAST_SECONDS = 0.5

FINAL = (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED)


def silent(_: str) -> None:
    """No log was asked for."""


@dataclass(slots=True)
class Lease:
    """The right of one attempt to end its trial: extended by heartbeats, lost in silence or with its reservation."""

    store: Store
    trial: Trial
    attempt: int
    config: TrainingConfig
    artifact: str
    log: Log
    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    lost: bool = False
    _progress: Mapping[str, Any] | None = None
    _beaten: float = field(default_factory=time.monotonic)

    @property
    def age_seconds(self) -> float:
        """Seconds since the trial was claimed, > 0."""
        return max(time.monotonic() - self.started, 1e-6)

    @property
    def reserved_seconds(self) -> float:
        """What this attempt may take of the reservation; infinite where nothing limits the trial."""
        limit = self.trial.limit_seconds
        return math.inf if limit is None else limit - self.trial.lost_seconds

    @property
    def time_limit_seconds(self) -> float:
        """Wall seconds of the training itself, > 0: the study's limit, or less where less is reserved."""
        return min(self.config.time_limit_seconds, training_seconds(self.reserved_seconds))

    def progress(self, news: Mapping[str, Any]) -> None:
        """Note progress; it is stored with the next heartbeat."""
        self._progress = news
        self.log(f"trial {self.trial.id}: " + ", ".join(f"{k} {v}" for k, v in news.items()))

    def should_stop(self) -> bool:
        """Beat when it is time; whether training is of no use any more."""
        if time.monotonic() - self._beaten >= self.config.lease_seconds / 4:
            self.beat()
        return self.cancelled or self.lost

    def beat(self) -> None:
        """Extend the lease; learn whether it was lost or a cancel was asked for."""
        self._beaten = time.monotonic()
        try:
            with self.store.begin() as tx:
                answer = trials.extend_lease(
                    tx,
                    trial_id=self.trial.id,
                    attempt=self.attempt,
                    lease_seconds=self.config.lease_seconds,
                    progress=self._progress,
                )
        except (StoreUnavailableError, ConcurrentUpdateError) as error:
            self.log(f"trial {self.trial.id}: heartbeat not stored, training goes on ({error})")
            return
        self.lost, self.cancelled = answer is None, bool(answer)


def run_trial(
    store: Store, artifacts: ArtifactStore, *, trial_id: int, request_key: str, log: Log = silent
) -> dict[str, Any]:
    """Train one suggested trial on this machine and record what came out.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models and data lie.
        trial_id: The trial.
        request_key: A retry with the same key takes over its own lease; a finished trial is reported, not repeated.
        log: Receives one line per piece of news.

    Returns:
        ``{"trial_id", "study", "candidate", "state", "quality", "cost_seconds", "failure", "model_id"}``.

    Raises:
        NotFoundError: There is no such trial.
        TrialStateError: Another worker holds the trial, or has taken it over meanwhile.
    """
    lease = claim(store, trial_id=trial_id, request_key=request_key, log=log)
    if lease is not None:
        train(store, artifacts, lease)
    return trial_state(store, trial_id=trial_id)


def claim(store: Store, *, trial_id: int, request_key: str, log: Log = silent) -> Lease | None:
    """Take the trial's lease, or None when the trial has ended (also when this claim was one attempt too many)."""
    with store.begin() as tx:
        trial = trials.get_trial(tx, trial_id, lock=True)
        config = TrainingConfig.from_json(studies.study_by_id(tx, trial.study_id).config["training"])
        if trial.state == TrialState.RUNNING:
            if trial.lease_key != request_key and not trials.lease_is_over(tx, trial_id):
                raise TrialStateError(trial_id, "RUNNING on another worker", "SUGGESTED")
            trials.release_lease(tx, trial_id)
            trial = trials.get_trial(tx, trial_id)  # what the lost attempt took is off its reservation
        if trial.state in FINAL:
            return None
        if trial.cancel_requested or trial.attempt >= config.max_attempts or _is_used_up(trial):
            why = "lost workers used up what was reserved for it" if trial.attempt < config.max_attempts else ""
            trials.give_up(tx, trial_id, why=why)
            notify(tx, f"trial:{trial_id}")
            return None
        attempt = trials.start_trial(tx, trial_id=trial_id, lease_key=request_key, lease_seconds=config.lease_seconds)
        artifact = studies.data_artifact(tx, trial.data_version_id)
    return Lease(store=store, trial=trial, attempt=attempt, config=config, artifact=artifact, log=log)


def _is_used_up(trial: Trial) -> bool:
    """Whether lost attempts left too little of the reservation for another one."""
    return trial.limit_seconds is not None and trial.limit_seconds - trial.lost_seconds < _LEAST_SECONDS


def train(store: Store, artifacts: ArtifactStore, lease: Lease) -> None:
    """Train the trial of a lease in a child process and record its end, good or bad."""
    with tempfile.TemporaryDirectory(prefix="easeml-trial-") as folder:
        job = TrainingJob(
            kind=lease.trial.kind,
            parameters=lease.trial.parameters,
            data_path=artifacts.path(lease.artifact),
            output_dir=Path(folder),
            seed=lease.config.seed,
            time_limit_seconds=lease.time_limit_seconds,
            memory_limit_mb=lease.config.memory_limit_mb,
        )
        try:
            result = run_job(job, on_progress=lease.progress, should_stop=lease.should_stop)
        except (TrainingError, ArtifactError) as error:
            record_failure(store, lease, explained(str(error), lease))
        else:
            record_success(store, artifacts, lease, result)


def explained(reason: str, lease: Lease) -> str:
    """The reason; when the compute budget cut the trial short, that instead."""
    if lease.lost and not lease.cancelled and math.isfinite(lease.reserved_seconds):
        return f"stopped: the {lease.reserved_seconds:,.1f} s that were reserved for it are over"
    if reason.startswith("out of time") and lease.time_limit_seconds < lease.config.time_limit_seconds:
        return (
            f"out of time: not finished after {lease.time_limit_seconds:g} s, which is what was reserved for it of its "
            "study's or tenant's compute budget; raise the budget with `easeml study set` or `easeml tenant set`"
        )
    return reason


def record_failure(store: Store, lease: Lease, reason: str) -> None:
    """End the trial as FAILED with its reason, or as CANCELLED when that was asked for; its cost is kept."""
    state = TrialState.CANCELLED if lease.cancelled else TrialState.FAILED
    with store.begin() as tx:
        done = trials.finish_trial(
            tx,
            trial_id=lease.trial.id,
            attempt=lease.attempt,
            state=state,
            cost_seconds=lease.age_seconds,
            failure=reason if state == TrialState.FAILED else None,
        )
        if not done:
            _end_late(tx, lease, lease.age_seconds)
        notify(tx, f"trial:{lease.trial.id}")


def record_success(store: Store, artifacts: ArtifactStore, lease: Lease, result: TrainingResult) -> None:
    """End the trial as SUCCEEDED: observation, model and validation predictions in one transaction."""
    artifact = artifacts.put(result.artifact_path)
    trial = lease.trial
    with store.begin() as tx:
        done = trials.finish_trial(
            tx,
            trial_id=trial.id,
            attempt=lease.attempt,
            state=TrialState.SUCCEEDED,
            cost_seconds=result.cost_seconds,
        )
        if not done:
            _end_late(tx, lease, result.cost_seconds)
            notify(tx, f"trial:{trial.id}")
            return
        models.add_observation(tx, trial_id=trial.id, quality=result.quality, cost_seconds=result.cost_seconds)
        model_id = models.add_model(
            tx,
            study_id=trial.study_id,
            data_version_id=trial.data_version_id,
            trial_id=trial.id,
            format=result.format,
            artifact=artifact,
            validation_loss=1.0 - result.quality,
        )
        models.add_validation_predictions(tx, model_id, result.validation_predictions)
        notify(tx, f"trial:{trial.id}")
        notify(tx, f"study:{trial.study}")


def _end_late(tx: Connection, lease: Lease, seconds: float) -> None:
    """End an attempt that took more than was reserved for it.

    What it took beyond that is no budget's, but that of a worker which had lost its lease: it may have been frozen.

    Raises:
        TrialStateError: The trial is not this attempt's any more.
    """
    why = f"took {seconds:,.1f} s, and {lease.reserved_seconds:,.1f} s were reserved for it; its result is not counted"
    late = seconds > lease.reserved_seconds
    if not (late and trials.end_overrun(tx, trial_id=lease.trial.id, attempt=lease.attempt, why=why)):
        raise TrialStateError(lease.trial.id, "taken over by another attempt", f"RUNNING in attempt {lease.attempt}")


def trial_state(store: Store, *, trial_id: int) -> dict[str, Any]:
    """What is known of the trial now, in the form that ``run_trial`` returns."""
    with store.begin() as tx:
        return models.trial_report(tx, trial_id)


def finished_trial(store: Store, *, trial_id: int) -> dict[str, Any] | None:
    """The trial's report once it has ended, or None: what a sensor looks at."""
    report = trial_state(store, trial_id=trial_id)
    return report if report["state"] in FINAL else None


def cancel_trial(store: Store, *, trial_id: int) -> dict[str, Any]:
    """Cancel a waiting trial at once, a running one at its next heartbeat; a finished one stays as it is."""
    with store.begin() as tx:
        trials.get_trial(tx, trial_id, lock=True)
        trials.request_cancel(tx, trial_id)
        notify(tx, f"trial:{trial_id}")
    return trial_state(store, trial_id=trial_id)


def expire_leases(store: Store) -> list[int]:
    """Take back the trials of workers that fell silent; their ids. The next suggestion hands them out again."""
    with store.begin() as tx:
        return trials.expire_leases(tx)

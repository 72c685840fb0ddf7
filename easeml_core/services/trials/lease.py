"""The lease of one attempt at a trial: how it is taken, kept by heartbeats, and the upload of its checkpoints.

The role ``easeml_worker`` decides on a claim here, with the trial's row locked. A tenant's login or a device cannot
lock it: the database decides by the same rules (``work.claim_trial``), and grants a token.

A heartbeat stores progress, points of the learning curve, and the newest checkpoint in one transaction, and only for
the attempt that holds the lease. Progress comes from the training process, which may run a tenant's code: invalid
values are dropped. Checkpoints are uploaded beside the training, so that slow storage delays no heartbeat and no
cancel; one that comes during an upload is skipped, since a newer one will follow. A lease that is no longer extended
ends in ``store/tables/leases.py`` (``expire_leases``).
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.entities import StudyState, TrialState, implementation_text
from easeml_core.errors import (
    ArtifactError,
    ConcurrentUpdateError,
    InvalidInputError,
    StoreUnavailableError,
    TrainingCancelled,
    TrialStateError,
)
from easeml_core.files.local import scratch_folder
from easeml_core.services.selection.executors import TRAINERS_ONLY
from easeml_core.services.studies.limits import training_seconds
from easeml_core.settings.config import TrainingConfig
from easeml_core.settings.device_requests import weight_of
from easeml_core.store.artifacts.orphans import files_of
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.logins import needs_token
from easeml_core.store.tables import leases, studies, trials
from easeml_core.store.tables.leases import Checkpoint
from easeml_core.store.tables.trials import MOST_STEPS, CurvePoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from easeml_core.entities import Executor, JsonObject, Trial
    from easeml_core.files.remote_file import Progress
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

    Log = Callable[[str], None]
    from easeml_core.services.selection.executors import Executors


class CheckpointUpload:
    """Uploads the checkpoints of one attempt.

    Args:
        files: Opens the storage; called in the thread that uploads.
    """

    def __init__(self, files: Callable[[], ArtifactStore]) -> None:
        self._files = files
        self._thread: threading.Thread | None = None
        self._kept: queue.SimpleQueue[Checkpoint | ArtifactError] = queue.SimpleQueue()

    def start(self, path: Path, seconds: float, progress: float) -> None:
        """Upload this file, unless an upload is under way or the file is gone: then a newer one will follow."""
        if self._thread is not None and self._thread.is_alive():
            return
        with contextlib.ExitStack() as held:
            # The writer may remove it at any time, and may put another one in its place: not in a folder of ours.
            same = Path(held.enter_context(scratch_folder("checkpoint"))) / "checkpoint"
            try:
                os.link(path, same, follow_symlinks=False)
            except FileNotFoundError:
                return
            self._thread = threading.Thread(
                target=self._put, args=(held.pop_all(), same, seconds, progress), name="easeml-keep", daemon=True
            )
            self._thread.start()

    def _put(self, held: contextlib.ExitStack, path: Path, seconds: float, progress: float) -> None:
        with held:
            try:
                self._kept.put(Checkpoint(self._files().put(path), seconds, progress))
            except ArtifactError as error:
                self._kept.put(error)

    def uploaded(self) -> Checkpoint | ArtifactError | None:
        """Return the checkpoint uploaded since the last call, or the error; None for neither."""
        return None if self._kept.empty() else self._kept.get()

    def discard(self, reference: str) -> None:
        """Remove a checkpoint that a newer one has replaced."""
        self._files().discard(reference)

    def join(self) -> None:
        """Wait for the present upload."""
        if self._thread is not None:
            self._thread.join()


LOOK_SECONDS = 1.0
"""Longest time until a cancel is seen; heartbeats of long leases are further apart."""

LONGEST_SILENCE_SECONDS = 30.0
"""Longest time between two heartbeats: a lost attempt is not charged for the time after its last one."""

_LOG_SECONDS = 1.0
_MOST_POINTS = 10_000  # between two heartbeats, whatever a process reports
_LEAST_SECONDS = 1e-3


def silent(_: str) -> None:
    """Log nothing."""


_UNSAID = ("progress", "step", "of", "checkpoint", "resumed")  # the note has them
_LONGEST_WORDS = 500


def line_of(news: JsonObject) -> str:
    """Return progress as a line for a log.

    Example:
        >>> line_of({"progress": 0.3, "note": "epoch 2 of 8", "quality": 0.91, "step": 2, "seconds_left": 61.7})
        'epoch 2 of 8, quality 0.91, about 62 s left'
        >>> line_of({"step": 1.0, "quality": 0.5})
        'step 1.0, quality 0.5'
    """
    if "note" not in news:
        return ", ".join(f"{name} {_short(value)}" for name, value in news.items())
    words = [str(news["note"])[:_LONGEST_WORDS]]
    for name, value in news.items():
        if name == "seconds_left":
            words += [f"about {value:,.0f} s left"] if _is_number(value) and value > 0 else []
        elif name == "checkpoint":
            words += ["checkpoint written"] if value else []
        elif name != "note" and name not in _UNSAID:
            words.append(f"{name.replace('_', ' ')} {_short(value)}")
    return ", ".join(words)


def is_last_step(news: JsonObject) -> bool:
    """Return whether it is the progress of the last step."""
    return news.get("of") is not None and news.get("step") == news.get("of")


def point_of(news: JsonObject, *, seconds: float) -> CurvePoint | None:
    """Return the point of a learning curve in this progress, or None.

    Example:
        >>> point_of({"step": 2, "of": 8, "quality": 0.91, "loss": float("nan")}, seconds=3.0)
        CurvePoint(step=2, of=8, quality=0.91, loss=None, seconds=3.0)
        >>> point_of({"step": 0.5, "quality": 0.91}, seconds=3.0) is None
        True
    """
    step, of = _whole(news.get("step")), _whole(news.get("of"))
    quality, loss = _number(news.get("quality")), _number(news.get("loss"))
    quality = quality if quality is not None and 0 <= quality <= 1 else None
    if step is None or not 1 <= step <= MOST_STEPS or (quality is None and loss is None):
        return None
    of = of if of is not None and step <= of < 2**31 else None
    return CurvePoint(step=step, of=of, quality=quality, loss=loss, seconds=min(seconds, 1e9))


def _is_number(value: Any) -> bool:
    """Return whether it is a finite number of a reasonable size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _whole(value: Any) -> int | None:
    return int(value) if _is_number(value) and int(value) == value else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if type(value) is float and not value.is_integer() else str(value)[:_LONGEST_WORDS]


@dataclass(slots=True)
class Lease:
    """One attempt at a trial.

    Attributes:
        store: Role ``easeml_worker``.
        trial: As it was when the attempt began.
        attempt: Its number; it fences off every earlier one.
        config: The study's settings of training.
        artifact: The open parts of the data.
        log: Receives one line per piece of news.
        executor: Its executor, as stated with the claim.
        metric: The study's metric.
        hit: The rule of gate and meter for a right answer.
        checkpoint: Where the attempt continues; None for the beginning.
        reserved_seconds: What this attempt may take of the reservation; infinite where nothing limits the trial.
        staged_seconds: Wall seconds of the reservation used to fetch the data.
        begun: Its training has begun.
        saved: It has recorded a checkpoint.
        cancelled: A user asked for the trial's end.
        lost: The trial is not this attempt's any more.
        ended: It was ended by this attempt.
        handed_back: This attempt has given it up, for the next caller.
        token: Of the lease, where the role of the store reports with one.
    """

    store: Store
    trial: Trial
    attempt: int
    config: TrainingConfig
    artifact: str
    tenant: str
    log: Log
    executor: Executor
    metric: str | None = None
    hit: str = "accuracy"
    checkpoint: Checkpoint | None = None
    reserved_seconds: float = math.inf
    staged_seconds: float = 0.0
    begun: bool = False
    saved: bool = False
    cancelled: bool = False
    lost: bool = False
    ended: bool = False
    handed_back: bool = False
    token: str | None = None
    started: float = field(default_factory=time.monotonic)
    last_news: JsonObject | None = None
    _points: list[CurvePoint] = field(default_factory=list)
    _saved: Checkpoint | None = None
    _kept: str | None = None
    _upload: CheckpointUpload | None = None
    _forgets: bool = False
    _beaten: float = field(default_factory=time.monotonic)
    _looked: float = field(default_factory=time.monotonic)
    _logged: float = -math.inf

    @property
    def age_seconds(self) -> float:
        """Seconds since the trial was claimed, > 0."""
        return max(time.monotonic() - self.started, 1e-6)

    @property
    def resumed_seconds(self) -> float:
        """Device seconds of the work that earlier attempts have done for this one."""
        return self.checkpoint.seconds if self.checkpoint is not None else 0.0

    @property
    def is_last_attempt(self) -> bool:
        """Whether the trial fails when this attempt is lost; one that a restart ends does not count."""
        return self.attempt - self.trial.excused >= self.config.max_attempts

    @property
    def is_cut_short(self) -> bool:
        """Whether less is reserved than the study would allow."""
        allowed = self.config.time_limit_seconds - self.resumed_seconds / self.weight
        return training_seconds(self.reserved_seconds / self.weight) < allowed

    @property
    def time_limit_seconds(self) -> float:
        """Wall seconds of the training itself, > 0: the study's limit for all the work, or the reservation."""
        allowed = self.config.time_limit_seconds - self.resumed_seconds / self.weight
        reserved = self.reserved_seconds / self.weight - self.staged_seconds
        return max(_LEAST_SECONDS, min(allowed, training_seconds(reserved)))

    @property
    def weight(self) -> float:
        """How many devices the trial holds, > 0."""
        return weight_of(self.trial.device)

    def cost_seconds(self, seconds: float) -> float:
        """Return the cost of the whole work, in device seconds, when this attempt has taken so many wall seconds."""
        return self.resumed_seconds + self.weight * seconds

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction of this attempt, which shows its token."""
        with self.store.begin() as tx:
            leases.show(tx, self.token)
            yield tx

    # -- progress of the training --------------------------------------------------------------------------------------

    def progress(self, news: JsonObject) -> None:
        """Record progress; it is stored with the next heartbeat. Of many steps a second, one is logged."""
        self.last_news = news
        point = point_of(news, seconds=self.cost_seconds(self.age_seconds))
        if point is not None and len(self._points) < _MOST_POINTS:
            self._points.append(point)
        if news.get("resumed") is False:
            self.begin_anew()
        now = time.monotonic()
        if "step" not in news or now - self._logged >= _LOG_SECONDS or is_last_step(news):
            self._logged = now
            self.log(f"trial {self.trial.id}: {line_of(news)}")

    def staging(self, news: Progress) -> None:
        """Log the progress of fetching the data, and stop when the trial was cancelled or lost."""
        self.log(f"trial {self.trial.id}: {news}")
        if self.should_stop():
            message = "cancelled while its data was staged"
            raise TrainingCancelled(message)

    def begin_anew(self, why: str = "") -> None:
        """Discard the checkpoint: its work counts as lost, from the next heartbeat on."""
        if self.checkpoint is not None:
            self.checkpoint, self._forgets = None, True
            if why:
                self.log(f"trial {self.trial.id}: beginning anew: {why}")

    def keep(self, artifacts: ArtifactStore, path: Path, seconds: float, progress: float) -> None:
        """Upload a checkpoint beside the training, and record it with a heartbeat; training goes on if that fails."""
        self._upload = self._upload or CheckpointUpload(partial(files_of, artifacts, self.trial.id))
        self._upload.start(path, self.weight * seconds, progress)

    def finish_upload(self) -> None:
        """Wait for the present upload, and record its checkpoint unless the trial has ended."""
        if self._upload is not None:
            self._upload.join()
            if not self.ended:
                self._record_uploaded(self._upload)

    def _record_uploaded(self, upload: CheckpointUpload) -> None:
        """Record an uploaded checkpoint, and remove the one before."""
        while (kept := upload.uploaded()) is not None:
            if isinstance(kept, ArtifactError):
                self.log(f"trial {self.trial.id}: checkpoint not kept, training goes on ({kept})")
                continue
            before, self._kept, self._saved = self._kept, kept.reference, kept
            self.beat()
            is_recorded = self._saved is None and not self.lost
            self.saved |= is_recorded
            if is_recorded and before not in (None, self._kept):
                upload.discard(str(before))  # of this attempt, and the row names a newer one

    # -- state of the trial --------------------------------------------------------------------------------------------

    def should_stop(self) -> bool:
        """Beat when it is time, and look for a cancel once a second; return whether training must stop."""
        if self._upload is not None:
            self._record_uploaded(self._upload)
        now = time.monotonic()
        if now - self._beaten >= min(self.config.lease_seconds / 4, LONGEST_SILENCE_SECONDS):
            self.beat()
        elif now - self._looked >= LOOK_SECONDS:
            self.look()
        return self.cancelled or self.lost

    def beat(self) -> None:
        """Extend the lease; learn whether it was lost or a cancel was asked for."""
        self._beaten = self._looked = time.monotonic()
        saved, count = self._saved, len(self._points)
        try:
            with self.begin() as tx:
                self.forget(tx)
                answer = leases.extend_lease(
                    tx,
                    trial_id=self.trial.id,
                    attempt=self.attempt,
                    lease_seconds=self.config.lease_seconds,
                    progress=self.last_news,
                    checkpoint=saved,
                )
                if answer is not None:
                    self.tell(tx)
        except (StoreUnavailableError, ConcurrentUpdateError) as error:
            self.log(f"trial {self.trial.id}: heartbeat not stored, training goes on ({error})")
            return
        except InvalidInputError as error:  # of the progress, for which the lease must not be lost
            self.last_news = None
            self._points.clear()
            self.log(f"trial {self.trial.id}: its news cannot be stored and is left out ({error})")
            return
        del self._points[:count]
        self._forgets = False
        if self._saved is saved:
            self._saved = None
        self.lost, self.cancelled = answer is None, bool(answer)

    def look(self) -> None:
        """Learn the same without a heartbeat: one short query."""
        self._looked = time.monotonic()
        try:
            with self.store.begin() as tx:
                wanted = leases.is_wanted(tx, trial_id=self.trial.id, attempt=self.attempt)
        except (StoreUnavailableError, ConcurrentUpdateError):
            self._looked = math.inf  # the next heartbeat reports it; until then do not wait for an absent database
            return
        self.lost, self.cancelled = wanted is None, wanted is False

    def forget(self, tx: Connection) -> None:
        """Record that the checkpoint is discarded; before anything else that this attempt writes."""
        if self._forgets:
            leases.forget_checkpoint(tx, trial_id=self.trial.id, attempt=self.attempt)

    def tell(self, tx: Connection) -> None:
        """Write the points of the curve that are not written yet, once the lease is confirmed."""
        trials.add_points(tx, self.trial.id, self._points)


FINAL = (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED)

_LEAST_RESERVED_SECONDS = 0.5


def claim(
    store: Store, *, trial_id: int, request_key: str, log: Log = silent, executors: Executors = TRAINERS_ONLY
) -> Lease | None:
    """Take the trial's lease, stating its executor."""
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
        if trial.cancel_requested or trial.counted_attempts >= config.max_attempts or left < _LEAST_RESERVED_SECONDS:
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

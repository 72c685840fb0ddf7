"""Run one training job in a child process, under limits, and take over what it made.

Whatever happens to the child ends as a TrainingError with one sentence first: that is the trial's reason.
"""

from __future__ import annotations

import json
import math
import queue
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import TrainingCancelled, TrainingError
from easeml_core.models.formats import FORMATS
from easeml_core.sandbox.child_protocol import STARTED, LineReader
from easeml_core.sandbox.process import Limits, run_child
from easeml_core.training.child import OUT_OF_MEMORY, PREDICTIONS, RESULT, is_distributed, memory_limit_of
from easeml_core.training.job import END, TrainingResult, checkpoint_name
from easeml_core.training.trainers import TRAINERS, trainer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.entities import JsonObject
    from easeml_core.training.job import TrainingJob

    OnCheckpoint = Callable[[Path, float, float], None]

_JOB = "job.json"
_RESULT_BYTES = 100_000
_LEAST_SECONDS = 0.001
_MOST_STEPS = 10**9
_MOST_NEWS = 1000
"""Most queued reports. A training that reports more at once blocks, so that the supervisor still checks its limits."""


def nowhere(path: Path, seconds: float, progress: float) -> None:
    """Discard a checkpoint."""


def never() -> bool:
    """Never request an early end."""
    return False


def run_job(
    job: TrainingJob,
    *,
    on_progress: Callable[[JsonObject], None],
    should_stop: Callable[[], bool],
    on_checkpoint: OnCheckpoint = nowhere,
    should_end: Callable[[], bool] = never,
    poll_seconds: float = 0.2,
) -> TrainingResult:
    """Train in a separate child process and wait for it.

    A network that ran out of memory is trained once more with batches of half the size, from its last checkpoint.

    Nothing of the child is left when this returns or raises; it also dies when this process or thread dies.
    """
    job.output_dir.mkdir(parents=True, exist_ok=True)
    (job.output_dir / END).unlink(missing_ok=True)  # of an earlier attempt in the same folder
    watch = _Watch(on_progress, should_stop, on_checkpoint, poll_seconds, should_end=should_end)
    try:
        watch.run(job)
    except TrainingError as error:
        smaller = _smaller(job, str(error), watch)
        if smaller is None:
            raise
        on_progress({"note": f"once more with batches of half the size, after {str(error).splitlines()[0]}"})
        _run_smaller(watch, smaller)
    cost, start = watch.cost_seconds, watch.start_seconds
    return read_result(job.output_dir, cost_seconds=cost, start_seconds=start)


def _smaller(job: TrainingJob, reason: str, watch: _Watch) -> TrainingJob | None:
    """The job with smaller batches, where that may help: it ran out of memory, and has batches."""
    if not reason.startswith(OUT_OF_MEMORY) or "batch_size" not in trainer_of(job.kind).rules:
        return None
    left = max(job.time_limit_seconds - watch.age_seconds, _LEAST_SECONDS)
    return replace(job, halved=True, resume=watch.newest or job.resume, time_limit_seconds=left)


def _run_smaller(watch: _Watch, job: TrainingJob) -> None:
    try:
        watch.run(job)
    except TrainingError as error:
        first, _, rest = str(error).partition("\n")
        if not first.startswith(OUT_OF_MEMORY):
            raise
        message = f"{first}; it was the second time, with batches of half the size"
        raise TrainingError(f"{message}\n{rest}".strip()) from error


class _Watch:
    """Waits for the children of one job, forwards their reports, and adds up their time."""

    def __init__(
        self,
        on_progress: Callable[[JsonObject], None],
        should_stop: Callable[[], bool],
        on_checkpoint: OnCheckpoint,
        poll_seconds: float,
        *,
        should_end: Callable[[], bool],
    ) -> None:
        self._on_progress, self._should_stop, self._on_checkpoint = on_progress, should_stop, on_checkpoint
        self._poll_seconds, self._should_end = poll_seconds, should_end
        self._started = time.monotonic()
        self._news: queue.SimpleQueue[tuple[float, JsonObject]] = queue.SimpleQueue()
        self._child_began: float | None = None  # until it has started
        self.start_seconds = 0.0
        self.newest: Path | None = None

    @property
    def age_seconds(self) -> float:
        """Wall seconds since the first child was started, > 0."""
        return max(time.monotonic() - self._started, 1e-6)

    @property
    def cost_seconds(self) -> float:
        """Wall seconds of the children from their libraries' import on, > 0."""
        return max(self.age_seconds - self.start_seconds, 1e-6)

    def run(self, job: TrainingJob) -> None:
        """Run a child to its end; what it has told is handed on also when that is a bad one."""
        (job.output_dir / RESULT).unlink(missing_ok=True)  # of an earlier attempt in the same folder
        job_path = job.output_dir / _JOB
        job_path.write_text(json.dumps(job.to_json()))
        try:
            self._run_child(job, job_path)
        except TrainingCancelled:
            raise
        except TrainingError:
            self._deliver(job)
            raise
        self._deliver(job)

    def _run_child(self, job: TrainingJob, job_path: Path) -> None:
        self._child_began = self.age_seconds
        copies = 1 + job.devices if is_distributed(job) else 1
        run_child(
            "easeml_core.training.child",
            [str(job_path)],
            cwd=job.output_dir,
            limits=Limits(job.time_limit_seconds, memory_limit_of(job), copies=copies),
            on_output=LineReader(self._take),
            on_poll=lambda: self._poll(job),
            poll_seconds=self._poll_seconds,
            threads=job.threads,
            device=job.device,
            gpus=job.gpus,
            loads=TRAINERS[job.kind].modules if job.kind in TRAINERS else (),  # the child says what is wrong
        )

    def _take(self, fields: JsonObject) -> None:
        """In the thread that reads; the time is that of the news, however late it is looked at."""
        if STARTED in fields:
            self._note_start()
            return
        if self._news.qsize() < _MOST_NEWS and is_storable(fields):
            self._news.put((self.cost_seconds, fields))

    def _note_start(self) -> None:
        """Of each child the first such line counts, which is written before any code of a tenant runs."""
        if self._child_began is not None:
            self.start_seconds += self.age_seconds - self._child_began
            self._child_began = None

    def _poll(self, job: TrainingJob) -> None:
        self._deliver(job)
        if self._should_stop():
            message = "cancelled"
            raise TrainingCancelled(message)
        if self._should_end():
            (job.output_dir / END).touch()

    def _deliver(self, job: TrainingJob) -> None:
        """Forward all reports, and the newest of several checkpoints after its report."""
        saved = None
        for _ in range(self._news.qsize()):
            seconds, fields = self._news.get()
            self._on_progress(fields)
            step, progress = fields.get("checkpoint"), fields.get("progress", -1.0)
            if type(step) is int and 1 <= step <= _MOST_STEPS and is_share(progress):
                saved = job.output_dir / checkpoint_name(step), seconds, float(progress)
        if saved is not None and saved[0].is_file() and not saved[0].is_symlink():
            self.newest = saved[0]
            self._on_checkpoint(*saved)


def is_storable(fields: JsonObject) -> bool:
    """Whether news hold numbers that a heartbeat can carry; those of our own trainers do.

    Example:
        >>> is_storable({"loss": 0.5}), is_storable({"loss": float("nan")})
        (True, False)
    """
    try:
        json.dumps(fields, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def is_share(value: object) -> bool:
    """Whether it is a number in [0, 1]; children tell what they like.

    Example:
        >>> is_share(0.5), is_share(True), is_share(float("nan")), is_share("1")
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def read_result(output_dir: Path, *, cost_seconds: float, start_seconds: float | None = None) -> TrainingResult:
    """What a child left in its folder, checked."""
    fields = _read_fields(output_dir / RESULT)
    quality: Any = fields.get("quality")
    artifact, model_format = fields.get("artifact"), fields.get("format")
    _demand(is_share(quality), f"quality must be a number from 0 to 1, got {quality!r}")
    _demand(model_format in FORMATS, f"the format must be one of {', '.join(FORMATS)}, got {model_format!r}")
    path = output_dir / str(artifact)
    is_ours = path.parent == output_dir and path.is_file() and not path.is_symlink()
    _demand(is_ours, "the model's file is not in the job's folder")
    predictions = _read_predictions(output_dir / PREDICTIONS)
    score, processor = _number(fields.get("score")), _number(fields.get("processor_seconds"))
    return TrainingResult(
        float(quality), cost_seconds, path, str(model_format), predictions, score, start_seconds, processor
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _demand(fits: bool, what: str) -> None:
    if not fits:
        message = f"the training process left no usable result: {what}"
        raise TrainingError(message)


def _read_fields(path: Path) -> JsonObject:
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(_RESULT_BYTES))
    except (OSError, ValueError) as error:
        message = f"the training process left no usable result: {RESULT} cannot be read ({error})"
        raise TrainingError(message) from error
    return fields if isinstance(fields, dict) else {}


def _read_predictions(path: Path) -> NDArray[Any]:
    try:
        predictions: Any = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        message = f"the training process left no usable result: {PREDICTIONS} cannot be read ({error})"
        raise TrainingError(message) from error
    types = {1: (np.int64, np.float64), 2: (np.float64,)}  # by dimensions
    are_rows = isinstance(predictions, np.ndarray) and predictions.dtype in types.get(predictions.ndim, ())
    fits = are_rows and np.isfinite(predictions).all()
    _demand(fits, f"{PREDICTIONS} must be whole numbers (int64), or finite ones (float64), one or several a row")
    return np.asarray(predictions)

"""Run one training job in a child process, under limits, and take over what it made.

Whatever happens to the child ends as a TrainingError with one sentence first: that is the trial's reason.
"""

from __future__ import annotations

import json
import math
import queue
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import TrainingCancelled, TrainingError
from easeml_core.training.child import PREDICTIONS, RESULT
from easeml_core.training.formats import FORMATS
from easeml_core.training.job import TrainingResult
from easeml_core.training.processes import Limits, run_child
from easeml_core.training.progress import LineReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.training.job import TrainingJob

_JOB = "job.json"
_RESULT_BYTES = 100_000


def run_job(
    job: TrainingJob,
    *,
    on_progress: Callable[[Mapping[str, Any]], None],
    should_stop: Callable[[], bool],
    poll_seconds: float = 0.2,
) -> TrainingResult:
    """Train in a child process of its own and wait for it.

    Args:
        job: What to train, where to write, and the limits.
        on_progress: Called in this thread with news: ``{"progress": 0.4, "note": "epoch 2 of 5", "quality": 0.9}``.
        should_stop: Called in this thread at least every ``poll_seconds``, news or not (a heartbeat fits here); True
            ends the job.
        poll_seconds: How often the child is looked at, > 0.

    Returns:
        The result; its files lie in ``job.output_dir``.

    Raises:
        TrainingError: If the child crashed, exceeded a limit, or gave no usable model; the first line is the reason.
        TrainingCancelled: If ``should_stop`` said so.

    Nothing of the child is left when this returns or raises; it also dies when this process or thread dies.
    """
    job.output_dir.mkdir(parents=True, exist_ok=True)
    (job.output_dir / RESULT).unlink(missing_ok=True)  # of an earlier attempt in the same folder
    job_path = job.output_dir / _JOB
    job_path.write_text(json.dumps(job.to_json()))
    news: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def deliver() -> None:
        while not news.empty():
            on_progress(news.get())

    def poll() -> None:
        deliver()
        if should_stop():
            message = "cancelled"
            raise TrainingCancelled(message)

    seconds = run_child(
        "easeml_core.training.child",
        [str(job_path)],
        cwd=job.output_dir,
        limits=Limits(job.time_limit_seconds, job.memory_limit_mb),
        on_output=LineReader(news.put),
        on_poll=poll,
        poll_seconds=poll_seconds,
        threads=job.threads,
    )
    deliver()
    return read_result(job.output_dir, cost_seconds=seconds)


def read_result(output_dir: Path, *, cost_seconds: float) -> TrainingResult:
    """What a child left in its folder, checked.

    Raises:
        TrainingError: If a file is missing or does not say what it must, e.g. a quality outside [0, 1].
    """
    fields = _read_fields(output_dir / RESULT)
    quality: Any = fields.get("quality")
    artifact, model_format = fields.get("artifact"), fields.get("format")
    is_number = isinstance(quality, int | float) and not isinstance(quality, bool) and math.isfinite(quality)
    _demand(is_number and 0 <= quality <= 1, f"quality must be a number from 0 to 1, got {quality!r}")
    _demand(model_format in FORMATS, f"the format must be one of {', '.join(FORMATS)}, got {model_format!r}")
    path = output_dir / str(artifact)
    is_ours = path.parent == output_dir and path.is_file() and not path.is_symlink()
    _demand(is_ours, "the model's file is not in the job's folder")
    predictions = _read_predictions(output_dir / PREDICTIONS)
    return TrainingResult(float(quality), cost_seconds, path, str(model_format), predictions)


def _demand(fits: bool, what: str) -> None:
    if not fits:
        message = f"the training process left no usable result: {what}"
        raise TrainingError(message)


def _read_fields(path: Path) -> dict[str, Any]:
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
    is_row = isinstance(predictions, np.ndarray) and predictions.ndim == 1
    fits = is_row and predictions.dtype in (np.int64, np.float64) and np.isfinite(predictions).all()
    _demand(fits, f"{PREDICTIONS} must be whole numbers (int64), or finite ones (float64), in one dimension")
    return np.asarray(predictions)

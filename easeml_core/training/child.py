"""The child that trains: ``python -m easeml_core.training.child PARENT_PID JOB.json``.

It reads the job, trains, validates and writes three files into the job's folder: the model, ``predictions.npy`` and,
last, ``result.json``, each whole or not at all. It never sees a sealed part, a database or a password.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import (
    Blame,
    EasemlError,
    InvalidInputError,
    TrainingError,
    TrainingKilled,
    TrainingTaskError,
    blame_of,
    reason_of,
)
from easeml_core.files.local import written_whole
from easeml_core.sandbox import child_protocol
from easeml_core.sandbox.child_protocol import report_to, silent, take_stdout, tell_started
from easeml_core.training.devices import detected_devices
from easeml_core.training.distributed import ALONE, NPROC, Group, launch
from easeml_core.training.job import Run, TrainingJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import JsonObject
    from easeml_core.models.formats import Predictor
    from easeml_core.sandbox.child_protocol import Report

MODEL, PREDICTIONS, RESULT = "model", "predictions.npy", "result.json"
OUT_OF_MEMORY = child_protocol.OUT_OF_MEMORY
"""How the reason of a job begins whose memory did not suffice."""

_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|failed to allocate", re.IGNORECASE)


def main(arguments: list[str]) -> None:
    """Run the job and end: status 0 with a result, ``REASON_STATUS`` with a reason."""
    child_protocol.prepare(int(arguments[0]))
    channel = take_stdout()

    def work(group: Group) -> None:
        with _reasoned():
            run(job, silent if group.rank else report_to(channel), group)

    with _reasoned():
        job = TrainingJob.from_json(json.loads(Path(arguments[1]).read_text()))
        load_libraries(job.kind)
        tell_started(channel)
    if is_distributed(job):
        launch(work, ranks=job.devices, folder=job.output_dir)
    else:
        work(ALONE)


def is_distributed(job: TrainingJob) -> bool:
    """Whether the child forks a rank for each device; programs start their own processes."""
    from easeml_core.training.trainers import TRAINERS

    return job.devices > 1 and job.kind in TRAINERS and TRAINERS[job.kind].joins_ranks


@contextmanager
def _reasoned() -> Iterator[None]:
    """End this process with a reason where the block fails in a way that is understood."""
    try:
        yield
    except EasemlError as error:
        of_task, passing = isinstance(error, TrainingTaskError), blame_of(error) is Blame.PASSING
        child_protocol.fail(str(error), killed=isinstance(error, TrainingKilled), of_task=of_task, passing=passing)
    except OSError as error:
        if blame_of(error) is not Blame.PASSING:
            raise
        child_protocol.fail(reason_of(error), passing=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = (str(error).strip() or "an array did not fit").splitlines()[0]
        child_protocol.fail(f"{OUT_OF_MEMORY}: {said.rstrip('.')}")


def load_libraries(kind: str) -> None:
    """Import what the kind's training needs; a fork of a server has imported it already.

    What is missing or unknown is the trainer's to say.
    """
    from easeml_core.training.trainers import TRAINERS

    for module in TRAINERS[kind].modules if kind in TRAINERS else ():
        with suppress(ImportError):
            importlib.import_module(module)


def run(job: TrainingJob, report: Report, group: Group = ALONE) -> None:
    """Train, validate, save; of several ranks the first alone validates and saves."""
    from easeml_core.data.parts import load_open_parts
    from easeml_core.metrics.metric import metric_of
    from easeml_core.models.formats import save_model
    from easeml_core.training.trainers import trainer_of

    began = time.process_time()
    trainer = trainer_of(job.kind)
    if job.devices > group.size:  # torchrun reads its arguments from such variables
        os.environ[NPROC] = str(job.devices)
    trainer.parameters(job.parameters)  # before the data, so that a mistyped name costs nothing
    if job.metric is not None:
        metric_of(job.metric)
    parts = load_open_parts(job.data_path)
    report(0.05, f"read {len(parts.train_labels):,} training rows")
    predictor = trainer.fit(parts, job.parameters, seed=job.seed, report=report, run=run_of(job, group))
    if group.rank:
        return
    score, quality, predictions = score_on_validation(job.kind, predictor, parts, job.metric)
    report(0.9, "validated", quality)
    model_format = save_model(predictor, job.output_dir / MODEL)
    _save_predictions(job.output_dir / PREDICTIONS, predictions)
    fields = {"quality": quality, "score": score, "artifact": MODEL, "format": model_format}
    fields["processor_seconds"] = time.process_time() - began
    _save_json(job.output_dir / RESULT, fields)
    report(1.0, "saved", quality, **peaks())


def memory_limit_of(job: TrainingJob) -> int:
    """Resident megabytes that a job may use: of each device, and at most its part of the host's memory on processors.

    The part of a GPU's memory is the child's to keep (``network_training``).
    """
    import psutil

    limit = job.memory_limit_mb
    if job.memory_parts > 1 and not detected_devices(job.device)[0].is_gpu:
        limit = min(limit, max(64, (psutil.virtual_memory().total >> 20) // job.memory_parts))
    return limit * job.devices


def run_of(job: TrainingJob, group: Group = ALONE) -> Run:
    """What a trainer may need to know of its job."""
    return Run(
        device=None if job.device is None else job.device.partition(":")[0],  # no other GPU is visible
        folder=job.output_dir,
        resume=job.resume,
        checkpoint_seconds=job.checkpoint_seconds,
        patience=job.patience,
        mixed_precision=job.mixed_precision,
        halved=job.halved,
        group=group,
        memory_parts=job.memory_parts,
        distributed_backend=job.distributed_backend,
        metric=job.metric,
        files=job.files,
        memory_limit_mb=memory_limit_of(job),
        threads=job.threads,
    )


def peaks() -> dict[str, float]:
    """The most memory this process ever held, in megabytes: ``peak_mb``, and of a GPU's ``gpu_peak_mb``."""
    found = {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    torch: Any = sys.modules.get("torch")  # a process that has not imported it has used no GPU
    if torch is not None and torch.cuda.is_available():
        found["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: of the machine or of a GPU, however the library says so."""
    said = str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(said) is not None)


def validate(
    kind: str, predictor: Predictor, parts: OpenParts, metric: str | None = None
) -> tuple[float, NDArray[Any]]:
    """Quality and predictions, as ``score_on_validation`` gives them."""
    return score_on_validation(kind, predictor, parts, metric)[1:]


def score_on_validation(
    kind: str, predictor: Predictor, parts: OpenParts, metric: str | None = None
) -> tuple[float, float, NDArray[Any]]:
    """What the model is worth on the validation part."""
    from easeml_core.entities import Task
    from easeml_core.metrics.metric import metric_of

    is_classes = parts.task == Task.CLASSIFICATION
    chosen = metric_of(metric or ("accuracy" if is_classes else "r2"))
    if (chosen.needs == "numbers") == is_classes:
        wanted, there = ("numbers", "classes") if is_classes else (chosen.needs, "numbers")
        message = f"the metric {chosen.name!r} is about {wanted}, the targets of these data are {there}"
        raise InvalidInputError(message)
    _require_finite(kind, predictor, parts)
    predictions = predictor.predict(parts.validation_inputs)
    chances = None
    if chosen.needs == "probabilities" and hasattr(predictor, "probabilities"):
        chances = predictor.probabilities(parts.validation_inputs, classes=parts.classes)
    score = chosen.score(parts.validation_labels, predictions, chances)
    return score, chosen.quality(score, chosen.scale_of(parts.validation_labels)), predictions


def _require_finite(kind: str, predictor: Predictor, parts: OpenParts) -> None:
    import numpy as np

    scores = predictor.scores(parts.validation_inputs).reshape(len(parts.validation_labels), -1)
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        message = f"{kind} gives scores that are not finite (NaN) on {broken:,} of {len(scores):,} validation rows"
        raise TrainingError(message)


def _save_predictions(path: Path, predictions: NDArray[Any]) -> None:
    import numpy as np

    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, predictions, allow_pickle=False)


def _save_json(path: Path, fields: JsonObject) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(fields))


if __name__ == "__main__":
    main(sys.argv[1:])

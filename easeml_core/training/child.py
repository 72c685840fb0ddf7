"""The child that trains: ``python -m easeml_core.training.child PARENT_PID JOB.json``.

It reads the job, trains, validates and writes three files into the job's folder: the model, ``predictions.npy`` and,
last, ``result.json``, each whole or not at all. It never sees a sealed part, a database or a password.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import EasemlError, TrainingError
from easeml_core.training import guard
from easeml_core.training.atomic import written_whole
from easeml_core.training.job import TrainingJob
from easeml_core.training.progress import report_to, take_stdout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from easeml_core.training.formats import Predictor
    from easeml_core.training.parts import OpenParts
    from easeml_core.training.progress import Report

MODEL, PREDICTIONS, RESULT = "model", "predictions.npy", "result.json"


def main(arguments: list[str]) -> None:
    """Run the job and end: status 0 with a result, ``guard.REASON_STATUS`` with a reason."""
    guard.prepare(int(arguments[0]))
    report = report_to(take_stdout())
    try:
        run(TrainingJob.from_json(json.loads(Path(arguments[1]).read_text())), report)
    except EasemlError as error:
        guard.fail(str(error))
    except MemoryError as error:
        guard.fail(f"out of memory: {error or 'an array did not fit'}")


def run(job: TrainingJob, report: Report) -> None:
    """Train, validate, save.

    Raises:
        EasemlError: If the job is not allowed, its data cannot be read, or the model is broken.
    """
    from easeml_core.training.formats import save_model
    from easeml_core.training.parts import load_open_parts
    from easeml_core.training.trainers import trainer_of

    trainer = trainer_of(job.kind)
    trainer.parameters(job.parameters)  # before the data, so that a mistyped name costs nothing
    parts = load_open_parts(job.data_path)
    report(0.05, f"read {len(parts.train_labels):,} training rows")
    predictor = trainer.fit(parts, job.parameters, seed=job.seed, report=report)
    quality, predictions = validate(job.kind, predictor, parts)
    report(0.9, "validated", quality)
    model_format = save_model(predictor, job.output_dir / MODEL)
    _save_predictions(job.output_dir / PREDICTIONS, predictions)
    _save_json(job.output_dir / RESULT, {"quality": quality, "artifact": MODEL, "format": model_format})
    report(1.0, "saved", quality)


def validate(kind: str, predictor: Predictor, parts: OpenParts) -> tuple[float, NDArray[np.int64]]:
    """Accuracy on the validation part, in [0, 1], and the predictions it comes from, shape (validation_rows,).

    Raises:
        TrainingError: If a score is not finite: the label chosen by it would mean nothing.
    """
    import numpy as np

    scores = predictor.scores(parts.validation_inputs).reshape(len(parts.validation_labels), -1)
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        message = f"{kind} gives scores that are not finite (NaN) on {broken:,} of {len(scores):,} validation rows"
        raise TrainingError(message)
    predictions = predictor.predict(parts.validation_inputs)
    return float((predictions == parts.validation_labels).mean()), predictions


def _save_predictions(path: Path, predictions: NDArray[np.int64]) -> None:
    import numpy as np

    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, predictions, allow_pickle=False)


def _save_json(path: Path, fields: dict[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(fields))


if __name__ == "__main__":
    main(sys.argv[1:])

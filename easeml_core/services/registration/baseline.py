"""The baseline of a study: one constant answer stands in as the old model while nothing is in production.

It is made once, of the first training part, and each further data version keeps it: were it made anew of what was fed
or switched off, whoever feeds could choose what the gate compares with.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.metrics.correctness import wrong
from easeml_core.models.formats import load_constant, save_constant
from easeml_core.store.tables import models

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.store.artifacts.local import ArtifactStore


def add_baseline(
    tx: Connection,
    artifacts: ArtifactStore,
    *,
    study_id: int,
    data_version_id: int,
    train_labels: NDArray[Any],
    validation_labels: NDArray[Any],
    hit: str,
) -> None:
    """Add the model that always answers the most frequent class of the training part, or the median of its numbers.

    Where an answer is several numbers, it is the median of each place in the row.

    Args:
        tx: Transaction of the referee's role.
        artifacts: Where the file goes.
        study_id: The study.
        data_version_id: The study's first version.
        train_labels: Shape (train_rows,): int64 in [0, classes), or numbers; or several, (train_rows, numbers).
        validation_labels: The same of the validation rows; the model's loss is measured on them.
        hit: What counts as right.
    """
    with tempfile.TemporaryDirectory(prefix="easeml-baseline-") as folder:
        path = Path(folder) / "baseline.json"
        save_constant(path, _answer(train_labels))
        answers = load_constant(path).predict(validation_labels)
        artifact = artifacts.put(path)
    loss = float(np.mean(wrong(hit, validation_labels, answers)))
    _add(tx, study_id=study_id, data_version_id=data_version_id, artifact=artifact, validation_loss=loss)


def keep_baseline(
    tx: Connection,
    artifacts: ArtifactStore,
    *,
    study_id: int,
    data_version_id: int,
    validation_labels: NDArray[Any],
    hit: str,
) -> None:
    """Add the study's baseline, unchanged, to a further data version.

    Args:
        tx: Transaction of the referee's role.
        artifacts: Where its file lies.
        study_id: The study.
        data_version_id: The version; it has none yet.
        validation_labels: As of ``add_baseline``.
        hit: What counts as right.

    Raises:
        ArtifactError: Its file is missing or was changed.
    """
    artifact = models.baseline_model(tx, study_id).artifact
    with artifacts.copy(artifact) as path:
        answers = load_constant(path).predict(validation_labels)
    loss = float(np.mean(wrong(hit, validation_labels, answers)))
    _add(tx, study_id=study_id, data_version_id=data_version_id, artifact=artifact, validation_loss=loss)


def _add(tx: Connection, **told: Any) -> None:
    models.add_model(tx, trial_id=None, format="constant", **told)


def _answer(labels: NDArray[Any]) -> int | float | tuple[float, ...]:
    if labels.dtype == np.int64:
        return int(np.bincount(labels).argmax())
    if labels.ndim == 1:
        return float(np.median(labels))
    unknown = np.isnan(labels).all(axis=0)  # such as the steps that only a series of another part has
    medians = np.nanmedian(np.where(unknown, 0.0, labels), axis=0)
    return tuple(float(number) for number in medians)

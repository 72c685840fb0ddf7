"""The baseline of a data version: the majority class stands in as the old model while nothing is in production."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.store import models
from easeml_core.training.formats import save_constant

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore


def add_baseline(
    tx: Connection,
    artifacts: ArtifactStore,
    *,
    study_id: int,
    data_version_id: int,
    train_labels: NDArray[Any],
    validation_labels: NDArray[Any],
) -> None:
    """Add the model that always answers the most frequent class of the training part.

    Versions with the same training part have the same file as their baseline.

    Args:
        tx: Transaction of the referee's role.
        artifacts: Where the file goes.
        study_id: The study.
        data_version_id: The version whose baseline it is; it has none yet.
        train_labels: int64, shape (train_rows,), in [0, classes).
        validation_labels: int64, shape (validation_rows,); the model's loss is measured on them.
    """
    majority = int(np.bincount(train_labels).argmax())
    with tempfile.TemporaryDirectory(prefix="easeml-baseline-") as folder:
        path = Path(folder) / "baseline.json"
        save_constant(path, majority)
        artifact = artifacts.put(path)
    models.add_model(
        tx,
        study_id=study_id,
        data_version_id=data_version_id,
        trial_id=None,
        format="constant",
        artifact=artifact,
        validation_loss=float(np.mean(validation_labels != majority)),
    )

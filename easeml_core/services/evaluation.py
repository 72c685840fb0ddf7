"""The referee runs models on sealed inputs: in a child process without labels, without database, each artifact once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import ArtifactError, StateError, TrainingError
from easeml_core.store import sealed, studies
from easeml_core.training.formats import load_constant
from easeml_core.training.parts import load_open_parts
from easeml_core.training.predict import predict_in_child
from easeml_core.training.sandbox import Sandbox, probe_isolation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.entities import Model
    from easeml_core.store.artifacts import ArtifactStore


def sealed_predictions(
    tx: Connection, artifacts: ArtifactStore, model: Model, test_set_id: int
) -> tuple[NDArray[np.int64] | None, str | None]:
    """What the model predicts on a sealed set, shape ``(n_examples,)``, or None and why it could not.

    A model that cannot be run on the inputs has failed on them: that is a property of the submission, not of the
    referee, so it is kept and counted like any other outcome.

    Raises:
        ArtifactError: The model's file is missing or was changed: nothing was learnt, nothing is spent.
    """
    known = sealed.known_predictions(tx, test_set_id, model.identity)
    if known is None:
        labels, failure = _run(artifacts, model, sealed.sealed_inputs(tx, test_set_id))
        isolation = None if model.format == "constant" else probe_isolation(Sandbox()).to_json()
        sealed.keep_predictions(tx, test_set_id, model.identity, labels=labels, failure=failure, isolation=isolation)
        return labels, failure
    return known


def validation_loss(tx: Connection, artifacts: ArtifactStore, model: Model) -> float:
    """0-1 loss of the model on the open validation part, measured by the referee: l(h, D_val), in [0, 1].

    The loss that a worker stored is not trusted here.

    Raises:
        StateError: The model cannot be run on the open validation part either; nothing of a sealed set is spent.
    """
    version = studies.latest_data_version(tx, model.study_id)
    with artifacts.copy(version.artifact) as path:
        parts = load_open_parts(path)
    labels, failure = _run(artifacts, model, parts.validation_inputs)
    if labels is None:
        message = f"model {model.id} cannot be run on the validation part ({failure}); train it again"
        raise StateError(message)
    return float(np.mean(labels != parts.validation_labels))


def _run(
    artifacts: ArtifactStore, model: Model, inputs: NDArray[np.float32]
) -> tuple[NDArray[np.int64] | None, str | None]:
    """Predictions of a model on a private copy of its file, or None and why it could not be run.

    A failure is tried once more, so that a busy machine is not taken for a broken model. A constant needs no child:
    its file is a line of JSON, and reading it runs nothing.
    """
    failure: str | None = None
    with artifacts.copy(model.artifact) as path:
        for _ in range(2):
            try:
                if model.format == "constant":
                    return load_constant(path).predict(inputs), None
                return predict_in_child(path, model.format, inputs), None
            except (TrainingError, ArtifactError) as error:
                failure = str(error)
    return None, failure

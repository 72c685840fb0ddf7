"""``infer``: map inputs to outputs with the model in production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import InvalidInputError, ShapeError, StateError
from easeml_core.store import releases, studies
from easeml_core.training.predict import predict_in_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store


def infer(
    store: Store, artifacts: ArtifactStore, *, study: str, inputs: Sequence[Sequence[float | None]]
) -> dict[str, Any]:
    """Class names of the inputs, by the study's model in production.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models lie.
        study: The study.
        inputs: Shape ``(n, n_features)``, n >= 1, features in the order of the study's data; None or NaN is missing.

    Returns:
        ``{"study", "model_id", "labels"}``.

    Raises:
        NotFoundError: There is no such study.
        StateError: No model is in production yet.
        InvalidInputError: The inputs are no table of numbers of the right width.
    """
    table = _table(inputs)
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        version = studies.latest_data_version(tx, found.id)
        names = studies.class_names(tx, version.id)
        model = releases.production_model(tx, found.id)
    if model is None:
        message = f"study {study!r} has no model in production yet; promote one first"
        raise StateError(message)
    if table.ndim != 2 or len(table) == 0 or table.shape[1] != version.features:
        raise ShapeError(name="inputs", got=table.shape, expected=f"(n >= 1, {version.features})")
    with artifacts.copy(model.artifact) as path:
        labels = predict_in_child(path, model.format, table)
    return {"study": study, "model_id": model.id, "labels": [names[i] for i in labels]}


def _table(inputs: Sequence[Sequence[float | None]]) -> NDArray[np.float32]:
    try:
        table = np.asarray(inputs, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"inputs must be rows of numbers, all of the same length; {error}"
        raise InvalidInputError(message) from error
    if (np.abs(table) > np.finfo(np.float32).max).any():
        message = "inputs must be numbers of at most 3.4e38 in size (models work with 32 bits); None or NaN is missing"
        raise InvalidInputError(message)
    return table.astype(np.float32)

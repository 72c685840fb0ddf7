"""What a model that is trained already is worth on another validation part, by its study's metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.data.parts import load_open_parts
from easeml_core.errors import EasemlError, StateError
from easeml_core.metrics.metric import METRICS, metric_of
from easeml_core.models.answers import probabilities_of
from easeml_core.models.predict import predict_in_child

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.entities import Model, Study
    from easeml_core.store.artifacts.local import ArtifactStore


def quality_on(artifacts: ArtifactStore, study: Study, model: Model, *, data: str, answers: NDArray[Any]) -> float:
    """Quality of the model on the validation part of some data, in [0, 1].

    Args:
        artifacts: Where models and data lie.
        study: Whose metric it is. A function of the tenant's is not called: it would run with the referee's rights.
        model: Run once more where the metric needs probabilities.
        data: Artifact with the open parts.
        answers: What the model has answered there, shape ``(n_examples,)``.

    Raises:
        StateError: The metric is a function of the tenant's, or the model has no score by it; says which.
        ArtifactError: A file is missing or was changed.
    """
    if study.metric not in METRICS and not study.metric.startswith("within:"):
        message = (
            f"quality is measured by {study.metric}, a function of the tenant's, which the referee does not run; the "
            "candidate is trained anew where that is wanted"
        )
        raise StateError(message)
    with artifacts.copy(data) as path:
        parts = load_open_parts(path)
    metric, chances = metric_of(study.metric), None
    try:
        if metric.needs == "probabilities":
            with artifacts.copy(model.artifact) as path:
                wanted = probabilities_of(parts.classes)
                chances = predict_in_child(path, model.format, parts.validation_inputs, wanted=wanted)
        score = metric.score(parts.validation_labels, answers, chances)
        return metric.quality(score, metric.scale_of(parts.validation_labels))
    except EasemlError as error:
        message = f"it has no score by {study.metric} on the validation part"
        raise StateError(message) from error

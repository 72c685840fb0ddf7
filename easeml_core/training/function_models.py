"""What a training function may return, as the predictor that is kept: an estimator, boosted trees, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from easeml_core.errors import InvalidInputError, TrainingError
from easeml_core.models.formats import save_model

if TYPE_CHECKING:
    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import Parameters
    from easeml_core.models.formats import Predictor
    from easeml_core.sandbox.child_protocol import Report

_ALLOWED = (
    "a fitted scikit-learn classifier, or regressor where numbers are predicted; a fitted model of LightGBM or "
    "XGBoost; or the path of a folder with a program that predicts (command.json)"
)


def predictor_of(returned: Any, parts: OpenParts, folder: Path) -> Predictor:
    """The model that a function returned."""
    if isinstance(returned, str | Path):
        return _program(Path(returned), parts, folder)
    if not hasattr(returned, "predict"):
        message = f"the training function must return {_ALLOWED}; got {type(returned).__name__}"
        raise TrainingError(message)
    return fitted_predictor(returned)


def fitted_predictor(model: Any) -> Predictor:
    """Return a fitted model in the form in which it is kept."""
    library = type(model).__module__.partition(".")[0]
    if library == "lightgbm":
        return _lightgbm(model)
    if library == "xgboost":
        return _xgboost(model)
    if not hasattr(model, "predict"):
        message = f"a model must be a fitted estimator of scikit-learn, LightGBM or XGBoost; got {type(model).__name__}"
        raise InvalidInputError(message)
    from sklearn.pipeline import Pipeline, make_pipeline

    from easeml_core.models.skops_format import PipelinePredictor

    return PipelinePredictor(model if isinstance(model, Pipeline) else make_pipeline(model))


def save_fitted(model: Any, path: str | Path) -> str:
    """Write a fitted model as a file that can be submitted: ``easeml submit PATH --format FORMAT``.

    The same model gives the same file, so that a CI job that trains the same model again repeats its submission. A
    model's own ``dump`` may write the time of day and addresses in memory.

    Args:
        model: A fitted scikit-learn estimator or pipeline whose classes are the labels 0, 1, 2, ...; or a fitted model
            of LightGBM or XGBoost.
        path: The file; replaced where it is there.

    Returns:
        The format: ``skops``, ``lightgbm`` or ``xgboost``.

    Raises:
        InvalidInputError: It has no method ``predict``.
        TrainingError: It is a model of boosted trees whose classes are not 0, 1, 2, ...
        OSError: The file cannot be written.
    """
    return save_model(fitted_predictor(model), Path(path))


def refuse_to_fit(kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report) -> NoReturn:
    """Refuse to fit a candidate of kind ``function``; only the function of a DAG trains it."""
    message = (
        "a candidate of kind function is trained by a function of a DAG: map a task made by @trial over the suggested "
        "trials in place of TrainTrialOperator; give such candidates a separate device, so that no other DAG "
        "receives them"
    )
    raise TrainingError(message)


def _program(source: Path, parts: OpenParts, folder: Path) -> Predictor:
    from easeml_core.training.command_training import packed_model

    if not source.is_dir():
        message = f"the training function returned the path {str(source)!r}, where there is no folder"
        raise TrainingError(message)
    return packed_model(source, folder / "program", parts)


def _lightgbm(returned: Any) -> Predictor:
    from easeml_core.models import lightgbm_format

    _require_labels(returned)
    booster = getattr(returned, "booster_", returned)
    return lightgbm_format.predictor_of(booster.model_to_string(num_iteration=-1).encode())


def _xgboost(returned: Any) -> Predictor:
    from easeml_core.models import xgboost_format

    _require_labels(returned)
    booster = returned.get_booster() if hasattr(returned, "get_booster") else returned
    return xgboost_format.predictor_of(bytes(booster.save_raw("json")))


def _require_labels(returned: Any) -> None:
    """Boosted trees are kept without the names of their classes, so these must be the labels: 0, 1, 2, ..."""
    classes = getattr(returned, "classes_", None)
    if classes is not None and not np.array_equal(classes, np.arange(len(classes))):
        message = (
            f"the model was fitted to the classes {np.asarray(classes).tolist()!r:.100}; fit it to the labels as they "
            "are, so that its classes are 0, 1, 2, ..., each with a training row"
        )
        raise TrainingError(message)

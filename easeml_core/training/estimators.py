"""The scikit-learn estimators behind the kinds of ``trainers``, each in a pipeline that takes missing values.

Imputing and scaling are learnt on the training part only. ``n_jobs`` stays 1: a trial's cost is compared with others'.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from easeml_core.entities import Parameters, Task
from easeml_core.models.skops_format import PipelinePredictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.sandbox.child_protocol import Report


class _Recipe(NamedTuple):
    """How a kind becomes an estimator.

    ``fixed`` holds settings that are not the user's. ``unit_targets``: its penalties are in the unit of the targets, so
    these are scaled to deviation 1 first, and its answers back.
    """

    estimator: type
    fixed: Parameters = MappingProxyType({})
    draws: bool = False
    scale: bool = False
    unit_targets: bool = False


# Brute force for neighbours, since search trees hold raw indices that could not be trusted when they come from a file.
_BRUTE = {"algorithm": "brute"}
_WHOLE = {"early_stopping": False}

_CLASSIFIERS: Mapping[str, _Recipe] = {
    "nearest_centroid": _Recipe(NearestCentroid, scale=True),
    "gaussian_naive_bayes": _Recipe(GaussianNB, scale=True),
    "logistic_regression": _Recipe(LogisticRegression, draws=True, scale=True),
    "linear_discriminant": _Recipe(LinearDiscriminantAnalysis, {"solver": "lsqr"}, scale=True),
    "linear_svm": _Recipe(LinearSVC, draws=True, scale=True),
    "rbf_svm": _Recipe(SVC, draws=True, scale=True),
    "nearest_neighbors": _Recipe(KNeighborsClassifier, _BRUTE, scale=True),
    "decision_tree": _Recipe(DecisionTreeClassifier, draws=True),
    "random_forest": _Recipe(RandomForestClassifier, draws=True),
    "extra_trees": _Recipe(ExtraTreesClassifier, draws=True),
    "hist_gradient_boosting": _Recipe(HistGradientBoostingClassifier, _WHOLE, draws=True),
    "multilayer_perceptron": _Recipe(MLPClassifier, draws=True, scale=True),
}
# An error within a tenth of the targets' deviation is free, for both machines (the library's default for one is 0).
_TUBE = {"epsilon": 0.1}

_REGRESSORS: Mapping[str, _Recipe] = {
    "ridge_regression": _Recipe(Ridge, draws=True, scale=True),
    "linear_svm": _Recipe(LinearSVR, _TUBE, draws=True, scale=True, unit_targets=True),
    "rbf_svm": _Recipe(SVR, _TUBE, scale=True, unit_targets=True),
    "nearest_neighbors": _Recipe(KNeighborsRegressor, _BRUTE, scale=True),
    "decision_tree": _Recipe(DecisionTreeRegressor, draws=True),
    "random_forest": _Recipe(RandomForestRegressor, draws=True),
    "extra_trees": _Recipe(ExtraTreesRegressor, draws=True),
    "hist_gradient_boosting": _Recipe(HistGradientBoostingRegressor, _WHOLE, draws=True),
    "multilayer_perceptron": _Recipe(MLPRegressor, draws=True, scale=True, unit_targets=True),
}


def build_pipeline(kind: str, parameters: Parameters, *, seed: int, task: Task = Task.CLASSIFICATION) -> Pipeline:
    """An unfitted pipeline: impute the median, scale where it matters, predict."""
    recipe = (_CLASSIFIERS if task == Task.CLASSIFICATION else _REGRESSORS)[kind]
    settings = {**recipe.fixed, **parameters}
    settings.pop("max_rows", None)
    if "hidden_width" in settings:
        settings["hidden_layer_sizes"] = (settings.pop("hidden_width"),)
    if recipe.draws:
        settings["random_state"] = seed
    # A column without any value in the training part is kept (as zeros), so that the width never depends on the split.
    steps: list[tuple[str, Any]] = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    if recipe.scale:
        steps.append(("scale", StandardScaler()))
    estimator = recipe.estimator(**settings)
    if recipe.unit_targets:
        estimator = TransformedTargetRegressor(estimator, transformer=StandardScaler())
    return Pipeline([*steps, ("classify" if task == Task.CLASSIFICATION else "regress", estimator)])


def fit_estimator(
    kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report
) -> PipelinePredictor:
    """Fit the pipeline of a kind on the training part; at most ``max_rows`` of it where the kind has that parameter."""
    rows = _rows(len(parts.train_labels), parameters.get("max_rows"), seed)
    pipeline = build_pipeline(kind, parameters, seed=seed, task=parts.task)
    report(0.1, f"fitting {kind} on {len(rows):,} rows")
    inputs, labels = parts.train_inputs, parts.train_labels
    if len(rows) < len(labels):
        inputs, labels = inputs[rows], labels[rows]
    # Numbers come as float32, in which the sums of some estimators would lose digits.
    targets = labels if parts.task == Task.CLASSIFICATION else labels.astype(np.float64)
    pipeline.fit(inputs, targets)  # the first step copies: a mapped part is read-only
    report(0.8, "fitted")
    return PipelinePredictor(pipeline)


def _rows(available: int, most: int | None, seed: int) -> NDArray[np.intp]:
    if most is None or available <= most:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, size=most, replace=False))

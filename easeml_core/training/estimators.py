"""The scikit-learn classifiers behind the kinds of ``trainers``, each in a pipeline that takes missing values.

Imputing and scaling are learnt on the training part only. ``n_jobs`` stays 1: a trial's cost is compared with others'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from easeml_core.training.skops_format import PipelinePredictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.training.parts import OpenParts
    from easeml_core.training.progress import Report

# Kind -> class, settings that are not the user's, whether it draws at random, whether it needs columns of one scale.
_CLASSIFIERS: Mapping[str, tuple[type, Mapping[str, Any], bool, bool]] = {
    "nearest_centroid": (NearestCentroid, {}, False, True),
    "gaussian_naive_bayes": (GaussianNB, {}, False, True),
    "logistic_regression": (LogisticRegression, {}, True, True),
    "linear_discriminant": (LinearDiscriminantAnalysis, {"solver": "lsqr"}, False, True),
    "linear_svm": (LinearSVC, {}, True, True),
    "rbf_svm": (SVC, {}, True, True),
    # Brute force, since search trees hold raw indices that could not be trusted when they come from a file.
    "nearest_neighbors": (KNeighborsClassifier, {"algorithm": "brute"}, False, True),
    "decision_tree": (DecisionTreeClassifier, {}, True, False),
    "random_forest": (RandomForestClassifier, {}, True, False),
    "extra_trees": (ExtraTreesClassifier, {}, True, False),
    "hist_gradient_boosting": (HistGradientBoostingClassifier, {"early_stopping": False}, True, False),
    "multilayer_perceptron": (MLPClassifier, {}, True, True),
}


def build_pipeline(kind: str, parameters: Mapping[str, Any], *, seed: int) -> Pipeline:
    """An unfitted pipeline: impute the median, scale where it matters, classify.

    Args:
        kind: A kind of ``trainers`` whose library is scikit-learn.
        parameters: Complete and checked.
        seed: Of everything random, in [0, 2^32).
    """
    classifier_type, fixed, is_random, needs_scale = _CLASSIFIERS[kind]
    settings: dict[str, Any] = {**fixed, **parameters}
    settings.pop("max_rows", None)
    if "hidden_width" in settings:
        settings["hidden_layer_sizes"] = (settings.pop("hidden_width"),)
    if is_random:
        settings["random_state"] = seed
    # A column without any value in the training part is kept (as zeros), so that the width never depends on the split.
    steps: list[tuple[str, Any]] = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    if needs_scale:
        steps.append(("scale", StandardScaler()))
    return Pipeline([*steps, ("classify", classifier_type(**settings))])


def fit_estimator(
    kind: str, parts: OpenParts, parameters: Mapping[str, Any], *, seed: int, report: Report
) -> PipelinePredictor:
    """Fit the pipeline of a kind on the training part; at most ``max_rows`` of it where the kind has that parameter."""
    rows = _rows(len(parts.train_labels), parameters.get("max_rows"), seed)
    pipeline = build_pipeline(kind, parameters, seed=seed)
    report(0.1, f"fitting {kind} on {len(rows):,} rows")
    pipeline.fit(parts.train_inputs[rows], parts.train_labels[rows])
    report(0.8, "fitted")
    return PipelinePredictor(pipeline)


def _rows(available: int, most: int | None, seed: int) -> NDArray[np.intp]:
    if most is None or available <= most:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, size=most, replace=False))

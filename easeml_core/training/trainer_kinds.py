"""The kinds for tables: rows of the table in ``trainers``, cheap first. Images and series are taken flattened.

Parameter names are those of the library. A kind that learns classes and numbers has the same parameters for both. The
estimators themselves are in ``estimators``, the boosted trees of other libraries in ``boosting``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.training.parameters import Choice, Real, Whole
from easeml_core.training.trainer import BOTH, NUMBERS, Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.training.parameters import Rule

_FOREST: Mapping[str, Rule] = {
    "n_estimators": Whole(100, 1, 2000),
    "max_depth": Whole(64, 1, 1000),
    "min_samples_leaf": Whole(2, 1, 10_000),
}
_BOOSTED: Mapping[str, Rule] = {
    "n_estimators": Whole(60, 1, 2000),
    "learning_rate": Real(0.1, high=10.0),
    "subsample": Real(1.0, high=1.0),
    "colsample_bytree": Real(1.0, high=1.0),
    "reg_lambda": Real(1.0),
    "max_bin": Whole(255, 2, 255),
}
_BOOSTING = "easeml_core.training.boosting:fit_boosted"

TABLE_TRAINERS = (
    Trainer("nearest_centroid", "the class whose mean is nearest"),
    Trainer(
        "gaussian_naive_bayes",
        "independent normal features in each class",
        rules={"var_smoothing": Real(1e-3, high=1.0)},
    ),
    Trainer(
        "logistic_regression",
        "linear, by maximum likelihood",
        rules={"C": Real(1.0), "max_iter": Whole(500, 1, 100_000)},
    ),
    Trainer(
        "linear_discriminant",
        "linear, by normal classes of one shrunk covariance",
        rules={"shrinkage": Real(0.1, high=1.0)},
    ),
    Trainer("ridge_regression", "linear, by least squares", rules={"alpha": Real(1.0)}, tasks=NUMBERS),
    Trainer(
        "linear_svm",
        "linear, by largest margin",
        rules={"C": Real(0.1), "max_iter": Whole(1000, 1, 100_000)},
        tasks=BOTH,
        gives_chances=False,
    ),
    Trainer(
        "rbf_svm",
        "largest margin with a Gaussian kernel; cost grows with the square of max_rows",
        rules={"C": Real(5.0), "max_rows": Whole(4000, 10, 50_000)},
        tasks=BOTH,
        gives_chances=False,
    ),
    Trainer(
        "nearest_neighbors",
        "vote or mean of the nearest rows",
        rules={"n_neighbors": Whole(5, 1, 1000), "weights": Choice("uniform", ("uniform", "distance"))},
        tasks=BOTH,
    ),
    Trainer(
        "decision_tree",
        "one tree",
        rules={"max_depth": Whole(12, 1, 1000), "min_samples_leaf": Whole(5, 1, 10_000)},
        tasks=BOTH,
    ),
    Trainer("random_forest", "bagged trees", rules=_FOREST, tasks=BOTH),
    Trainer(
        "extra_trees",
        "many trees with random cuts",
        rules={**_FOREST, "n_estimators": Whole(300, 1, 2000)},
        tasks=BOTH,
    ),
    Trainer(
        "hist_gradient_boosting",
        "boosted trees on binned features",
        rules={
            "max_iter": Whole(60, 1, 2000),
            "learning_rate": Real(0.1, high=10.0),
            "max_leaf_nodes": Whole(31, 2, 1000),
            "max_bins": Whole(255, 2, 255),
        },
        tasks=BOTH,
    ),
    Trainer(
        "multilayer_perceptron",
        "one hidden layer",
        rules={
            "hidden_width": Whole(100, 1, 2000),
            "max_iter": Whole(40, 1, 10_000),
            "learning_rate_init": Real(2e-3),
        },
        tasks=BOTH,
    ),
    Trainer(
        "lightgbm",
        "boosted trees that grow leaf by leaf (LightGBM)",
        library="lightgbm",
        rules={**_BOOSTED, "num_leaves": Whole(31, 2, 1000), "min_child_samples": Whole(20, 1, 10_000)},
        tasks=BOTH,
        fitter=_BOOSTING,
    ),
    Trainer(
        "xgboost",
        "boosted trees that grow level by level (XGBoost)",
        library="xgboost",
        rules={**_BOOSTED, "max_depth": Whole(6, 1, 16), "min_child_weight": Real(1.0)},
        tasks=BOTH,
        fitter=_BOOSTING,
    ),
)

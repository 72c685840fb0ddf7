"""Every kind that learns numbers does so on real patients, as plain scikit-learn does, and comes back from its file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVR, LinearSVR
from sklearn.tree import DecisionTreeRegressor

from easeml_core.entities import Task
from easeml_core.errors import ArtifactError
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import score_on_validation, validate
from easeml_core.training.trainers import TRAINERS, trainer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.data.parts import OpenParts

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")

REGRESSORS = [
    kind
    for kind, trainer in TRAINERS.items()
    if Task.REGRESSION in trainer.tasks and "table" in trainer.default_layouts and "value" in trainer.answers
]
SMALL: dict[str, dict[str, Any]] = {"extra_trees": {"n_estimators": 100}}


def fitted(kind: str, parts: OpenParts, *, seed: int = 3, **parameters: Any) -> Any:
    return trainer_of(kind).fit(parts, {**SMALL.get(kind, {}), **parameters}, seed=seed, report=silent)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_kind_learns_numbers_and_round_trips(kind: str, diabetes: OpenParts, tmp_path: Path) -> None:
    predictor = fitted(kind, diabetes)
    score, quality, predictions = score_on_validation(kind, predictor, diabetes)
    assert predictions.dtype == np.float64
    assert predictions.shape == diabetes.validation_labels.shape
    assert score == r2_score(diabetes.validation_labels, predictions)
    assert quality == 1 / (2 - score)
    # The mean of the training part gives about 0; a single tree is hardly better on so few rows, the others are.
    assert score > (0.0 if kind == "decision_tree" else 0.25)
    path = tmp_path / "model"
    loaded = load_predictor(path, save_model(predictor, path))
    assert np.array_equal(loaded.predict(diabetes.validation_inputs), predictions)
    np.testing.assert_array_equal(loaded.scores(diabetes.validation_inputs), predictions[:, None])
    assert loaded.probabilities(diabetes.validation_inputs, classes=0) is None


def scaled_targets(regressor: Any) -> Any:
    return TransformedTargetRegressor(regressor, transformer=StandardScaler())


# What a user would write who knows only scikit-learn. It imputes nothing, since nothing is missing.
PLAIN: dict[str, Callable[[], Any]] = {
    "ridge_regression": lambda: make_pipeline(StandardScaler(), Ridge(alpha=1.0)),
    "linear_svm": lambda: make_pipeline(
        StandardScaler(), scaled_targets(LinearSVR(C=0.1, epsilon=0.1, max_iter=1000, random_state=3))
    ),
    "rbf_svm": lambda: make_pipeline(StandardScaler(), scaled_targets(SVR(C=5.0, epsilon=0.1))),
    "nearest_neighbors": lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(5)),
    "decision_tree": lambda: DecisionTreeRegressor(max_depth=12, min_samples_leaf=5, random_state=3),
    "random_forest": lambda: RandomForestRegressor(100, max_depth=64, min_samples_leaf=2, random_state=3),
    "extra_trees": lambda: ExtraTreesRegressor(100, max_depth=64, min_samples_leaf=2, random_state=3),
    "hist_gradient_boosting": lambda: HistGradientBoostingRegressor(max_iter=60, early_stopping=False, random_state=3),
    "multilayer_perceptron": lambda: make_pipeline(
        StandardScaler(),
        scaled_targets(MLPRegressor(hidden_layer_sizes=(100,), max_iter=40, learning_rate_init=2e-3, random_state=3)),
    ),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_kind_is_what_plain_scikit_learn_gives(kind: str, diabetes: OpenParts) -> None:
    plain = PLAIN[kind]().fit(diabetes.train_inputs, diabetes.train_labels.astype(np.float64))
    np.testing.assert_allclose(
        fitted(kind, diabetes).predict(diabetes.validation_inputs),
        plain.predict(diabetes.validation_inputs),
        rtol=0 if "tree" in kind or "forest" in kind else 1e-6,
    )


def test_plain_covers_all_of_scikit_learn() -> None:
    assert set(PLAIN) == {kind for kind in REGRESSORS if TRAINERS[kind].library == "sklearn"}


@pytest.mark.parametrize("kind", REGRESSORS)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_targets_does_not_matter(kind: str, unit: float, diabetes: OpenParts) -> None:
    train, validation = (labels * np.float32(unit) for labels in (diabetes.train_labels, diabetes.validation_labels))
    other = replace(diabetes, train_labels=train, validation_labels=validation)
    small = {"n_estimators": 20} if "n_estimators" in TRAINERS[kind].rules else {}
    quality, _ = validate(kind, fitted(kind, diabetes, **small), diabetes)
    # Cuts of trees may fall elsewhere by rounding, which moves single rows: a fiftieth at most.
    assert validate(kind, fitted(kind, other, **small), other)[0] == pytest.approx(quality, abs=0.02)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_missing_values_constant_and_empty_columns_are_no_obstacle(kind: str, diabetes: OpenParts) -> None:
    rng = np.random.default_rng(5)
    train, validation = diabetes.train_inputs.copy(), diabetes.validation_inputs.copy()
    for inputs in (train, validation):
        inputs[rng.random(inputs.shape) < 0.05] = np.nan
    train[:, 0], train[:, 1], validation[0] = np.nan, 1.0, np.nan
    parts = replace(diabetes, train_inputs=train, validation_inputs=validation)
    score, _, _ = score_on_validation(kind, fitted(kind, parts), parts)
    assert score > (-0.2 if kind == "decision_tree" else 0.15)


def test_targets_that_are_all_the_same_are_learnt(diabetes: OpenParts) -> None:
    same = replace(diabetes, train_labels=np.full_like(diabetes.train_labels, 7))
    for kind in REGRESSORS:
        answers = fitted(kind, same).predict(diabetes.validation_inputs)
        np.testing.assert_allclose(answers, 7, atol=0.5, err_msg=kind)


@pytest.mark.parametrize("kind", ["random_forest", "extra_trees", "multilayer_perceptron"])
def test_the_seed_decides(kind: str, diabetes: OpenParts) -> None:
    first, again, other = (fitted(kind, diabetes, seed=s).predict(diabetes.validation_inputs) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rbf_svm_trains_on_no_more_rows_than_allowed(diabetes: OpenParts) -> None:
    step = fitted("rbf_svm", diabetes, max_rows=50).pipeline.steps[-1][1]
    assert step.regressor_.shape_fit_[0] == 50


def refused(thing: Any, diabetes: OpenParts, tmp_path: Path) -> str:
    inputs, targets = diabetes.train_inputs, diabetes.train_labels
    skops.io.dump(thing.fit(inputs, targets), tmp_path / "model")
    with pytest.raises(ArtifactError, match="the model file model") as caught:
        load_predictor(tmp_path / "model", "skops")
    return str(caught.value)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (TransformedTargetRegressor(Ridge(), transformer=StandardScaler()), "a sklearn.*Ridge on targets changed by a"),
        (TransformedTargetRegressor(SVR(), transformer=MinMaxScaler()), "targets changed by a sklearn.*MinMaxScaler"),
        (TransformedTargetRegressor(SVR(), transformer=FunctionTransformer()), "trusted: .*FunctionTransformer"),
        (TransformedTargetRegressor(SVR(), func=np.log1p, inverse_func=np.expm1, check_inverse=False), "steps|log1p"),
        (TransformedTargetRegressor(Pipeline([("a", SVR())]), transformer=StandardScaler()), "a sklearn.*Pipeline on"),
    ],
)
def test_targets_are_scaled_by_nothing_else(step: Any, message: str, diabetes: OpenParts, tmp_path: Path) -> None:
    assert re.search(message, refused(Pipeline([("a", step)]), diabetes, tmp_path))


def test_an_unfitted_or_swapped_inside_is_refused(diabetes: OpenParts, tmp_path: Path) -> None:
    step = scaled_targets(SVR())
    pipeline = Pipeline([("a", step)]).fit(diabetes.train_inputs, diabetes.train_labels)
    step.regressor = Ridge()
    skops.io.dump(pipeline, tmp_path / "model")
    with pytest.raises(ArtifactError, match="steps that are not trusted"):
        load_predictor(tmp_path / "model", "skops")
    skops.io.dump(Pipeline([("a", scaled_targets(SVR()))]), tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"a builtins\.NoneType on targets"):
        load_predictor(tmp_path / "model", "skops")


@pytest.mark.parametrize("kind", ["decision_tree", "random_forest", "hist_gradient_boosting"])
def test_a_tree_that_leads_out_of_itself_is_refused(kind: str, diabetes: OpenParts, tmp_path: Path) -> None:
    small = {"random_forest": {"n_estimators": 3}, "hist_gradient_boosting": {"max_iter": 2}}.get(kind, {})
    predictor = fitted(kind, diabetes, **small)
    step = predictor.pipeline.steps[-1][1]
    if kind == "hist_gradient_boosting":
        step._predictors[-1][-1].nodes["left"][0] = 10**6
    else:
        tree = step.tree_ if kind == "decision_tree" else step.estimators_[-1].tree_
        state = tree.__getstate__()
        state["nodes"] = state["nodes"].copy()
        state["nodes"]["left_child"][0] = 10**6
        tree.__setstate__(state)
    save_model(predictor, tmp_path / "model")
    with pytest.raises(ArtifactError, match="a tree with indices outside of it"):
        load_predictor(tmp_path / "model", "skops")

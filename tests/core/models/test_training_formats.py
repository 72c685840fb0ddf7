"""Every candidate learns real digits and comes back from its file the same; hostile files are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from property_sizes import at_night
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from easeml_core.data.layout import Layout
from easeml_core.entities import Task
from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.models import skops_format
from easeml_core.models.formats import FORMATS, load_predictor, save_constant, save_model
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import validate
from easeml_core.training.estimators import _CLASSIFIERS, _REGRESSORS, build_pipeline
from easeml_core.training.trainers import TRAINERS, default_candidates, trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.parts import OpenParts

pytestmark = [
    pytest.mark.filterwarnings("ignore:self.within_class_std_dev_:UserWarning"),  # a border pixel that is always 0
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Liblinear failed to converge:sklearn.exceptions.ConvergenceWarning"),
]


def fitted(kind: str, digits: OpenParts, **parameters: Any):
    return trainer_of(kind).fit(digits, parameters, seed=3, report=silent)


DEFAULTS = default_candidates(Layout("image", (8, 8, 1)), Task.CLASSIFICATION)
CLASSIFIERS = [c["kind"] for c in DEFAULTS]


SLOW = ("resnet", "extra_trees")
"""Kinds whose like is tried by day: another network of PyTorch, and a forest of scikit-learn."""


def by_day(kind: str, *values: Any) -> Any:
    return at_night(*values, id=kind) if kind in SLOW else pytest.param(*values, id=kind)


@pytest.mark.parametrize("candidate", [by_day(c["kind"], c) for c in DEFAULTS])
def test_a_default_candidate_learns_and_round_trips(candidate, digits: OpenParts, tmp_path: Path) -> None:
    predictor = fitted(candidate["kind"], digits, **candidate["parameters"])
    quality, predictions = validate(candidate["kind"], predictor, digits)
    assert quality > 0.7  # ten classes: guessing gives 0.1, and the weakest of them is well above
    path = tmp_path / "model"
    assert save_model(predictor, path) == predictor.format
    loaded = load_predictor(path, predictor.format)
    assert np.array_equal(loaded.predict(digits.validation_inputs), predictions)
    np.testing.assert_array_equal(loaded.scores(digits.validation_inputs), predictor.scores(digits.validation_inputs))
    assert predictions.dtype == np.int64
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", [by_day(k, k) for k in CLASSIFIERS])
def test_missing_values_constant_and_empty_columns_are_no_obstacle(kind: str, digits: OpenParts) -> None:
    from dataclasses import replace

    rng = np.random.default_rng(5)
    train, validation = digits.train_inputs.copy(), digits.validation_inputs.copy()
    for inputs in (train, validation):
        inputs[rng.random(inputs.shape) < 0.05] = np.nan
    train[:, 0], validation[0] = np.nan, np.nan  # never seen in training; a row of which nothing is known
    parts = replace(digits, train_inputs=train, validation_inputs=validation)
    small = {"random_forest": {"n_estimators": 10}, "extra_trees": {"n_estimators": 10},
             "hist_gradient_boosting": {"max_iter": 5},
             "lightgbm": {"n_estimators": 10}, "xgboost": {"n_estimators": 10},
             "resnet": {"epochs": 4}, "torch_cnn": {"epochs": 4}}.get(kind, {})  # fmt: skip
    quality, _ = validate(kind, fitted(kind, parts, **small), parts)
    assert quality > 0.5


@pytest.mark.parametrize("kind", ["random_forest", "extra_trees", "multilayer_perceptron", "torch_mlp", "torch_cnn"])
def test_the_seed_decides(kind: str, digits: OpenParts) -> None:
    small = (
        {"epochs": 1}
        if kind.startswith("torch")
        else {"n_estimators": 10}
        if "tree" in kind or "forest" in kind
        else {}
    )
    first, again, other = (
        trainer_of(kind).fit(digits, small, seed=seed, report=silent).scores(digits.validation_inputs)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rbf_svm_trains_on_no_more_rows_than_allowed(digits: OpenParts) -> None:
    pipeline = fitted("rbf_svm", digits, max_rows=50).pipeline
    assert pipeline.named_steps["classify"].shape_fit_[0] == 50


def test_every_step_that_a_trainer_makes_is_on_the_list() -> None:
    made, inside = set(), set()
    for task, recipes in ((Task.CLASSIFICATION, _CLASSIFIERS), (Task.REGRESSION, _REGRESSORS)):
        assert set(recipes) == {k for k, t in TRAINERS.items() if t.library == "sklearn" and task in t.tasks}
        for kind in recipes:
            for _, step in build_pipeline(kind, TRAINERS[kind].parameters({}), seed=0, task=task).steps:
                made.add(skops_format._name(step))
                inside |= {skops_format._name(step.regressor)} if hasattr(step, "regressor") else set()
    assert made == set(skops_format._OWN_TYPES)
    assert inside == set(skops_format.INNER_TYPES)


def written(tmp_path: Path, thing: Any) -> Path:
    skops.io.dump(thing, tmp_path / "model")
    return tmp_path / "model"


def refused(path: Path, model_format: str = "skops") -> str:
    with pytest.raises(ArtifactError, match="the model file model") as caught:
        load_predictor(path, model_format)
    return str(caught.value)


def test_a_file_that_would_call_a_function_is_refused_by_name(tmp_path: Path) -> None:
    hostile = Pipeline([("a", FunctionTransformer(os.getcwd)), ("b", LogisticRegression())])
    assert "types that are not trusted: posix.getcwd" in refused(written(tmp_path, hostile))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Pipeline([("a", CountVectorizer(input="filename")), ("b", LogisticRegression())]), "steps.*CountVectorizer"),
        (Pipeline([("a", StandardScaler()), ("b", DummyClassifier())]), "steps that are not trusted.*DummyClassifier"),
        (Pipeline([("a", StandardScaler())]), "no estimator"),
        (LogisticRegression(), "holds a sklearn.linear_model._logistic.LogisticRegression, not a pipeline"),
        ({"label": 3}, "holds a builtins.dict, not a pipeline"),
    ],
)
def test_what_skops_trusts_but_no_trainer_makes_is_refused(thing, message, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        load_predictor(written(tmp_path, thing), "skops")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + b"\0" * 18])
@pytest.mark.parametrize("model_format", ["skops", "lightgbm", "xgboost", "safetensors", "constant"])
def test_what_is_no_model_is_refused(content: bytes, model_format: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(content)
    refused(tmp_path / "model", model_format)


@pytest.mark.parametrize("schema", ["{", "[]", "{}", '{"protocol": 3}', '{"__loader__": "ListNode", "protocol": 3}'])
def test_a_zip_with_a_wrong_schema_is_refused(schema: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model", "w") as file:
        file.writestr("schema.json", schema)
    refused(tmp_path / "model")


def test_a_damaged_model_is_refused_or_the_same(digits: OpenParts, tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_model(fitted("decision_tree", digits), path)
    content = path.read_bytes()
    for cut in (10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        refused(path)


def test_unknown_format_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match="no model format 'pickle'; known formats: skops, lightgbm, xgboost, safetensors"
    ):
        load_predictor(tmp_path / "model", "pickle")
    for model_format in FORMATS:
        assert "is missing" in refused(tmp_path / "model", model_format)


@pytest.mark.parametrize("kind", ["decision_tree", "random_forest", "hist_gradient_boosting"])
@pytest.mark.parametrize("attack", ["child beyond", "loop", "negative", "feature beyond"])
def test_a_tree_that_leads_out_of_itself_is_refused(kind, attack, digits: OpenParts, tmp_path: Path) -> None:
    parameters = {"decision_tree": {}, "random_forest": {"n_estimators": 3}, "hist_gradient_boosting": {"max_iter": 2}}
    predictor = fitted(kind, digits, **parameters[kind])
    classifier = predictor.pipeline.steps[-1][1]
    boosted = kind == "hist_gradient_boosting"
    if boosted:
        nodes, left, feature = classifier._predictors[-1][-1].nodes, "left", "feature_idx"
    else:
        tree = classifier.tree_ if kind == "decision_tree" else classifier.estimators_[-1].tree_
        state = tree.__getstate__()
        nodes, left, feature = state["nodes"].copy(), "left_child", "feature"
    field, value = {
        "child beyond": (left, 10**6), "loop": (left, 0), "negative": ("right" if boosted else "right_child", -2),
        "feature beyond": (feature, 64),
    }[attack]  # fmt: skip
    nodes[field][0] = np.array(value).astype(nodes[field].dtype)
    if not boosted:
        tree.__setstate__({**state, "nodes": nodes})
    save_model(predictor, tmp_path / "model")
    assert "a tree with indices outside of it" in refused(tmp_path / "model")


def test_a_fork_has_all_that_a_prediction_imports_and_leaves_torch_alone(tmp_path: Path) -> None:
    """scikit-learn looks for pandas when an imputer is asked, and that took each child .4 s."""
    (tmp_path / "torch.py").write_text("__version__ = '2.0'")  # in place of the real one, which takes three seconds
    inputs = np.float32([[0], [np.nan]])
    for kind, steps in (("tree", [DecisionTreeClassifier()]), ("imputed", [SimpleImputer(), DecisionTreeClassifier()])):
        save_model(skops_format.PipelinePredictor(make_pipeline(*steps).fit(inputs, [0, 1])), tmp_path / kind)
    code = (
        "import importlib, pathlib, sys; import numpy as np; from easeml_core.models import formats;"
        "loaded = [importlib.import_module(name) for name in formats.modules_of('skops')]; import skops.io;"
        "print('torch' in sys.modules); before = set(sys.modules);"
        "models = [formats.load_predictor(pathlib.Path(path), 'skops') for path in sys.argv[1:]];"
        "answers = [model.predict(np.zeros((1, 1), np.float32)) for model in models];"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - {'encodings'}));"
        "import torch; print(torch.__file__)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tree"), str(tmp_path / "imputed")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.split() == ["False", "[]", str(tmp_path / "torch.py")]  # torch can be imported afterwards


@pytest.mark.parametrize(
    ("classes", "words"),
    [(["no", "yes"], "the model answered '(no|yes)'"), (["1", "two"], "the model answered 'two'"), (["1", "2"], None)],
)
def test_a_pipeline_that_answers_with_words_is_reported_what_is_wanted(classes: list[str], words: str | None) -> None:
    inputs = np.float32([[0], [1]])
    predictor = skops_format.PipelinePredictor(make_pipeline(DecisionTreeClassifier()).fit(inputs, classes))
    if words is None:
        assert predictor.predict(inputs).tolist() == [1, 2]
        return
    with pytest.raises(TrainingError, match=f"^{words}; a class number is wanted$"):
        predictor.predict(inputs)


def test_the_constant_model(tmp_path: Path) -> None:
    save_constant(tmp_path / "model", 4)
    predictor = load_predictor(tmp_path / "model", "constant")
    assert predictor.predict(np.zeros((3, 2), np.float32)).tolist() == [4, 4, 4]
    assert np.isfinite(predictor.scores(np.zeros((3, 2), np.float32))).all()


@pytest.mark.parametrize(
    "fields", [{"label": -1}, {"label": 1.5}, {"label": True}, {"label": "1"}, {"label": 1, "x": 2}, {}, [1], 3]
)
def test_what_is_no_constant_is_refused(fields, tmp_path: Path) -> None:
    (tmp_path / "model").write_text(json.dumps(fields))
    assert "is no constant model" in refused(tmp_path / "model", "constant")


def test_a_constant_too_deep_to_be_read_is_refused_like_any_other(tmp_path: Path) -> None:
    """The referee reads constants in its own process."""
    (tmp_path / "model").write_text("[" * 100_000)
    assert "is no constant model" in refused(tmp_path / "model", "constant")

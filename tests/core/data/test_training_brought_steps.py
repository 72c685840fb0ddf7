"""Steps of tenants' functions: stored, loaded again, with the same predictions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from easeml_core.errors import ArtifactError
from easeml_core.models.skops_format import _BROUGHT_TYPES, PipelinePredictor, load_pipeline

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", _BROUGHT_TYPES)
def test_a_step_is_kept_and_answers_as_before(name: str, tmp_path: Path) -> None:
    module, _, kind = name.rpartition(".")
    step = getattr(importlib.import_module(module), kind)()
    is_number = kind in ("LinearRegression", "Lasso", "ElasticNet")
    inputs, labels = (load_diabetes if is_number else load_wine)(return_X_y=True)
    if kind == "QuantileTransformer":
        step.set_params(n_quantiles=50)
    steps = [step] if hasattr(step, "predict") else [step, GaussianNB()]
    pipeline = make_pipeline(*steps).fit(inputs, labels)
    PipelinePredictor(pipeline).save(tmp_path / "model")
    again = load_pipeline(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(inputs.astype(np.float32)), pipeline.predict(inputs.astype(np.float32)))


@pytest.mark.parametrize("step", [FunctionTransformer(np.sqrt), SelectKBest(f_classif, k=3)], ids=["numpy", "scores"])
def test_a_step_that_calls_functions_is_refused(step: object, tmp_path: Path) -> None:
    inputs, labels = load_wine(return_X_y=True)
    pipeline = make_pipeline(step, LinearRegression()).fit(inputs, labels)
    PipelinePredictor(pipeline).save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="not trusted"):
        load_pipeline(tmp_path / "model")


def hides_a_reader(pipeline: Any) -> None:
    """In an attribute that only gradient boosting on columns of categories has: its transform reads files."""
    pipeline[-1]._preprocessor = CountVectorizer(input="filename", vocabulary=["a"])


def hides_a_reader_among_trees(pipeline: Any) -> None:
    pipeline[-1].estimators_[0] = make_pipeline(CountVectorizer(input="filename", vocabulary=["a"]), GaussianNB())


def masks_its_nodes(pipeline: Any) -> None:
    """The comparison of indices skips what is masked; scikit-learn reads it."""
    for (tree,) in pipeline[-1]._predictors:
        nodes = tree.nodes.copy()
        nodes["left"] = nodes["right"] = 10_000_000
        tree.nodes = np.ma.array(nodes, mask=True)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (HistGradientBoostingRegressor, hides_a_reader, "not trusted: sklearn.feature_extraction.text.CountVectorizer"),
        (RandomForestRegressor, hides_a_reader_among_trees, "not trusted: sklearn.feature_extraction"),
        (HistGradientBoostingRegressor, masks_its_nodes, "holds a tree with indices outside of it"),
    ],
)
def test_what_an_attribute_hides_is_refused(kind: Any, change: Any, words: str, tmp_path: Path) -> None:
    inputs, numbers = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(kind(random_state=0)).fit(inputs, numbers)
    change(pipeline)
    PipelinePredictor(pipeline).save(tmp_path / "model")
    with pytest.raises(ArtifactError, match=words):
        load_pipeline(tmp_path / "model")

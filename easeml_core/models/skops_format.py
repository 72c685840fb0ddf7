"""scikit-learn pipelines as skops files: a zip of JSON and arrays, from which only types on a list are made.

skops trusts the public estimators of scikit-learn and refuses what it does not know. To its list we add a few types by
name (EXTRA_TYPES), and we take a pipeline of steps on a list only (STEP_TYPES), that holds no estimator beyond another
list (HELD_TYPES) in any attribute, so that no file brings in one that reads files or calls functions. Trees hold raw
indices that scikit-learn follows unchecked; ``trees`` checks them before the first prediction. What remains (other
arrays of odd shape) may crash the process that predicts, which is a child for that reason.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ArtifactError
from easeml_core.models.formats import no_class_number
from easeml_core.models.trees import check_trees

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

EXTRA_TYPES = (
    "_loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "numpy.dtype",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
)
"""Trusted beyond what every version of skops that we allow trusts: what the models of ``estimators`` are made of.

Which types skops trusts by itself grows by version: 0.13, that of Airflow 3.1, refuses losses and links of gradient
boosting, 0.16 trusts them.
"""

_OWN_TYPES = (
    "sklearn.impute._base.SimpleImputer",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.neighbors._nearest_centroid.NearestCentroid",
    "sklearn.naive_bayes.GaussianNB",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
    "sklearn.svm._classes.LinearSVC",
    "sklearn.svm._classes.SVC",
    "sklearn.neighbors._classification.KNeighborsClassifier",
    "sklearn.tree._classes.DecisionTreeClassifier",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.ensemble._forest.ExtraTreesClassifier",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
    "sklearn.linear_model._ridge.Ridge",
    "sklearn.neighbors._regression.KNeighborsRegressor",
    "sklearn.tree._classes.DecisionTreeRegressor",
    "sklearn.ensemble._forest.RandomForestRegressor",
    "sklearn.ensemble._forest.ExtraTreesRegressor",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor",
    "sklearn.compose._target.TransformedTargetRegressor",
)
_BROUGHT_TYPES = (
    "sklearn.preprocessing._data.MinMaxScaler",
    "sklearn.preprocessing._data.MaxAbsScaler",
    "sklearn.preprocessing._data.RobustScaler",
    "sklearn.preprocessing._data.Normalizer",
    "sklearn.preprocessing._data.QuantileTransformer",
    "sklearn.preprocessing._polynomial.PolynomialFeatures",
    "sklearn.feature_selection._variance_threshold.VarianceThreshold",
    "sklearn.decomposition._pca.PCA",
    "sklearn.naive_bayes.BernoulliNB",
    "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis",
    "sklearn.linear_model._ridge.RidgeClassifier",
    "sklearn.linear_model._base.LinearRegression",
    "sklearn.linear_model._coordinate_descent.Lasso",
    "sklearn.linear_model._coordinate_descent.ElasticNet",
)
"""Steps that tenants' functions bring: numbers in arrays, and numpy functions on them."""

STEP_TYPES = _OWN_TYPES + _BROUGHT_TYPES
"""What a step of a pipeline may be."""

INNER_TYPES = (
    "sklearn.svm._classes.LinearSVR",
    "sklearn.svm._classes.SVR",
    "sklearn.neural_network._multilayer_perceptron.MLPRegressor",
)
"""What may learn scaled targets inside of a TransformedTargetRegressor."""


HELD_TYPES = frozenset(
    {
        *STEP_TYPES,
        *INNER_TYPES,
        *EXTRA_TYPES,
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._label.LabelBinarizer",
        "sklearn.preprocessing._label.LabelEncoder",
        "sklearn.tree._classes.ExtraTreeClassifier",
        "sklearn.tree._classes.ExtraTreeRegressor",
    }
)
"""What of scikit-learn's estimators may be anywhere in a file: some that skops trusts read files when they predict."""


@dataclass(frozen=True, slots=True)
class PipelinePredictor:
    """A fitted pipeline whose classes are our labels, or that gives numbers."""

    pipeline: Any
    format: str = "skops"

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The label of each row (int64), or its number (float64), shape (rows,)."""
        answers = self.pipeline.predict(inputs)
        if self._gives_numbers():
            return np.asarray(answers, dtype=np.float64)
        try:
            return np.asarray(answers, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise no_class_number(next(filter(_is_no_number, map(str, np.ravel(answers))), "nothing")) from error

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """Probabilities if the classifier has them, else distances from its boundaries; shape (rows, ...).

        The numbers themselves, shape (rows, 1), where it gives numbers.
        """
        if self._gives_numbers():
            return self.predict(inputs)[:, None]
        for name in ("predict_proba", "decision_function"):
            if hasattr(self.pipeline, name):
                return np.asarray(getattr(self.pipeline, name)(inputs))
        return np.ones(len(inputs))

    def probabilities(self, inputs: NDArray[np.float32], *, classes: int) -> NDArray[np.float64] | None:
        """Probabilities, shape (rows, classes); None if the classifier has none.

        Column j belongs to label j; a class without a training row has zeros.
        """
        if self._gives_numbers() or not hasattr(self.pipeline, "predict_proba"):
            return None
        chances = np.zeros((len(inputs), classes))
        chances[:, np.asarray(self.pipeline.classes_, dtype=np.int64)] = self.pipeline.predict_proba(inputs)
        return chances

    def _gives_numbers(self) -> bool:
        from sklearn.base import is_regressor

        return bool(is_regressor(self.pipeline))

    def save(self, path: Path) -> None:
        """Write the pipeline; compressed lightly, which makes a forest five times smaller in 0.1 s.

        The same pipeline gives the same file, so the ledger takes it for the same model. skops itself numbers objects
        by their addresses in memory, names members by these numbers or at random, each with the time of day, and
        writes a set in the order of its hashes; scikit-learn keeps an address.
        """
        from easeml_core.models.skops_library import skops_io

        whole = io.BytesIO()
        skops_io.dump(self.pipeline, whole, compression=zipfile.ZIP_STORED)
        with (
            zipfile.ZipFile(whole) as dumped,
            zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=1) as kept,
        ):
            schema, members = json.loads(dumped.read(_SCHEMA)), dict[str, str]()
            _forget_addresses(schema)
            _sort_sets(schema, dumped)
            _renumber(schema, {}, members)
            for old, new in members.items():
                kept.writestr(_member(new), dumped.read(old), compresslevel=1)
            kept.writestr(_member(_SCHEMA), json.dumps(schema), compresslevel=1)


_SCHEMA = "schema.json"
"""Member of a skops file that holds the tree of objects."""


def _member(name: str) -> zipfile.ZipInfo:
    """Return the entry of a member, without a time."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _parts(node: Any) -> Iterable[Any]:
    """Return the parts of a part of the schema, in their order."""
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _forget_addresses(node: Any) -> None:
    """Write 0 for the addresses that scikit-learn keeps as values; another process would compare them with its own.

    Vectorizers of texts note the address of the stop words whose spelling they checked, and check them again where it
    is another.
    """
    for part in _parts(node):
        _forget_addresses(part)
    state = node.get("content") if isinstance(node, dict) and node.get("__loader__") == "ObjectNode" else None
    if state and state["__loader__"] == "DictNode":
        noted = state["content"].get("_stop_words_id")
        if noted and noted["__loader__"] == "JsonNode":
            noted["content"] = "0"


def _sort_sets(node: Any, dumped: zipfile.ZipFile) -> None:
    """Sort the content of each set by what it is, whatever the numbers and names that skops gave it."""
    for part in _parts(node):
        _sort_sets(part, dumped)
    content = _content_of_set(node) if isinstance(node, dict) else None
    if content is not None:
        content.sort(key=lambda part: json.dumps(_without_names(part, dumped), sort_keys=True))


def _content_of_set(node: dict[str, Any]) -> list[Any] | None:
    """Return what a set or frozen set holds; None of other objects, and of a class that has a separate order."""
    loader, kind = node.get("__loader__"), None
    if loader in ("SetNode", "ConstructorFromReduceNode"):
        kind = getattr(sys.modules.get(node["__module__"]), node["__class__"], None)
    content: list[Any] | None = None
    if loader == "SetNode" and getattr(kind, "__iter__", None) is set.__iter__:
        content = node["content"]
    elif getattr(kind, "__iter__", None) is frozenset.__iter__ and kind.__reduce__ is frozenset.__reduce__:
        content = node["content"]["content"][0]["content"]  # a tuple of one argument, which is a list
    return content


def _without_names(node: Any, dumped: zipfile.ZipFile) -> Any:
    """Return a copy of a part of the schema without numbers of objects, and with hashes for names of members."""
    if isinstance(node, list):
        return [_without_names(part, dumped) for part in node]
    if not isinstance(node, dict):
        return node
    named = {key: _without_names(part, dumped) for key, part in node.items() if not _is_number(key, part)}
    if isinstance(node.get("file"), str):
        named["file"] = hashlib.sha256(dumped.read(node["file"])).hexdigest()
    return named


def _is_number(key: str, part: Any) -> bool:
    """Return whether an entry of the schema is the number of an object, and no attribute of that name."""
    return key == "__id__" and isinstance(part, int)


def _renumber(node: Any, numbers: dict[int, int], members: dict[str, str]) -> None:
    """Number the objects of a schema in their order, and the members in the order in which objects name them."""
    if isinstance(node, dict):
        if isinstance(node.get("__id__"), int):
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str):
            name = PurePath(node["file"])
            node["file"] = members.setdefault(str(name), f"{len(members) + 1}{name.suffix}")
    for part in _parts(node):
        _renumber(part, numbers, members)


def _is_no_number(word: str) -> bool:
    try:
        int(word)
    except ValueError:
        return True
    return False


def load_pipeline(path: Path) -> PipelinePredictor:
    """The pipeline in a file."""
    from easeml_core.models.skops_library import skops_io

    try:
        untrusted = set(skops_io.get_untrusted_types(file=path)) - set(EXTRA_TYPES)
        if untrusted:
            message = f"the model file {path.name} holds types that are not trusted: {', '.join(sorted(untrusted))}"
            raise ArtifactError(message)
        _check_held(path)
        pipeline = skops_io.load(path, trusted=list(EXTRA_TYPES))
    except _BROKEN as error:
        message = f"the model file {path.name} is no readable skops file: {error!r}"
        raise ArtifactError(message) from error
    _check_steps(path, pipeline)
    check_trees(path, pipeline)
    return PipelinePredictor(pipeline)


# What skops and numpy raise on files that were damaged or made by hand.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def _check_held(path: Path) -> None:
    """Refuse a file in which any estimator is not on the list, wherever an attribute holds it, before one is made."""
    with zipfile.ZipFile(path) as file:
        named = set(_named_in(json.loads(file.read(_SCHEMA))))
    foreign = sorted(name for name in named - HELD_TYPES if name.startswith("sklearn.") and _is_estimator(name))
    if foreign:
        message = f"the model file {path.name} holds steps that are not trusted: {', '.join(foreign)}"
        raise ArtifactError(message)


def _named_in(node: Any) -> Iterator[str]:
    """Yield the types that a part of the schema names."""
    if isinstance(node, dict) and isinstance(node.get("__module__"), str):
        yield f"{node['__module__']}.{node.get('__class__')}"
    for part in _parts(node):
        yield from _named_in(part)


def _is_estimator(name: str) -> bool:
    from sklearn.base import BaseEstimator

    module, _, kind = name.rpartition(".")
    found = getattr(importlib.import_module(module), kind, None)
    return isinstance(found, type) and issubclass(found, BaseEstimator)


def _check_steps(path: Path, pipeline: Any) -> None:
    from sklearn.pipeline import Pipeline

    if type(pipeline) is not Pipeline:
        message = f"the model file {path.name} holds a {_name(pipeline)}, not a pipeline"
        raise ArtifactError(message)
    foreign = [_name(step) for _, step in pipeline.steps if _name(step) not in STEP_TYPES]
    if foreign or not hasattr(pipeline.steps[-1][1], "predict"):
        message = f"the model file {path.name} holds steps that are not trusted: {', '.join(foreign) or 'no estimator'}"
        raise ArtifactError(message)
    for _, step in pipeline.steps:
        if _name(step) == "sklearn.compose._target.TransformedTargetRegressor":
            _check_scaled_targets(path, step)


def _check_scaled_targets(path: Path, step: Any) -> None:
    """Of a step that may hold any estimator, take the fitted parts that our own hold, and no functions."""
    inner, scaler = getattr(step, "regressor_", None), getattr(step, "transformer_", None)
    fits = _name(inner) in INNER_TYPES and type(getattr(step, "regressor", None)) is type(inner)
    if not fits or _name(scaler) != "sklearn.preprocessing._data.StandardScaler":
        message = (
            f"the model file {path.name} holds steps that are not trusted: a {_name(inner)} on targets changed by a "
            f"{_name(scaler)}"
        )
        raise ArtifactError(message)


def _name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"

"""Boosted trees in XGBoost's own JSON, read with care: what the library gets is written anew from checked numbers.

Only trees of numeric splits for one target are taken, and of a file only what predictions need. The same JSON is what
we save, so that a file read and saved again is the same file. Format: XGBoost 3, ``doc/model.schema``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.models.trees import BoostedModel, BoostedPredictor, is_one_tree

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.entities import JsonObject

LARGEST_BYTES = 1 << 28
MOST_NODES = 1 << 18
"""Of one tree."""

_MOST_CLASSES = 1000
_MOST_FEATURES = 1_000_000
_NO_PARENT = 2**31 - 1
_LARGEST = float(np.finfo(np.float32).max)
_BASE_SCORE = re.compile(
    r"\[?(-?[0-9.]{1,20}(?:E[+-]?[0-9]{1,3})?(?:,-?[0-9.]{1,20}(?:E[+-]?[0-9]{1,3})?)*)\]?", re.ASCII
)


def load_xgboost(path: Path) -> BoostedPredictor:
    """The model in a file."""
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    try:
        return predictor_of(content)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        message = f"the model file {path.name} is no XGBoost model that is loaded here: {error or type(error).__name__}"
        raise ArtifactError(message) from error


def predictor_of(content: bytes) -> BoostedPredictor:
    """The model in the JSON that XGBoost wrote."""
    model = checked_model(content)
    xgboost = import_xgboost()
    booster = xgboost.Booster({"nthread": 1, "verbosity": 0})
    booster.load_model(bytearray(model.text))  # XGBoostError is a ValueError
    return BoostedPredictor(model, booster.inplace_predict, "XGBoost", "xgboost")


def rescaled(content: bytes, factor: float) -> bytes:
    """The JSON of a model whose numbers are those of ``content`` times the factor: leaves and start are."""
    fields = json.loads(content, parse_constant=_no_constant)
    learner = fields["learner"]
    parameters = learner["learner_model_param"]
    base = [float(v) * factor for v in parameters["base_score"].strip("[]").split(",")]
    parameters["base_score"] = "[" + ",".join(f"{v:.8E}" for v in base) + "]"
    for tree in learner["gradient_booster"]["model"]["trees"]:
        pairs = zip(tree["split_conditions"], tree["left_children"], strict=True)
        tree["split_conditions"] = [v * factor if child == -1 else v for v, child in pairs]
    return json.dumps(fields).encode()


def import_xgboost() -> Any:
    """The library; TrainingError if it is not there."""
    try:
        import xgboost
    except ImportError as error:
        message = "an xgboost model needs the package xgboost: pip install 'easeml-airflow[boosting]'"
        raise TrainingError(message) from error
    return xgboost


def checked_model(content: bytes) -> BoostedModel[bytes]:
    """The model written anew from checked parts."""
    if len(content) > LARGEST_BYTES:
        message = f"it has more than {LARGEST_BYTES:,} bytes"
        raise ValueError(message)
    fields = json.loads(content, parse_constant=_no_constant)
    learner, version = fields["learner"], fields["version"]
    _demand(type(version) is list and len(version) == 3 and version[0] == 3, "it must be of version 3")
    _whole_array(version, "version", 3)
    classes, features, base = _kind_of(learner)
    per_round = classes if classes > 2 else 1
    _demand(learner["gradient_booster"]["name"] == "gbtree", "its booster must be gbtree")
    found = learner["gradient_booster"]["model"]
    trees = [_checked_tree(number, tree, features) for number, tree in enumerate(found["trees"])]
    rounds, left_over = divmod(len(trees), per_round)
    _demand(rounds >= 1 and not left_over, f"{len(trees)} trees are no whole rounds of {per_round}")
    order = [number % per_round for number in range(len(trees))]
    _demand(found["tree_info"] == order, "its trees must be those of the classes in turn")
    anew = _written(learner["objective"]["name"], base, classes, features, trees, order, version)
    return BoostedModel(json.dumps(anew, separators=(",", ":"), allow_nan=False).encode(), classes, features)


def _kind_of(learner: JsonObject) -> tuple[int, int, str]:
    """(classes, features, base score) that a learner states."""
    parameters, name = learner["learner_model_param"], learner["objective"]["name"]
    stated = _number(parameters, "num_class", 0, _MOST_CLASSES)
    features = _number(parameters, "num_feature", 1, _MOST_FEATURES)
    _number(parameters, "num_target", 1, 1)
    kinds = {"reg:squarederror": (0, 0), "binary:logistic": (0, 2), "multi:softprob": (stated, stated)}
    _demand(name in kinds, f"the objective {str(name)[:60]!r} is not known; known: {', '.join(kinds)}")
    class_column, classes = kinds[name]
    fits = stated == class_column and (name != "multi:softprob" or classes > 2)
    _demand(fits, f"{stated} classes do not fit the objective {name}")
    return classes, features, _base_score(parameters["base_score"], max(1, stated))


def _base_score(text: str, count: int) -> str:
    found = _BASE_SCORE.fullmatch(text)
    values = [float(v) for v in found[1].split(",")] if found else []
    fits = len(values) in (1, count) and all(abs(v) <= _LARGEST for v in values)
    _demand(fits, f"base_score must be {count} numbers, got {text[:60]!r}")
    return text


def _number(fields: JsonObject, name: str, low: int, high: int) -> int:
    text = fields[name]
    fits = isinstance(text, str) and re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) and low <= int(text) <= high
    _demand(bool(fits), f"{name} must be a whole number from {low:,} to {high:,}, got {text!r:.60}")
    return int(text)


def _checked_tree(number: int, tree: JsonObject, features: int) -> JsonObject:
    """A tree of checked arrays, with what predictions do not need as zeros."""
    nodes = _number(tree["tree_param"], "num_nodes", 1, MOST_NODES)
    _number(tree["tree_param"], "num_deleted", 0, 0)
    _number(tree["tree_param"], "size_leaf_vector", 0, 1)
    _number(tree["tree_param"], "num_feature", features, features)
    names = ("left_children", "right_children", "split_indices", "default_left", "split_type")
    left, right, feature, default, by_category = (_whole_array(tree[n], f"tree {number}: {n}", nodes) for n in names)
    values = _real_array(tree["split_conditions"], f"tree {number}: split_conditions", nodes)
    _demand(not by_category.any(), f"tree {number} splits by categories")
    _demand(bool(np.isin(default, (0, 1)).all()), f"tree {number}: default_left must be 0 or 1")
    fits = is_one_tree(left, right, feature, features=features)
    _demand(fits, f"tree {number} has indices outside of it, or is no tree")
    parents, inner, zeros = np.full(nodes, _NO_PARENT), np.flatnonzero(left != -1), [0.0] * nodes
    parents[left[inner]] = parents[right[inner]] = inner
    return {
        "base_weights": np.where(left == -1, values, 0.0).tolist(), "categories": [], "categories_nodes": [],
        "categories_segments": [], "categories_sizes": [], "default_left": default.tolist(), "id": number,
        "left_children": left.tolist(), "loss_changes": zeros, "parents": parents.tolist(),
        "right_children": right.tolist(), "split_conditions": values.tolist(),
        "split_indices": np.where(left == -1, 0, feature).tolist(), "split_type": [0] * nodes, "sum_hessian": zeros,
        "tree_param": {
            "num_deleted": "0", "num_feature": str(features), "num_nodes": str(nodes), "size_leaf_vector": "1",
        },
    }  # fmt: skip


def _written(
    objective: str, base: str, classes: int, features: int, trees: list[Any], order: list[int], version: list[int]
) -> JsonObject:
    per_round, stated = max(order) + 1, str(classes if objective == "multi:softprob" else 0)
    detail = (
        {"softmax_multiclass_param": {"num_class": stated}}
        if objective == "multi:softprob"
        else {"reg_loss_param": {"scale_pos_weight": "1"}}
    )
    model = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
        "iteration_indptr": list(range(0, len(trees) + 1, per_round)), "tree_info": order, "trees": trees,
    }  # fmt: skip
    parameters = {
        "base_score": base, "boost_from_average": "1", "num_class": stated, "num_feature": str(features),
        "num_target": "1",
    }  # fmt: skip
    learner = {
        "attributes": {}, "feature_names": [], "feature_types": [],
        "gradient_booster": {"model": model, "name": "gbtree"}, "learner_model_param": parameters,
        "objective": {"name": objective, **detail},
    }  # fmt: skip
    return {"learner": learner, "version": version}


def _whole_array(values: Any, name: str, count: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    _demand(array.dtype == np.int64 and array.shape == (count,), f"{name} must be {count:,} whole numbers")
    return array


def _real_array(values: Any, name: str, count: int) -> NDArray[np.float64]:
    array = np.asarray(values)
    fits = array.dtype in (np.int64, np.float64) and array.shape == (count,) and bool((np.abs(array) <= _LARGEST).all())
    _demand(fits, f"{name} must be {count:,} numbers")
    return array.astype(np.float64)


def _demand(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)


def _no_constant(name: str) -> float:
    message = f"a number is {name}"
    raise ValueError(message)

"""Boosted trees in LightGBM's own text, read with care: the library follows indices in it without looking.

A file is read here first, number by number, and what LightGBM gets is written anew from what was checked: the trees and
the few lines above them, nothing else. Byte counts (``tree_sizes``), parameters, categories and linear leaves are not
among it. The same text is what we save, so that a file read and saved again is the same file.
Format: LightGBM 4, ``src/io/gbdt_model_text.cpp`` and ``tree.cpp``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.models.trees import BoostedModel, BoostedPredictor, is_one_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST_BYTES = 1 << 28
MOST_LEAVES = 10_000
"""Of one tree: LightGBM measures its depth by recursion, which must not fill the stack."""

_MOST_CLASSES = 1000
_MOST_FEATURES = 1_000_000
_HEADER = {
    "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "feature_names",
    "feature_infos", "tree_sizes",
}  # fmt: skip
_TREE = {
    "Tree", "num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child",
    "right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count",
    "is_linear", "shrinkage",
}  # fmt: skip
_OF_INNER = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_WHOLE = re.compile(r"-?[0-9]{1,9}(?: -?[0-9]{1,9})*", re.ASCII)
_REAL_NUMBER = r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,4})?"
_REAL = re.compile(rf"{_REAL_NUMBER}(?: {_REAL_NUMBER})*", re.ASCII)
# A split of missing from known values is at infinity.
_THRESHOLD = re.compile(rf"(?:inf|{_REAL_NUMBER})(?: (?:inf|{_REAL_NUMBER}))*", re.ASCII)


def load_lightgbm(path: Path) -> BoostedPredictor:
    """The model in a file."""
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    try:
        return predictor_of(content)
    except _Unfit as error:
        message = f"the model file {path.name} is no LightGBM model that is loaded here: {error}"
        raise ArtifactError(message) from error


def predictor_of(content: bytes) -> BoostedPredictor:
    """The model in the text that LightGBM wrote; ``ValueError`` if it is not to be trusted."""
    model = checked_model(content)
    lightgbm = import_lightgbm()
    try:
        booster = lightgbm.Booster(model_str=model.text)
    except lightgbm.basic.LightGBMError as error:
        raise _Unfit(str(error)) from error
    return BoostedPredictor(model, lambda rows: booster.predict(rows, num_threads=1), "LightGBM", "lightgbm")


def import_lightgbm() -> Any:
    """The library; TrainingError if it, or what it needs of the system, is not there."""
    try:
        import lightgbm
    except ImportError as error:
        message = "a lightgbm model needs the package lightgbm: pip install 'easeml-airflow[boosting]'"
        raise TrainingError(message) from error
    except OSError as error:  # its wheel brings no OpenMP runtime
        message = f"lightgbm cannot be loaded ({error}); it needs the system library libgomp (Debian: libgomp1)"
        raise TrainingError(message) from error
    return lightgbm


class _Unfit(ValueError):
    """Why a text is not loaded."""


def checked_model(content: bytes) -> BoostedModel[str]:
    """The model written anew from checked parts; ``ValueError`` says what is wrong."""
    if len(content) > LARGEST_BYTES or not content.isascii():
        message = f"it must be ASCII text of at most {LARGEST_BYTES:,} bytes"
        raise _Unfit(message)
    above, separator, _ = content.decode("ascii").replace("\r\n", "\n").partition("\nend of trees\n")
    first, *blocks = re.split(r"\n(?=Tree=)", above)
    if not separator or not first.startswith("tree\n"):
        message = "it must begin with 'tree' and hold 'end of trees'"
        raise _Unfit(message)
    header = _fields(first[len("tree\n") :], _HEADER)
    classes, features = _kind_of(header)
    per_round = classes if classes > 2 else 1
    if not blocks or len(blocks) % per_round:
        message = f"{len(blocks)} trees are no whole rounds of {per_round}"
        raise _Unfit(message)
    trees = [_checked_tree(number, _fields(block, _TREE), features) for number, block in enumerate(blocks)]
    text = _header(header["objective"], per_round, features) + "\n\n".join(trees)
    return BoostedModel(text + "\n\nend of trees\n\nparameters:\n\nend of parameters\n", classes, features)


def _fields(block: str, allowed: set[str]) -> Mapping[str, str]:
    """The lines ``name=value`` of a block, each name once and known."""
    found: dict[str, str] = {}
    for line in filter(None, block.split("\n")):
        name, equals, value = line.partition("=")
        if not equals or name not in allowed or name in found:
            message = f"there is a line {line[:60]!r} where it is not known or not expected"
            raise _Unfit(message)
        found[name] = value
    return found


def _kind_of(header: Mapping[str, str]) -> tuple[int, int]:
    """(classes, features) that the lines above the trees state."""
    classes = _number(header, "num_class", 1, _MOST_CLASSES)
    per_round = _number(header, "num_tree_per_iteration", 1, _MOST_CLASSES)
    features = _number(header, "max_feature_idx", 0, _MOST_FEATURES - 1) + 1
    objectives = {
        "regression": (1, 0),
        "binary sigmoid:1": (1, 2),
        f"multiclass num_class:{classes}": (classes, classes),
    }
    columns_of, labels = objectives.get(header.get("objective", ""), (0, 0))
    if header.get("version") != "v4" or header.get("label_index") != "0":
        message = "it must be of version v4, with label_index 0"
        raise _Unfit(message)
    if (classes, per_round) != (columns_of, columns_of) or (labels == classes and labels < 3):
        message = (
            f"the objective {header.get('objective', '')[:60]!r} with {classes} classes and {per_round} trees a round "
            "is not known; known: 'regression', 'binary sigmoid:1', 'multiclass num_class:N'"
        )
        raise _Unfit(message)
    return labels, features


def _number(fields: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = fields.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not low <= int(text) <= high:
        message = f"{name} must be a whole number from {low:,} to {high:,}, got {text[:40]!r}"
        raise _Unfit(message)
    return int(text)


def _header(objective: str, per_round: int, features: int) -> str:
    names, infos = " ".join(f"Column_{i}" for i in range(features)), " ".join(["none"] * features)
    return (
        f"tree\nversion=v4\nnum_class={per_round}\nnum_tree_per_iteration={per_round}\nlabel_index=0\n"
        f"max_feature_idx={features - 1}\nobjective={objective}\nfeature_names={names}\nfeature_infos={infos}\n\n"
    )


def _checked_tree(number: int, fields: Mapping[str, str], features: int) -> str:
    """The lines of a tree, those that predictions need."""
    leaves = _number(fields, "num_leaves", 1, MOST_LEAVES)
    expected = {"Tree": str(number), "num_cat": "0", "is_linear": "0"}
    wrong = [name for name, value in expected.items() if fields.get(name) != value]
    if wrong:
        message = f"tree {number}: {wrong[0]} must be {expected[wrong[0]]}"
        raise _Unfit(message)
    values = np.array(_tokens(number, fields, "leaf_value", leaves, _REAL), dtype=np.float64)
    if not np.isfinite(values).all():
        message = f"tree {number}: a leaf_value is not finite"
        raise _Unfit(message)
    if leaves > 1:
        _check_inner(number, fields, leaves, features)
    kept = "".join(f"{name}={fields[name]}\n" for name in (_OF_INNER if leaves > 1 else ()))
    # Shrinkage is in the leaves already; the line is there for those who train on.
    kept += f"leaf_value={fields['leaf_value']}\n"
    return f"Tree={number}\nnum_leaves={leaves}\nnum_cat=0\n{kept}is_linear=0\nshrinkage=1\n"


def _check_inner(number: int, fields: Mapping[str, str], leaves: int, features: int) -> None:
    _tokens(number, fields, "threshold", leaves - 1, _THRESHOLD)
    feature, decision, *children = (
        _wholes(number, fields, name, leaves - 1)
        for name in ("split_feature", "decision_type", "left_child", "right_child")
    )
    # Bit 0: by category, which needs further tables; bit 1: where missing goes; bits 2 and 3: what is missing.
    if not np.isin(decision, (0, 2, 4, 6, 8, 10)).all():
        message = f"tree {number}: a decision_type is none of numbers"
        raise _Unfit(message)
    # A child < 0 is leaf -1 - child. As nodes of one numbering, inner ones first, leaves have no children.
    without = np.full(leaves, -1)
    left, right = (np.concatenate([np.where(c < 0, leaves - 2 - c, c), without]) for c in children)
    if not is_one_tree(left, right, np.concatenate([feature, without]), features=features):
        message = f"tree {number} has indices outside of it, or is no tree"
        raise _Unfit(message)


def _wholes(number: int, fields: Mapping[str, str], name: str, count: int) -> NDArray[np.int64]:
    return np.array(_tokens(number, fields, name, count, _WHOLE), dtype=np.int64)


def _tokens(number: int, fields: Mapping[str, str], name: str, count: int, form: re.Pattern[str]) -> list[str]:
    text = fields.get(name, "")
    tokens = text.split(" ")
    if len(tokens) != count or not form.fullmatch(text):
        message = f"tree {number}: {name} must be {count:,} numbers"
        raise _Unfit(message)
    return tokens

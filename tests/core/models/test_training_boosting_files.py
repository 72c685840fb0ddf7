"""Malformed files of boosted trees: refused with a reason, before the library sees them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest
import xgboost

from easeml_core.errors import ArtifactError
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.data.parts import OpenParts

SMALL = {"lightgbm": {"n_estimators": 2, "num_leaves": 5}, "xgboost": {"n_estimators": 2, "max_depth": 3}}


@pytest.fixture(scope="module")
def good(digits: OpenParts, diabetes: OpenParts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small models as bytes: ten classes, and numbers."""
    folder, found = tmp_path_factory.mktemp("good"), {}
    for kind, parameters in SMALL.items():
        for name, parts in (("classes", digits), ("numbers", diabetes)):
            save_model(trainer_of(kind).fit(parts, parameters, seed=0, report=silent), folder / "model")
            found[f"{kind} {name}"] = (folder / "model").read_bytes()
    return found


def refused(content: bytes, kind: str, tmp_path: Path) -> str:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ArtifactError, match="the model file model is no") as caught:
        load_predictor(tmp_path / "model", kind)
    return str(caught.value)


def line(name: str, change: Callable[[list[str]], list[str]] | str) -> Callable[[str], str]:
    """Changes the first line of that name: its words, or all of its value."""

    def changed(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            new = change if isinstance(change, str) else " ".join(change(match[2].split(" ")))
            return f"{match[1]}{new}"

        text, times = re.subn(rf"(?m)^({name}=)(.*)$", value, text, count=1)
        assert times == 1
        return text

    return changed


def first(word: str) -> Callable[[list[str]], list[str]]:
    return lambda words: [word, *words[1:]]


TEXTS = {
    "child beyond": (line("left_child", first("900")), "indices outside of it"),
    "leaf beyond": (line("left_child", first("-900")), "indices outside of it"),
    "loop": (line("right_child", first("0")), "indices outside of it"),
    "shared child": (line("right_child", lambda words: [words[1], *words[1:]]), "indices outside of it"),
    "feature beyond": (line("split_feature", first("10")), "indices outside of it"),
    "feature negative": (line("split_feature", first("-1")), "indices outside of it"),
    "too few thresholds": (line("threshold", lambda words: words[1:]), "threshold must be 4 numbers"),
    "too many leaves": (line("leaf_value", lambda words: [*words, "1"]), "leaf_value must be 5 numbers"),
    "hexadecimal": (line("leaf_value", first("0x1p3")), "leaf_value must be 5 numbers"),
    "a leaf that is no number": (line("leaf_value", first("nan")), "leaf_value must be 5 numbers"),
    "an infinite leaf": (line("leaf_value", first("1e999")), "leaf_value is not finite"),
    "a threshold that is no number": (line("threshold", first("nan")), "threshold must be 4 numbers"),
    "a category": (line("decision_type", first("1")), "decision_type is none of numbers"),
    "a huge whole number": (line("left_child", first("9" * 30)), "left_child must be 4 numbers"),
    "two blanks": (line("left_child", lambda words: [words[0], "", *words[1:]]), "left_child must be 4 numbers"),
    "categories": (line("num_cat", "1"), "num_cat must be 0"),
    "linear leaves": (line("is_linear", "1"), "is_linear must be 0"),
    "no leaves": (line("num_leaves", "0"), "num_leaves must be a whole number from 1 to 10,000, got '0'"),
    "very many leaves": (line("num_leaves", "100000"), "num_leaves must be a whole number"),
    "another number of trees": (line("Tree", "5"), "Tree must be 0"),
    "old version": (line("version", "v3"), "it must be of version v4"),
    "labels elsewhere": (line("label_index", "7"), "with label_index 0"),
    "another objective": (line("objective", "poisson"), "the objective 'poisson' with 1 classes"),
    "classes that are none": (line("objective", "multiclass num_class:1"), "the objective"),
    "classes without trees": (line("num_class", "3"), "the objective 'regression' with 3 classes"),
    "many features": (line("max_feature_idx", "999999999"), "max_feature_idx must be a whole number"),
    "no features": (line("max_feature_idx", "-1"), "max_feature_idx must be a whole number"),
    "averaged": (lambda t: t.replace("label_index=0", "label_index=0\naverage_output"), "line 'average_output'"),
    "unknown": (lambda t: t.replace("label_index=0", "label_index=0\nforced=1"), "line 'forced=1'"),
    "twice": (lambda t: t.replace("label_index=0", "label_index=0\nlabel_index=0"), "line 'label_index=0'"),
    "no end": (lambda t: t.replace("end of trees", "end"), "it must begin with 'tree'"),
    "no trees": (lambda t: t[: t.index("Tree=0")] + "\nend of trees\n", "0 trees are no whole rounds"),
    "no head": (lambda t: t.removeprefix("tree\n"), "it must begin with 'tree'"),
    "not ascii": (lambda t: t + "\u0663", "ASCII"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_refused(name: str, good: dict[str, bytes], tmp_path: Path) -> None:
    change, message = TEXTS[name]
    text = good["lightgbm numbers"].decode()
    assert change(text) != text
    assert message in refused(change(text).encode(), "lightgbm", tmp_path)


def test_half_a_round_is_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    text = good["lightgbm classes"].decode()
    cut = text[: text.index("Tree=19")] + "\nend of trees\n"
    assert "19 trees are no whole rounds of 10" in refused(cut.encode(), "lightgbm", tmp_path)


def test_a_text_of_the_library_loses_what_is_not_needed(diabetes: OpenParts, tmp_path: Path) -> None:
    booster = lightgbm.train(
        {"verbosity": -1, "num_leaves": 4}, lightgbm.Dataset(diabetes.train_inputs, diabetes.train_labels), 3
    )
    hostile = (
        booster.model_to_string()
        .replace("tree_sizes=", "tree_sizes=99999999999 ")
        .replace("[data: ]", "[data: /etc/passwd]")
    )
    assert "/etc/passwd" in hostile
    (tmp_path / "model").write_text(hostile)
    loaded = load_predictor(tmp_path / "model", "lightgbm")
    assert not {"tree_sizes", "split_gain", "passwd"} & set(re.findall(r"\w+", loaded.model.text))
    expected = booster.predict(diabetes.validation_inputs)
    np.testing.assert_array_equal(loaded.predict(diabetes.validation_inputs), expected)


def tree(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes the first tree: a list in its first place by a value, anything else by what is given."""

    def change(fields: dict[str, Any]) -> None:
        found = fields["learner"]["gradient_booster"]["model"]["trees"][0]
        for name, value in changes.items():
            found[name] = [value, *found[name][1:]] if isinstance(found[name], list) and value is not None else value

    return change


def last_of(fields: dict[str, Any], name: str, value: int) -> None:
    """Changes the first tree in its last node, a leaf."""
    fields["learner"]["gradient_booster"]["model"]["trees"][0][name][-1] = value


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        *above, last = path.split(".")
        for name in above:
            fields = fields[int(name)] if isinstance(fields, list) else fields[name]
        fields[last] = value

    return change


MODEL, PARAMETERS = "learner.gradient_booster.model", "learner.learner_model_param"
JSONS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "child beyond": (tree(left_children=900), "indices outside of it"),
    "loop": (tree(right_children=0), "indices outside of it"),
    "negative child": (tree(left_children=-7), "indices outside of it"),
    "one child": (tree(left_children=-1), "indices outside of it"),
    "shared child": (tree(right_children=1), "indices outside of it"),
    "a leaf with a child": (lambda fields: last_of(fields, "right_children", 1), "indices outside of it"),
    "feature beyond": (tree(split_indices=10), "indices outside of it"),
    "feature negative": (tree(split_indices=-1), "indices outside of it"),
    "no list": (tree(left_children=None), "left_children must be"),
    "true alone": (put("learner.gradient_booster.model.trees.0.default_left", [True] * 15), "default_left must be"),
    "a fraction": (tree(left_children=1.5), "left_children must be"),
    "a word": (tree(split_indices="0"), "split_indices must be"),
    "nested": (tree(split_conditions=[1.0]), "XGBoost model"),
    "huge": (tree(split_conditions=1e300), "split_conditions must be"),
    "category": (tree(split_type=1), "splits by categories"),
    "default": (tree(default_left=2), "default_left must be 0 or 1"),
    "more nodes": (put(f"{MODEL}.trees.0.tree_param.num_nodes", "900"), "left_children must be 900"),
    "very many nodes": (put(f"{MODEL}.trees.0.tree_param.num_nodes", "999999999"), "num_nodes must be"),
    "deleted": (put(f"{MODEL}.trees.0.tree_param.num_deleted", "1"), "num_deleted must be"),
    "vectors": (put(f"{MODEL}.trees.0.tree_param.size_leaf_vector", "3"), "size_leaf_vector must be"),
    "other width": (put(f"{MODEL}.trees.0.tree_param.num_feature", "11"), "num_feature must be"),
    "no trees": (put(f"{MODEL}.trees", []), "0 trees are no whole rounds"),
    "order": (put(f"{MODEL}.tree_info", [0, 7]), "those of the classes in turn"),
    "dart": (put("learner.gradient_booster.name", "dart"), "must be gbtree"),
    "objective": (put("learner.objective.name", "rank:ndcg"), "the objective 'rank:ndcg' is not known"),
    "no classes": (put("learner.objective.name", "multi:softprob"), "0 classes do not fit"),
    "many classes": (put(f"{PARAMETERS}.num_class", "5"), "5 classes do not fit the objective reg:squarederror"),
    "targets": (put(f"{PARAMETERS}.num_target", "2"), "num_target must be"),
    "features": (put(f"{PARAMETERS}.num_feature", "4294967297"), "num_feature must be"),
    "base": (put(f"{PARAMETERS}.base_score", "[1,2,3]"), "base_score must be 1 numbers"),
    "base nan": (put(f"{PARAMETERS}.base_score", "nan"), "base_score must be"),
    "base huge": (put(f"{PARAMETERS}.base_score", "[1E99]"), "base_score must be"),
    "version": (put("version", [2, 1, 0]), "it must be of version 3"),
    "version words": (put("version", [3, "x", 0]), "version must be"),
    "no learner": (lambda fields: fields.pop("learner"), "learner"),
}


@pytest.mark.parametrize("name", JSONS)
def test_a_json_is_refused(name: str, good: dict[str, bytes], tmp_path: Path) -> None:
    change, message = JSONS[name]
    fields = json.loads(good["xgboost numbers"])
    change(fields)
    assert re.search(message, refused(json.dumps(fields).encode(), "xgboost", tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b"null", b"{}", b'{"learner": 3, "version": [3,0,0]}', b"[" * 100_000, b'{"a": NaN}', b"\xff\xfe"],
)
def test_another_json_is_refused(content: bytes, tmp_path: Path) -> None:
    refused(content, "xgboost", tmp_path)


def test_numbers_that_are_none_are_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    fields = json.loads(good["xgboost numbers"])
    tree(split_conditions=float("inf"))(fields)
    assert "a number is Infinity" in refused(json.dumps(fields).encode(), "xgboost", tmp_path)


def test_of_a_key_given_twice_the_library_sees_the_one_that_was_checked(good: dict[str, bytes], tmp_path: Path) -> None:
    text = good["xgboost numbers"].decode()
    hostile = text.replace('"left_children":', '"left_children":[999999999],"left_children":', 1)
    (tmp_path / "model").write_text(hostile)
    assert load_predictor(tmp_path / "model", "xgboost").model.text == text.encode()


def test_what_stands_at_a_leaf_besides_its_value_is_dropped(good: dict[str, bytes], tmp_path: Path) -> None:
    fields = json.loads(good["xgboost numbers"])
    for name in ("split_indices", "sum_hessian", "parents"):
        last_of(fields, name, 10**8)
    (tmp_path / "model").write_text(json.dumps(fields))
    assert load_predictor(tmp_path / "model", "xgboost").model.text == good["xgboost numbers"]


def test_a_json_of_the_library_loses_what_is_not_needed(diabetes: OpenParts, tmp_path: Path) -> None:
    data = xgboost.DMatrix(diabetes.train_inputs, diabetes.train_labels, nthread=1)
    booster = xgboost.train({"nthread": 1, "max_depth": 3}, data, 3)
    booster.set_attr(note="x" * 1000)
    (tmp_path / "model").write_bytes(bytes(booster.save_raw("json")))
    loaded = load_predictor(tmp_path / "model", "xgboost")
    assert b"xxx" not in loaded.model.text
    expected = booster.predict(xgboost.DMatrix(diabetes.validation_inputs, nthread=1))
    np.testing.assert_array_equal(loaded.predict(diabetes.validation_inputs), expected.astype(np.float64))


@pytest.mark.parametrize("name", ["lightgbm classes", "lightgbm numbers", "xgboost classes", "xgboost numbers"])
def test_damaged_bytes_are_refused_or_answer(name: str, good: dict[str, bytes], request: Any, tmp_path: Path) -> None:
    """300 files with one to three bytes changed to others of the same file: the process must survive each."""
    kind, _, targets = name.partition(" ")
    parts = request.getfixturevalue("digits" if targets == "classes" else "diabetes")
    rng, content = np.random.default_rng(11), np.frombuffer(good[name], np.uint8)
    loaded = 0
    for _ in range(300):
        damaged = content.copy()
        count = rng.integers(1, 4)
        damaged[rng.integers(len(content), size=count)] = content[rng.integers(len(content), size=count)]
        (tmp_path / "model").write_bytes(damaged.tobytes())
        try:
            predictor = load_predictor(tmp_path / "model", kind)
        except ArtifactError:
            continue
        loaded += 1
        assert np.isfinite(predictor.scores(parts.validation_inputs[:5])).all()
    assert 0 < loaded < 300

"""Candidates from search spaces: what comes out, and that a space is checked as a whole before anything is drawn."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.training.candidates import MOST_CANDIDATES, check_spaces, expand_candidates
from easeml_core.training.trainers import TRAINERS, check_candidates

FOREST = {"kind": "random_forest", "space": {"n_estimators": {".int": [10, 200]}}, "count": 4}


def test_entries_without_a_space_stay_as_they_are() -> None:
    plain = [{"name": "a", "kind": "decision_tree"}, {"name": "a", "kind": "oak"}, "no entry"]
    assert expand_candidates(plain) == plain


def test_a_space_gives_so_many_candidates_under_names_of_their_own() -> None:
    found = expand_candidates([{"name": "plain", "kind": "decision_tree"}, FOREST | {"devices": ["cpu"]}])
    assert found[0] == {"name": "plain", "kind": "decision_tree"}
    assert [c["kind"] for c in found[1:]] == ["random_forest"] * 4
    assert len({c["name"] for c in found}) == 5
    assert all(c["name"].startswith("random_forest-n_estimators") and len(c["name"]) <= 200 for c in found[1:])
    assert all(c["devices"] == ["cpu"] for c in found[1:])
    drawn = sorted(c["parameters"]["n_estimators"] for c in found[1:])
    assert [(n - 10) * 4 // 191 for n in drawn] == [0, 1, 2, 3]  # one in each quarter of the range
    assert expand_candidates([FOREST]) == expand_candidates([FOREST | {"seed": 0}])
    svm = {"kind": "rbf_svm", "space": {"C": {".float": [0.1, 10], ".scale": "log"}}, "count": 4}
    assert expand_candidates([svm | {"seed": 1}]) != expand_candidates([svm])


def test_the_kind_may_be_chosen_too_and_brings_its_own_parameters() -> None:
    text = """
.choice:
  - kind: {.choice: [nearest_centroid, gaussian_naive_bayes]}
  - {kind: rbf_svm, C: {.float: [-1, 1], .scale: exp}}
  - {kind: decision_tree, max_depth: {.int: [2, 4]}}
"""
    found = check_candidates(expand_candidates([{"space": text, "count": 9}]))
    kinds = [c["kind"] for c in found]
    assert sorted(set(kinds)) == ["decision_tree", "gaussian_naive_bayes", "nearest_centroid", "rbf_svm"]
    assert len(found) == 9
    assert all(0.1 <= c["parameters"]["C"] <= 10 for c in found if c["kind"] == "rbf_svm")
    assert sorted(c["parameters"]["max_depth"] for c in found if c["kind"] == "decision_tree") == [2, 3, 4]


def test_a_small_space_gives_all_its_points_without_a_count() -> None:
    grid = {"kind": "decision_tree", "space": {"max_depth": {".choice": [3, 9]}}, "name": "tree"}
    found = expand_candidates([grid])
    assert [c["parameters"] for c in found] == [{"max_depth": 3}, {"max_depth": 9}]
    assert found[0]["name"].startswith("tree-max_depth3-")


def test_overlapping_spaces_give_a_candidate_once() -> None:
    twice = {"kind": "decision_tree", "space": {"max_depth": {".choice": [3, 5]}}}
    assert len(expand_candidates([{"kind": "decision_tree", "space": {"max_depth": {".choice": [3, 9]}}}, twice])) == 3


def test_parameters_beside_the_space_are_shared_and_ones_own_may_nest() -> None:
    program = "sha256:" + 64 * "0"
    optimizer = {".choice": [{"type": "sgd", "rate": {".float": [-3, -1], ".scale": "exp"}}, {"type": "adam"}]}
    entry = {"kind": "command", "parameters": {"program": program}, "space": {"optimizer": optimizer}, "count": 3}
    found = check_candidates(expand_candidates([entry | {"name": "net"}]))
    assert [c["parameters"]["program"] for c in found] == [program] * 3
    assert [c["parameters"]["optimizer"]["type"] for c in found].count("adam") == 1
    assert all(c["name"].startswith("net-") and "sha256" not in c["name"] for c in found)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"space": {"max_depth": {".int": [0, 9]}}}, ConfigError, r"decision_tree\.max_depth .*from 1 to 1,000, got 0"),
    ({"space": {"max_depth": {".int": [2, 9999]}}}, ConfigError, "from 1 to 1,000, got 9999"),
    ({"space": {"max_depth": {".int": [0, 9], ".scale": "exp"}}}, ConfigError, "from 1 to 1,000, got 1000000000"),
    ({"space": {"max_depth": {".float": [2, 9]}}}, ConfigError, r"max_depth must be a whole number"),
    ({"space": {"max_depth": {".choice": [2, "deep"]}}}, ConfigError, "got 'deep'"),
    ({"space": {"max_depth": {".choice": [2, [3]]}}}, ConfigError, r"whole number .* got \[3\]"),
    ({"space": {"max_depth": {".choice": [2, {"a": 3}]}}}, ConfigError, "whole number .* got {'a': 3}"),
    ({"space": {"depth": 3}}, InvalidInputError, "decision_tree has no parameter 'depth'; allowed: max_depth"),
    ({"space": {"max_depth": 3}, "parameters": {"max_depth": 4}}, InvalidInputError, "beside the space and inside it"),
    ({"space": {"max_depth": 3}, "parameters": [4]}, InvalidInputError, "are a mapping that all its candidates share"),
    ({"space": {"max_depth": 3}, "parameters": {"max_leaf": 4}}, InvalidInputError, "no parameter 'max_leaf'"),
    ({"space": {"max_depth": 3, "kind": "linear_svm"}}, InvalidInputError, "both beside the space and inside it"),
    ({"space": {"max_depth": 3}, "kind": None}, InvalidInputError, "neither beside the space nor inside it"),
    ({"space": {"kind": "oak"}, "kind": None}, InvalidInputError, "no trainer kind 'oak'"),
    ({"space": {"kind": {".int": [1, 2]}}, "kind": None}, InvalidInputError, "is a word, or a .choice of words, got 1"),
    ({"space": {".choice": [{"max_depth": 3}, {"max_depth": 0}]}}, ConfigError, "from 1 to 1,000, got 0"),
    ({"space": {"max_depth": {".int": [9, 2]}}}, InvalidInputError, r"search space: max_depth\.int: the low bound"),
    ({"space": "max_depth: {.int: [9"}, InvalidInputError, "neither YAML nor JSON"),
    ({"space": 3}, InvalidInputError, "a candidate is a mapping of parameters"),
    ({"space": {"max_depth": 3}, "count": 0}, ConfigError, "count must be a whole number from 1 to 1,000, got 0"),
    ({"space": {"max_depth": 3}, "count": True}, ConfigError, "count must be"),
    ({"space": {"max_depth": 3}, "seed": -1}, ConfigError, "seed must be"),
    ({"space": {"max_depth": 3}, "counts": 1}, InvalidInputError, "has the fields .* got 'counts'"),
    ({"space": {"C": {".float": [1, 2]}}, "kind": "rbf_svm"}, InvalidInputError, "1,000 points needs a count"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "error", "words"), REFUSED)
def test_mistakes_are_found_before_anything_is_drawn(entry: Any, error: type[Exception], words: str) -> None:
    given_kind = {"kind": "decision_tree"} | entry
    if given_kind["kind"] is None:
        del given_kind["kind"]
    for check in (check_spaces, expand_candidates):
        with pytest.raises(error, match=words):
            check([given_kind])


def test_a_study_has_at_most_so_many() -> None:
    spaces = [FOREST | {"name": str(n), "count": 190} for n in range(6)]
    with pytest.raises(InvalidInputError, match="the search spaces give more than 1,000"):
        expand_candidates(spaces)
    assert len(expand_candidates(spaces[:5])) == 950 <= MOST_CANDIDATES


def test_checking_loads_nothing_heavy() -> None:
    code = (
        "import sys; from easeml_core.training.candidates import check_spaces; "
        f"check_spaces([{FOREST!r}]); "
        "assert not {'numpy', 'scipy', 'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


NUMBERS = st.floats(-2000, 2000, allow_nan=False).map(lambda x: round(x, 3))


@settings(max_examples=examples(150), deadline=None)
@given(
    low=NUMBERS, width=st.floats(0, 300).map(lambda x: round(x, 2)), whole=st.booleans(),
    name=st.sampled_from(["n_estimators", "max_depth", "learning_rate", "C"]), seed=st.integers(0, 9),
)  # fmt: skip
def test_a_space_passes_exactly_if_all_that_it_can_give_passes(
    low: float, width: float, whole: bool, name: str, seed: int
) -> None:
    kinds = [k for k, t in TRAINERS.items() if name in t.rules and not t.files]
    ends = [math.floor(low), math.floor(low + width)] if whole else [low, low + width]
    space = {name: {".int" if whole else ".float": ends}}
    for kind in kinds[:2]:
        try:
            check_spaces([{"kind": kind, "space": space, "count": 5, "seed": seed}])
        except ConfigError:
            inside = [*ends, ends[0] + 0.3718281 * (ends[1] - ends[0])] if not whole else ends
            assert any(_refused(kind, name, value) for value in inside)
            continue
        candidates = expand_candidates([{"kind": kind, "space": space, "count": 5, "seed": seed}])
        assert check_candidates(candidates) == candidates


def _refused(kind: str, name: str, value: float) -> bool:
    try:
        TRAINERS[kind].parameters({name: value})
    except ConfigError:
        return True
    return False

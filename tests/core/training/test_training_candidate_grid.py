"""One candidate as several: rates and normalisations, distinct names, given values stay."""

from __future__ import annotations

import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.training.candidates import GRIDS, RATES, grid_of
from easeml_core.training.trainers import TRAINERS, check_candidates


@pytest.mark.parametrize(
    ("kind", "grid", "count"),
    [
        ("resnet", "one", 1), ("resnet", "rates", 5), ("resnet", "full", 25),
        ("lstm", "one", 1), ("lstm", "rates", 5), ("lstm", "full", 5),
        ("random_forest", "full", 1), ("lightgbm", "full", 1), ("rocket", "full", 1),
    ],
)  # fmt: skip
def test_how_many_a_candidate_becomes(kind: str, grid: str, count: int) -> None:
    assert len(grid_of({"name": "a", "kind": kind, "parameters": {}}, grid)) == count


def test_names_and_parameters_of_the_full_grid() -> None:
    found = grid_of({"name": "net", "kind": "vgg", "parameters": {"epochs": 3}}, "full")
    assert [c["name"] for c in found[:6]] == [
        "net-lr0.1", "net-lr0.1-f0.2", "net-lr0.1-f0.4", "net-lr0.1-f0.6", "net-lr0.1-f0.8", "net-lr0.01",
    ]  # fmt: skip
    assert found[2]["parameters"] == {"epochs": 3, "learning_rate": 0.1, "normalisation": "0.4"}
    assert {c["parameters"]["learning_rate"] for c in found} == {1e-1, 1e-2, 1e-3, 1e-4, 1e-5}


def test_what_is_given_is_not_varied() -> None:
    given = {"name": "net", "kind": "vgg", "parameters": {"learning_rate": 0.3, "normalisation": "0.8"}}
    assert grid_of(given, "full") == [given]
    one = grid_of({**given, "parameters": {"learning_rate": 0.3}}, "full")
    assert [c["name"] for c in one] == ["net", "net-f0.2", "net-f0.4", "net-f0.6", "net-f0.8"]


@pytest.mark.parametrize("kind", TRAINERS)
def test_all_of_them_are_sound_candidates_with_different_names(kind: str) -> None:
    rules = TRAINERS[kind].rules
    for grid in GRIDS:
        found = grid_of({"name": kind, "kind": kind}, grid)
        varied = [
            {n: c["parameters"][n] for n in ("learning_rate", "normalisation") if n in c["parameters"]} for c in found
        ]
        assert all(set(each) <= set(rules) for each in varied)
        assert len({c["name"] for c in found}) == len(found) in (1, len(RATES), 5 * len(RATES))


def test_networks_of_the_grid_pass_the_check_of_a_study() -> None:
    found = grid_of({"name": "net", "kind": "googlenet"}, "full")
    assert check_candidates(found) == found


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no grid 'fine'; allowed: one, rates, full"):
        grid_of({"name": "a", "kind": "vgg"}, "fine")
    with pytest.raises(InvalidInputError, match="no trainer kind 'vgg16'"):
        grid_of({"name": "a", "kind": "vgg16"}, "full")

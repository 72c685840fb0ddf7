"""Which epoch is kept, and why the validation part has no say in it; half precision; reports of epochs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.data.layout import table_layout
from easeml_core.data.parts import OpenParts
from easeml_core.entities import Task
from easeml_core.errors import ConfigError, TrainingError
from easeml_core.models.networks.network import NetworkPredictor
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import score_on_validation
from easeml_core.training.epoch_rules import BestEpoch, Precision, held_out, loss_on, quality_on_validation
from easeml_core.training.job import Run
from easeml_core.training.network_training import device_of
from easeml_core.training.trainers import trainer_of

CPU = torch.device("cpu")

if TYPE_CHECKING:
    Reported = list[dict[str, Any]]


def fit(parts: OpenParts, run: Run, **parameters: Any) -> tuple[Any, Reported]:
    """The network in the end, and the reports of its epochs."""
    reported: Reported = []

    def report(progress: float, note: str, quality: float | None = None, **more: Any) -> None:
        reported.append({"progress": progress, "note": note, "quality": quality, **more})

    predictor = trainer_of("torch_mlp").fit(parts, parameters, seed=1, report=report, run=run)
    return predictor.network, reported


@pytest.fixture(scope="module")
def noise() -> OpenParts:
    """Labels that nothing explains: after a few epochs a network only learns them by heart."""
    rng = np.random.default_rng(5)
    inputs, labels = rng.normal(size=(500, 20)).astype(np.float32), rng.integers(0, 2, size=500)
    return OpenParts(inputs[:400], labels[:400], inputs[400:], labels[400:], 2, table_layout(20))


@given(st.integers(4, 100_000), st.integers(0, 2**32 - 1))
def test_rows_are_learnt_from_or_held_out_and_never_both(rows: int, seed: int) -> None:
    learn, hold = held_out(rows, seed)
    assert np.array_equal(np.sort(np.concatenate([learn, hold])), np.arange(rows))
    assert len(hold) == (0 if rows < 200 else min(5000, rows // 10))
    again = held_out(rows, seed)
    assert np.array_equal(again[0], learn)
    assert np.array_equal(again[1], hold)


@given(st.lists(st.floats(allow_infinity=True) | st.floats(0, 3), max_size=30), st.integers(1, 5))
def test_the_best_epoch_is_the_first_with_the_least_loss(losses: list[float], patience: int) -> None:
    best = BestEpoch()
    for epoch, loss in enumerate(losses, start=1):
        best.improves(epoch, loss)
    finite = [loss for loss in losses if loss < np.inf]
    assert best.epoch == (losses.index(min(finite)) + 1 if finite else 0)
    assert best.is_over(len(losses), patience) == (len(losses) - best.epoch >= patience)


def test_training_ends_when_nothing_is_left_to_learn_and_the_best_epoch_is_kept(noise: OpenParts) -> None:
    run = Run(patience=3)
    network, reported = fit(noise, run, epochs=200, learning_rate=0.01)
    last, note = reported[-2]["step"], reported[-1]["note"]
    assert last < 60
    assert note == f"stopped early: the loss on held-out rows is least after epoch {last - 3}, which is kept"
    _, hold = held_out(400, 1)
    losses = []
    for epochs in range(1, last + 1):
        after, _ = fit(noise, run, epochs=epochs, learning_rate=0.01)
        losses.append(loss_on(after, noise.train_inputs[hold], noise.train_labels[hold], CPU))
    least = loss_on(network, noise.train_inputs[hold], noise.train_labels[hold], CPU)
    assert least == min(losses)
    assert losses.index(least) + 1 == last - 3  # each of them is the least so far


def test_every_epoch_is_trained_and_the_last_one_kept_where_that_is_off(noise: OpenParts) -> None:
    _, reported = fit(noise, Run(patience=None), epochs=30, learning_rate=0.01)
    assert [news["step"] for news in reported] == list(range(1, 31))
    few = dataclasses.replace(noise, train_inputs=noise.train_inputs[:199], train_labels=noise.train_labels[:199])
    _, reported = fit(few, Run(patience=1), epochs=30, learning_rate=0.01)
    assert len(reported) == 30  # too few rows to hold any out


def test_the_validation_part_has_no_say_in_the_weights(noise: OpenParts) -> None:
    other = dataclasses.replace(
        noise, validation_labels=1 - noise.validation_labels, validation_inputs=noise.validation_inputs[::-1].copy()
    )
    first, reported = fit(noise, Run(patience=2), epochs=20)
    second, reported_other = fit(other, Run(patience=2), epochs=20)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert [n["note"] for n in reported] == [n["note"] for n in reported_other]
    assert [n["quality"] for n in reported] != [n["quality"] for n in reported_other]


def test_what_is_reported_of_an_epoch(digits: OpenParts) -> None:
    network, reported = fit(digits, Run(), epochs=4)
    assert [(n["step"], n["of"]) for n in reported] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(n["loss"] > 0 for n in reported)
    assert reported[-1]["loss"] < reported[0]["loss"]
    left = [n["seconds_left"] for n in reported]
    assert left[-1] == 0.0
    assert all(seconds > 0 for seconds in left[:-1])
    _, quality, _ = score_on_validation("torch_mlp", NetworkPredictor(network), digits)
    assert reported[-1]["quality"] == pytest.approx(quality)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "log_loss", "auc"])
def test_the_quality_of_an_epoch_is_that_of_the_metric(metric: str, digits: OpenParts) -> None:
    network, reported = fit(digits, Run(metric=metric), epochs=1)
    _, quality, _ = score_on_validation("torch_mlp", NetworkPredictor(network), digits, metric)
    assert reported[0]["quality"] == pytest.approx(quality, rel=1e-5)


@pytest.mark.parametrize("metric", [None, "rmse", "within:40"])
def test_the_quality_of_an_epoch_about_numbers(metric: str | None, diabetes: OpenParts) -> None:
    network, reported = fit(diabetes, Run(metric=metric), epochs=3)
    _, quality, _ = score_on_validation("torch_mlp", NetworkPredictor(network), diabetes, metric)
    assert reported[-1]["quality"] == pytest.approx(quality, rel=1e-5)


def test_a_metric_without_a_value_is_no_quality_and_no_end(digits: OpenParts) -> None:
    ones = dataclasses.replace(digits, validation_labels=np.ones_like(digits.validation_labels))
    network, reported = fit(ones, Run(metric="auc"), epochs=1)
    assert reported[0]["quality"] is None
    assert quality_on_validation(network, digits, CPU, "auc") is not None


def test_half_precision_learns_as_well_and_is_another_training(digits: OpenParts) -> None:
    full, reported_full = fit(digits, Run(mixed_precision="off"), epochs=8)
    half, reported_half = fit(digits, Run(mixed_precision="on"), epochs=8)
    assert reported_half[-1]["quality"] > 0.8
    assert abs(reported_half[-1]["quality"] - reported_full[-1]["quality"]) < 0.1
    assert not torch.equal(full.state_dict()["body.0.weight"], half.state_dict()["body.0.weight"])
    assert all(t.dtype in (torch.float32, torch.int64) for t in half.state_dict().values())  # weights stay whole
    auto, _ = fit(digits, Run(mixed_precision="auto"), epochs=8)
    assert torch.equal(full.state_dict()["body.0.weight"], auto.state_dict()["body.0.weight"])  # off on the CPU


def test_gradients_that_are_scaled_are_scaled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16, as on a GPU without bfloat16: the scaler is made for the CPU here, which has one too."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda _, *, enabled: scaler("cpu", enabled=enabled))
    scaler = torch.amp.grad_scaler.GradScaler
    precision = Precision(Run(mixed_precision="on"), torch.device("cuda"))
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    precision.step((weight**2).sum(), torch.optim.SGD([weight], lr=0.1))
    assert weight.item() == pytest.approx(3.0 - 0.1 * 6.0)
    state = precision.state()
    assert state["scale"] == 65536.0
    other = Precision(Run(mixed_precision="on"), torch.device("cuda"))
    other.go_on(state | {"scale": 1024.0})
    assert other.state()["scale"] == 1024.0
    assert Precision(Run(), CPU).state() == {}


def test_settings_that_are_none() -> None:
    with pytest.raises(ConfigError, match="mixed_precision must be auto, on, off, got 'half'"):
        Precision(Run(mixed_precision="half"), CPU)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="this trial's slot is cuda, and torch sees no such GPU here"):
            device_of(Run(device="cuda"))
    assert device_of(Run(device="cpu")) == CPU


def test_a_loss_that_is_not_finite_names_the_learning_rate(diabetes: OpenParts) -> None:
    assert diabetes.task == Task.REGRESSION
    with pytest.raises(
        TrainingError, match=r"torch_mlp diverged: the loss of epoch 1 is (nan|inf); lower learning_rate"
    ):
        trainer_of("torch_mlp").fit(diabetes, {"learning_rate": 1e30}, seed=0, report=silent, run=Run(patience=5))

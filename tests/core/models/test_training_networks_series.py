"""Networks for series: each learns, round trips, ends where the series ends; MiniRocket's parts by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_data import parts_of, waves
from property_sizes import at_night, examples

from easeml_core.data.layout import Layout
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.models.networks.architecture import NETWORKS
from easeml_core.models.networks.layers import as_series
from easeml_core.models.networks.network import Architecture, NetworkPredictor, build_network
from easeml_core.models.networks.series import Rocket, backwards
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import validate
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from pathlib import Path

KINDS = [name for name, kind in NETWORKS.items() if kind.layout == "series" and not kind.answer]
BY_STEPS = [kind for kind in KINDS if kind != "rocket"]


def small(kind: str, **changes: Any) -> dict[str, Any]:
    """Parameters of a network that is through in a second."""
    if kind == "rocket":
        return {"features_per_kernel": 8}
    epochs = {"rnn": 25, "cnn_1d": 6}.get(kind, 20)
    return {"hidden_width": 24, "epochs": epochs, "batch_size": 16, "learning_rate": 6e-3, **changes}


@pytest.mark.parametrize("kind", [at_night(k) if k in ("rnn", "gru", "bi_lstm") else k for k in KINDS])
def test_each_tells_frequencies_apart_and_is_kept_as_it_is(kind: str, tmp_path: Path) -> None:
    parts = waves()
    predictor = trainer_of(kind).fit(parts, small(kind), seed=2, report=silent)
    quality, labels = validate(kind, predictor, parts)
    assert quality > 0.5  # three classes: guessing gives a third
    assert validate(kind, predictor, parts, "auc")[0] > 0.65
    save_model(predictor, tmp_path / "model")
    loaded = load_predictor(tmp_path / "model", "safetensors")
    np.testing.assert_array_equal(loaded.predict(parts.validation_inputs), labels)
    np.testing.assert_array_equal(loaded.scores(parts.validation_inputs), predictor.scores(parts.validation_inputs))
    chances = predictor.probabilities(parts.validation_inputs, classes=3)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("kind", ["rocket", "lstm", "cnn_1d"])
def test_numbers_are_learnt_in_their_own_unit(kind: str, tmp_path: Path) -> None:
    parts = waves(is_number=True)
    predictor = trainer_of(kind).fit(parts, small(kind), seed=0, report=silent)
    quality, numbers = validate(kind, predictor, parts, "r2")
    assert quality > 0.6  # one half is the mean of all
    assert (numbers.dtype, numbers.max() > 2000) == (np.float64, True)
    save_model(predictor, tmp_path / "model")
    np.testing.assert_array_equal(
        load_predictor(tmp_path / "model", "safetensors").predict(parts.validation_inputs), numbers
    )


@pytest.mark.parametrize("kind", ["rocket", "gru"])
def test_the_seed_decides(kind: str) -> None:
    parts = waves(rows=60)
    given = small(kind) if kind == "rocket" else small(kind, epochs=1)
    fitted = [trainer_of(kind).fit(parts, given, seed=s, report=silent) for s in (3, 3, 4)]
    first, again, other = (predictor.scores(parts.validation_inputs) for predictor in fitted)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def made(kind: str, steps: int, *, channels: int = 2) -> NetworkPredictor:
    architecture = Architecture(kind, steps * channels, 3, 12, channels=channels, steps=steps)
    torch.manual_seed(0)
    network = build_network(architecture)
    if kind == "rocket":
        torch.nn.init.normal_(network.body.thresholds)
    return NetworkPredictor(network)


@pytest.mark.parametrize("kind", BY_STEPS)
def test_the_same_series_in_a_longer_table_has_the_same_answer(kind: str) -> None:
    rng = np.random.default_rng(0)
    series = rng.normal(size=(6, 9, 2)).astype(np.float32)
    series[0, 5:], series[1, 1:], series[2, 3, 0] = np.nan, np.nan, np.nan
    longer = np.concatenate([series, np.full((6, 30, 2), np.nan, np.float32)], axis=1)
    short, long = made(kind, 9), made(kind, 39)
    long.network.body.load_state_dict(short.network.body.state_dict())
    for predictor in (short, long):
        for normed in [m for m in predictor.network.modules() if isinstance(m, torch.nn.BatchNorm1d)]:
            normed.running_mean.fill_(-0.7)  # or what follows could be 0 by chance
    expected = short.scores(series.reshape(6, -1))
    np.testing.assert_allclose(long.scores(longer.reshape(6, -1)), expected, atol=2e-6)
    assert np.ptp(expected, axis=0).min() > 1e-3


def test_shares_of_the_same_series_in_a_longer_table_are_the_same() -> None:
    a = Architecture("rocket", 20, 2, 2, channels=1, steps=20)
    short, long = Rocket(a), Rocket(replace(a, features=24, steps=24))
    assert short.dilations == long.dilations == [1, 2]
    torch.nn.init.normal_(short.thresholds)
    long.load_state_dict(short.state_dict())
    series = torch.randn(4, 20)
    series[0, 11:] = float("nan")
    longer = torch.cat([series, torch.full((4, 4), float("nan"))], dim=1)
    torch.testing.assert_close(short.shares(series), long.shares(longer))


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_its_own_row_s_alone(kind: str) -> None:
    rng = np.random.default_rng(1)
    predictor, inputs = made(kind, 20), rng.normal(size=(300, 40)).astype(np.float32)
    inputs[::3, 24:], inputs[5] = np.nan, np.nan
    whole, some = predictor.scores(inputs), rng.permutation(300)[:17]
    np.testing.assert_array_equal(predictor.scores(inputs[some]), whole[some])
    assert np.isfinite(whole).all()
    assert predictor.scores(inputs[:0]).shape == (0, 3)


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), channels=st.integers(1, 3))
@settings(deadline=None, max_examples=examples(40))
def test_a_series_ends_with_its_last_step_that_has_a_value(lengths: list[int], channels: int) -> None:
    rows = torch.full((len(lengths), 6, channels), float("nan"))
    for row, length in enumerate(lengths):
        rows[row, :length, -1] = 2.0
        rows[row, : max(0, length - 1)] = float("nan") if length % 2 else 2.0  # gaps do not end it
    series, found = as_series(rows.flatten(1), channels)
    assert found.tolist() == [max(1, length) for length in lengths]
    assert series.isfinite().all()
    assert series.shape == (len(lengths), 6, channels)


def test_backwards_begins_at_the_end_of_each_series() -> None:
    series = torch.tensor([[1.0, 2, 3, 4], [5, 6, 0, 0]])[:, :, None]
    back = backwards(series, torch.tensor([4, 2]))
    assert back[0, :, 0].tolist() == [4, 3, 2, 1]
    assert back[1, :2, 0].tolist() == [6, 5]


def test_scale_is_one_for_each_channel_over_all_steps() -> None:
    parts = waves(channels=2)
    table = parts.train_inputs.reshape(-1, 24, 2).copy()
    table[..., 1] *= 100
    network = build_network(Architecture("gru", 48, 3, 4, channels=2, steps=24))
    network.learn_scale(table.reshape(len(table), -1), parts.train_labels)
    mean, scale = network.mean.reshape(24, 2), network.scale.reshape(24, 2)
    for channel in (0, 1):
        np.testing.assert_allclose(mean[:, channel], np.nanmean(table[..., channel]), rtol=1e-5)
        np.testing.assert_allclose(scale[:, channel], np.nanstd(table[..., channel]), rtol=1e-5)


def test_kernels_are_those_of_the_paper() -> None:
    kernels = Rocket(Architecture("rocket", 30, 2, 4, channels=1, steps=30)).kernels[:, 0]
    assert kernels.shape == (84, 9)
    assert set(kernels.unique().tolist()) == {-1.0, 2.0}
    assert torch.equal(kernels.sum(dim=1), torch.zeros(84))  # so a level shift changes nothing
    assert len({tuple(kernel) for kernel in kernels.tolist()}) == 84


@pytest.mark.parametrize(
    ("steps", "dilations"), [(1, [1]), (9, [1]), (17, [1, 2]), (24, [1, 2]), (200, [1, 2, 4, 8, 16])]
)
def test_kernels_are_spread_up_to_the_length_of_the_series(steps: int, dilations: list[int]) -> None:
    body = Rocket(Architecture("rocket", steps, 2, 24, channels=1, steps=steps))
    assert body.dilations == dilations
    assert body.shares(torch.randn(3, steps)).shape == (3, 84 * (24 // len(dilations)) * len(dilations))


def test_a_share_is_counted_over_the_steps_that_are_there() -> None:
    body = Rocket(Architecture("rocket", 6, 2, 1, channels=1, steps=6))
    series = torch.tensor([[1.0, -2.0, 0.5, 3.0, float("nan"), float("nan")]])
    padded = np.pad([1.0, -2.0, 0.5, 3.0, 0.0, 0.0], 4)
    for kernel, found in zip(body.kernels[:, 0].numpy(), body.shares(series)[0], strict=True):
        answers = [float(padded[at : at + 9] @ kernel) for at in range(4)]
        assert found.item() == np.mean(np.array(answers) > 0)


def test_rocket_trains_on_no_more_rows_than_allowed() -> None:
    parts = waves(rows=90)
    reported = trainer_of("rocket").fit(parts, {"features_per_kernel": 2, "max_rows": 12}, seed=0, report=silent)
    all_rows = trainer_of("rocket").fit(parts, {"features_per_kernel": 2}, seed=0, report=silent)
    assert not np.array_equal(reported.scores(parts.validation_inputs), all_rows.scores(parts.validation_inputs))


def test_many_channels_and_one_step_are_no_obstacle() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    parts = parts_of(
        rng.normal(size=(60, 1, 20)) + labels[:, None, None], labels, Layout("series", (1, 20)), train=40, classes=2
    )
    for kind in ("rocket", "cnn_1d", "bi_lstm"):
        predictor = trainer_of(kind).fit(parts, small(kind), seed=0, report=silent)
        assert validate(kind, predictor, parts)[0] > 0.7

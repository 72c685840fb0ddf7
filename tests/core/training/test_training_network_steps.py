"""A learning rate that rises and falls, and images that are moved: what they are, and what they change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_data import tinted

from easeml_core.data.layout import Layout
from easeml_core.entities import Task
from easeml_core.models.networks.architecture import architecture_for
from easeml_core.models.networks.network import build_network
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.epoch_rules import moved, share_of_rate
from easeml_core.training.job import Run
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from easeml_core.data.parts import OpenParts


def fit(parts: OpenParts, run: Run | None = None, *, kind: str = "torch_cnn", **parameters: Any) -> tuple[Any, Any]:
    """The weights in the end, and the reports of epochs."""
    reported: list[dict[str, Any]] = []

    def report(progress: float, note: str, quality: float | None = None, **more: Any) -> None:
        reported.append({"note": note, **more})

    predictor = trainer_of(kind).fit(parts, parameters, seed=2, report=report, run=run or Run())
    return predictor.network.state_dict(), reported


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_fall_is_the_cosine_of_torch() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(40):
        assert share_of_rate(0.2 + 0.8 * step / 40) == pytest.approx(cosine.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        cosine.step()


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_rate_rises_and_then_falls_and_is_never_below_nothing(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0 <= share_of_rate(low) <= 1
    if high <= 0.2:
        assert share_of_rate(low) <= share_of_rate(high)
    if low >= 0.2:
        assert share_of_rate(low) >= share_of_rate(high)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 3]), st.integers(0, 50), st.integers(0, 99))
def test_each_image_is_moved_as_a_whole_and_borders_go_on(
    height: int, breadth: int, channels: int, percent: int, seed: int
) -> None:
    images = np.random.default_rng(seed).normal(size=(3, height, breadth, channels)).astype(np.float32)
    torch.manual_seed(seed)
    found = moved(torch.from_numpy(images.reshape(3, -1)), images.shape[1:], percent).numpy().reshape(images.shape)
    far, wide = height * percent // 100, breadth * percent // 100
    for before, after in zip(images, found, strict=True):
        padded = np.pad(before, ((far, far), (wide, wide), (0, 0)), mode="edge")
        places = [(i, j) for i in range(2 * far + 1) for j in range(2 * wide + 1)]
        assert any(np.array_equal(padded[i : i + height, j : j + breadth], after) for i, j in places)


def test_images_go_different_ways() -> None:
    torch.manual_seed(0)
    rows = torch.arange(100.0).expand(50, 100)
    assert len(moved(rows, (10, 10, 1), 20).unique(dim=0)) > 10


def test_where_the_rate_falls_to_nothing_every_epoch_is_trained_on_every_row() -> None:
    rng = np.random.default_rng(0)
    parts = tinted(rows=300)
    noise = replace(parts, train_labels=rng.integers(0, 3, len(parts.train_labels)))  # nothing to be learnt
    small = {"channels": 2, "epochs": 12, "learning_rate": 0.02}
    stopping, reported = fit(noise, Run(patience=1), **small)
    assert [news["step"] for news in reported] == list(range(1, 13))
    assert same(stopping, fit(noise, Run(patience=None), **small)[0])
    _, reported = fit(noise, Run(patience=1), schedule="constant", **small)
    assert reported[-1]["note"].startswith("stopped early")


def test_only_images_that_are_reported_into_classes_are_moved() -> None:
    small = {"channels": 2, "epochs": 1}
    classes, numbers = tinted(), tinted(is_number=True)
    assert not same(fit(classes, **small, shift_percent=0)[0], fit(classes, **small, shift_percent=30)[0])
    assert same(fit(numbers, **small, shift_percent=0)[0], fit(numbers, **small, shift_percent=30)[0])


def test_the_defaults_learn_what_is_there() -> None:
    parts = tinted()
    predictor = trainer_of("torch_cnn").fit(parts, {"channels": 4}, seed=0, report=silent)
    assert (predictor.predict(parts.validation_inputs) == parts.validation_labels).mean() > 0.8


@pytest.mark.parametrize(("height", "breadth"), [(4, 4), (5, 40), (17, 9)])
def test_images_of_any_size_are_taken(height: int, breadth: int) -> None:
    layout = Layout("image", (height, breadth, 3))
    given = trainer_of("torch_cnn").parameters({"channels": 2})
    network = build_network(architecture_for("torch_cnn", given, layout=layout, classes=5, task=Task.CLASSIFICATION))
    network.train()
    assert network.logits(torch.rand(3, layout.features)).shape == (3, 5)
    assert network.logits(torch.rand(1, layout.features)).isfinite().all()  # a last batch of one row

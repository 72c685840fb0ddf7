"""Networks with answers of many numbers, and on trees: each learns something that only its structure makes easy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.models.networks.layers import shaped_loss
from easeml_core.models.networks.structured import (
    AutoEncoder,
    BitAutoEncoder,
    Bits,
    Seq2Seq,
    TreeRnn,
    UNet,
    numbers_of,
)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def trained(make: Callable[[], Any], rows: torch.Tensor, targets: torch.Tensor, loss: Loss, *, steps: int = 150) -> Any:
    """A body after some steps of Adam on batches of 32 rows."""
    torch.manual_seed(0)
    body, drawn = make(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(body.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(len(rows), (32,), generator=drawn)
        optimizer.zero_grad()
        loss(body(rows[batch]), targets[batch]).backward()
        optimizer.step()
    return body.eval()


def blobs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images of a bright square, and the images without noise; 7 x 10 pixels, deviation about 1."""
    rng = np.random.default_rng(0)
    clean = np.zeros((rows, 7, 10, 1), np.float32)
    for image in clean:
        top, left = rng.integers(0, 4), rng.integers(0, 6)
        image[top : top + 4, left : left + 5] = 2
    noisy = clean + rng.normal(0, 1, clean.shape).astype(np.float32)
    noisy[:, 0, 0] = np.nan
    return torch.from_numpy(noisy).flatten(1), torch.from_numpy(clean).flatten(1)


@pytest.mark.parametrize("network", [AutoEncoder, UNet])
def test_noise_is_taken_from_images(network: Any) -> None:
    noisy, clean = blobs(300)
    body = trained(lambda: network((7, 10, 1), (7, 10, 1), 8), noisy[:200], clean[:200], shaped_loss)
    with torch.inference_mode():
        left = shaped_loss(body(noisy[200:]), clean[200:])
    assert left < 0.4 * shaped_loss(torch.nan_to_num(noisy[200:]), clean[200:])
    assert left < 0.4 * clean[200:].var()


@pytest.mark.parametrize("network", [AutoEncoder, UNet])
def test_images_may_have_another_shape_than_their_originals(network: Any) -> None:
    assert network((7, 10, 2), (5, 3, 4), 4)(torch.randn(6, 140)).shape == (6, 60)


def test_a_series_is_written_from_a_series() -> None:
    """What is read is a sine of some phase; what is written goes on with it, at half the steps and upside down."""
    rng = np.random.default_rng(0)
    phase, length = rng.uniform(0, 6, 300), rng.integers(8, 13, 300)
    read = np.sin(0.7 * np.arange(12) + phase[:, None])
    read[np.arange(12) >= length[:, None]] = np.nan
    write = -np.sin(0.7 * np.arange(6) + phase[:, None])
    write[:50, 4:] = np.nan
    rows, targets = (torch.from_numpy(table.astype(np.float32)) for table in (read, write))
    body = trained(lambda: Seq2Seq(1, (6, 1), 24), rows[:200], targets[:200], shaped_loss, steps=300)
    with torch.inference_mode():
        assert shaped_loss(body(rows[200:]), targets[200:]) < 0.15  # guessing the mean is off by 0.5
        longer = torch.cat([rows[200:], torch.full((100, 9), float("nan"))], dim=1)
        torch.testing.assert_close(body(longer), body(rows[200:]))


def test_rows_come_back_from_a_short_code() -> None:
    """Five columns that are all the same number are one number."""
    rows = torch.randn(400, 1, generator=torch.Generator().manual_seed(1)).repeat(1, 5)
    body: Any = None

    def make() -> BitAutoEncoder:
        nonlocal body
        body = BitAutoEncoder(5, 5, 32)
        return body

    trained(make, rows[:300], rows[:300], lambda outputs, targets: shaped_loss(body.numbers(outputs), targets))
    with torch.inference_mode():
        scores = body(rows[300:])
        found = body.numbers(scores)
    assert scores.shape == (100, 5, 8)
    assert body.code.out_features == 8
    assert ((found - rows[300:]) ** 2).mean() < 0.05


@settings(deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=9))
def test_numbers_are_reported_by_their_bits(row: list[float]) -> None:
    """To half of 1/254 of the range; none is taken for a missing one."""
    rows = torch.tensor([row])
    bits = Bits(len(row))(rows)
    found = numbers_of((bits + 1) / 2)[:, : len(row)] if bits.shape[2] == 8 else None
    assert found is not None
    torch.testing.assert_close(found, rows, atol=8 / 254 / 2 + 1e-6, rtol=0)
    assert numbers_of(torch.zeros(1, 8)) == -4.0


def trees(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Trees of four leaves with a number; the class is whether the sum below the root's left child is the greater."""
    rng = np.random.default_rng(0)
    table = np.full((rows, 9, 3), np.nan, np.float32)
    table[:, :4, 0] = rng.normal(size=(rows, 4))
    table[:, 4, 1:], table[:, 5, 1:], table[:, 6, 1:] = (0, 1), (2, 3), (4, 5)
    turned = rng.random(rows) < 0.5
    table[turned, 6, 1:] = (5, 4)
    left, right = table[:, :2, 0].sum(axis=1), table[:, 2:4, 0].sum(axis=1)
    labels = np.where(turned, right > left, left > right).astype(np.int64)
    return torch.from_numpy(table).flatten(1), torch.from_numpy(labels)


def test_a_tree_is_read_along_its_links() -> None:
    rows, labels = trees(500)
    body = trained(lambda: TreeRnn(1, 2, 16), rows[:400], labels[:400], torch.nn.functional.cross_entropy, steps=250)
    with torch.inference_mode():
        assert (body(rows[400:]).argmax(dim=1) == labels[400:]).float().mean() > 0.85
        other = rows[400:].unflatten(1, (9, 3)).clone()
        other[:, 6, 1:] = other[:, 6, 1:].flip(1)  # the children of the root change places
        assert (body(other.flatten(1)).argmax(dim=1) == 1 - labels[400:]).float().mean() > 0.85


def test_links_that_lead_nowhere_or_forward_are_no_obstacle() -> None:
    rows = torch.tensor([[0.5, -9.0, 1e6, 1.0, 5.0, float("nan")]])
    assert TreeRnn(1, 3, 4)(rows).isfinite().all()


def test_unknown_targets_do_not_count() -> None:
    nan = float("nan")
    assert shaped_loss(torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, nan]])) == 4.0
    assert shaped_loss(torch.tensor([[1.0]]), torch.tensor([[nan]])) == 0.0

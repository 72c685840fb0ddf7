"""Real data for the newcomer: handwritten digits (UCI, in scikit-learn) as a CSV file; the rest comes later."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits
from stack.failures import LifecycleError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

BROUGHT = 1400
"""Rows that the newcomer uploads; the others are new examples for the next cycle."""

TARGET = "digit"
WAYS = 8
"""In which an image can be turned and mirrored."""


@dataclass(frozen=True, slots=True)
class Digits:
    """All rows in an order drawn once.

    Attributes:
        pixels: Shape (rows, 64), whole numbers from 0 to 16.
        digits: Shape (rows,), from 0 to 9.
    """

    pixels: NDArray[np.int64]
    digits: NDArray[np.int64]

    @property
    def columns(self) -> list[str]:
        """Names of the pixels."""
        return [f"pixel_{k:02d}" for k in range(self.pixels.shape[1])]

    def write_table(self, path: Path) -> Path:
        """The rows that the newcomer has, with what is to be predicted."""
        rows = ([*p, d] for p, d in zip(self.pixels[:BROUGHT], self.digits[:BROUGHT], strict=True))
        return _write(path, [*self.columns, TARGET], rows)

    def write_examples(self, folder: Path, name: str, rows: int) -> tuple[Path, Path]:
        """The first of the rows held back, as ``easeml test-set seal`` reads them: inputs, and labels beside.

        Args:
            folder: Where to.
            name: What the files are called after.
            rows: How many.
        """
        chosen = range(BROUGHT, BROUGHT + rows)
        inputs = ([f"row-{k}", *self.pixels[k]] for k in chosen)
        labels = ([f"row-{k}", self.digits[k]] for k in chosen)
        return (
            _write(folder / f"{name}.csv", ["example", *self.columns], inputs),
            _write(folder / f"{name}-labels.csv", ["example", "label"], labels),
        )

    @property
    def held_back(self) -> int:
        """Rows that the newcomer has not brought."""
        return len(self.digits) - BROUGHT


def load(time: int = 1) -> Digits:
    """The 1,797 digits, in an order that is always the same.

    Args:
        time: How often the story is played in this state folder, counted from 1. Each time the images lie another way,
            since the referee refuses to seal examples that it has sealed before.

    Raises:
        LifecycleError: There are no more ways.
    """
    if time > WAYS:
        message = f"the story was played {WAYS} times in this state folder; remove it, or name another one by --home"
        raise LifecycleError(message)
    found = load_digits()
    order = np.random.default_rng(1).permutation(len(found.target))
    images = found.images[order].astype(np.int64)
    turned = np.rot90(images if time <= WAYS // 2 else images.transpose(0, 2, 1), time - 1, axes=(1, 2))
    return Digits(turned.reshape(len(turned), -1), found.target[order].astype(np.int64))


def _write(path: Path, header: list[str], rows: Iterable[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path

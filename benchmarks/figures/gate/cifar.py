"""Thirty published image classifiers against each other: verdicts on half of a test set, held against all of it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.gate.decision import Decision, decide_counts
from easeml_core.gate.judge import judge_predictions
from easeml_core.gate.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.gate.condition import Condition

PREDICTIONS = "meter/cifar10.1/predictions.csv"
TRUTH = "TRUE_LABELS"
BATCH = 20


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """What models said about one set of images.

    Attributes:
        names: Of the models.
        labels: True classes, shape ``(n_examples,)``.
        predictions: Shape ``(n_models, n_examples)``.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]

    def sample(self, rng: np.random.Generator, examples: int) -> Models:
        """A random part, in random order."""
        chosen = rng.permutation(self.labels.size)[:examples]
        return Models(self.names, self.labels[chosen], self.predictions[:, chosen])

    def pairs(self) -> Iterator[tuple[int, int]]:
        """All ordered pairs (new, old)."""
        return ((new, old) for new in range(len(self.names)) for old in range(len(self.names)) if new != old)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Counts of every ordered pair, each of shape ``(n_models, n_models)``, new by old.

    Attributes:
        examples: N.
        right: Right answers of each model, shape ``(n_models,)``.
        wins: Examples that the new model alone has right.
        disagreements: Examples on which the predictions differ.
    """

    examples: int
    right: NDArray[np.int64]
    wins: NDArray[np.int64]
    disagreements: NDArray[np.int64]

    def gains(self) -> NDArray[np.int64]:
        """Wins minus losses: N times n - o."""
        return self.right[:, None] - self.right[None, :]

    def outcomes(self, new: int, old: int) -> Outcomes:
        """The outcomes of one pair of models that the gate receives."""
        return Outcomes(
            examples=self.examples,
            wins=int(self.wins[new, old]),
            losses=int(self.wins[old, new]),
            new_correct=int(self.right[new]),
            old_correct=int(self.right[old]),
            disagreements=int(self.disagreements[new, old]),
        )


def read_models(data: Path, split: str = "original") -> Models:
    """The published predictions.

    Args:
        data: The folder of the published tables.
        split: ``original``, ``v4`` or ``v6``.
    """
    with (data / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        rows = {r["model"]: r["labels_or_predictions"] for r in csv.DictReader(file) if r["split"] == split}
    classes = {name: np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) for name, text in rows.items()}
    labels = classes.pop(TRUTH)
    return Models(tuple(classes), labels, np.array(list(classes.values())))


def tabulate(models: Models) -> Table:
    """Count all pairs at once, by products of matrices."""
    right = (models.predictions == models.labels).astype(np.int64)
    correct, both = right.sum(axis=1), right @ right.T
    agreed = np.zeros_like(both)
    for kind in np.unique(models.predictions):
        said = (models.predictions == kind).astype(np.int64)
        agreed += said @ said.T
    return Table(models.labels.size, correct, correct[:, None] - both, models.labels.size - agreed)


def fixed(
    condition: Condition, table: Table, pairs: Iterable[tuple[int, int]], *, log_level: float
) -> dict[tuple[int, int], Decision]:
    """Verdicts on all examples; the labels that they use are those of the disagreements."""
    found = {}
    for new, old in pairs:
        outcomes = table.outcomes(new, old)
        found[new, old] = decide_counts(
            condition, outcomes, log_level=log_level, mode="fp-free", labels=outcomes.disagreements
        )
    return found


def early(
    condition: Condition, models: Models, pairs: Iterable[tuple[int, int]], *, log_level: float, power: float
) -> dict[tuple[int, int], Decision]:
    """Verdicts that stop as soon as they can."""
    found = {}
    for new, old in pairs:
        judged = judge_predictions(
            condition,
            models.labels,
            models.predictions[old],
            models.predictions[new],
            log_level=log_level,
            mode="fp-free",
            sampling="early",
            power=power,
            batch=BATCH,
        )
        assert isinstance(judged, Decision)  # all labels are there
        found[new, old] = judged
    return found

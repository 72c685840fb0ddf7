"""A developer who overfits: features are added to a classifier whenever a small validation set likes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

USEFUL, NOISE = 8, 400
STRENGTH = 0.5
"""How far a useful feature lies from 0 in the direction of the label, in its standard deviations."""


@dataclass(frozen=True, slots=True)
class Step:
    """One submission.

    Attributes:
        validation_loss: Share of wrong answers on the validation set.
        test_errors: Wrong answers on the sealed set.
        true_gap: Loss on a large fresh sample minus validation loss.
    """

    validation_loss: float
    test_errors: int
    true_gap: float


def history(rng: np.random.Generator, *, validation: int, test: int, submissions: int, fresh: int) -> list[Step]:
    """Submissions of a developer who adds, each time, the feature that lowers the validation loss most.

    Features are Gaussian; a few tell something of the label, the others nothing. The classifier is the sign of the sum
    of the chosen features, each with its sign on the validation set.

    Args:
        rng: Seeded.
        validation: Rows of the validation set, on which every choice is made.
        test: Rows of the sealed set.
        submissions: How many models are handed in.
        fresh: Rows of the sample that stands for the truth.
    """
    open_rows, labels = _rows(rng, validation)
    signs = np.sign(labels @ open_rows)
    votes = [open_rows * signs * labels[:, None]]
    for size in (test, fresh):
        rows, truth = _rows(rng, size)
        votes.append(rows * signs * truth[:, None])
    chosen: list[int] = []
    found = []
    for _ in range(submissions):
        chosen.append(_best(votes[0], chosen))
        losses = [float((part[:, chosen].sum(axis=1) <= 0).mean()) for part in votes]
        found.append(Step(losses[0], round(losses[1] * test), losses[2] - losses[0]))
    return found


def _rows(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    labels = rng.integers(0, 2, size) * 2 - 1
    rows = rng.standard_normal((size, USEFUL + NOISE))
    rows[:, :USEFUL] += STRENGTH * labels[:, None]
    return rows, labels


def _best(margins: NDArray[np.float64], chosen: list[int]) -> int:
    """The feature not yet chosen with which fewest validation rows are wrong; the larger margin among equals."""
    total = margins[:, chosen].sum(axis=1) if chosen else np.zeros(len(margins))
    together = total[:, None] + margins
    wrong = (together <= 0).mean(axis=0) - 1e-6 * together.mean(axis=0)
    wrong[chosen] = np.inf
    return int(np.argmin(wrong))

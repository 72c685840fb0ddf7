"""Developers who learn a sealed set from its answers: how often do they make a model pass that is not better?

Labels are fair coins wherever the input does not tell them. The first attack asks for the majority vote of models whose
answers it has seen. The second knows part of the labels and tunes its questions: ``easeml_core.gate.attack``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.gate.attack import CONDITION, DELTA, EXAMPLES, STEPS, Attack, critical_count, false_answers
from easeml_core.stats.adaptivity import Allocation

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CONDITION",
    "DELTA",
    "EXAMPLES",
    "STEPS",
    "Allocation",
    "Attack",
    "critical_count",
    "false_answers",
    "inflation",
    "vote_counts",
]


def vote_counts(rng: np.random.Generator, *, examples: int, answers: int, runs: int) -> NDArray[np.int64]:
    """How many labels the vote of so many answered models has right, shape ``(runs,)``.

    Each model is a coin; its developer learns whether it was right on more than half of the set. A model that was not
    is as informative: its opposite was. The vote is right on a share of 1/2 + (1/pi) sqrt(answers / examples), about.

    Args:
        rng: Seeded.
        examples: N.
        answers: Models that were asked about, >= 1.
        runs: Repeats.
    """
    counts = np.empty(runs, dtype=np.int64)
    for run in range(runs):
        # Whether a coin model is right is a coin, too: the labels need not be drawn.
        right = rng.integers(0, 2, (answers, examples), dtype=np.int8)
        above = 2 * right.sum(axis=1, dtype=np.int64) > examples
        votes = np.where(above[:, None], right, 1 - right).sum(axis=0)
        ties = rng.integers(0, 2, examples)
        counts[run] = int((2 * votes + ties > answers).sum())
    return counts


def inflation(examples: int, answers: float) -> float:
    """What the vote seems to be better than 1/2, to first order: (1/pi) sqrt(answers / examples)."""
    return math.sqrt(answers / examples) / math.pi

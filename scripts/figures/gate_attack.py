"""Developers who learn a sealed set from its answers: how often do they make a model pass that is not better?

Labels are fair coins wherever the input does not tell them. The first attack asks for the majority vote of models whose
answers it has seen. The second knows part of the labels, so that it can hand in models which truly pass: it tunes each
question to the answer that tells most, follows what the set's allocation does after a pass, and then hands in the vote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from easeml_core.entities import Mode
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide
from easeml_core.gate.outcomes import Outcomes
from easeml_core.stats.adaptivity import Allocation, allocate

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONDITION = "n > 0.5 +/- 0.05"
DELTA = 0.05
EXAMPLES, STEPS = 1000, 32
STAIR = 0.25
"""By how much a tuned question is made easier or harder after its answer, in standard deviations of the count."""


def vote_counts(rng: np.random.Generator, *, examples: int, answers: int, runs: int) -> NDArray[np.int64]:
    """How many labels the vote of so many answered models has right, shape ``(runs,)``.

    Each model is a coin; it is told whether it was right on more than half of the set. A model that was not tells as
    much: its opposite was. The vote is right on a share of 1/2 + (1/pi) sqrt(answers / examples), about.

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


@lru_cache(maxsize=4096)
def critical_count(log_level: float, examples: int, mode: str = "fp-free") -> int:
    """The least count of right answers that the gate passes on ``CONDITION``, or under fn-free does not fail."""
    low, high = -1, examples + 1
    while high - low > 1:
        middle = (low + high) // 2
        counts = Outcomes(examples, middle, 0, middle, 0, middle)
        passed = decide(parse_condition(CONDITION), counts, log_level=log_level, mode=mode).passed
        low, high = (low, middle) if passed else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class Attack:
    """A developer who learns.

    Attributes:
        aim: The chance of a change (``Allocation``) that every question is tuned to.
        known: Share of examples whose label the input tells.
        attempts: How many of the last steps hand in the vote, as a model on the threshold.
        mode: ``fp-free``: a false pass is wanted; ``fn-free``: a false fail.
    """

    aim: float = 0.5
    known: float = 0.15
    attempts: int = 6
    mode: str = "fp-free"


def false_answers(
    rng: np.random.Generator,
    attack: Attack,
    adaptivity: str,
    *,
    runs: int,
    counted: bool = True,
    examples: int = EXAMPLES,
    steps: int = STEPS,
) -> NDArray[np.bool_]:
    """Whether the attack got what the mode promises not to happen, on each of so many sets: shape ``(runs,)``.

    Args:
        rng: Seeded.
        attack: The developer.
        adaptivity: How the level is allotted, and when the set ends.
        runs: Repeats.
        counted: False is the mistake: every test at delta / H and a set that lives on, whatever was answered.
        examples: N.
        steps: H.
    """
    allocation = allocate(adaptivity, steps)
    return np.array([_attacked(rng, attack, allocation, examples, counted=counted) for _ in range(runs)])


def _attacked(
    rng: np.random.Generator, attack: Attack, allocation: Allocation, examples: int, *, counted: bool
) -> bool:
    """One set from its first answer to its last."""
    sign = 1 if attack.mode == Mode.FP_FREE else -1
    # Below ``easy`` the known part is right: one place on a scale for each example that is known, none for the others.
    scale = np.where(rng.random(examples) < attack.known, rng.random(examples), np.nan)
    unknown = np.isnan(scale)
    learnt, shift, changes = np.zeros(examples), 0.0, 0
    for step in range(allocation.steps):
        tries = step >= allocation.steps - attack.attempts
        log_tests = allocation.log_multiplicity(changes) if counted else math.log(allocation.steps)
        critical = critical_count(math.log(DELTA) - log_tests, examples, attack.mode)
        excess = (
            0.0 if tries else critical / examples - 0.5 + (shift + sign * ndtri(attack.aim)) / (2 * math.sqrt(examples))
        )
        easy = min(max(0.5 + excess / attack.known, 0.0), 1.0)
        fresh = rng.integers(0, 2, examples) * 2 - 1
        guess = sign * np.where(learnt != 0, np.sign(learnt), fresh) if tries else fresh
        right = int((scale < easy).sum() + (guess[unknown] > 0).sum())
        passed = right >= critical
        if passed == (sign > 0) and 0.5 * sign >= (0.5 + (easy - 0.5) * attack.known) * sign:
            return True
        learnt += fresh * _told(passed, attack.aim if sign > 0 else 1 - attack.aim)
        shift += STAIR * (attack.aim - 1 if passed == (sign > 0) else attack.aim) * sign
        changed = allocation.is_change(passed=passed, mode=attack.mode)
        changes += changed
        if counted and allocation.is_over(changes):
            return False
    return False


def _told(passed: bool, chance: float) -> float:
    """What an answer tells about every guess of its model: more, the rarer it is; nothing in the mean."""
    return 1 - chance if passed else -chance

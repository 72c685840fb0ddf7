"""Simulate a developer who learns a sealed set from the gate's answers, and count how often a wrong answer results.

Labels are fair coins. The developer knows part of them, so it can submit models that truly pass: it tunes each
question to the most informative answer, follows the allocation after a pass, and then submits the vote of all answered
models, a model that is exactly on the threshold.

The bound on what can be learnt does not depend on the condition; how much an attack learns does. This attack is on the
condition that is cheapest to simulate: the new model is right on more than half of the examples. It shows that answers
carry information, not how much the best attack on another condition would gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from easeml_core.entities import Adaptivity, Mode
from easeml_core.formats.encoding import typed_record
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import Outcomes
from easeml_core.gate.self_test import LOG_MISS
from easeml_core.settings.config import choice, require
from easeml_core.stats.adaptivity import Allocation, allocate
from easeml_core.stats.binomial_bounds import clopper_pearson

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONDITION = "n > 0.5 +/- 0.05"
DELTA = 0.05
EXAMPLES, STEPS = 1000, 32
STAIR = 0.25
"""By how much a tuned question is made easier or harder after its answer, in standard deviations of the count."""

MOST_EXAMPLES = 2000
"""Larger sets are attacked at this size: what is learnt, and what a pass takes, both fall with the root of the size."""

MOST_STEPS = 1024
_STEPS_IN_ALL = 10_000
_FEWEST_RUNS, _MOST_RUNS = 20, 200


@lru_cache(maxsize=4096)
def critical_count(log_level: float, examples: int, mode: str = "fp-free") -> int:
    """The least count of right answers that the gate passes on ``CONDITION``, or under fn-free does not fail."""
    low, high = -1, examples + 1
    while high - low > 1:
        middle = (low + high) // 2
        counts = Outcomes(examples, middle, 0, middle, 0, middle)
        passed = decide_counts(parse_condition(CONDITION), counts, log_level=log_level, mode=mode).passed
        low, high = (low, middle) if passed else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class Attack:
    """A developer who learns.

    Attributes:
        aim: The chance of a change (``Allocation``) that every question is tuned to.
        known: Share of examples whose label the input tells, in (0, 1].
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
    delta: float = DELTA,
) -> NDArray[np.bool_]:
    """Whether the attack got what the mode promises not to happen, on each of so many sets: shape ``(runs,)``.

    Args:
        rng: Seeded.
        attack: The developer.
        adaptivity: How the level is allotted, and when the set ends; under ``none`` the developer gets no answer.
        runs: Repeats.
        counted: False simulates a wrong gate: it releases every answer, tests at delta / H, and never retires the set.
        examples: N.
        steps: H.
        delta: What may fail of all answers together, in (0, 1).
    """
    allocation = _allocation(adaptivity, steps, attack.mode)
    return np.array([_attacked(rng, attack, allocation, examples, delta, counted=counted) for _ in range(runs)])


def _allocation(adaptivity: str, steps: int, mode: str) -> Allocation:
    """The levels of the exact gate, which are the largest that it gives."""
    return allocate(adaptivity, steps, mode=mode, estimator="exact")


def _attacked(
    rng: np.random.Generator, attack: Attack, allocation: Allocation, examples: int, delta: float, *, counted: bool
) -> bool:
    """One set from its first answer to its last."""
    sign = 1 if attack.mode == Mode.FP_FREE else -1
    is_released = not counted or allocation.kind is not Adaptivity.NONE
    # Below ``easy`` the known part is right: one place on a scale for each example that is known, none for the others.
    scale = np.where(rng.random(examples) < attack.known, rng.random(examples), np.nan)
    unknown = np.isnan(scale)
    learnt, shift, changes = np.zeros(examples), 0.0, 0
    for step in range(allocation.steps):
        tries = step >= allocation.steps - attack.attempts
        log_tests = allocation.log_multiplicity(changes) if counted else math.log(allocation.steps)
        critical = critical_count(math.log(delta) - log_tests, examples, attack.mode)
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
        if is_released:
            learnt += fresh * _information(passed, attack.aim if sign > 0 else 1 - attack.aim)
            shift += STAIR * (attack.aim - 1 if passed == (sign > 0) else attack.aim) * sign
        changed = allocation.is_change(passed=passed)
        changes += changed
        if counted and allocation.is_over(changes):
            return False
    return False


def _information(passed: bool, chance: float) -> float:
    """Return what an answer says about every guess of its model: more, the rarer it is; its mean is 0."""
    return 1 - chance if passed else -chance


# -- a plan ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttackedPlan:
    """What came of attacks on sets of one plan.

    Attributes:
        runs: Sets that were attacked.
        examples: Of each.
        fooled: On how many the developer got a wrong answer from the gate.
        naive: On how many it would have, with every answer told and every test at delta / H.
        interval: Clopper-Pearson interval of the chance behind ``fooled``, 99.9 %.
        promised: delta, which that chance must not exceed.
        holds: Whether the interval begins at or below it.
    """

    runs: int
    examples: int
    fooled: int
    naive: int
    interval: tuple[float, float]
    promised: float
    holds: bool


@typed_record
class AttackReport(AttackedPlan):
    """What came of attacks, and the arguments of ``attack_plan`` that name the plan."""

    plan: dict[str, int | float | str]


def bounded_size(examples: int, steps: int) -> tuple[int, int]:
    """At how many examples, and on how many sets, a plan is attacked, so that it takes a few seconds.

    Args:
        examples: N of the plan, >= 1.
        steps: H, >= 1.

    Example:
        >>> bounded_size(300, 100), bounded_size(10**9, 1)
        ((300, 100), (2000, 200))
    """
    return min(examples, MOST_EXAMPLES), min(max(_STEPS_IN_ALL // steps, _FEWEST_RUNS), _MOST_RUNS)


def attack_plan(*, examples: int, reliability: float, steps: int, adaptivity: str, mode: str) -> AttackedPlan:
    """Attack sets of a plan, as often as a few seconds allow; the same plan always has the same result.

    Args:
        examples: N of the plan, >= 1; sets beyond ``MOST_EXAMPLES`` are attacked at that size.
        reliability: 1 - delta, in (0, 1).
        steps: H, 1 to ``MOST_STEPS``.
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``.
        mode: ``fp-free`` or ``fn-free``.

    Example:
        >>> found = attack_plan(examples=300, reliability=0.95, steps=8, adaptivity="full", mode="fp-free")
        >>> found.fooled / found.runs <= found.promised < found.naive / found.runs
        True
    """
    require(type(examples) is int and examples >= 1, "examples", examples, "a whole number >= 1")
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    require(type(steps) is int and 1 <= steps <= MOST_STEPS, "steps", steps, f"a whole number from 1 to {MOST_STEPS:,}")
    kind: Mode = choice(Mode, "mode", mode)
    (size, runs), delta = bounded_size(examples, steps), 1 - reliability
    attempts = min(6, max(1, steps // 4))

    def fooled(*, counted: bool) -> int:
        log_tests = _allocation(adaptivity, steps, kind).log_multiplicity() if counted else math.log(steps)
        level = math.log(delta) - log_tests
        # So much is known that a question can be made easy enough to pass half of the time.
        known = min(max(2.5 * abs(critical_count(level, size, kind) / size - 0.5), 0.15), 0.9)
        attack, rng = Attack(known=known, attempts=attempts, mode=kind), np.random.default_rng([size, steps])
        wrong = false_answers(
            rng, attack, adaptivity, runs=runs, counted=counted, examples=size, steps=steps, delta=delta
        )
        return int(wrong.sum())

    got = fooled(counted=True)
    interval = clopper_pearson(got, runs, log_level=LOG_MISS)
    return AttackedPlan(runs, size, got, fooled(counted=False), interval, delta, holds=interval[0] <= delta)

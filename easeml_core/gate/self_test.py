"""A/A test of the gate itself: two models of identical quality go through it again and again. How often is it wrong?

Where a gate is honest, identical models pass a condition that asks for a gain at most as often as its level says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import Mode
from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.gate.condition import claim_of, values_of
from easeml_core.gate.decision import Decision
from easeml_core.gate.judge import judge_predictions
from easeml_core.settings.config import require
from easeml_core.stats.binomial_bounds import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from easeml_core.gate.condition import Condition
    from easeml_core.gate.outcomes import Outcomes

LOG_MISS = math.log(1e-3)
"""ln of the chance that the interval of an honest gate misses the truth."""

# Old and new prediction of each of ``condition.OUTCOMES``, where class 0 is right.
_OLD, _NEW = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 1, 1, 2])


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came of it.

    Attributes:
        runs: How often identical models were judged.
        passes: How often they passed.
        errors: How often the answer was the one that the mode promises not to give wrongly.
        rate: errors / runs.
        interval: Clopper-Pearson interval of the chance of an error, 99.9 %.
        log_level: ln of the chance that is promised.
        compatible: Whether the interval begins at or below the promised chance.
        labels: Labels used, on average.
    """

    runs: int
    passes: int
    errors: int
    rate: float
    interval: tuple[float, float]
    log_level: float
    compatible: bool
    labels: float


@typed_record
class SelfTestReport(SelfTest):
    """What came of a self-test, the promised level, and what was tested."""

    level: float
    condition: str
    mode: str
    examples: int
    seed: int


def identical_models(*, accuracy: float, disagreement: float) -> NDArray[np.float64]:
    """Chances of ``condition.OUTCOMES`` for two models of one accuracy; where they differ, one of them is right.

    Args:
        accuracy: Of both, in [0, 1].
        disagreement: Share of examples on which they differ, in [0, 1], at most twice accuracy and error rate.

    Returns:
        Shape ``(5,)``.

    Example:
        >>> identical_models(accuracy=0.75, disagreement=0.25)
        array([0.625, 0.125, 0.125, 0.125, 0.   ])
    """
    require(0 <= accuracy <= 1, "accuracy", accuracy, "in [0, 1]")
    most = 2 * min(accuracy, 1 - accuracy)
    require(0 <= disagreement <= most, "disagreement", disagreement, f"in [0, {most:g}] at accuracy {accuracy:g}")
    half = disagreement / 2
    return np.array([accuracy - half, half, half, max(0.0, 1 - accuracy - half), 0.0])


def identical_to(outcomes: Outcomes) -> NDArray[np.float64]:
    """Chances of ``condition.OUTCOMES`` when two real models exchange their predictions at every example by a coin.

    Returns:
        Shape ``(5,)``.
    """
    shares = outcomes.cells(with_agreements=True) / outcomes.examples
    shares[1:3] = shares[1:3].mean()
    return np.asarray(shares)


def run_self_test(
    condition: Condition,
    law: NDArray[np.float64],
    *,
    examples: int,
    runs: int,
    log_level: float,
    mode: str,
    sampling: str = "fixed",
    power: float | None = None,
    seed: int = 0,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> SelfTest:
    """Draw sets from a law of identical models and judge each.

    Args:
        condition: One that identical models do not satisfy (fn-free: one that they do), so that an error is possible.
        law: Chances of ``condition.OUTCOMES``, shape ``(5,)``, those of a win and of a loss equal.
        examples: N >= 1 of each set.
        runs: Number of sets, 1 to 1e6.
        log_level: ln alpha, finite and < 0.
        mode: ``fp-free`` or ``fn-free``.
        sampling: ``fixed`` or ``early``.
        power: As in ``judge_predictions``.
        seed: Of the random numbers.
        on_done: Told after each set how many are done, of how many.

    Raises:
        InvalidInputError: If identical models cannot get a wrong answer.
        ConfigError: If an argument is outside its range.
    """
    require(1 <= examples <= 10**7, "examples", examples, "1 to 10000000")
    require(1 <= runs <= 10**6, "runs", runs, "1 to 1000000")
    truly = _holds(condition, law)
    if truly == (mode == Mode.FP_FREE):
        truth, other = ("satisfy", "do not satisfy") if truly else ("do not satisfy", "satisfy")
        message = f"identical models {truth} {condition}, so no answer of {mode} is wrong; take one that they {other}"
        raise InvalidInputError(message)
    generator = np.random.default_rng(seed)
    labels = np.zeros(examples, dtype=np.int64)
    passes, used = 0, 0
    for done in range(1, runs + 1):
        cells = generator.choice(5, size=examples, p=law)
        found = judge_predictions(
            condition,
            labels,
            _OLD[cells],
            _NEW[cells],
            log_level=log_level,
            mode=mode,
            sampling=sampling,
            power=power,
        )
        if isinstance(found, Decision):  # always: no label is missing
            passes, used = passes + found.passed, used + found.labels
        on_done(done, runs)
    errors = runs - passes if truly else passes
    interval = clopper_pearson(errors, runs, log_level=LOG_MISS)
    compatible = interval[0] <= math.exp(log_level)
    return SelfTest(runs, passes, errors, errors / runs, interval, log_level, compatible, used / runs)


def _holds(condition: Condition, law: NDArray[np.float64]) -> bool:
    """Whether a law satisfies every clause; a value on the threshold, but for rounding, does not."""
    for clause in condition.clauses:
        claim = claim_of(clause)
        excess = float(law @ np.array(values_of(clause))) - claim.threshold
        if (excess if claim.above else -excess) <= 1e-12:
            return False
    return True

"""How the error chance of one sealed set is shared among its tests, by what the developer learns between them.

The union bound runs over everything that a developer could have handed in: what the answers so far can have been
decides how much. Everything is in logarithms: 2^5000 has no double.

Sources: Renggli et al., "Continuous Integration of Machine Learning Models with ease.ml/ci", MLSys 2019, section 3, for
none, full and firstChange. ``full`` counts 2^(H - 1) instead of 2^H where only the first wrong pass has to be paid for
(ADR 0023; the proof is in docs/gate.md). A cap on the number of passes (``upTo:K``) counts the nodes of the same tree
that have fewer than K passes before them. ``recycle`` uses that a one-sided promise is already broken by the first
false pass; under fn-free, where a model that cannot be run fails without breaking it, a change costs more than ln H.
``level_of_test`` is the only place that puts the level of a verdict together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp

from easeml_core.entities import Adaptivity, Mode
from easeml_core.settings.config import ESTIMATORS, choice, parse_adaptivity, require

MOST_EXACT = 100


@dataclass(frozen=True, slots=True)
class Allocation:
    """The level of every test of one set, fixed before its first answer.

    A *change* is an answer that costs: a pass under fp-free, a fail under fn-free; for ``firstChange`` always a pass.

    Attributes:
        kind: What the developer learns.
        steps: H >= 1, answers that the set must serve.
        mode: Which error is promised not to happen.
        estimator: ``exact`` or ``paper``; only ``full`` depends on it.
        cap: K, the number of changes at which the set is retired; None for no cap.
    """

    kind: Adaptivity
    steps: int
    mode: Mode
    estimator: str
    cap: int | None = None

    def log_multiplicity(self, changes: int = 0) -> float:
        """Give ln M, by which ln(delta) is lowered for the next single test.

            none, firstChange:  M = H
            full:               M = 2^H, for exact sizes under fp-free 2^(H - 1)
            upTo:K:             M = sum over j <= K of C(H, j)
            recycle:            M = H^(changes + 1), under fn-free (1 / (2^(1 / H) - 1))^(changes + 1)

        ``full`` pays for the first wrong answer of each course only where a claim that can be answered wrongly goes on
        along one answer alone. Under fp-free it does: it has either been passed, and the promise is broken, or goes on
        along FAIL; so f(H) = max(a + f(H - 1), 2 f(H - 1)) = 2^(H - 1) a. Under fn-free a model that cannot be run on
        the sealed inputs fails without breaking the promise: such a claim can err and still go on along both answers,
        which needs all 2^H - 1 nodes. ``paper`` keeps the published 2^H.

        ``recycle`` has the level 1 / m^(c + 1) after c changes. Under fn-free the worst sum over H steps obeys
        f(H) = 1 / m + f(H - 1) + f(H - 1) / m for the same reason, so f(H) = (1 + 1 / m)^H - 1, which is 1 for
        m = 1 / (2^(1 / H) - 1), about H / ln 2. The paper has no ``recycle``, so ``paper`` keeps nothing published
        there, and the verdicts of both estimators are the same tests.

        Args:
            changes: Changes so far, >= 0; only ``recycle`` depends on them.

        Returns:
            ln M >= 0.

        Raises:
            ConfigError: If ``changes`` is negative, or the set is retired by so many.

        Example:
            >>> round(allocate("recycle", 32, mode="fp-free", estimator="exact").log_multiplicity(1), 2)
            6.93
        """
        require(type(changes) is int and changes >= 0, "changes", changes, "a whole number >= 0")
        require(not self.is_over(changes), "changes", changes, f"< {self.cap}: the set is retired then")
        if self.kind is Adaptivity.FULL:
            pays_first_errors = self.mode is Mode.FP_FREE and self.estimator == "exact"
            return (self.steps - pays_first_errors) * math.log(2)
        if self.kind is Adaptivity.UP_TO:
            return _log_nodes(self.steps, self.cap or 0)
        if self.kind is Adaptivity.RECYCLE and self.mode is Mode.FN_FREE:
            return (changes + 1) * math.log(1 / math.expm1(math.log(2) / self.steps))
        return (changes + 1) * math.log(self.steps) if self.kind is Adaptivity.RECYCLE else math.log(self.steps)

    def is_change(self, *, passed: bool) -> bool:
        """True when an answer counts as a change."""
        wanted = self.kind is Adaptivity.FIRST_CHANGE or self.mode is Mode.FP_FREE
        return passed == wanted

    def is_over(self, changes: int) -> bool:
        """True when so many changes retire the set before its steps are used."""
        return self.cap is not None and changes >= self.cap


def _log_nodes(steps: int, cap: int) -> float:
    """Ln of the sum of C(H, j) over 1 <= j <= K: exact integers while they are few, then logarithms, rounded up."""
    if cap <= MOST_EXACT:
        return math.log(sum(math.comb(steps, j) for j in range(1, cap + 1)))
    j = np.arange(1, cap + 1)
    return float(logsumexp(gammaln(steps + 1) - gammaln(j + 1) - gammaln(steps - j + 1))) + 1e-6


def allocate(adaptivity: str, steps: int, *, mode: str, estimator: str) -> Allocation:
    """Read an adaptivity.

    Args:
        adaptivity: ``none``, ``full``, ``firstChange`` (also ``hybrid``), ``recycle``, or ``upTo:K`` with 1 <= K <= H.
        steps: H, from 1 to 1e6.
        mode: ``fp-free`` or ``fn-free``.
        estimator: ``exact`` or ``paper``.

    Returns:
        The allocation.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> full = allocate("full", 32, mode="fn-free", estimator="exact")
        >>> none = allocate("none", 32, mode="fn-free", estimator="exact")
        >>> round(full.log_multiplicity(), 2), round(none.log_multiplicity(), 2)
        (22.18, 3.47)
    """
    kind, cap = parse_adaptivity(adaptivity)
    require(type(steps) is int and 1 <= steps <= 10**6, "steps", steps, "a whole number, 1 to 1000000")
    require(cap is None or cap <= steps, "adaptivity", adaptivity, f"upTo:K with K at most the {steps} steps")
    require(estimator in ESTIMATORS, "estimator", estimator, " or ".join(ESTIMATORS))
    error: Mode = choice(Mode, "mode", mode)
    return Allocation(kind, steps, error, estimator, 1 if kind is Adaptivity.FIRST_CHANGE else cap)


def other_conditions_log_cost(count: int, *, mode: str) -> float:
    """Give by how many nats every level of a set is lowered that may also answer about F other conditions.

        fp-free: F ln 2        fn-free: (F + 1) ln 2, none for F = 0

    The proof is in docs/gate.md, "Other conditions": such a question is tested at the level of the set's next test,
    its pass is no change, and neither answer ends the set.

    Args:
        count: F >= 0.
        mode: ``fp-free`` or ``fn-free``.

    Raises:
        ConfigError: If ``count`` is negative.

    Example:
        >>> round(other_conditions_log_cost(4, mode="fp-free"), 2)
        2.77
    """
    require(type(count) is int and count >= 0, "other_conditions", count, "a whole number >= 0")
    return (count + (count > 0 and mode != Mode.FP_FREE)) * math.log(2)


@dataclass(frozen=True, slots=True)
class Level:
    """The level of one test of a set.

    Attributes:
        log_delta: Ln of what all answers of the set may err together, < 0.
        log_tests: Nats >= 0 by which that is lowered for one test.
    """

    log_delta: float
    log_tests: float

    @property
    def log_level(self) -> float:
        """Ln alpha of the test."""
        return self.log_delta - self.log_tests


def level_of_test(
    *,
    reliability: float,
    adaptivity: str,
    steps: int,
    mode: str,
    estimator: str,
    changes: int = 0,
    other_conditions: int = 0,
    log_weight: float = 0.0,
) -> Level:
    """Give the level of the next test of a set that the gate has for itself: in the plan, in a verdict, in its check.

    Args:
        reliability: 1 - delta, in (0, 1), for all answers of the set together.
        adaptivity: As of ``allocate``.
        steps: H, likewise.
        mode: ``fp-free`` or ``fn-free``.
        estimator: ``exact`` or ``paper``.
        changes: Changes so far, >= 0.
        other_conditions: F >= 0, answers about other conditions that the set may give.
        log_weight: Nats >= 0 by which other answers have lowered the level: in plans, those of a meter on the same set.

    Raises:
        ConfigError: If an argument is outside its range, or the set is retired by so many changes.

    Example:
        >>> asked = {"reliability": 0.9999, "adaptivity": "recycle", "steps": 32, "estimator": "exact"}
        >>> [round(level_of_test(mode=mode, **asked).log_level, 3) for mode in ("fp-free", "fn-free")]
        [-12.676, -13.032]
    """
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    require(0 <= log_weight < math.inf, "log_weight", log_weight, ">= 0 and finite")
    allocation = allocate(adaptivity, steps, mode=mode, estimator=estimator)
    others = other_conditions_log_cost(other_conditions, mode=mode)
    return Level(math.log1p(-reliability), allocation.log_multiplicity(changes) + (log_weight + others))

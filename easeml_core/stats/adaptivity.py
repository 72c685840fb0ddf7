"""How the error chance of one sealed set is shared among its tests, by what the developer learns between them.

The union bound runs over everything that a developer could have handed in: what the answers so far can have been
decides how much. Everything is in logarithms: 2^5000 has no double.

Sources: Renggli et al., "Continuous Integration of Machine Learning Models with ease.ml/ci", MLSys 2019, section 3, for
none, full and firstChange. ``full`` counts 2^(H - 1) instead of 2^H where only the first wrong pass has to be paid for
(ADR 0023; the proof is in docs/gate.md). A cap on the number of passes (``upTo:K``) counts the nodes of the same tree
that have fewer than K passes before them. ``recycle`` uses that a one-sided promise is already broken by the first
false pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp

from easeml_core.config import parse_adaptivity, require
from easeml_core.entities import Adaptivity, Mode

MOST_EXACT = 100


@dataclass(frozen=True, slots=True)
class Allocation:
    """The level of every test of one set, fixed before its first answer.

    A *change* is an answer that costs: a pass under fp-free, a fail under fn-free; for ``firstChange`` always a pass.

    Attributes:
        kind: What the developer learns.
        steps: H >= 1, answers that the set must serve.
        cap: K, the number of changes at which the set is retired; None for no cap.
        first_error: Whether ``full`` pays for first errors only (``pays_first_errors``); no other kind depends on it.
    """

    kind: Adaptivity
    steps: int
    cap: int | None = None
    first_error: bool = False

    def log_multiplicity(self, changes: int = 0) -> float:
        """Give ln M, by which ln(delta) is lowered for the next single test.

            none, firstChange:  M = H                          full:     M = 2^H, for first errors 2^(H - 1)
            upTo:K:             M = sum over j <= K of C(H, j)  recycle:  M = H^(changes + 1)

        Args:
            changes: Changes so far, >= 0; only ``recycle`` depends on them.

        Returns:
            ln M >= 0.

        Raises:
            ConfigError: If ``changes`` is negative, or the set is retired by so many.

        Example:
            >>> round(allocate("recycle", 32).log_multiplicity(1), 2)
            6.93
        """
        require(type(changes) is int and changes >= 0, "changes", changes, "a whole number >= 0")
        require(not self.is_over(changes), "changes", changes, f"< {self.cap}: the set is retired then")
        if self.kind is Adaptivity.FULL:
            return (self.steps - self.first_error) * math.log(2)
        if self.kind is Adaptivity.UP_TO:
            return _log_nodes(self.steps, self.cap or 0)
        return (changes + 1) * math.log(self.steps) if self.kind is Adaptivity.RECYCLE else math.log(self.steps)

    def is_change(self, *, passed: bool, mode: str) -> bool:
        """True when an answer counts as a change."""
        wanted = self.kind is Adaptivity.FIRST_CHANGE or mode == Mode.FP_FREE
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


def pays_first_errors(*, mode: str, estimator: str) -> bool:
    """Return whether ``full`` has to pay for the first wrong answer of each course only: exact sizes under fp-free.

    A claim that is true cannot be passed wrongly, so its node spends nothing and both answers go on; a claim that is
    false has either been passed, and the promise is broken, or goes on along FAIL. So f(H) = max(a + f(H - 1),
    2 f(H - 1)) = 2^(H - 1) a. Under fn-free a model that cannot be run on the sealed inputs fails without breaking the
    promise: a true claim can then err and still go on along both answers, which needs all 2^H - 1 nodes. ``paper``
    keeps the published 2^H.
    """
    return mode == Mode.FP_FREE and estimator == "exact"


def allocate(adaptivity: str, steps: int, *, first_error: bool = False) -> Allocation:
    """Read an adaptivity.

    Args:
        adaptivity: ``none``, ``full``, ``firstChange`` (also ``hybrid``), ``recycle``, or ``upTo:K`` with 1 <= K <= H.
        steps: H, from 1 to 1e6.
        first_error: As ``pays_first_errors`` says; False is never wrong, and under ``full`` costs ln 2 more.

    Returns:
        The allocation.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> round(allocate("full", 32).log_multiplicity(), 2), round(allocate("none", 32).log_multiplicity(), 2)
        (22.18, 3.47)
    """
    kind, cap = parse_adaptivity(adaptivity)
    require(type(steps) is int and 1 <= steps <= 10**6, "steps", steps, "a whole number, 1 to 1000000")
    require(cap is None or cap <= steps, "adaptivity", adaptivity, f"upTo:K with K at most the {steps} steps")
    return Allocation(kind, steps, 1 if kind is Adaptivity.FIRST_CHANGE else cap, first_error)


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

"""What a condition's clauses ask, turned so that large values speak for the answer that the mode promises to be right.

Sizes of sets (``exact_sizes``) and the labels that one submission needs (``on_demand``) both start from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from easeml_core.entities import Mode
from easeml_core.gate.clause_tests import reach
from easeml_core.gate.clauses import DIFFERENCE, LINEAR, claim_of

if TYPE_CHECKING:
    from easeml_core.gate.clauses import Clause, Condition


@dataclass(frozen=True, slots=True)
class Question:
    """One test, turned so that large values speak for the promised answer.

    Attributes:
        quantity: As in ``clauses``.
        null: The threshold; its side is what the test has to reject.
        alternative: The truth that must not be missed; where none is so far beyond, the farthest there is.
        reach: Lowest and highest value of the quantity.
        capped: Whether the alternative is the farthest there is.
    """

    quantity: str
    null: float
    alternative: float
    reach: tuple[float, float]
    capped: bool

    @property
    def is_settled(self) -> bool:
        """Whether arithmetic answers, or no truth lies beyond the threshold."""
        return not self.reach[0] <= self.null < self.reach[1]


def question_of(clause: Clause, mode: str, bound: float) -> Question:
    """Turn a clause into the test that its mode promises something about.

    Args:
        clause: The clause.
        mode: ``fp-free``: the test for it; ``fn-free``: the test against it.
        bound: What d is at most, in (0, 1].

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> asked = question_of(parse_condition("n - o > 0.02 +/- 0.01").clauses[0], "fn-free", 1.0)
        >>> asked.null, asked.alternative
        (-0.02, 0.0)
    """
    claim = claim_of(clause)
    low, high = (-bound, bound) if claim.quantity == DIFFERENCE else reach(clause)
    # As the decimals that were written: 0.8 + 2 * 0.1 is 1, and 1 - 0.9 is 0.1.
    null, tolerance = Fraction(repr(claim.threshold)), Fraction(repr(claim.tolerance))
    if claim.above != (mode == Mode.FP_FREE):
        # A share turned round is the share of the others; everything else changes its sign.
        total = 0 if claim.quantity in (DIFFERENCE, LINEAR) else 1
        low, high, null = total - high, total - low, total - null
    wanted = float(null + 2 * tolerance)
    return Question(claim.quantity, float(null), min(wanted, high), (low, high), wanted > high)


def promised_levels(
    condition: Condition, *, log_level: float, mode: str, power: float | None, conditions: int
) -> tuple[float, float]:
    """Give ln of the level of the promised test of each clause, and ln of the chance with which it may miss.

    Args:
        condition: The condition.
        log_level: Ln alpha of the whole answer.
        mode: ``fp-free``: every clause has the whole level. ``fn-free``: conditions and clauses share it.
        power: 1 - beta in (0, 1); None for beta = alpha of the condition.
        conditions: How many conditions the answer rests on, those of slices included, >= 1.
    """
    promised = log_level - (math.log(conditions) if mode == Mode.FN_FREE else 0.0)
    of_clause = promised - (math.log(len(condition.clauses)) if mode == Mode.FN_FREE else 0.0)
    return of_clause, promised if power is None else math.log1p(-power)

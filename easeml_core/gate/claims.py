"""A clause seen as one claim about one quantity, with the scale divided out.

``2 * o - 2 * n < 0.1 +/- 0.02`` and ``n - o > -0.05 +/- 0.01`` say the same; planner and decision want to know it.
Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.gate.clauses import OUTCOMES, VARIABLES

if TYPE_CHECKING:
    from easeml_core.gate.clauses import Clause, Condition

DIFFERENCE = "n - o"
LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class Claim:
    """``quantity > threshold`` (above) or ``quantity < threshold``.

    Attributes:
        quantity: ``n``, ``o``, ``d``, ``n - o``, or ``linear`` for every other left side, which keeps its scale.
        above: True for ``>``.
        threshold: In the unit of the quantity.
        tolerance: In the unit of the quantity, > 0.
    """

    quantity: str
    above: bool
    threshold: float
    tolerance: float


def claim_of(clause: Clause) -> Claim:
    """Give the claim that a clause makes.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> claim_of(parse_condition("2 * o - 2 * n < 0.1 +/- 0.02").clauses[0])
        Claim(quantity='n - o', above=True, threshold=-0.05, tolerance=0.01)
    """
    quantity, scale = _quantity(clause)
    return Claim(
        quantity=quantity,
        above=(clause.comparison == ">") == (scale > 0),
        threshold=clause.threshold / scale + 0.0,  # + 0.0 turns a negative zero into a plain one
        tolerance=clause.tolerance / abs(scale),
    )


def values_of(clause: Clause) -> tuple[float, ...]:
    """What each of ``clauses.OUTCOMES`` is worth in the quantity of the clause's claim.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> values_of(parse_condition("2 * o - 2 * n < 0.1 +/- 0.02").clauses[0])
        (0.0, 1.0, -1.0, 0.0, 0.0)
    """
    quantity, _ = _quantity(clause)
    if quantity == DIFFERENCE:
        return tuple(float(n - o) for n, o, _ in OUTCOMES)
    if quantity == LINEAR:
        return tuple(float(clause.value_of(outcome)) for outcome in OUTCOMES)
    return tuple(float(outcome[VARIABLES.index(quantity)]) for outcome in OUTCOMES)


def disagreement_bound(condition: Condition) -> float | None:
    """Give the smallest A of the condition's clauses ``d < A``, or None where there is none."""
    claims = [claim_of(clause) for clause in condition.clauses]
    return min((c.threshold for c in claims if c.quantity == "d" and not c.above), default=None)


def usable_disagreement_bound(condition: Condition) -> float | None:
    """Give that A as a bound that tests can use, in (0, 1]; None where no clause bounds d, or none can ever hold."""
    bound = disagreement_bound(condition)
    return min(bound, 1.0) if bound is not None and bound > 0 else None


def contradiction(condition: Condition) -> tuple[Clause, str] | None:
    """Give the clause about n - o that a clause ``d < A`` rules out, with the reason, or None.

    The accuracies of two models differ by at most the share of examples on which they differ: |n - o| <= d. So with
    d < A, n - o can be neither above nor at any C >= A.
    """
    bound = disagreement_bound(condition)
    if bound is None:
        return None
    for clause in condition.clauses:
        claim = claim_of(clause)
        least = claim.threshold if claim.above else -claim.threshold
        if claim.quantity == DIFFERENCE and bound <= least:
            side = "n - o" if claim.above else "o - n"
            reason = f"this can never hold: {side} is at most d, which another clause keeps below {bound:g}"
            return clause, reason
    return None


def out_of_reach(condition: Condition) -> tuple[Clause, str] | None:
    """Give the first clause that no two models can meet, with the reason, or None.

    Accuracies and shares lie between 0 and 1, so that every left side has a least and a greatest value; nothing is
    beyond a threshold that lies there or farther. A test answers such a clause without a look at any example.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> out_of_reach(parse_condition("n > 1.2 +/- 0.1"))[1]
        'this can never hold: n is at most 1'
    """
    for clause in condition.clauses:
        least, most = clause.reach()
        left = str(clause).partition(f" {clause.comparison} ")[0]
        if clause.comparison == ">" and clause.threshold >= most:
            return clause, f"this can never hold: {left} is at most {most:g}"
        if clause.comparison == "<" and clause.threshold <= least:
            return clause, f"this can never hold: {left} is at least {least:g}"
    return None


def _quantity(clause: Clause) -> tuple[str, float]:
    """Give the name of what the clause is about, and the weight to divide by."""
    if len(clause.weights) == 1:
        return clause.weights[0]
    if clause.weight("d") == 0 and clause.weight("n") == -clause.weight("o"):
        return DIFFERENCE, clause.weight("n")
    return LINEAR, 1.0

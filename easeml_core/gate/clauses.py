"""What a condition is, once read: frozen clauses in normal form, which print themselves in canonical form.

Nothing here decides anything about statistics: ``planner`` and ``decision`` do. Standard library only.

A clause seen as one claim about one quantity, with the scale divided out.

``2 * o - 2 * n < 0.1 +/- 0.02`` and ``n - o > -0.05 +/- 0.01`` say the same; planner and decision want to know it.
Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

VARIABLES = ("n", "o", "d")
"""n, o: accuracy of the new and of the old model; d: share of examples on which their predictions differ."""

OUTCOMES = ((1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 0), (0, 0, 1))
"""All (n, o, d) that one example can show: where both models are right, they agree; where one is right, they differ."""

DIFFERING = tuple(k for k, (_, _, d) in enumerate(OUTCOMES) if d)
"""Which of ``OUTCOMES`` have predictions that differ."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison in normal form: sum of weight * variable, ``>`` or ``<``, threshold, ``+/-`` tolerance.

    Attributes:
        weights: Pairs (variable, weight) in the order n, o, d; no weight is 0, no variable comes twice.
        comparison: ``>`` or ``<``.
        threshold: Any finite number.
        tolerance: > 0.
        span: Where the clause stands in its source; not part of its value.
    """

    weights: tuple[tuple[str, float], ...]
    comparison: str
    threshold: float
    tolerance: float
    span: tuple[int, int] = field(default=(0, 0), compare=False)

    def weight(self, variable: str) -> float:
        """The weight of a variable, 0 where it does not occur."""
        return dict(self.weights).get(variable, 0.0)

    @property
    def needs_labels(self) -> bool:
        """True unless the clause is about d alone, which needs predictions only."""
        return any(variable != "d" for variable, _ in self.weights)

    @property
    def needs_agreements(self) -> bool:
        """True where an example counts on which both models say the same: labels of disagreements do not suffice."""
        return self.weight("n") != -self.weight("o")

    def value_of(self, values: tuple[float, float, float]) -> float:
        """The left side at given values of (n, o, d), for the weights as they are written.

        Decimal weights are added up exactly: .7 + .1 in doubles is below .8, so that ``-0.7 * n - 0.1 * o > -0.8``
        would be certain, although it is false for two models that are always right.
        """
        terms = (Fraction(repr(self.weight(v))) * Fraction(repr(x)) for v, x in zip(VARIABLES, values, strict=True))
        return float(sum(terms))

    def reach(self) -> tuple[float, float]:
        """Lowest and highest value that the left side can have on one example, and so on average."""
        values = [self.value_of(outcome) for outcome in OUTCOMES]
        return min(values), max(values)

    def __str__(self) -> str:
        left = " + ".join(_term(variable, weight) for variable, weight in self.weights).replace("+ -", "- ")
        return f"{left} {self.comparison} {number(self.threshold)} +/- {number(self.tolerance)}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A conjunction of one or more clauses; ``str()`` gives its canonical source, which reads back equal."""

    clauses: tuple[Clause, ...]

    @property
    def needs_labels(self) -> bool:
        """True unless every clause is about d alone."""
        return any(clause.needs_labels for clause in self.clauses)

    @property
    def needs_agreements(self) -> bool:
        """True unless labels are needed at most where the predictions differ."""
        return any(clause.needs_agreements for clause in self.clauses)

    def __str__(self) -> str:
        return " /\\ ".join(str(clause) for clause in self.clauses)


def number(value: float) -> str:
    """The shortest text that reads back as the same number, without a needless ``.0``."""
    return repr(value).removesuffix(".0")


def _term(variable: str, weight: float) -> str:
    if abs(weight) == 1:
        return variable if weight > 0 else f"-{variable}"
    return f"{number(weight)} * {variable}"


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

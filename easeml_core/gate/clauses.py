"""What a condition is, once read: frozen clauses in normal form, which print themselves in canonical form.

Nothing here decides anything about statistics: ``planner`` and ``decision`` do. Standard library only.
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

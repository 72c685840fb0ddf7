r"""Conditions: a reader of sources such as ``n - o > 0.02 +/- 0.01 /\ d < 0.1 +/- 0.01``, and what was read.

What was read are frozen clauses in normal form, which print themselves in canonical form. A clause is also one claim
about one quantity, with the scale divided out: ``2 * o - 2 * n < 0.1 +/- 0.02`` and ``n - o > -0.05 +/- 0.01`` say the
same. ``exact_sizes`` says what a clause asks, ``clause_tests`` tests it, ``planner`` and ``decision`` use both.

Recursive descent: one function per rule of the grammar, the rule in its docstring (in EBNF: braces repeat, brackets
are optional, a full stop ends a rule). The language is that of Renggli et al. (MLSys 2019), section 3, with constants
on both sides of ``*``. Standard library only, so that a DAG file may check its condition while it is being parsed.

The source is cut into tokens by a table of named patterns, and a cursor knows where it is, as in the ``packaging``
library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from typing import NoReturn

from easeml_core.errors import ConditionSyntaxError

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
        left = " + ".join(_shown_term(variable, weight) for variable, weight in self.weights).replace("+ -", "- ")
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


def _shown_term(variable: str, weight: float) -> str:
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
    """What each of ``OUTCOMES`` is worth in the quantity of the clause's claim.

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


RULES: dict[str, re.Pattern[str]] = {
    "NUMBER": re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"),
    "NAME": re.compile(r"[^\W\d]\w*"),
    "SIGN": re.compile(r"\+(?!/-)|-"),
    "TIMES": re.compile(r"\*"),
    "COMPARISON": re.compile(r"[<>](?!=)"),
    "TOLERANCE": re.compile(r"\+/-"),
    "AND": re.compile(r"/\\"),
    "END": re.compile(r"\Z"),
}
_BLANKS = re.compile(r"\s*")
_SHOWN = re.compile(r"\w+|[<>]=?|\+/-|\S")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the source: the name of its pattern, its text and where it starts."""

    name: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Position just behind the token."""
        return self.start + len(self.text)


class Tokenizer:
    """A cursor over one source. Blanks between tokens mean nothing.

    Args:
        source: Text of the condition, already known to be of bounded length.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self.behind_last = 0
        self._skip_blanks()

    def take(self, name: str) -> Token | None:
        """Read a token of this name if it is the next one."""
        match = RULES[name].match(self.source, self.position)
        if match is None:
            return None
        token = Token(name, match[0], self.position)
        self.position = self.behind_last = token.end
        self._skip_blanks()
        return token

    def expect(self, name: str, expected: str) -> Token:
        """Read a token of this name, or raise with the caret under what stands there instead."""
        token = self.take(name)
        if token is None:
            self.fail_here(f"expected {expected}")
        return token

    def fail_here(self, message: str) -> NoReturn:
        """Raise with the caret under the next piece of text, and name that piece."""
        found = _SHOWN.match(self.source, self.position)
        if found is None:
            self.fail(f"{message}, found the end", self.position, self.position + 1)
        self.fail(f"{message}, found {found[0]!r}", *found.span())

    def fail(self, message: str, start: int, end: int) -> NoReturn:
        """Raise with the caret under a span."""
        raise ConditionSyntaxError(message, self.source, start, end)

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self.source, self.position)
        self.position = blanks.end() if blanks else self.position


__all__ = ["MAX_LENGTH", "MOST_CLAUSES", "Clause", "Condition", "grammar", "parse_condition"]

MAX_LENGTH = 1000
MOST_CLAUSES = 10
"""Each is sized and tested by itself, and all submissions wait for it; n, o, d and n - o have two sides each."""

SMALLEST, LARGEST = 1e-9, 1e9
_EXAMPLE = "a condition such as 'n - o > 0.02 +/- 0.01'"
_RANGE = f"numbers must be 0 or between {SMALLEST:g} and {LARGEST:g} in size"
# Weights are added up as decimals, so that 0.1 * n + 0.2 * n - 0.3 * n is exactly nothing; own context, own traps.
_EXACT = Context(prec=60, traps=[])


def parse_condition(source: str) -> Condition:
    r"""Read a condition into its normal form.

    Args:
        source: Text of at most ``MAX_LENGTH`` characters, with at most ``MOST_CLAUSES`` clauses.

    Returns:
        The clauses, each as distinct variables with their weights, comparison, threshold and tolerance.

    Raises:
        ConditionSyntaxError: Whatever is wrong; the message shows the source with a caret under the place.

    Example:
        >>> print(parse_condition("n-1.1*o>.01 +/- 0.01 /\\ d<0.1+/-0.01"))
        n - 1.1 * o > 0.01 +/- 0.01 /\ d < 0.1 +/- 0.01
    """
    if not isinstance(source, str):
        message = f"a condition is text, got {type(source).__name__}"
        raise ConditionSyntaxError(message, "", 0)
    if len(source) > MAX_LENGTH:
        message = f"a condition has at most {MAX_LENGTH} characters, got {len(source)}"
        raise ConditionSyntaxError(message, source[:60] + " ...", 60)
    condition = _condition(Tokenizer(source))
    found = contradiction(condition)
    if found is not None:
        clause, reason = found
        raise ConditionSyntaxError(reason, source, *clause.span)
    return condition


def grammar() -> str:
    """Give the grammar: the first line of the docstring of every rule."""
    rules = (_condition, _clause, _expression, _term, _factor, _number)
    return "\n".join((rule.__doc__ or "").strip().splitlines()[0] for rule in rules)


def _condition(tokens: Tokenizer) -> Condition:
    r"""``condition = clause { "/\" clause }``."""
    clauses = [_clause(tokens)]
    while joint := tokens.take("AND"):
        if len(clauses) == MOST_CLAUSES:
            tokens.fail(f"a condition has at most {MOST_CLAUSES} clauses, and this one goes on", joint.start, joint.end)
        clauses.append(_clause(tokens))
    tokens.expect("END", "'/\\' and another clause, or nothing more")
    return Condition(tuple(clauses))


def _clause(tokens: Tokenizer) -> Clause:
    """``clause = expression ( ">" | "<" ) [ sign ] number "+/-" number``."""
    start = tokens.position
    weights = _expression(tokens)
    comparison = tokens.expect("COMPARISON", "'>' or '<'")
    sign = tokens.take("SIGN")
    threshold = _number(tokens, "a threshold, a number such as 0.02")
    if sign is not None and sign.text == "-":
        threshold = -threshold
    if tokens.take("TOLERANCE") is None:
        end = tokens.behind_last
        tokens.fail("expected a tolerance '+/- number' after the comparison", end, end + 1)
    tolerance = _tolerance(tokens)
    span = (start, tokens.behind_last)
    return Clause(weights, comparison.text, float(threshold) + 0.0, tolerance, span)


def _tolerance(tokens: Tokenizer) -> float:
    """Read the number behind ``+/-``, which must be above 0; a sign is read only to say so."""
    start = tokens.position
    sign = tokens.take("SIGN")
    value = float(_number(tokens, "a tolerance, a number such as 0.01"))
    if value <= 0 or (sign is not None and sign.text == "-"):
        tokens.fail("a tolerance must be > 0", start, tokens.behind_last)
    return value


def _expression(tokens: Tokenizer) -> tuple[tuple[str, float], ...]:
    """``expression = [ sign ] term { sign term }``.

    Signs bind from left to right, as in arithmetic. Weights of the same variable are added.
    """
    start = tokens.position
    sums = dict.fromkeys(VARIABLES, Decimal(0))
    sign = tokens.take("SIGN")
    while True:
        variable, weight = _term(tokens)
        signed = -weight if sign is not None and sign.text == "-" else weight
        sums[variable] = _EXACT.add(sums[variable], signed)
        sign = tokens.take("SIGN")
        if sign is None:
            break
    weights = tuple((variable, float(weight)) for variable, weight in sums.items() if weight)
    if not weights:
        tokens.fail("all weights are 0, nothing is left to compare", start, tokens.behind_last)
    if not all(SMALLEST <= abs(weight) <= LARGEST for _, weight in weights):
        tokens.fail(f"a weight is too large or too small; {_RANGE}", start, tokens.behind_last)
    return weights


def _term(tokens: Tokenizer) -> tuple[str, Decimal]:
    """``term = factor { "*" factor }``.

    Exactly one factor is a variable, so that the left side stays linear.
    """
    start = tokens.position
    variable, weight = "", Decimal(1)
    while True:
        factor = _factor(tokens)
        if isinstance(factor, Decimal):
            weight = _EXACT.multiply(weight, factor)
        elif variable:
            tokens.fail("two variables cannot be multiplied", factor.start, factor.end)
        else:
            variable = factor.text
        if tokens.take("TIMES") is None:
            break
    if not variable:
        end = tokens.behind_last
        tokens.fail(f"a constant needs a variable, write for example '{tokens.source[start:end]} * n'", start, end)
    return variable, weight


def _factor(tokens: Tokenizer) -> Token | Decimal:
    """``factor = "n" | "o" | "d" | number``."""
    name = tokens.take("NAME")
    if name is None:
        return _number(tokens, "n, o, d or a number" if tokens.behind_last else _EXAMPLE)
    if name.text not in VARIABLES:
        tokens.fail(f"unknown variable {name.text!r}; known are n, o, d", name.start, name.end)
    return name


def _number(tokens: Tokenizer, expected: str) -> Decimal:
    """``number = digits [ "." digits ] [ "e" [ sign ] digits ]``."""
    token = tokens.expect("NUMBER", expected)
    value = float(token.text)
    if value and not SMALLEST <= value <= LARGEST:
        tokens.fail(_RANGE, token.start, token.end)
    return _EXACT.create_decimal(token.text) if value else Decimal(0)

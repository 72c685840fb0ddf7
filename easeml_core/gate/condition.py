r"""Reads the source of a condition, such as ``n - o > 0.02 +/- 0.01 /\ d < 0.1 +/- 0.01``.

Recursive descent: one function per rule of the grammar, the rule in its docstring (in EBNF: braces repeat, brackets
are optional, a full stop ends a rule). The language is that of Renggli et al. (MLSys 2019), section 3, with constants
on both sides of ``*``. ``clauses`` has the normal form of what was read, ``questions`` says what a clause asks, and
``clause_tests`` tests it. Standard library only, so that a DAG file may check its condition while it is being parsed.

The source is cut into tokens by a table of named patterns, and a cursor knows where it is, as in the ``packaging``
library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import NoReturn

from easeml_core.errors import ConditionSyntaxError
from easeml_core.gate.clauses import VARIABLES, Clause, Condition, contradiction

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

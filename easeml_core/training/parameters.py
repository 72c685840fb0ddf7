"""Rules for the parameters of trainers: a default, an allowed range, a check. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from easeml_core.config import require
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rule(Protocol):
    """What every rule offers: its default, and a check that gives the value in its own type."""

    @property
    def default(self) -> Any:
        """The value when none is given."""

    def check(self, name: str, value: object) -> Any:
        """The value in the rule's type; ConfigError with the allowed range if it is outside."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in [low, high]."""

    default: int
    low: int
    high: int

    def check(self, name: str, value: object) -> int:
        """The value as an int.

        Example:
            >>> Whole(5, 1, 100).check("n_neighbors", 7)
            7
        """
        number = _number(value)
        fits = number.is_integer() and self.low <= number <= self.high
        require(fits, name, value, f"a whole number from {self.low:,} to {self.high:,}")
        return int(number)


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number in (above, high]; ``high`` may be infinite."""

    default: float
    above: float = 0.0
    high: float = math.inf

    def check(self, name: str, value: object) -> float:
        """The value as a float.

        Example:
            >>> Real(1.0).check("C", 10)
            10.0
        """
        number = _number(value)
        top = "finite" if math.isinf(self.high) else f"<= {self.high:g}"
        fits = math.isfinite(number) and self.above < number <= self.high
        require(fits, name, value, f"a number > {self.above:g} and {top}")
        return number


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    default: str
    words: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        """The word itself.

        Example:
            >>> Choice("uniform", ("uniform", "distance")).check("weights", "distance")
            'distance'
        """
        require(value in self.words, name, value, "one of " + ", ".join(self.words))
        return str(value)


def _number(value: object) -> float:
    """The value as a float; not-a-number for what is no number.

    A form sends 7.0 for 7, which is meant; True is an int in Python, which is a mistake.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def complete(kind: str, rules: Mapping[str, Rule], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a trainer: those given, checked, and the defaults of the rest.

    Args:
        kind: The trainer's name, for the message.
        rules: Name of a parameter to its rule.
        given: What the user wrote.

    Raises:
        InvalidInputError: If a name is not a parameter of this trainer; the message lists those that are.
        ConfigError: If a value is outside its range.

    Example:
        >>> complete("rbf_svm", {"C": Real(1.0)}, {"C": 2})
        {'C': 2.0}
    """
    unknown = sorted(set(given) - set(rules))
    if unknown:
        allowed = ", ".join(rules) or "none"
        message = f"{kind} has no parameter {unknown[0]!r}; allowed: {allowed}"
        raise InvalidInputError(message)
    return {name: rule.check(f"{kind}.{name}", given.get(name, rule.default)) for name, rule in rules.items()}

"""What values may be, each limit in one place.

Settings (``config``), services, the command line, the forms of the pages and of Airflow, the store's messages and the
reference take the limits from here. A test compares them with the constraints of the database.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

from easeml_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limit(ABC):
    """What a value may be; called by attrs as the validator of a field.

    Attributes:
        none: What None means; empty where None is not allowed.
    """

    none: str = ""

    @property
    @abstractmethod
    def rule(self) -> str:
        """What is allowed, None apart, as it follows "must be"."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether the value, which is not None, is allowed."""

    @property
    def allowed(self) -> str:
        """What is allowed, as it follows "must be"."""
        return f"{self.rule}, or {self.none}" if self.none else self.rule

    def or_none(self, meaning: str = "None") -> Self:
        """Return the limit that allows None, too.

        Example:
            >>> WEIGHT.or_none("None for the default").allowed
            '>= 1e-6 and <= 1e6, or None for the default'
        """
        return replace(self, none=meaning)

    def check(self, name: str, value: object) -> None:
        """Raise ConfigError unless the value is allowed.

        Args:
            name: What the user calls the value.
            value: The value.
        """
        if not (self.none if value is None else self.holds(value)):
            raise ConfigError(name, value, self.allowed)

    def __call__(self, instance: Any, attribute: Any, value: Any) -> None:
        """Check a field of an attrs class."""
        self.check(attribute.name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(Limit):
    """A range of numbers; true and false are no numbers.

    Attributes:
        least: The smallest number.
        above: A bound that every number exceeds.
        most: The largest number.
        below: A bound that no number reaches; infinity for finite numbers.
        whole: Whether the number has to be an ``int``.

    Example:
        >>> PRIORITY.allowed, SHARE.allowed, Range(above=0, below=math.inf).allowed
        ('a whole number, -100 to 100', '> 0 and < 1', '> 0 and finite')
        >>> PRIORITY.holds(100), PRIORITY.holds(True), SHARE.holds(1), SHARE.holds("0.5")
        (True, False, False, False)
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    whole: bool = False

    @property
    def rule(self) -> str:
        """What is allowed, None apart, as it follows "must be"."""
        if self.whole and self.least is not None and self.most is not None:
            return f"a whole number, {self.least} to {self.most}"
        bounds = (("> ", self.above), (">= ", self.least), ("< ", self.below), ("<= ", self.most))
        words = ["finite" if n == math.inf else sign + _digits(n) for sign, n in bounds if n is not None]
        return "a whole number, " * self.whole + " and ".join(words)

    def holds(self, value: Any) -> bool:
        """Whether the value is a number in the range."""
        if type(value) is not int if self.whole else not isinstance(value, Real) or isinstance(value, bool):
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
            and not (isinstance(value, float) and math.isnan(value))  # an int may be too large for a float
        )


def _digits(number: float) -> str:
    """Write a number as a person types it: 1e-6, 0.5, 100000."""
    return str(number) if isinstance(number, int) else re.sub(r"e\+?(-?)0*", r"e\1", f"{number:g}")


@dataclass(frozen=True, slots=True)
class OneOf(Limit):
    """One of some words.

    Example:
        >>> OneOf.of("auto", "on").allowed
        'one of auto, on'
    """

    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, *words: str) -> Self:
        """Return the limit to these words."""
        return cls(words=words)

    @property
    def rule(self) -> str:
        """What is allowed, None apart, as it follows "must be"."""
        return "one of " + ", ".join(self.words)

    def holds(self, value: Any) -> bool:
        """Whether the value is one of the words."""
        return value in self.words


PLUGIN = "plugin:"
"""What the names of installed policies begin with."""

_INSTALLED = re.compile(PLUGIN + r"[A-Za-z_]\w{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PolicyName(OneOf):
    """One of the policies of this package, or the name of an installed one, whether or not it is installed here.

    Example:
        >>> names = PolicyName.of("default")
        >>> names.holds("plugin:cheapest"), names.holds("plugin:"), names.holds("shop.policies:cheapest")
        (True, False, False)
    """

    @property
    def rule(self) -> str:
        """What is allowed, None apart, as it follows "must be"."""
        return f"one of {', '.join(self.words)}, or {PLUGIN}NAME of an installed policy"

    def holds(self, value: Any) -> bool:
        """Whether the value is one of the words, or has the form of an installed policy's name."""
        return value in self.words or (isinstance(value, str) and bool(_INSTALLED.fullmatch(value)))


@dataclass(frozen=True, slots=True)
class Truth(Limit):
    """True or false, and no number that is equal to them."""

    @property
    def rule(self) -> str:
        """What is allowed, None apart, as it follows "must be"."""
        return "true or false"

    def holds(self, value: Any) -> bool:
        """Whether the value is a bool."""
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Name(Limit):
    """A name of letters a-z, digits and signs that begins with a letter or digit.

    Attributes:
        signs: Which signs it may contain.
        longest: Characters at most.

    Example:
        >>> NAME.holds("flowers-2"), NAME.holds("-flowers"), LABELER.holds("ann@lab")
        (True, False, True)
    """

    signs: str = "_.-"
    longest: int = 63

    @property
    def pattern(self) -> str:
        """The rule as a regular expression of Python, PostgreSQL and JavaScript alike."""
        return rf"[a-z0-9][a-z0-9{self.signs}]{{0,{self.longest - 1}}}"

    @property
    def rule(self) -> str:
        """What is allowed, None apart, as it follows "must be"."""
        *signs, last = map(repr, self.signs)
        return f"1 to {self.longest} of a-z, 0-9, {', '.join(signs)} and {last}, the first a letter or digit"

    def holds(self, value: Any) -> bool:
        """Whether the value is such a name."""
        return isinstance(value, str) and re.fullmatch(self.pattern, value, re.ASCII) is not None


NAME = Name()
"""Tenants, studies, test sets, and kinds of devices."""
LABELER = Name(signs="_.@-")

SHARE = Range(above=0, below=1)
"""Probabilities and parts of a whole that are neither nothing nor all of it."""
TRUTH = Truth()
WEIGHT = Range(least=1e-6, most=1e6)
"""Of tenants and studies; the product of two weights must not underflow."""
PRIORITY = Range(least=-100, most=100, whole=True)
SECONDS = Range(above=0, below=math.inf).or_none("None for no limit")
"""Budget of a study and quota of a tenant, in device seconds."""
TARGET_QUALITY = Range(above=0, most=1).or_none("None for no target")
MAX_PARALLEL = Range(least=1, most=2**31 - 1, whole=True).or_none("None for no limit")
"""Open trials of a tenant; the database counts them in 32 bits."""
DURATION = Range(above=0, most=1e8)
"""Time limits and leases, in seconds; the database adds them to the time of day."""
ATTEMPTS = Range(least=1, most=1000, whole=True)
COST_SECONDS = Range(above=0, most=1e9)

MOST_RUNGS = 20
"""Shares of a network's epochs after which its training may be ended."""
MOST_DEVICES = 20
"""Kinds of devices that one candidate may name."""
LONGEST_TEXT = 2000
"""Characters of a message, a reason, or the source of a data set."""
LONGEST_TARGET = 500
"""Characters of the target of a data set."""
LONGEST_CANDIDATE = 200
"""Characters of a candidate's name."""
MOST_JSON_BYTES = 3999
"""Of a study's settings, a request's arguments, and a candidate's parameters."""

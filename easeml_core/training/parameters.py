"""Rules for the parameters of trainers: a default, an allowed range, a check. Standard library only.

Parameters that are the tenant's own: any JSON within bounds; and two rules for what such a candidate is made of.

Standard library only, like ``parameters``.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from easeml_core.config import require
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import Parameters


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


def complete(kind: str, rules: Mapping[str, Rule], given: Parameters) -> Parameters:
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


MOST_BYTES = 3000
"""Of a candidate's own parameters as JSON; the database takes 4,000 with all that stands beside them."""

_LONGEST_NAME = 100
_ARTIFACT = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,300}@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """The reference of a file in the artifact store; there is no default."""

    default: None = None

    def check(self, name: str, value: object) -> str:
        """The reference itself.

        Example:
            >>> Artifact().check("program", "sha256:" + 64 * "0")[:10]
            'sha256:000'
        """
        fits = isinstance(value, str) and _ARTIFACT.fullmatch(value) is not None
        require(fits, name, value, "sha256:<64 hex digits>, as `easeml candidate pack FOLDER` prints it")
        return str(value)


@dataclass(frozen=True, slots=True)
class Image:
    """A container image by its digest, so that a candidate stays what it was; there is no default."""

    default: None = None

    def check(self, name: str, value: object) -> str:
        """The image's name itself.

        Example:
            >>> Image().check("image", "registry.example/lab/trainer@sha256:" + 64 * "0")[:25]
            'registry.example/lab/trai'
        """
        fits = isinstance(value, str) and _IMAGE.fullmatch(value) is not None
        require(fits, name, value, "NAME@sha256:<64 hex digits>, as `docker images --digests` shows it; no tag alone")
        return str(value)


def checked_own(kind: str, given: Parameters) -> Parameters:
    """Parameters as JSON gives them back.

    Args:
        kind: The trainer's name, for the message.
        given: Text, finite numbers, true, false, None, lists and mappings by name.

    Raises:
        InvalidInputError: If a name or a value is none of these, or they are too many; names the parameter.

    Example:
        >>> checked_own("command", {"layers": (64, 32), "rate": 0.1})
        {'layers': [64, 32], 'rate': 0.1}
    """
    checked = {name: _checked(kind, name, value) for name, value in given.items()}
    size = len(json.dumps(checked, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        message = f"the parameters of a candidate of kind {kind} may have {MOST_BYTES:,} bytes as JSON, got {size:,}"
        raise InvalidInputError(message)
    return checked


def _checked(kind: str, name: object, value: object) -> Any:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        message = (
            f"a parameter of {kind} has a name of 1 to {_LONGEST_NAME} printable characters, got {reprlib.repr(name)}"
        )
        raise InvalidInputError(message)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # half a pair of surrogates cannot be stored, nor can the character 0
        fits = len(text) <= MOST_BYTES and "\\u0000" not in text.replace("\\\\", "")
    except (TypeError, ValueError, RecursionError):
        fits = False
    allowed = f"text, a finite number, true, false, null, or lists and mappings of these; at most {MOST_BYTES:,} bytes"
    require(fits, f"{kind}.{name}", reprlib.repr(value), allowed)
    return json.loads(text)

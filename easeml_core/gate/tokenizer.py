"""Cuts the source of a condition into tokens: a table of named patterns and a cursor that knows where it is.

In the manner of the ``packaging`` library. Standard library only, since DAG files are read with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from easeml_core.errors import ConditionSyntaxError

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

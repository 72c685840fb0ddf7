"""A cursor over the text of the paper's form: takes words and signs, and fails with a caret under what it finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn, TypeVar

from easeml_core.errors import ProgramError
from easeml_core.programs.bounds import short

if TYPE_CHECKING:
    from collections.abc import Callable

_BLANKS = re.compile(r"\s*(?:#[^\n]*\s*)*")
_PIECE = re.compile(r"[A-Za-z0-9_]+|::|\.\.\.|[^\W_]+|\S")
_WORD = re.compile(r"[A-Za-z0-9_]+")

_Made = TypeVar("_Made")


class Cursor:
    """Where the reader stands. Blanks, line ends and comments from ``#`` to the end of a line mean nothing.

    Args:
        source: Text of bounded length.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = self.behind_last = 0
        self._skip_blanks()

    def next_piece(self) -> str:
        """The word or sign that comes next, not taken; empty at the end."""
        found = _PIECE.match(self.source, self.position)
        return found[0] if found else ""

    def take(self, sign: str) -> bool:
        """Take a sign or a given word if it comes next."""
        if self.next_piece() != sign:
            return False
        self._move(len(sign))
        return True

    def expect(self, sign: str, why: str = "") -> None:
        """Take a sign or a given word, or fail."""
        if not self.take(sign):
            self.fail_here(why or f"expected {sign!r}")

    def word(self, expected: str) -> str:
        """Take a word: letters, digits and '_'."""
        piece = self.next_piece()
        if not _WORD.fullmatch(piece):
            self.fail_here(f"expected {expected}")
        self._move(len(piece))
        return piece

    def end(self, expected: str) -> None:
        """Fail unless nothing follows."""
        if self.next_piece():
            self.fail_here(f"expected {expected}")

    def make(self, start: int, build: Callable[[], _Made]) -> _Made:
        """Build an object from what was taken since ``start``; what it refuses is shown there."""
        try:
            return build()
        except ProgramError as error:
            self.fail(error.message, start, self.behind_last)

    def fail_here(self, message: str) -> NoReturn:
        """Fail with the caret under the next piece, and name it."""
        piece = self.next_piece()
        found = short(piece) if piece else "the end"
        self.fail(f"{message}, found {found}", self.position, self.position + len(piece))

    def fail(self, message: str, start: int, end: int) -> NoReturn:
        """Fail with the caret under a span."""
        raise ProgramError(message, self.source, start, end)

    def _move(self, length: int) -> None:
        self.position = self.behind_last = self.position + length
        self._skip_blanks()

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self.source, self.position)
        self.position = blanks.end() if blanks else self.position

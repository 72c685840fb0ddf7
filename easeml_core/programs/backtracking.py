"""Depth-first search over decisions that depend on one another, with an undo list, a bound, and the nearest failure.

A decision is a function that gives its choices one by one: each step of its iterator makes one choice by ``put``, and
whatever it put is undone before the next. No function calls itself, so the depth of a search costs no stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_STEPS = 1_000_000
"""Choices looked at by one question, all of its searches together; about a second."""


class Steps:
    """Counts the work of one question.

    Args:
        most: Steps after which the question is given up.
    """

    def __init__(self, most: int = MAX_STEPS) -> None:
        self.most, self.taken = most, 0

    def take(self) -> None:
        """Count one step; InvalidInputError when there are too many."""
        self.taken += 1
        if self.taken > self.most:
            message = (
                f"matching was given up after {self.most:,} steps: too many parts look alike; "
                "use fewer fields or nodes, or sizes in the place of variables"
            )
            raise InvalidInputError(message)


class Search:
    """One search: what is decided so far, and why it failed where it came furthest.

    Args:
        steps: The counter of the question.
    """

    def __init__(self, steps: Steps) -> None:
        self.reason = ""
        self._steps = steps
        self._done: list[tuple[dict[Any, Any], Any]] = []
        self._depth, self._deepest, self._weak = 0, -1, True

    def put(self, mapping: dict[Any, Any], key: object, value: object) -> None:
        """Add an entry, which must be new, until this choice is undone."""
        mapping[key] = value
        self._done.append((mapping, key))

    def look(self) -> None:
        """Count a choice that is looked at."""
        self._steps.take()

    def fail(self, reason: str, *, weak: bool = False) -> None:
        """Say why a choice cannot be made; the first among the furthest is kept, a weak one until there is a better."""
        better = self._depth == self._deepest and self._weak and not weak
        if self._depth > self._deepest or better:
            self._deepest, self.reason, self._weak = self._depth, reason, weak

    def run(self, decisions: Sequence[Callable[[], Iterator[None]]]) -> bool:
        """Take all decisions, in order; False if there is no way. What was put stays only on success."""
        opened: list[tuple[Iterator[None], int]] = []
        while len(opened) < len(decisions):
            self._depth = len(opened)
            opened.append((decisions[self._depth](), len(self._done)))
            while not self._advance(*opened[-1]):
                opened.pop()
                if not opened:
                    return False
                self._depth = len(opened) - 1
        return True

    def _advance(self, choices: Iterator[None], mark: int) -> bool:
        """Undo the last choice and make the next one; False if there is none left."""
        while len(self._done) > mark:
            mapping, key = self._done.pop()
            del mapping[key]
        return next(choices, self) is not self

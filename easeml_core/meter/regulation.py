"""Rules that the meter itself enforces, so that fewer histories are possible: any finite automaton, and usual ones.

A rule says what is answered for a measured signal, given the answers so far, and when the set is retired. It may look
at nothing but answers: they are all that the developer sees, and what the developer sees is what must be counted.
Enforcing is the point: a developer's word to react seldom is worth nothing to a guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from easeml_core.config import MeterConfig

_MOST_STATES = 200

Arrow = tuple[int, int | None]
"""An answer, and the next state; None when the set is retired after the answer."""


@dataclass(frozen=True, slots=True)
class Automaton:
    """A rule with finitely many states; state 0 is the first.

    Attributes:
        rows: For each state, for each signal 1..m: the answer and the next state. Equal answers of a state lead to the
            same state, so that the answers tell all. Answers are the signals, or never below them, or never above.

    Raises:
        ConfigError: If the table is not such.
    """

    rows: tuple[tuple[Arrow, ...], ...]

    def __post_init__(self) -> None:
        text = f"1 to {_MOST_STATES} rows of the same length m >= 2 (one for each signal)"
        lengths = {len(row) for row in self.rows}
        shaped = 1 <= len(self.rows) <= _MOST_STATES and len(lengths) == 1 and min(lengths) >= 2
        require(shaped, "automaton", self.rows, text)
        for row in self.rows:
            for arrow in row:
                self._check(arrow)
            together = all(len({b for a, b in row if a == answer}) == 1 for answer, _ in row)
            require(together, "automaton", row, "a table in which equal answers of a state lead to the same state")
        require(bool(self.promised_sides), "automaton", self.rows, "a table of answers never below, or never above")

    def _check(self, arrow: Arrow) -> None:
        text = f"pairs of an answer 1..{self.signals} and a state 0..{len(self.rows) - 1} or nothing"
        require(len(arrow) == 2, "automaton", arrow, text)
        answer, state = arrow
        sound = type(answer) is int and 1 <= answer <= self.signals
        sound = sound and (state is None or (type(state) is int and 0 <= state < len(self.rows)))
        require(sound, "automaton", arrow, text)

    @property
    def signals(self) -> int:
        """The number m of signals."""
        return len(self.rows[0])

    @property
    def promised_sides(self) -> frozenset[str]:
        """``upper`` if no answer is below its signal, ``lower`` if none is above; both for a plain meter."""
        pairs = [(answer, signal) for row in self.rows for signal, (answer, _) in enumerate(row, start=1)]
        sides = {"upper": all(a >= s for a, s in pairs), "lower": all(a <= s for a, s in pairs)}
        return frozenset(side for side, holds in sides.items() if holds)

    def state_after(self, answers: Sequence[int]) -> int | None:
        """The state that the answers have led to; None when the set is retired.

        Raises:
            ConfigError: If this automaton cannot have given these answers.
        """
        state: int | None = 0
        following = _following(self.rows)
        for answer in answers:
            possible = state is not None and answer in following[state]
            require(possible, "answers", answer, "answers that this automaton gives")
            state = following[state or 0][answer]
        return state

    def log_nodes_of_levels(self, steps: int) -> list[float]:
        """Ln of the number of nodes in levels 1..T: ln(e_0^T A^(t-1) 1), scaled at each step.

        Numerics: counts grow beyond floats after some hundred steps, so the vector is kept with sum 1 and its logarithm
        beside it.
        """
        arrows = np.zeros((len(self.rows), len(self.rows)))
        for state, row in enumerate(self.rows):
            for _, following in set(row):
                if following is not None:
                    arrows[state, following] += 1
        nodes, log_sum, found = np.eye(1, len(self.rows))[0], 0.0, [0.0]
        for _ in range(steps - 1):
            nodes = nodes @ arrows
            total = float(nodes.sum())
            if total == 0:
                break
            nodes, log_sum = nodes / total, log_sum + math.log(total)
            found.append(log_sum)
        return found


@lru_cache(maxsize=64)
def _following(rows: tuple[tuple[Arrow, ...], ...]) -> tuple[dict[int, int | None], ...]:
    """Answer -> next state, for each state; kept, since a long ledger is walked through at every reading."""
    return tuple(dict(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is answered, and when the set ends, as functions of the answers so far.

    Attributes:
        announce: (answers, signal) -> answer.
        over: answers -> whether no further answer may be given.
    """

    announce: Callable[[Sequence[int], int], int]
    over: Callable[[Sequence[int]], bool]


@lru_cache(maxsize=64)
def rule_of(config: MeterConfig) -> Rule:
    """The rule that a method enforces; most methods enforce none."""
    make = _RULES.get(config.method)
    return Rule(lambda _answers, signal: signal, lambda _answers: False) if make is None else make(config)


def changes(answers: Sequence[int]) -> int:
    """How many answers were unlike the one before; before the first comes range 1."""
    return sum(a != b for a, b in zip(answers, (1, *answers), strict=False))


def _first_change(_config: MeterConfig) -> Rule:
    return Rule(lambda _answers, signal: signal, lambda answers: any(answer != 1 for answer in answers))


def _ratchet(_config: MeterConfig) -> Rule:
    return Rule(lambda answers, signal: max([signal, *answers]), lambda _answers: False)


def _deviations(config: MeterConfig) -> Rule:
    return Rule(lambda _answers, signal: signal, lambda answers: changes(answers) > config.deviations)


def _automaton(config: MeterConfig) -> Rule:
    automaton = Automaton(config.automaton)

    def announce(answers: Sequence[int], signal: int) -> int:
        state = automaton.state_after(answers)
        return automaton.rows[state or 0][signal - 1][0]

    return Rule(announce, lambda answers: automaton.state_after(answers) is None)


_RULES: Mapping[str, Callable[[MeterConfig], Rule]] = {
    "first-change": _first_change,
    "ratchet": _ratchet,
    "deviations": _deviations,
    "automaton": _automaton,
}

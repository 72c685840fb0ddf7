"""How many models a developer can be led to submit: one table, method -> ln N.

A developer who reacts to signals walks down a tree that is fixed before the sealed set is drawn: each node is a
model, each branch a signal. The signals hold together when they hold at every node that can be reached, so the
number of those nodes, N, is the price of adaptivity. N has hundreds of digits; only its logarithm is ever formed.

Source: Hubis, Wu, Zhang (2019), "Quantitative overfitting management for human-in-the-loop ML application
development with ease.ml/meter", arXiv 1906.00299. Counting the histories of an adaptive analyst: Blum and Hardt
(2015), "The Ladder". The counts are derived here from those ideas. A further method is one more row of METHODS.

A tolerance may depend on the worst signal so far, j, which bounds the possible histories: sequences of the signals
1..j. A tolerance for each answered range alone would save nothing, since the finest range can be answered anywhere in
the tree.

A rule that the meter itself enforces makes fewer histories possible: any finite automaton, and usual ones. A rule says
what is answered for a measured signal, given the answers so far, and when the set is retired. It may look at nothing
but answers: they are all that the developer sees, and what the developer sees is what must be counted. Enforcing is the
point: a developer's word to react seldom is worth nothing to a guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from easeml_core.settings.config import MeterConfig

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
        """The state that the answers have led to; None when the set is retired."""
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


def _ratchet_rule(_config: MeterConfig) -> Rule:
    return Rule(lambda answers, signal: max([signal, *answers]), lambda _answers: False)


def _deviation_rule(config: MeterConfig) -> Rule:
    return Rule(lambda _answers, signal: signal, lambda answers: changes(answers) > config.deviations)


def _automaton_rule(config: MeterConfig) -> Rule:
    automaton = Automaton(config.automaton)

    def announce(answers: Sequence[int], signal: int) -> int:
        state = automaton.state_after(answers)
        return automaton.rows[state or 0][signal - 1][0]

    return Rule(announce, lambda answers: automaton.state_after(answers) is None)


_RULES: Mapping[str, Callable[[MeterConfig], Rule]] = {
    "first-change": _first_change,
    "ratchet": _ratchet_rule,
    "deviations": _deviation_rule,
    "automaton": _automaton_rule,
}


_HALVINGS = 200


def log_node_counts(signals: int, steps: int) -> tuple[float, ...]:
    """Ln N_j for j = 1..m: N_1 = T, N_j = (j^T - 1) / (j - 1), nodes whose worst earlier signal is j (or less).

    Example:
        >>> [round(math.exp(count)) for count in log_node_counts(3, 4)]
        [4, 15, 40]
    """
    return (math.log(steps), *(log_full_tree(j, steps) for j in range(2, signals + 1)))


def log_full_tree(branches: float, steps: int) -> float:
    """Ln of all nodes of a tree: 1 + c + ... + c^(T-1) = (c^T - 1) / (c - 1), for c > 1, T >= 1."""
    leaves = steps * math.log(branches)
    return leaves + math.log(-math.expm1(-leaves)) - math.log(branches - 1)


def log_sum(logs: Sequence[float]) -> float:
    """Ln of a sum of exponentials, without overflow."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs))


@lru_cache(maxsize=512)
def real_size(tolerances: tuple[float, ...], steps: int, log_delta: float, sides: int) -> float:
    """The least real n with sum over j of N_j sides exp(-2 n epsilon_j^2) <= delta, rounded up in its last digits.

    Args:
        tolerances: epsilon_1 <= ... <= epsilon_m.
        steps: T >= 1.
        log_delta: ln delta < 0.
        sides: 1 or 2.

    Returns:
        n > 0.
    """
    counts = log_node_counts(len(tolerances), steps)

    def log_failure(n: float) -> float:
        return log_sum([c + math.log(sides) - 2 * n * e * e for c, e in zip(counts, tolerances, strict=True)])

    few, enough = 0.0, 1.0
    while log_failure(enough) > log_delta:
        few, enough = enough, 2 * enough
    for _ in range(_HALVINGS):
        middle = (few + enough) / 2
        if not few < middle < enough:
            break
        few, enough = (few, middle) if log_failure(middle) <= log_delta else (middle, enough)
    return enough


def log_sides(tolerances: tuple[float, ...], steps: int, log_delta: float, sides: int) -> tuple[float, ...]:
    """Ln of the level of one side of a node, by its worst earlier signal: -2 n epsilon_j^2 with the n above.

    They add up to delta over the tree whatever the set's true size is, so exact intervals may use them too.

    Example:
        >>> sum(math.exp(side) for side in log_sides((0.1,), 1, math.log(0.05), 2)) <= 0.05 / 2
        True
    """
    n = real_size(tolerances, steps, log_delta, sides)
    return tuple(-2 * n * e * e for e in tolerances)


_LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Tree:
    """What the number of nodes depends on.

    Attributes:
        signals: m >= 2, possible answers.
        steps: T >= 1, submissions.
        ambiguous: b >= 0, answers planned for that could as well have been the neighbouring range.
        deviations: B >= 0, answers unlike the one before that the set survives.
        teams: K >= 1, teams that exchange nothing.
        branches: 1 + 2 epsilon / w > 1, ranges that can be answered in the mean when boundaries are shifted.
        automaton: Rows of an ``Automaton``; empty for none.
    """

    signals: int
    steps: int
    ambiguous: int = 0
    deviations: int = 0
    teams: int = 1
    branches: float = 2.0
    automaton: tuple[tuple[tuple[int, int | None], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """One way of paying.

    Attributes:
        log_nodes: (tree, n) -> ln N of T submissions; only a published score looks at the number n of examples.
        log_level: (tree, t) -> ln of the nodes of level t = 1, 2, ..., for a set without a fixed T; None where there
            is no such use of the method.
    """

    log_nodes: Callable[[Tree, int], float]
    log_level: Callable[[Tree, int], float] | None = None


def team_steps(steps: int, teams: int) -> tuple[int, ...]:
    """Submissions of each team, as even as can be, the larger shares first.

    Example:
        >>> team_steps(10, 3)
        (4, 3, 3)
    """
    share, left = divmod(steps, teams)
    return tuple(share + (team < left) for team in range(teams))


def _one_path(tree: Tree, _examples: int) -> float:
    """No branch at all: N = T."""
    return math.log(tree.steps)


def _last_level(tree: Tree, _examples: int) -> float:
    """Every history of m signals: N = m^T, a little more than the tree has."""
    return tree.steps * math.log(tree.signals)


def _exact_tree(tree: Tree, _examples: int) -> float:
    """No submission follows the last answer: the tree of m branches with T levels."""
    return log_full_tree(tree.signals, tree.steps)


def _published_score(tree: Tree, examples: int) -> float:
    """A score shown in full has n + 1 values, each a branch."""
    return log_full_tree(examples + 1, tree.steps)


def _pruned(tree: Tree, _examples: int) -> float:
    """At most two ranges lie within the tolerance of a gap when none is narrower than two tolerances."""
    return log_full_tree(2, tree.steps)


def _ambiguous_answers(tree: Tree, step: int) -> float:
    """Each ambiguous answer before this step halves what is left, up to the number planned for."""
    return min(tree.ambiguous, step - 1) * _LN2


def _path_adaptive(tree: Tree, _examples: int) -> float:
    """Submissions share the failure probability equally, and each team pays for its own ambiguous answers."""
    return math.log(tree.steps) + _ambiguous_answers(tree, team_steps(tree.steps, tree.teams)[0])


def _dithered(tree: Tree, _examples: int) -> float:
    """The mean number of nodes: in the mean over the shifts, a range branches by 1 + 2 epsilon / w at most."""
    return log_full_tree(tree.branches, tree.steps)


def _ratchet(tree: Tree, _examples: int) -> float:
    """Histories that never fall, of 0..T-1 answers: C(T + m - 1, m)."""
    return _log_choose(tree.steps + tree.signals - 1, tree.signals)


def _deviations(tree: Tree, _examples: int) -> float:
    """Sum over t < T and j <= B of C(t, j) (m - 1)^j; over t the first factor adds up to C(T, j + 1)."""
    return _log_choices(tree, tree.steps, 1)


def _log_choices(tree: Tree, steps: int, more: int) -> float:
    """Ln of the sum over j <= B of C(steps, j + more) (m - 1)^j."""
    most = min(tree.deviations, steps - more)
    each = math.log(tree.signals - 1)
    return log_sum([_log_choose(steps, j + more) + j * each for j in range(most + 1)])


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@lru_cache(maxsize=64)
def _levels_of(rows: tuple[tuple[tuple[int, int | None], ...], ...], steps: int) -> tuple[float, ...]:
    return tuple(Automaton(rows).log_nodes_of_levels(steps))


def _automaton(tree: Tree, _examples: int) -> float:
    """Walks through the automaton's arrows."""
    return log_sum(_levels_of(tree.automaton, tree.steps))


def _automaton_level(tree: Tree, step: int) -> float:
    # Rounded up to a power of two, so that a life of many steps does not walk through all of them at each.
    levels = _levels_of(tree.automaton, 1 << (step - 1).bit_length())
    return levels[min(step, len(levels)) - 1]


def _nonuniform(tree: Tree, _examples: int) -> float:
    """All nodes that are paid for, each at the tolerance of its worst earlier signal."""
    return log_sum(log_node_counts(tree.signals, tree.steps))


def _multitenant(tree: Tree, _examples: int) -> float:
    """One tree for each team: what a team does not hear, it cannot react to."""
    return log_sum([log_full_tree(tree.signals, steps) for steps in team_steps(tree.steps, tree.teams)])


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "path-adaptive": Method(_path_adaptive, _ambiguous_answers),
        "pruned": Method(_pruned, lambda _tree, step: (step - 1) * _LN2),
        "exact-tree": Method(_exact_tree, lambda tree, step: (step - 1) * math.log(tree.signals)),
        "full": Method(_last_level, lambda tree, step: (step - 1) * math.log(tree.signals)),
        "first-change": Method(_one_path, lambda _tree, _step: 0.0),
        "dithered": Method(_dithered, lambda tree, step: (step - 1) * math.log(tree.branches)),
        "ratchet": Method(_ratchet, lambda tree, step: _log_choose(step + tree.signals - 2, tree.signals - 1)),
        "deviations": Method(_deviations, lambda tree, step: _log_choices(tree, step - 1, 0)),
        "automaton": Method(_automaton, _automaton_level),
        "nonuniform": Method(_nonuniform),
        "multitenant": Method(_multitenant),
        "non-adaptive": Method(_one_path),
        "fresh": Method(_one_path),
        "score": Method(_published_score),
    }
)
"""Every method of planning. Those of ``config.METER_METHODS`` can be used at run time too."""

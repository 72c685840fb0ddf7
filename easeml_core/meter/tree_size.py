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
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from easeml_core.meter.regulation import Automaton

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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

"""How many models a developer can be led to submit: one table, method -> ln N.

A developer who reacts to signals walks down a tree that is fixed before the sealed set is drawn: each node is a
model, each branch a signal. The signals hold together when they hold at every node that can be reached, so the
number of those nodes, N, is the price of adaptivity. N has hundreds of digits; only its logarithm is ever formed.

The system: Hubis, Wu, Zhang (2019), "Quantitative overfitting management for human-in-the-loop ML application
development with ease.ml/meter", arXiv 1906.00299. Counting the histories of an adaptive analyst: Blum and Hardt
(2015), "The Ladder". The counts are worked out here from those ideas. A further method is one more row of METHODS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Tree:
    """What the number of nodes depends on.

    Attributes:
        signals: m >= 2, possible answers.
        steps: T >= 1, submissions.
        ambiguous: b >= 0, answers planned for that could as well have been the neighbouring range.
    """

    signals: int
    steps: int
    ambiguous: int


def _one_path(tree: Tree, _examples: int) -> float:
    """No branch at all: N = T."""
    return math.log(tree.steps)


def _last_level(tree: Tree, _examples: int) -> float:
    """Every history of m signals: N = m^T, a little more than the tree has."""
    return tree.steps * math.log(tree.signals)


def _full_tree(branches: int, steps: int) -> float:
    """All nodes of the tree: N = 1 + c + ... + c^(T-1) = (c^T - 1) / (c - 1)."""
    leaves = steps * math.log(branches)
    return leaves + math.log1p(-math.exp(-leaves)) - math.log(branches - 1)


def _exact_tree(tree: Tree, _examples: int) -> float:
    """The last answer is used by nobody: the tree of m branches with T levels."""
    return _full_tree(tree.signals, tree.steps)


def _published_score(tree: Tree, examples: int) -> float:
    """A score shown in full has n + 1 values, each a branch."""
    return _full_tree(examples + 1, tree.steps)


def _pruned(tree: Tree, _examples: int) -> float:
    """At most two ranges lie within the tolerance of a gap when none is narrower than two tolerances."""
    return _full_tree(2, tree.steps)


def _path_adaptive(tree: Tree, _examples: int) -> float:
    """Levels share the failure probability equally, and each ambiguous answer before the last halves the rest."""
    return math.log(tree.steps) + min(tree.ambiguous, tree.steps - 1) * _LN2


METHODS: Mapping[str, Callable[[Tree, int], float]] = MappingProxyType(
    {
        "path-adaptive": _path_adaptive,
        "pruned": _pruned,
        "exact-tree": _exact_tree,
        "full": _last_level,
        "first-change": _one_path,
        "non-adaptive": _one_path,
        "fresh": _one_path,
        "score": _published_score,
    }
)
"""ln N of each method, given the tree and the number n of examples (which only ``score`` looks at)."""

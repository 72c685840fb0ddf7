"""A tolerance that depends on the worst signal so far: a developer who is already in the red needs no fine reading.

A tolerance for each answered range alone would save nothing, since the finest range can be answered anywhere in the
tree; the worst earlier signal j bounds which histories there can have been: sequences of the signals 1..j.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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

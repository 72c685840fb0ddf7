"""Make the golden sizes of ``full`` at delta / 2^31, from scipy's binomial law alone; no code of the gate is used.

``test_gate_exact_sizes`` holds what this prints: for each condition and power, the smallest N that meets the
requirement and the smallest from which every larger one does (of those within 400 of it).

    python tests/core/gate/golden_full_sizes.py      (half a minute)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHA = 1e-4 / 2**31
NULL, TRUTH, DECIDED = 0.02, 0.04, 0.1


def binomial_miss(n: int) -> float:
    """P(Bin(N, .92) < K) for the least K with P(Bin(N, .9) >= K) <= alpha."""
    critical = int(binom.isf(ALPHA, n, 0.9)) - 3
    while binom.sf(critical - 1, n, 0.9) > ALPHA:
        critical += 1
    return float(binom.cdf(critical - 1, n, 0.92))


def score_tail(n: int, score: int, mean: float) -> float:
    """P(wins - losses >= s): the sum over j decided of Bin(j; N, q) P(Bin(j, (q + c) / 2q) >= (j + s) / 2)."""
    spread = math.sqrt(n * DECIDED * (1 - DECIDED))
    j = np.arange(max(0, int(n * DECIDED - 12 * spread)), int(n * DECIDED + 12 * spread))
    needed = -((-(j + score)) // 2)  # the ceiling
    return float(binom.pmf(j, n, DECIDED) @ binom.sf(needed - 1, j, (DECIDED + mean) / (2 * DECIDED)))


def trinomial_miss(n: int) -> float:
    """P(S < s) at n - o = .04 for the least s with P(S >= s) <= alpha at .02, both with d = .1."""
    low, high = int(n * NULL), n // 10
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if score_tail(n, middle, NULL) <= ALPHA else (middle, high)
    return score_tail(n, 1 - high, -TRUTH)


def interval(miss: Callable[[int], float], beta: float, low: int, high: int) -> tuple[int, int]:
    """The first N that meets the requirement, and the first from which all do."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if miss(middle) <= beta else (middle, high)
    met = {n: miss(n) <= beta for n in range(high - 200, high + 200)}
    first = min(n for n, yes in met.items() if yes)
    return first, max(n for n, yes in met.items() if not yes) + 1


if __name__ == "__main__":
    for name, miss in (("n > 0.9 +/- 0.01", binomial_miss), ("n - o > 0.02, d < 0.1", trinomial_miss)):
        print(name, [interval(miss, beta, 10_000, 70_000) for beta in (ALPHA, 0.1)])

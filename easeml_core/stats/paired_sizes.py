"""How many examples the exact test of a paired difference needs (the test itself is in ``paired``).

A truth is a pair (q, mean): the share q of examples that one model alone has right, and the mean of wins minus losses.
The worst truth for the power is the one with the largest q, since it spreads wins minus losses most; near q = 1, where
even and odd values differ, the worst is searched for, as the test itself does.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import ndtri_exp

from easeml_core.config import require
from easeml_core.stats.binomial_sizes import check_log_levels, fall_per_example
from easeml_core.stats.paired import log_paired_p_value
from easeml_core.stats.size_search import first_at_most
from easeml_core.stats.trinomial import log_trinomial_tail, log_trinomial_tails

MOST_EXAMPLES = 2 * 10**6
"""Larger sizes are no longer searched for: bounds in closed form are as good there (``bound_sizes``)."""
# How many examples are expected to be undecided, at the shares q next to 1 that a first look includes.
_UNDECIDED = np.array([0.0, 0.5, 3.0])


def log_paired_miss(
    examples: int, *, threshold: float, alternative: float, decided_bound: float, log_level: float, proof: bool = True
) -> float:
    """Give ln of the largest chance that the exact test of "the mean is at most c" misses a truth beyond it.

        sup over q <= p of P(S < s | q, mean),  s the smallest score whose p-value is at most alpha

    Args:
        examples: N >= 1.
        threshold: c in [-p, p).
        alternative: The true mean, in (c, p].
        decided_bound: p in (0, 1].
        log_level: ln alpha, finite and < 0.
        proof: False takes q = p and little more, which is quicker and nearly always the worst.

    Returns:
        A number <= 0; 0 where no score rejects.

    Example:
        >>> miss = log_paired_miss(20232, threshold=0.02, alternative=0.04, decided_bound=0.1, log_level=-12.676)
        >>> miss < -12.676
        True
    """
    z, spread = float(-ndtri_exp(log_level)), math.sqrt(examples * max(decided_bound - threshold**2, 1e-12))
    critical = first_at_most(
        lambda s: _quick_tail(s, examples, threshold, decided_bound),
        log_level,
        guess=examples * threshold + z * spread + 1,
        slope=(abs(z) + 0.5) / max(spread, 0.5),
        low=math.floor(examples * threshold) + 1,
        high=examples,
    )
    tail = log_paired_tail if proof else _quick_tail
    # The quick tail is never above the proven one, so the proven critical score is this one or a later one.
    while proof and critical <= examples and tail(critical, examples, threshold, decided_bound) > log_level:
        critical += 1
    # S < s turned round: losses minus wins are at least 1 - s.
    return 0.0 if critical > examples else tail(1 - critical, examples, -alternative, decided_bound)


@lru_cache(maxsize=512)
def paired_test_size(
    *, threshold: float, alternative: float, decided_bound: float, log_level: float, log_miss: float
) -> int:
    """Give N so that the exact test of "the mean is at most c" misses the alternative with probability at most beta.

    Args:
        threshold: c in [-p, p).
        alternative: Mean in (c, p].
        decided_bound: p in (0, 1].
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1 that meets it, proven for the worst q, while N - 1 does not; ``MOST_EXAMPLES + 1`` where it would be more
        than that.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> paired_test_size(threshold=0.0, alternative=1.0, decided_bound=1.0, log_level=-5.0, log_miss=-5.0)
        8
    """
    require(0 < decided_bound <= 1, "decided_bound", decided_bound, "> 0 and <= 1")
    within = -decided_bound <= threshold < decided_bound
    require(within, "threshold", threshold, f">= -{decided_bound:g} and < {decided_bound:g}")
    require(threshold < alternative <= decided_bound, "alternative", alternative, "> threshold and <= decided_bound")
    check_log_levels(log_level, log_miss)
    z_level, z_miss = float(-ndtri_exp(log_level)), float(-ndtri_exp(log_miss))
    spread = z_level * math.sqrt(max(0.0, decided_bound - threshold**2)) + z_miss * math.sqrt(
        max(0.0, decided_bound - alternative**2)
    )
    guess = max(1.0, (max(spread, 0.0) / (alternative - threshold)) ** 2)
    if guess > MOST_EXAMPLES:
        return MOST_EXAMPLES + 1

    def miss(examples: int, *, proof: bool = False) -> float:
        return log_paired_miss(
            examples,
            threshold=threshold,
            alternative=alternative,
            decided_bound=decided_bound,
            log_level=log_level,
            proof=proof,
        )

    slope = fall_per_example(z_level, z_miss, guess)
    found = first_at_most(miss, log_miss, guess=guess, slope=slope, low=1, high=MOST_EXAMPLES)
    while found <= MOST_EXAMPLES and miss(found, proof=True) > log_miss:
        found += 1
    return found


def log_paired_tail(score: int, examples: int, mean: float, decided_bound: float) -> float:
    """Give ln of the largest P(S >= s) over all q <= p with this mean; 0 where s is at or below the mean."""
    return log_paired_p_value(score, examples, threshold=mean, decided_bound=decided_bound)


def _quick_tail(score: int, examples: int, mean: float, decided_bound: float) -> float:
    """Give the same at q = p and, next to q = 1, at the few q where even and odd values make the difference."""
    if score - 1 < (examples - 1) * mean:
        return 0.0
    shares = decided_bound - _UNDECIDED / examples
    near_one = (1 - decided_bound) * examples < 30 and shares[-1] > abs(mean)
    if near_one and examples * mean < score < examples:
        return float(log_trinomial_tails(score, examples, decided=shares, mean=mean).max())
    return log_trinomial_tail(score, examples, decided=decided_bound, mean=mean)

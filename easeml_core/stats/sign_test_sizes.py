"""How many examples the exact sign test needs, which asks whether the new model is right more often at all.

The test (``paired.log_sign_test``) looks at the decided examples only, those that one model alone has right, and holds
whatever their share q is. How often it misses depends on q, which is why a size needs a bound on it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, gammaln, logsumexp, ndtri_exp, xlog1py, xlogy

from easeml_core.settings.config import require
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail
from easeml_core.stats.binomial_sizes import check_log_levels, fall_per_example, first_at_most
from easeml_core.stats.bound_sizes import sign_test_bound_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_EXAMPLES = 10**6
"""Larger sizes are no longer searched for: bounds in closed form are as good there (``bound_sizes``)."""
# Numbers of decided examples whose chance is below this, relative to the miss, are counted as missed.
_LOG_LEFT_OUT = -14.0
# Where scipy's tail is smaller than this, the bound by a geometric series takes over.
_UNDERFLOW = 1e-200
# Shares q that a proof looks at: the bound; next to 1, as counts of undecided examples; below it, as parts of it. Of
# sets so small that few or no examples may be decided, any share can be the worst: so many, at equal distances.
_UNDECIDED = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_PARTS = (0.95, 0.85, 0.7)
_SHARES_OF_SMALL_SETS = 65


class CriticalWins:
    """The smallest number of wins among m decided examples at which the sign test rejects, for rising m.

    From m to m + 1 it rises by at most 1, so one tail per m is enough; found numbers are kept.

    Args:
        log_level: ln alpha, finite and < 0.
    """

    def __init__(self, log_level: float) -> None:
        self.log_level = log_level
        self._first = 0
        self._known: list[int] = []

    def between(self, low: int, high: int) -> NDArray[np.int64]:
        """Give the critical wins for m = low..high; m + 1 where none of m rejects. Shape ``(high - low + 1,)``."""
        if not self._known or low > self._first + len(self._known) or high < self._first - 1:
            self._first, self._known = low, [self._at(low)]
        for m in range(self._first + len(self._known), high + 1):
            before = self._known[-1]
            self._known.append(before if self._rejects(before, m) else before + 1)
        if low < self._first:
            earlier, after = [], self._known[0]
            for m in range(self._first - 1, low - 1, -1):
                after = after - 1 if self._rejects(after - 1, m) or after - 1 > m else after
                earlier.append(after)
            self._first, self._known = low, earlier[::-1] + self._known
        begin = low - self._first
        return np.array(self._known[begin : begin + high - low + 1], dtype=np.int64)

    def _at(self, m: int) -> int:
        spread = math.sqrt(m) / 2
        z = float(-ndtri_exp(self.log_level))
        return first_at_most(
            lambda k: log_upper_tail(k, m, 0.5) if m else 0.0,
            self.log_level,
            guess=m / 2 + z * spread + 1,
            slope=(abs(z) + 0.5) / max(spread, 0.5),
            low=0,
            high=m,
        )

    def _rejects(self, wins: int, m: int) -> bool:
        return 0 < m >= wins and log_upper_tail(wins, m, 0.5) <= self.log_level


def log_sign_miss(
    examples: int, *, alternative: float, decided: float, critical: CriticalWins, log_miss: float
) -> float:
    """Give ln of the chance that the sign test does not reject, for one truth.

        sum over m of Bin(m; N, q) P(Bin(m, (q + mean) / (2 q)) < k(m))

    Args:
        examples: N >= 1.
        alternative: The true mean of wins minus losses, in (0, q].
        decided: q in (0, 1].
        critical: The critical wins k(m) at the level of the test.
        log_miss: ln beta to compare with; numbers m much rarer than beta are left out of the sum.

    Returns:
        A number <= 0, never below the truth: what is left out of the sum counts as missed.
    """
    win = min(1.0, (decided + alternative) / (2 * decided))
    if decided == 1:
        low = high = examples
        outside = -math.inf
    else:
        low, high, outside = _window(examples, decided, log_miss + _LOG_LEFT_OUT)
    m = np.arange(low, high + 1)
    log_chance = gammaln(examples + 1) - gammaln(m + 1) - gammaln(examples - m + 1)
    log_chance = log_chance + xlogy(m, decided) + xlog1py(examples - m, -decided)
    missed = logsumexp(log_chance + _log_lower_tails(critical.between(low, high) - 1, m, win))
    return min(0.0, float(np.logaddexp(outside, missed)))


@lru_cache(maxsize=512)
def sign_test_size(*, alternative: float, decided_bound: float, log_level: float, log_miss: float) -> int:
    """Give N so that the sign test misses the alternative with probability at most beta, for every share q <= p.

    The worst share is the bound itself, or next to it. What is found is checked at other shares too; below seven tenths
    of the bound the inequality of ``sign_test_bound_size`` covers all of them, except for very small sets, of which
    shares at equal distances from the alternative to the bound are checked.

    Args:
        alternative: Mean of wins minus losses, in (0, p].
        decided_bound: p in (0, 1].
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1 that meets it; ``MOST_EXAMPLES + 1`` where it would be more than that.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> sign_test_size(alternative=1.0, decided_bound=1.0, log_level=math.log(0.01), log_miss=math.log(0.01))
        7
    """
    require(0 < decided_bound <= 1, "decided_bound", decided_bound, "> 0 and <= 1")
    require(0 < alternative <= decided_bound, "alternative", alternative, "> 0 and <= decided_bound")
    check_log_levels(log_level, log_miss)
    z_level, z_miss = float(-ndtri_exp(log_level)), float(-ndtri_exp(log_miss))
    spread = z_level * math.sqrt(decided_bound) + z_miss * math.sqrt(max(0.0, decided_bound - alternative**2))
    guess = max(1.0, (max(spread, 0.0) / alternative) ** 2)
    if guess > MOST_EXAMPLES:
        return MOST_EXAMPLES + 1
    critical = CriticalWins(log_level)

    proven_below = sign_test_bound_size(
        gap=alternative, second_moment=decided_bound * _PARTS[-1], log_level=log_level, log_miss=log_miss
    )

    def miss(examples: int, *, proof: bool = False) -> float:
        shares = _shares(examples, alternative, decided_bound, _PARTS if proof else ())
        if proof and examples < proven_below:
            shares += np.linspace(alternative, decided_bound, _SHARES_OF_SMALL_SETS).tolist()
        return max(
            log_sign_miss(examples, alternative=alternative, decided=q, critical=critical, log_miss=log_miss)
            for q in shares
        )

    slope = fall_per_example(z_level, z_miss, guess)
    found = first_at_most(miss, log_miss, guess=guess, slope=slope, low=1, high=MOST_EXAMPLES)
    while found <= MOST_EXAMPLES and miss(found, proof=True) > log_miss:
        found += 1
    return found


def _shares(examples: int, alternative: float, bound: float, parts: tuple[float, ...]) -> list[float]:
    """Give the shares q in [alternative, bound] to look at; near 1 whether N is even or odd makes a difference."""
    near = _UNDECIDED if (1 - bound) * examples < 30 else (0.0,)
    shares = [bound - undecided / examples for undecided in near] + [bound * part for part in parts]
    return [q for q in shares if q >= alternative and q > 0]


def _window(examples: int, decided: float, log_left_out: float) -> tuple[int, int, float]:
    """Give the lowest and highest number of decided examples to add up, and ln of the chance of all others."""
    mean, deep = examples * decided, -log_left_out
    # Bernstein's inequality: as many standard deviations as it takes.
    half = deep / 3 + math.sqrt((deep / 3) ** 2 + 2 * deep * mean * (1 - decided))
    low, high = max(0, math.floor(mean - half)), min(examples, math.ceil(mean + half))
    below = log_lower_tail(low - 1, examples, decided) if low > 0 else -math.inf
    above = log_upper_tail(high + 1, examples, decided) if high < examples else -math.inf
    return low, high, float(np.logaddexp(below, above))


def _log_lower_tails(counts: NDArray[np.int64], examples: NDArray[np.int64], p: float) -> NDArray[np.float64]:
    """Give ln P(Bin(m, p) <= k) for many (k, m), never below the truth; 0 where k >= m, minus infinity for k < 0."""
    if p == 1:
        return np.where(counts >= examples, 0.0, -np.inf)
    tails = np.where(counts < 0, 0.0, bdtr(np.minimum(np.maximum(counts, 0), examples), examples, p))
    deep = (tails < _UNDERFLOW) & (counts >= 0) & (counts < examples)
    logs = np.log(np.maximum(tails, _UNDERFLOW))
    logs[counts < 0] = -np.inf
    if deep.any():
        k, m = counts[deep], examples[deep]
        mass = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1) + xlogy(k, p) + xlog1py(m - k, -p)
        # Below k the chances fall by at least this ratio from each to the next: a geometric series bounds their sum.
        logs[deep] = mass - np.log1p(-np.minimum(k * (1 - p) / ((m - k + 1) * p), 1 - 1e-12))
    return logs

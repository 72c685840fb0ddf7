r"""How many examples the test of ``weighted`` needs, at the law that it is most likely to miss.

The law: of all on the values with the alternative's mean and a share of at most p of differing predictions, the one
that spreads its values most. It is a vertex of a polytope with at most three values. The miss of the test there: the
bound on the second moment moves with the counts, so the critical sum does; to first order the test rejects when a sum
of N numbers, one for each value seen, is large enough, and the lower tail of that sum is taken from its saddle-point
approximation (Lugannani and Rice 1980). So the size is close to what the judge needs but not proven; the level of the
judge does not depend on it.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_ndtr

from easeml_core.config import require
from easeml_core.stats.bentkus import log_bentkus_tail
from easeml_core.stats.binomial_bounds import LOG_REST, LOG_SHARE
from easeml_core.stats.binomial_sizes import check_log_levels, fall_per_example
from easeml_core.stats.size_search import first_at_most
from easeml_core.stats.weighted import AtMost, second_moment_bound

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_EXAMPLES = 10**8
"""Larger sizes are not searched for."""
_CRITICAL_STEPS, _CRITICAL_ERROR = 30, 1e-3


def widest_law(
    values: NDArray[np.float64], *, mean: float, differing: tuple[int, ...], disagreement_bound: float
) -> NDArray[np.float64]:
    """Return the law with a given mean that spreads its values most.

    Args:
        values: v_k, shape ``(n_values,)``.
        mean: Within what laws can have.
        differing: Which values are of examples on which the models differ.
        disagreement_bound: p in (0, 1], which their share must not exceed.

    Returns:
        Chances, shape ``(n_values,)``; the law at the largest mean where none has the mean that was asked for.

    Example:
        >>> widest_law(np.array([-0.1, 1.0, -1.1, 0.0]), mean=0.03, differing=(1, 2), disagreement_bound=0.1).round(4)
        array([0.7, 0.1, 0. , 0.2])
    """
    apart = np.isin(np.arange(len(values)), differing).astype(float)
    found: list[tuple[float, NDArray[np.float64]]] = []
    rows = [np.ones_like(values), values, apart]
    for support in itertools.chain(
        itertools.combinations(range(len(values)), 1),
        itertools.combinations(range(len(values)), 2),
        itertools.combinations(range(len(values)), 3),
    ):
        size, cells = len(support), list(support)
        sides = np.array([1.0, mean, disagreement_bound][:size])
        matrix = np.array([row[cells] for row in rows[:size]])
        if abs(np.linalg.det(matrix)) < 1e-12:
            continue
        law = np.zeros_like(values)
        law[cells] = np.linalg.solve(matrix, sides)
        fits = law.min() > -1e-12 and law @ apart <= disagreement_bound + 1e-12 and abs(law @ values - mean) < 1e-12
        if fits:
            found.append((float(law @ values**2), np.clip(law, 0.0, 1.0)))
    if not found:
        agreed, differ = np.where(apart > 0, -np.inf, values), np.where(apart > 0, values, -np.inf)
        law = np.zeros_like(values)
        law[int(agreed.argmax())] = 1.0
        if differ.max() > agreed.max():
            law *= 1 - disagreement_bound
            law[int(differ.argmax())] = disagreement_bound
        return law
    return max(found, key=lambda each: each[0])[1]


def log_weighted_miss(examples: int, law: NDArray[np.float64], null: AtMost, *, log_level: float) -> float:
    """Return ln of the chance, about, that the test of "the mean is at most c" does not reject for one law.

    Args:
        examples: N >= 1.
        law: Chances of the values, shape ``(n_values,)``; their mean is above c.
        null: What the judge tests, with low <= c < high, and with the bound on d that it is given, if any.
        log_level: ln alpha, finite and < 0.

    Returns:
        A number <= 0.
    """
    (low, high), threshold = null.reach, null.threshold
    if threshold <= low:  # one example with another value rejects
        lowest = float(law[null.values == low].sum())
        return examples * math.log(lowest) if lowest > 0 else -math.inf
    moment = second_moment_bound(_whole_counts(law, examples), null, log_level=log_level + LOG_SHARE)
    critical = _critical_sum(examples, high - threshold, moment, log_level + LOG_REST)
    # The bound follows the mean square where it is that of the counts, and not where it is a cap.
    slope = critical / (2 * moment * examples) if moment < null.cap * (1 - 1e-9) else 0.0
    worth = null.values - threshold - slope * null.squares
    return _log_lower_tail(critical - slope * examples * float(law @ null.squares), examples, law, worth)


@lru_cache(maxsize=512)
def weighted_test_size(
    values: tuple[float, ...],
    *,
    threshold: float,
    alternative: float,
    differing: tuple[int, ...],
    disagreement_bound: float,
    tested: bool,
    log_level: float,
    log_miss: float,
) -> int:
    """Return N so that the test of "the mean is at most c" misses the alternative with a chance of about beta at most.

    Args:
        values: v_k.
        threshold: c, with low <= c < high.
        alternative: Mean above c.
        differing: Which values are of examples on which the models differ.
        disagreement_bound: p in (0, 1], the largest share of those to plan for.
        tested: Whether the judge is given p, because a clause tests it.
        log_level: ln alpha, finite and < 0.
        log_miss: ln beta, finite and < 0.

    Returns:
        N >= 1; ``MOST_EXAMPLES + 1`` where it would be more than that.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> asked = {"threshold": 0.01, "alternative": 0.03, "differing": (1, 2), "log_level": math.log(0.005)}
        >>> asked |= {"log_miss": math.log(0.1), "tested": False}
        >>> 5000 < weighted_test_size((-0.1, 1.0, -1.1, 0.0), disagreement_bound=0.1, **asked) < 6500
        True
    """
    require(0 < disagreement_bound <= 1, "disagreement_bound", disagreement_bound, "> 0 and <= 1")
    require(threshold < alternative, "alternative", alternative, f"> {threshold:g}")
    check_log_levels(log_level, log_miss)
    worth = np.array(values)
    law = widest_law(worth, mean=alternative, differing=differing, disagreement_bound=disagreement_bound)
    spread = float(law @ (worth - threshold) ** 2)
    gap = float(law @ worth) - threshold
    # The depth of Bentkus' bound is about that of the level plus its constant e^2 / 2.
    roots = math.sqrt(2 * (1 - log_level)) + math.sqrt(-2 * log_miss) * 0.8
    guess = max(1.0, spread * (roots / gap) ** 2)
    if guess > MOST_EXAMPLES:
        return MOST_EXAMPLES + 1

    null = AtMost(worth, threshold, differing, disagreement_bound if tested else None)

    def miss(examples: int) -> float:
        return log_weighted_miss(examples, law, null, log_level=log_level)

    slope = fall_per_example(math.sqrt(-2 * log_level), math.sqrt(-2 * log_miss), guess)
    return first_at_most(miss, log_miss, guess=guess, slope=slope, low=1, high=MOST_EXAMPLES)


def _whole_counts(law: NDArray[np.float64], examples: int) -> NDArray[np.int64]:
    """Return whole counts near N times the law that add up to N."""
    ends = np.rint(np.cumsum(law) * examples).astype(np.int64)
    ends[-1] = examples
    return np.diff(ends, prepend=0)


def _critical_sum(examples: int, largest: float, moment: float, log_level: float) -> float:
    """Return the sum at which the bound comes down to the level, to a thousandth of a nat; infinity where no sum does.

    The logarithm is nearly a line in the square of the sum: secants inside a bracket.
    """
    most = examples * largest
    if examples * math.log(moment / (largest**2 + moment)) > log_level:
        return math.inf
    low, high = (0.0, -log_level), (most**2, -math.inf)
    square = min(2 * examples * moment * (1 - log_level), most**2)
    for _ in range(_CRITICAL_STEPS):
        excess = log_bentkus_tail(math.sqrt(square), examples, largest=largest, second_moment=moment) - log_level
        if abs(excess) < _CRITICAL_ERROR:
            break
        low, high = ((square, excess), high) if excess > 0 else (low, (square, excess))
        if math.isinf(high[1]):
            square = min(1.5 * square, (square + most**2) / 2)
        else:
            square = low[0] + (high[0] - low[0]) * low[1] / (low[1] - high[1])
    return math.sqrt(square)


def _log_lower_tail(total: float, examples: int, law: NDArray[np.float64], worth: NDArray[np.float64]) -> float:
    """Return ln P(sum < total) for N draws from a law, by Lugannani and Rice; 0 from the mean upwards."""
    seen = law > 0
    p, x = law[seen], worth[seen]
    mean, target = float(p @ x), total / examples
    if target >= mean - 1e-12 * float(np.abs(x).max()):
        return 0.0
    if target <= float(x.min()):
        return -math.inf
    low, high = -1.0, 0.0
    while _tilted(low, p, x)[1] > target:
        low *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted(middle, p, x)[1] < target else (low, middle)
    tilt = (low + high) / 2
    log_mean, _, variance = _tilted(tilt, p, x)
    w = -math.sqrt(max(0.0, 2 * examples * (tilt * target - log_mean)))
    u = tilt * math.sqrt(examples * variance)
    if w > -1e-6:
        return math.log(0.5)
    log_normal = float(log_ndtr(w))
    correction = math.exp(-w * w / 2 - math.log(2 * math.pi) / 2 - log_normal) * (1 / w - 1 / u)
    return min(0.0, log_normal + math.log1p(max(correction, -0.999)))


def _tilted(tilt: float, p: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return ln E e^(l x), and mean and variance of the law tilted by e^(l x)."""
    top = float((tilt * x).max())
    weights = p * np.exp(tilt * x - top)
    total = float(weights.sum())
    weights = weights / total
    mean = float(weights @ x)
    return top + math.log(total), mean, float(weights @ (x - mean) ** 2)

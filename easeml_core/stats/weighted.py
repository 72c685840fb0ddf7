"""Test of the mean of a weighted left side, such as n - 1.1 o, and how many examples it needs.

The tail of a sum of bounded values with a known second moment: the bound of Bentkus, from one binomial law.

For independent X_1, ..., X_N with X_i <= b, E X_i <= 0 and E X_i^2 <= m, and T the sum of N independent copies of the
law on {-m / b, b} with mean 0,

    P(X_1 + ... + X_N >= x) <= inf over t < x of E (T - t)_+^2 / (x - t)^2.

Proof. By Markov's inequality for the function f(s) = (s - t)_+^2 it is enough that E f(X_1 + ... + X_N) <= E f(T), and
X_i can be replaced by its two-point law one at a time, given the others. So let X <= b, E X <= 0, E X^2 <= m, y = -m /
b, and let g be the parabola with g(y) = f(y), g'(y) = f'(y) and g(b) = f(b). (1) t <= y: g(s) = (s - t)^2 >= f(s), and
its linear coefficient is -2 t >= 0. (2) y < t < b: g(s) = ((b - t) / (b - y))^2 (s - y)^2; it is >= 0 = f below t, and
on [t, b] its root is a line that ends at b where that of f does and begins above it, so g >= f; its linear coefficient
is -2 y times a positive number. (3) t >= b: f is 0 on the range. In each case g >= f up to b, with linear and quadratic
coefficients >= 0, so E f(X) <= E g(X) <= g's value at E X = 0 and E X^2 = m, which the two-point law attains: it has
these moments, and lies where g and f touch.

The bound is at most e^2 / 2 times a log-concave hull of the tail of T, where a Chernoff bound loses a factor that grows
with the depth; it is never above Bennett's or Hoeffding's bound, since e^(l s) is a mixture of such f.

Source: Bentkus, "On Hoeffding's inequalities", Annals of Probability 32 (2004), Theorem 1.1; Pinelis (2006) for the
class of f (neither checked against the text; the proof above is complete).

The test of the mean, where the value per example is one of a few known numbers.

"The mean is at most c" is rejected by the bound of Bentkus on the sum of v - c, with an upper confidence bound U on
the second moment E (v - c)^2. A tenth of the level pays for U (Berger and Boos 1994), so for every law with mean at
most c

    P(reject) <= P(E (v - c)^2 > U) + P(reject and E (v - c)^2 <= U) <= alpha / 10 + 9 alpha / 10.

U adds up the steps between the sorted squares y_1 <= ... <= y_k, E y = y_1 + sum over j of (y_j - y_(j-1)) P(y >= y_j),
each chance at its exact upper bound (Clopper and Pearson); each step has the part of that tenth that its height is of
all heights. U is also capped, at no cost, where something else bounds it: values in [low, high] with mean at most c
have sums whose f is largest for the law on {low, high} with mean c (f is convex and rising), so (c -
low)(high - c) serves as the second moment; and a clause d < A bounds the share of the examples on which the models
differ.

How many examples the test needs, at the law that it is most likely to miss.

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
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, log_ndtr, xlog1py, xlogy

from easeml_core.errors import InvalidInputError
from easeml_core.settings.config import require
from easeml_core.stats.binomial_bounds import LOG_REST, LOG_SHARE, upper_bound
from easeml_core.stats.binomial_sizes import check_log_levels, fall_per_example, first_at_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRID, _ROUNDS = 16, 2


def log_bentkus_tail(total: float, examples: int, *, largest: float, second_moment: float) -> float:
    """Return ln of the bound on P(X_1 + ... + X_N >= x), for every law with these moments.

    Numerics: in units of the distance of the two points, T is binomial; its squares beyond t are added up as
    logarithms, so that any depth works. What lies beyond the window that is added up is bounded by a geometric series
    and added. The best t is searched for; any t gives a bound.

    Args:
        total: x, the observed sum.
        examples: N >= 1.
        largest: b > 0, which no X_i exceeds.
        second_moment: m > 0, which no E X_i^2 exceeds.

    Returns:
        A number <= 0; minus infinity where x is more than N b.

    Raises:
        InvalidInputError: If an argument is outside its range.

    Example:
        >>> round(log_bentkus_tail(30.0, 100, largest=1.0, second_moment=1.0), 2)
        -5.43
    """
    if examples < 1 or not 0 < largest < math.inf or not 0 < second_moment < math.inf:
        message = (
            f"need examples >= 1, largest > 0 and second_moment > 0, got {examples}, {largest!r}, {second_moment!r}"
        )
        raise InvalidInputError(message)
    p = second_moment / (largest**2 + second_moment)
    point = total * largest / (largest**2 + second_moment) + examples * p
    if total > examples * largest * (1 + 1e-12):
        return -math.inf
    point, mean = min(point, float(examples)), examples * p
    if point <= mean:
        return 0.0
    spread = math.sqrt(examples * p * (1 - p))
    # The tail of T falls by a factor e within about this many counts; the best t lies twice as far below the point.
    fall = spread**2 / max(point - mean, spread)
    reach = max(0.5, min(point - mean + 4 * spread, 10 * fall + 1))
    last = min(examples, math.ceil(point + 8 * fall + 8))
    counts = np.arange(max(0, math.floor(point - reach)), last + 1)
    log_masses = _log_masses(counts, examples, p)

    below = np.geomspace(0.25, reach, _GRID)
    best = math.inf
    for _ in range(_ROUNDS):
        logs = _log_ratios(point, below, counts, log_masses, examples, p)
        k = int(logs.argmin())
        best = min(best, float(logs[k]))
        below = np.linspace(below[max(0, k - 1)], below[min(_GRID - 1, k + 1)], _GRID)
    return min(0.0, best)


def _log_masses(counts: NDArray[np.int64], examples: int, p: float) -> NDArray[np.float64]:
    ways = gammaln(examples + 1) - gammaln(counts + 1) - gammaln(examples - counts + 1)
    return np.asarray(ways + xlogy(counts, p) + xlog1py(examples - counts, -p))


def _log_ratios(
    point: float,
    below: NDArray[np.float64],
    counts: NDArray[np.int64],
    log_masses: NDArray[np.float64],
    examples: int,
    p: float,
) -> NDArray[np.float64]:
    """Give ln of E (K - t)_+^2 / (point - t)^2 at t = point - below, never below it. Shape of ``below``."""
    t = point - below
    beyond = np.maximum(counts - t[:, None], 0.0)
    with np.errstate(divide="ignore"):
        terms = log_masses + 2 * np.log(beyond)
    top = np.maximum(terms.max(axis=1), -1e300)
    total = top + np.log(np.maximum(np.exp(terms - top[:, None]).sum(axis=1), 1e-300))
    last = int(counts[-1])
    if last < examples:
        ratio = (examples - last) / (last + 1) * p / (1 - p)
        a, rest = np.maximum(last - t, 0.0), 1 - ratio
        series = ratio * (a * a / rest + 2 * a / rest**2 + (1 + ratio) / rest**3)
        total = np.logaddexp(total, log_masses[-1] + np.log(series))
    return np.asarray(total - 2 * np.log(below))


@dataclass(frozen=True, slots=True, eq=False)
class AtMost:
    """The hypothesis that the mean of a weighted side is at most c.

    Attributes:
        values: v_k, shape ``(n_values,)``.
        threshold: c, finite.
        differing: Which values examples have on which the models differ.
        disagreement_bound: A in (0, 1], where it is known that the share of those is at most A.
    """

    values: NDArray[np.float64]
    threshold: float
    differing: tuple[int, ...] = ()
    disagreement_bound: float | None = None

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return float(self.values.min()), float(self.values.max())

    @property
    def squares(self) -> NDArray[np.float64]:
        """(v_k - c)^2, shape ``(n_values,)``."""
        return np.asarray((self.values - self.threshold) ** 2)

    @property
    def cap(self) -> float:
        """A number that serves as the second moment for every law, whatever was seen, for low < c < high."""
        low, high = self.reach
        cap = (self.threshold - low) * (high - self.threshold)
        if self.disagreement_bound is None or not self.differing:
            return cap
        apart = np.isin(np.arange(len(self.values)), self.differing)
        agreed = float(self.squares[~apart].max())
        return min(cap, agreed + self.disagreement_bound * max(0.0, float(self.squares[apart].max()) - agreed))


def second_moment_bound(counts: NDArray[np.int64], null: AtMost, *, log_level: float) -> float:
    """Return U with P(E (v - c)^2 > U) <= alpha, or a number that serves as well for every law with mean at most c.

    Args:
        counts: How often each value was seen, shape ``(n_values,)``.
        null: The hypothesis, with low < c < high.
        log_level: ln alpha, finite and < 0.

    Returns:
        U > 0.
    """
    squares, examples = null.squares, int(counts.sum())
    order = np.argsort(squares, kind="stable")
    heights = np.diff(squares[order])
    beyond = np.cumsum(counts[order][::-1])[::-1][1:]
    whole = float(heights.sum())
    bound = float(squares[order][0])
    for height, count in zip(heights.tolist(), beyond.tolist(), strict=True):
        if height > 0:
            bound += height * upper_bound(count, examples, log_level=log_level + math.log(height / whole))
    return min(bound, null.cap)


def log_weighted_p_value(counts: NDArray[np.int64], null: AtMost, *, log_level: float) -> float:
    """Return ln of a p-value against "the mean is at most c", for the level that it is to be compared with.

    Args:
        counts: How often each value was seen, shape ``(n_values,)``, N >= 1 in all.
        null: The hypothesis.
        log_level: ln alpha, finite and < 0: the bound on the second moment is at a tenth of it.

    Returns:
        A number <= 0; 0 where no mean is above c, minus infinity where none is at or below it. At most ``log_level``
        with a chance of at most alpha if the mean is at most c.

    Example:
        >>> null = AtMost(np.array([-0.1, 1.0, -1.1, 0.0]), threshold=0.01)
        >>> log_weighted_p_value(np.array([3900, 550, 10, 540]), null, log_level=-5.3) < -5.3
        True
    """
    (low, high), threshold = null.reach, null.threshold
    if threshold >= high:
        return 0.0
    if threshold < low:
        return -math.inf
    examples = int(counts.sum())
    total = float(counts @ (null.values - threshold))  # values at the threshold add exactly 0
    if total <= 0:
        return 0.0
    if threshold == low:
        return -math.inf  # a mean of at most the smallest value: then no example has another
    share = log_level + LOG_SHARE
    moment = second_moment_bound(counts, null, log_level=share)
    tail = log_bentkus_tail(total, examples, largest=high - threshold, second_moment=moment)
    return min(0.0, float(np.logaddexp(tail, share)))


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

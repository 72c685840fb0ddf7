r"""Tail of a sum of bounded values with a known second moment: the bound of Bentkus, from one binomial law.

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
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from easeml_core.errors import InvalidInputError

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

"""Exact confidence bounds of a proportion (Clopper and Pearson 1934), at levels far below the smallest float.

Levels are logarithms throughout: a level divided by 2^steps soon is below e^-745, where floats underflow and
``scipy.special.betaincinv`` fails. Approximate bounds (Hoeffding, Bennett) have separate modules.

Source: Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial".
"""

from __future__ import annotations

import math
import operator

from easeml_core.errors import InvalidInputError, NumericalError

LOG_SHARE = math.log(0.1)
"""ln of the part of a test's level that pays for a bound on what the test does not know (Berger and Boos 1994)."""
LOG_REST = math.log1p(-math.exp(LOG_SHARE))
"""ln of what is left for the test."""

_LN2 = math.log(2)
_MAX_TERMS = 200_000
_MAX_STEPS = 200


def clopper_pearson(successes: int, examples: int, *, log_level: float) -> tuple[float, float]:
    """The exact two-sided confidence interval of a proportion, half of the level on each side.

        low  = the p with P(X >= K | N, p) = level / 2,   0 at K = 0
        high = the p with P(X <= K | N, p) = level / 2,   1 at K = N

    Whatever the true p is, the interval misses it with probability at most the level. A smaller level gives an
    interval that holds the larger level's; both ends grow with the count.

    Args:
        successes: K, in 0..N.
        examples: N >= 1.
        log_level: Natural logarithm of the level, finite and < 0; -1000 and below work.

    Returns:
        ``(low, high)`` with 0 <= low <= K/N <= high <= 1.

    Raises:
        InvalidInputError: If an argument is outside its range.

    Example:
        >>> low, high = clopper_pearson(5, 10, log_level=math.log(0.05))
        >>> round(low, 4), round(high, 4)
        (0.1871, 0.8129)
    """
    _check_level(log_level)
    one_side = log_level - _LN2
    return (
        lower_bound(successes, examples, log_level=one_side),
        upper_bound(successes, examples, log_level=one_side),
    )


def lower_bound(successes: int, examples: int, *, log_level: float) -> float:
    """The exact one-sided lower bound: the p with P(X >= K | N, p) = level, and 0 at K = 0.

    Args:
        successes: K, in 0..N.
        examples: N >= 1.
        log_level: Natural logarithm of the level, finite and < 0.

    Returns:
        A number in [0, 1]. A bound below e^-745 is given as 0, which is on the safe side.

    Raises:
        InvalidInputError: If an argument is outside its range.
    """
    k, n = checked_counts(successes, examples)
    _check_level(log_level)
    return 0.0 if k == 0 else math.exp(_log_bound(k, n, log_level))


def upper_bound(successes: int, examples: int, *, log_level: float) -> float:
    """The exact one-sided upper bound: the p with P(X <= K | N, p) = level, and 1 at K = N.

    Args:
        successes: K, in 0..N.
        examples: N >= 1.
        log_level: Natural logarithm of the level, finite and < 0.

    Returns:
        A number in [0, 1].

    Raises:
        InvalidInputError: If an argument is outside its range.

    Example:
        >>> upper_bound(0, 100, log_level=math.log(0.05)) == 1 - 0.05 ** (1 / 100)
        True
    """
    k, n = checked_counts(successes, examples)
    _check_level(log_level)
    # The failures' lower bound, turned round; expm1 keeps the digits of an upper bound near 0.
    return 1.0 if k == n else -math.expm1(_log_bound(n - k, n, log_level))


def log_upper_tail(successes: int, examples: int, probability: float) -> float:
    """The logarithm of the chance of K or more successes, without underflow.

        P(X >= K | N, p) = I_p(K, N - K + 1)      (regularized incomplete beta function)

    Source: DLMF 8.17.5 for the identity, 8.17.22 for the continued fraction.

    Args:
        successes: K, in 0..N.
        examples: N >= 1.
        probability: p, in [0, 1].

    Returns:
        A number <= 0; -inf where the tail is impossible.

    Raises:
        InvalidInputError: If an argument is outside its range.
    """
    k, n = checked_counts(successes, examples)
    p = _checked_probability(probability)
    if k == 0 or p == 1:
        return 0.0
    return -math.inf if p == 0 else _log_tail(k, n, math.log(p), math.log1p(-p))[0]


def log_lower_tail(successes: int, examples: int, probability: float) -> float:
    """The logarithm of the chance of K or fewer successes, without underflow: the other tail's with p turned round.

    Args:
        successes: K, in 0..N.
        examples: N >= 1.
        probability: p, in [0, 1].

    Returns:
        A number <= 0; -inf where the tail is impossible.

    Raises:
        InvalidInputError: If an argument is outside its range.
    """
    k, n = checked_counts(successes, examples)
    p = _checked_probability(probability)
    if k == n or p == 0:
        return 0.0
    return -math.inf if p == 1 else _log_tail(n - k, n, math.log1p(-p), math.log(p))[0]


def checked_counts(successes: int, examples: int) -> tuple[int, int]:
    """Both counts as plain integers, or InvalidInputError."""
    try:
        k, n = operator.index(successes), operator.index(examples)
    except TypeError:
        message = f"counts must be whole numbers, got {successes!r} of {examples!r}; give them as int"
        raise InvalidInputError(message) from None
    if n < 1 or not 0 <= k <= n:
        message = f"counts must satisfy 0 <= K <= N and N >= 1, got K = {k} of N = {n}; check which is which"
        raise InvalidInputError(message)
    return k, n


def _check_level(log_level: float) -> None:
    if not -math.inf < log_level < 0:
        message = f"log_level must be finite and < 0, got {log_level!r}; give the natural logarithm of the level"
        raise InvalidInputError(message)


def _checked_probability(probability: float) -> float:
    if not 0 <= probability <= 1:
        message = f"probability must be in [0, 1], got {probability!r}; give a share, not a percentage"
        raise InvalidInputError(message)
    return float(probability)


def _log_bound(k: int, n: int, log_level: float) -> float:
    """Ln of the p with P(X >= k | n, p) = level, for 1 <= k <= n.

    Newton's method in s = ln p. The logarithm of the tail is concave and rises in s, so every iterate after the first
    lies left of the root and climbs towards it: no bracket is needed, and the first step that does not climb is
    rounding noise.
    """
    if k == n:
        return log_level / n
    s = math.log(k / n)
    for count in range(_MAX_STEPS):
        log_tail, slope = _log_tail(k, n, s, math.log(-math.expm1(s)))
        step = (log_level - log_tail) / slope
        s += step
        if count > 0 and step <= 1e-14 * abs(s):
            return s
    message = f"no Clopper-Pearson bound found for K = {k} of N = {n} at log level {log_level}"
    raise NumericalError(message)


def _log_tail(k: int, n: int, log_p: float, log_q: float) -> tuple[float, float]:
    """Ln P(X >= k) for 1 <= k <= n, q = 1 - p, and its derivative with respect to ln p."""
    a, b = float(k), float(n - k + 1)
    log_weight = a * log_p + b * log_q - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
    p = math.exp(log_p)
    if p < (a + 1) / (a + b + 2):
        value = log_weight - math.log(a) + math.log(_continued_fraction(a, b, p))
    else:
        other = log_weight - math.log(b) + math.log(_continued_fraction(b, a, math.exp(log_q)))
        value = math.log1p(-math.exp(other))
    return value, math.exp(log_weight - log_q - value)


def _continued_fraction(a: float, b: float, x: float) -> float:
    """The fraction F with I_x(a, b) = x^a (1 - x)^b F / (a B(a, b)), for x < (a + 1) / (a + b + 2).

    Evaluated forwards by the modified Lentz method; about sqrt(max(a, b)) terms at worst, a handful in the far tail.
    """
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            return value
    message = f"the incomplete beta function did not settle at a = {a}, b = {b}, x = {x}"
    raise NumericalError(message)

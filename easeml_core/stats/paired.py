"""Exact tests of a paired difference: is the new model right more often than the old one, by more than c?

Every example on which two models are compared is a win (+1), a loss (-1) or neither (0). The law of a sum of these has
its tail here as a logarithm, exact at any depth; the tests are built on it.

With S = wins - losses over N examples, q the chance of a win or a loss and c = P(win) - P(loss), the law of S is fixed
by (N, q, c). A test of c must hold for every q that is possible: ``log_paired_p_value`` takes the worst one up to a
known bound, ``log_sign_test`` needs none because it looks at wins and losses only. Everything is a logarithm.

How many examples a test needs: a truth is a pair (q, mean): the share q of examples that one model alone has right, and
the mean of wins minus losses. The worst truth for the power is the one with the largest q, since it spreads wins minus
losses most; near q = 1, where even and odd values differ, the worst is searched for, as the test itself does.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri_exp

from easeml_core.errors import InvalidInputError
from easeml_core.settings.config import require
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail
from easeml_core.stats.binomial_sizes import check_log_levels, fall_per_example, first_at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Chances below this are rounded so that the tail can only grow: to this upwards, to 0 downwards.
_TINY = 1e-250
# Frequencies that N steps damp below this are left out; what that can take from the tail is added to it.
_LOG_UNHEARD = -60.0


def log_trinomial_tail(score: int, examples: int, *, decided: float, mean: float) -> float:
    """Give ln P(S >= s) for S the sum of N independent values in {-1, 0, 1}.

        P(+1) = (q + c) / 2,   P(-1) = (q - c) / 2,   P(0) = 1 - q

    Numerics: the law is tilted by e^(lambda S) so that its mean becomes s (the saddle point, a quadratic), its
    probabilities from s upwards come from one fast Fourier transform of its characteristic function, and the tilt is
    taken back in logarithms. So the tail has about 11 correct digits at any depth. The transform's length L is so
    large that what it folds over or leaves out, at most 2 exp(-L^2 / (8 N)) by Hoeffding, is below e^-49; that much
    is added to the tilted tail.

    Args:
        score: s, any whole number.
        examples: N >= 1.
        decided: q in [|c|, 1].
        mean: c in [-1, 1].

    Returns:
        A number <= 0, minus infinity where the event is impossible.

    Raises:
        InvalidInputError: If an argument is outside its range.

    Example:
        >>> round(math.exp(log_trinomial_tail(1, 1, decided=0.5, mean=0.1)), 6)
        0.3
    """
    if examples < 1 or not abs(mean) <= decided <= 1:
        message = f"need examples >= 1 and |mean| <= decided <= 1, got {examples}, {mean!r}, {decided!r}"
        raise InvalidInputError(message)
    if score <= -examples:
        return 0.0
    up, down = (decided + mean) / 2, (decided - mean) / 2
    up, down = max(up, _TINY) if up else 0.0, down if down >= _TINY else 0.0
    if score > examples or (score > 0 and up == 0):
        return -math.inf
    if score == examples:
        return examples * math.log(up)
    if down == 0:
        return 0.0 if score <= 0 else log_upper_tail(score, examples, up)
    if score <= examples * mean:
        # Below the mean the tail is nearly all of the mass; the other side is the small one.
        return math.log1p(-math.exp(log_trinomial_tail(1 - score, examples, decided=decided, mean=-mean)))
    if up == 0:
        # Only steps down: S >= s means at most -s of them.
        return log_lower_tail(-score, examples, down)
    return float(_tilted_tails(score, examples, np.array([up]), np.array([down]))[0])


def log_trinomial_tails(score: int, examples: int, *, decided: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Give ``log_trinomial_tail`` for many q at once, above the mean.

    Args:
        score: s with N c < s <= N.
        examples: N >= 1.
        decided: q, each in (|c|, 1], shape ``(n_shares,)``.
        mean: c in (-1, 1).

    Returns:
        Numbers <= 0, shape ``(n_shares,)``.

    Raises:
        InvalidInputError: If an argument is outside its range.
    """
    if not examples * mean < score <= examples or not (abs(mean) < decided).all() or not (decided <= 1).all():
        shares = f"[{decided.min()}, {decided.max()}]"
        message = f"need N * mean < score <= N and |mean| < decided <= 1, got {score}, {examples}, {mean!r}, {shares}"
        raise InvalidInputError(message)
    up, down = (decided + mean) / 2, (decided - mean) / 2
    if score == examples:
        return np.asarray(examples * np.log(up))
    return _tilted_tails(score, examples, up, down)


def _tilted_tails(score: int, examples: int, up: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give ln P(S >= s) for mean < s < N and chances above 0, by tilting and one Fourier transform each."""
    still, target = np.maximum(0.0, 1.0 - up - down), score / examples
    tilt = _saddle_points(target, up=up, down=down, still=still)
    weights = np.stack([up * tilt, still, down / tilt])
    total = weights.sum(axis=0)
    length = _transform_length(examples)
    angles = np.arange(length // 2 + 1) * (2 * np.pi / length)
    # One step of the tilted walk, centred on its mean s / N, at every frequency; the power makes N steps of it. Most
    # frequencies vanish in the power: those are not computed, which is nearly all of the time saved.
    # Three products by hand: a matrix product would wake the threads of the linear algebra for nothing.
    waves = np.exp(-1j * np.multiply.outer([1 - target, -target, -1 - target], angles))
    step = sum(np.multiply.outer(weight, wave) for weight, wave in zip(weights / total, waves, strict=True))
    heard = np.abs(step) > math.exp(_LOG_UNHEARD / examples)
    spectrum = np.zeros_like(step)
    spectrum[heard] = step[heard] ** examples
    masses = np.fft.irfft(spectrum, n=length, axis=1)
    folded = length <= 2 * examples
    kept = min(examples - score + 1, length // 2 if folded else length)
    log_tilt = np.log(tilt)
    tails = (masses[:, :kept] * np.exp(-np.multiply.outer(log_tilt, np.arange(kept)))).sum(axis=1)
    left_out = kept * math.exp(_LOG_UNHEARD) + (2 * math.exp(-(length**2) / (8 * examples)) if folded else 0.0)
    return np.asarray(np.minimum(0.0, examples * np.log(total) - score * log_tilt + np.log(tails + left_out)))


def _saddle_points(
    target: float, *, up: NDArray[np.float64], down: NDArray[np.float64], still: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give z = e^lambda with mean (up z - down / z) / (up z + still + down / z) = target, for |target| < 1."""
    a, b, c = up * (1 - target), target * still, down * (1 + target)
    root = np.hypot(b, 2 * np.sqrt(a) * np.sqrt(c))
    # Both forms are the positive root of a z^2 - b z - c = 0; each is free of cancellation on its side.
    return np.asarray((b + root) / (2 * a) if target >= 0 else 2 * c / (root - b))


def _transform_length(examples: int) -> int:
    """Give the power of two that holds all 2N + 1 values, or enough that what is left out is below e^-49."""
    enough = min(2 * examples + 1, math.ceil(math.sqrt(400 * examples)))
    return 1 << (enough - 1).bit_length()


_GRID_POINTS = 32
_REFINEMENTS = 6
_RESOLUTION = 1e-6


def log_sign_test(wins: int, losses: int) -> float:
    """Give ln of the exact one-sided p-value against "wins are no likelier than losses".

        ln P(Bin(W + L, 1/2) >= W)

    Source: McNemar (1947), in its exact, conditional form. Given the number of decided examples, wins are binomial
    with a chance of at most 1/2, whatever the share of decided examples is.

    Args:
        wins: W >= 0, examples that only the new model has right.
        losses: L >= 0, examples that only the old model has right.

    Returns:
        A number <= 0; 0 when nothing was decided.

    Raises:
        InvalidInputError: If a count is negative.

    Example:
        >>> round(math.exp(log_sign_test(9, 1)), 6)
        0.010742
    """
    if wins < 0 or losses < 0:
        message = f"wins and losses must be >= 0, got {wins} and {losses}"
        raise InvalidInputError(message)
    return log_upper_tail(wins, wins + losses, 0.5) if wins + losses else 0.0


def log_paired_p_value(score: int, examples: int, *, threshold: float, decided_bound: float) -> float:
    """Give ln of the exact p-value against "P(win) - P(loss) is at most c", given q <= p.

        ln sup_{q <= p} P(S >= s | N, q, mean = c)

    The tail rises with the mean, so c itself is the worst mean. In q its slope has the sign of
    P(S' = s - 1) - P(S' = s), S' over N - 1 examples. As long as q <= (1 + c^2) / 2, the generating function of one
    step has real roots only, S' is a shifted sum of independent 0-1 values and its mode lies within 1 of its mean
    (Darroch 1964, not checked). So for s - 1 >= (N - 1) c the tail rises with q up to there, and only larger q, where
    even and odd values of S may differ, are searched: on a grid that is fine near p, then on finer ones. Where s
    is smaller, the observed mean is no evidence against c, and the p-value 1 is given.

    Args:
        score: s = wins - losses, observed.
        examples: N >= 1.
        threshold: c, any finite number.
        decided_bound: p in [0, 1], an upper bound on the chance of a win or a loss.

    Returns:
        A number <= 0. Minus infinity where no law has q <= p and a mean of at most c; 0 where none has a larger mean.

    Raises:
        InvalidInputError: If N < 1 or p is outside [0, 1].

    Example:
        >>> round(math.exp(log_paired_p_value(60, 1000, threshold=0.02, decided_bound=0.1)), 6)
        4.6e-05
    """
    if examples < 1 or not 0 <= decided_bound <= 1:
        message = f"need examples >= 1 and decided_bound in [0, 1], got {examples}, {decided_bound!r}"
        raise InvalidInputError(message)
    return _p_value(score, examples, threshold, decided_bound)


def paired_lower_bound(score: int, examples: int, *, decided_bound: float, log_level: float) -> float:
    """Give the largest c that ``log_paired_p_value`` rejects: a lower bound on P(win) - P(loss).

    Args:
        score: s = wins - losses, observed.
        examples: N >= 1.
        decided_bound: p in [0, 1].
        log_level: Natural logarithm of the level, finite and < 0.

    Returns:
        A number in [-p, p], from below, to 1e-6.

    Raises:
        InvalidInputError: If N < 1 or p is outside [0, 1].

    Example:
        >>> round(paired_lower_bound(60, 1000, decided_bound=0.1, log_level=math.log(0.01)), 4)
        0.0362
    """
    # The tail at q = p alone is quick and nearly always the largest one; the search has the last word.
    quick = _last_rejected(
        lambda c: _p_value(score, examples, c, decided_bound, search=False) <= log_level, -decided_bound, decided_bound
    )

    def rejects(c: float) -> bool:
        return _p_value(score, examples, c, decided_bound) <= log_level

    if rejects(quick):
        return quick
    # The search objects by little: the bound is near, and each look is dear.
    step, high, low = _RESOLUTION, quick, max(-decided_bound, quick - _RESOLUTION)
    while low > -decided_bound and not rejects(low):
        step, high, low = 4 * step, low, max(-decided_bound, quick - 4 * step)
    return _last_rejected(rejects, low, high)


def _p_value(score: int, examples: int, threshold: float, bound: float, *, search: bool = True) -> float:
    """Give the p-value; without the search, the tail at q = p instead of the largest one."""
    if threshold < -bound:
        return -math.inf
    if threshold >= bound or score - 1 < (examples - 1) * threshold:
        return 0.0
    at_bound = log_trinomial_tail(score, examples, decided=bound, mean=threshold)
    monotone_up_to = (1 + threshold**2) / 2
    # A score of N or above can only get likelier with q, one at or below the mean is nothing to search for.
    inside = examples * threshold < score < examples
    if bound <= monotone_up_to or not search or not inside:
        return at_bound
    return max(at_bound, _largest(score, examples, threshold, monotone_up_to, bound))


def _largest(score: int, examples: int, threshold: float, low: float, high: float) -> float:
    """Give the largest tail for q in [low, high]; its bumps, if any, get narrower towards ``high``."""
    grid = high - (high - low) * np.append(np.logspace(0, -7, _GRID_POINTS - 1), 0.0)
    top = -math.inf
    for _ in range(_REFINEMENTS):
        tails = log_trinomial_tails(score, examples, decided=grid, mean=threshold)
        best = int(tails.argmax())
        if best == len(grid) - 1 and tails[best] == top:
            break  # the largest share is the worst, and a finer grid before it has found nothing else
        top = max(top, float(tails[best]))
        grid = np.linspace(grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)], _GRID_POINTS // 2)
    return top


def _last_rejected(rejects: Callable[[float], bool], low: float, high: float) -> float:
    """Give the largest rejected c in [low, high], by bisection from the rejected side."""
    while high - low > _RESOLUTION:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low


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

"""The law of a sum of values -1, 0 and 1: its tail as a logarithm, exact at any depth.

Every example on which two models are compared is a win (+1), a loss (-1) or neither (0). The tests built on this tail
are in ``paired``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail

if TYPE_CHECKING:
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

"""Qualities as logit-normal variables: normal on the logit scale, paid for on the quality scale.

An accuracy lies in [0, 1], and what separates .98 from .99 is as much as what separates .70 from .82: errors are
halved. On the logit scale both are one step, so one Gaussian fits tables of easy and of hard tasks alike, and an
expected improvement never counts quality above 1.

Formulas: Z ~ N(mu, s^2), Q = expit(Z) = 1 / (1 + exp(-Z)).

The scheduler reports mean and deviation on the scale of quality. Both together give the normal variable on the logit
scale back, and with it every probability: the band that a quality lies in, and the chance that it beats another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx, expit, ndtr
from scipy.special import logit as _logit

if TYPE_CHECKING:
    from easeml_core.selection.surrogate.posterior import Array

LOWEST, HIGHEST = 0.001, 0.999
"""Qualities are clipped to this range before the logit: beyond it they differ by nothing that a table can show."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)
# As arrays without dimensions: a plain number costs each operation on a hundred arms a third more.
_HALF, _PER_MILLS = np.array(1 / math.sqrt(2)), np.array(math.sqrt(2 / math.pi))
_ZERO, _HALVES, _ONE, _FOUR = (np.array(value) for value in (0.0, 0.5, 1.0, 4.0))


def logit(quality: Array | float) -> Array:
    """ln( q / (1 - q) ) of the clipped quality, between -6.91 and 6.91.

    Example:
        >>> float(logit(0.75).round(4)), float(logit(1.0).round(4))
        (1.0986, 6.9068)
    """
    return np.asarray(_logit(np.clip(quality, LOWEST, HIGHEST)), dtype=np.float64)


def logit_of(quality: float) -> float:
    """``logit`` of one quality: the same number, without the price of an array.

    Example:
        >>> logit_of(0.75) == float(logit(0.75))
        True
    """
    return float(_logit(min(max(quality, LOWEST), HIGHEST)))


def moments(mean: float, std: float) -> tuple[float, float]:
    """Mean and standard deviation of the quality, by Gauss-Hermite quadrature with 64 nodes.

    Args:
        mean: mu of the logit.
        std: s >= 0 of the logit.

    Example:
        >>> mean, std = moments(0.0, 1.0)
        >>> round(mean, 4), round(std, 4)
        (0.5, 0.2083)
    """
    quality = expit(mean + std * _NODES)
    centre = float(_WEIGHTS @ quality)
    return centre, math.sqrt(max(float(_WEIGHTS @ (quality - centre) ** 2), 0.0))


def expected_improvement(mean: Array, std: Array, *, best: float) -> Array:
    """Expected amount by which the quality of each arm exceeds the best so far, to second order.

        EI = E[ (Q - b)^+ ] = P (E[Q | Z > t] - b),   t = logit b,   P = P(Z > t)

    with E[Q | Z > t] by the second-order delta method at the mean m of the truncated normal, whose variance is v,
    damped so that it stays bounded for wide tails:

        E[Q | Z > t] ~ q + v q (1 - q) (1 - 2 q) / (2 + v / 2),   q = expit(m)

    A test bounds the error against quadrature, however deep the tail: where b >= .05 or mu >= -2 (quality .12), below
    1 % for s <= 0.5 and below 12 % for s <= 3. Where both are lower, expit is nearly exponential and a wide normal has
    its expectation in the tail: there the result may be too small, by 3 % for s <= 0.5, by up to 60 % for s <= 3. A
    best below ``LOWEST``, such as 0, counts as ``LOWEST``.

    Args:
        mean: mu of each arm's logit, shape ``(n_arms,)``.
        std: s > 0 of each arm's logit, same shape.
        best: Best quality observed, 0 before the first observation.

    Returns:
        Shape ``(n_arms,)``, >= 0; 0 everywhere once the best is ``HIGHEST``.
    """
    if best >= HIGHEST:
        return np.zeros_like(mean)
    floor = max(best, LOWEST)
    depth = math.log(floor / (1 - floor)) - mean  # in standard deviations below; positive below the best
    depth /= std
    hazard = depth * _HALF
    erfcx(hazard, hazard)  # phi / P of the normal; erfcx keeps digits where both underflow
    np.divide(_PER_MILLS, hazard, hazard)
    spread = depth - hazard
    spread *= hazard
    spread += _ONE
    spread *= std
    spread *= std
    hazard *= std
    hazard += mean
    hazard *= _HALVES
    # With T = tanh(m / 2), q = (1 + T) / 2, twice the gain is 1 - 2 b + T (1 - (1 - T^2) v / (4 + v)).
    tangent = np.tanh(hazard, hazard)
    curved: Array = tangent * tangent
    np.subtract(_ONE, curved, curved)
    curved *= spread
    spread += _FOUR
    curved /= spread
    np.subtract(_ONE, curved, curved)
    curved *= tangent
    curved += 1.0 - 2.0 * floor
    np.maximum(curved, _ZERO, out=curved)
    curved *= ndtr(np.negative(depth, depth), depth)
    curved *= _HALVES
    return curved


BAND = 1.2815515655446004
"""Standard deviations on either side of the mean that hold 80 % of a normal variable."""

_ROUNDS, _ENOUGH, _SMALL = 60, 1e-9, 1e-5


def band(mean: float, std: float) -> tuple[float, float]:
    """The range that holds 80 % of the quality, 10 % on either side.

    Args:
        mean: Of the quality.
        std: Its standard deviation, >= 0.

    Example:
        >>> [round(end, 3) for end in band(0.93, 0.02)]
        [0.903, 0.953]
        >>> [round(end, 3) for end in band(0.73, 0.20)]
        [0.428, 0.945]
    """
    latent = _latent(mean, std)
    if latent is None:
        return min(1.0, max(0.0, mean - BAND * std)), min(1.0, max(0.0, mean + BAND * std))
    centre, spread = latent
    return float(expit(centre - BAND * spread)), float(expit(centre + BAND * spread))


def chance_above(best: float, mean: float, std: float) -> float:
    """The probability that the quality exceeds the best so far.

    Example:
        >>> round(chance_above(0.5, 0.5, 0.2), 6), chance_above(0.9, 0.8, 0.0)
        (0.5, 0.0)
    """
    latent = _latent(mean, std)
    if latent is None:
        return 0.5 * math.erfc((best - mean) / std / math.sqrt(2)) if std > 0 else float(mean > best)
    if not 0 < best < 1:
        return float(best <= 0)
    return 0.5 * math.erfc((float(_logit(best)) - latent[0]) / latent[1] / math.sqrt(2))


def density(mean: float, std: float, count: int = 81) -> list[tuple[float, float]]:
    """The curve of the density over four deviations on either side, its top at 1: (quality, height); none for std 0."""
    if std <= 0:
        return []
    latent = _latent(mean, std)
    low, high = mean - 4 * std, mean + 4 * std
    if latent is not None:
        low, high = max(1e-3, low), min(1 - 1e-3, high)
    places = [low + (high - low) * i / (count - 1) for i in range(count)]
    logs = [_log_density(place, mean, std, latent) for place in places]
    return [(place, math.exp(value - max(logs))) for place, value in zip(places, logs, strict=True)]


def _log_density(place: float, mean: float, std: float, latent: tuple[float, float] | None) -> float:
    if latent is None:
        return -0.5 * ((place - mean) / std) ** 2
    return -0.5 * ((float(_logit(place)) - latent[0]) / latent[1]) ** 2 - math.log(place * (1 - place))


def _latent(mean: float, std: float) -> tuple[float, float] | None:
    """Mean and deviation of the logit; None where it cannot be found, or the quality does not vary.

    Newton's method on what is nearly linear in them: the logit of the mean, and the logarithm of the deviation. A step
    that does not come closer is halved. Simpler rounds swing without end where a high quality is very uncertain.
    """
    if not 0 < mean < 1 or not 0 < std < 0.9 * math.sqrt(mean * (1 - mean)):
        return None
    wanted = float(_logit(mean)), math.log(std)
    at = wanted[0], min(math.log(std / (mean * (1 - mean))), 1.0)
    off = _off(at, wanted)
    for _ in range(_ROUNDS):
        if abs(off[0]) + abs(off[1]) < _ENOUGH:
            return at[0], math.exp(at[1])
        step = _step(at, off, wanted)
        nearer = ((at[0] + step[0] / h, at[1] + step[1] / h) for h in (1, 2, 4, 8, 16, 32, 64))
        found = ((place, _off(place, wanted)) for place in nearer)
        best = next((f for f in found if abs(f[1][0]) + abs(f[1][1]) < abs(off[0]) + abs(off[1])), None)
        if best is None:
            return None
        at, off = best
    return None


def _off(at: tuple[float, float], wanted: tuple[float, float]) -> tuple[float, float]:
    """By how much logit of the mean and logarithm of the deviation miss, for a centre and the logarithm of a spread."""
    mean, deviation = moments(at[0], math.exp(at[1]))
    if not 0 < mean < 1 or deviation <= 0:
        return math.inf, math.inf
    return float(_logit(mean)) - wanted[0], math.log(deviation) - wanted[1]


def _step(at: tuple[float, float], off: tuple[float, float], wanted: tuple[float, float]) -> tuple[float, float]:
    """Newton's step with slopes by differences; never further than 2 in the centre and 1 in the spread."""
    aside, wider = _off((at[0] + _SMALL, at[1]), wanted), _off((at[0], at[1] + _SMALL), wanted)
    a, c = (aside[0] - off[0]) / _SMALL, (aside[1] - off[1]) / _SMALL
    b, d = (wider[0] - off[0]) / _SMALL, (wider[1] - off[1]) / _SMALL
    centre, spread = (b * off[1] - d * off[0]) / (a * d - b * c), (c * off[0] - a * off[1]) / (a * d - b * c)
    shorter = max(1.0, abs(centre) / 2, abs(spread))
    return centre / shorter, spread / shorter

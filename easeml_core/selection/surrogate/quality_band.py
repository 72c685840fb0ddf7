"""A quality of which mean and deviation are known: the band that it lies in, and the chance that it beats another.

The scheduler takes qualities as logit-normal (``logit_normal.py``) and tells mean and deviation on the scale of
quality. Both together give the normal variable on the logit scale back, and with it every probability.
"""

from __future__ import annotations

import math

from easeml_core.selection.surrogate.logit_normal import moments

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
    return _expit(centre - BAND * spread), _expit(centre + BAND * spread)


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
    return 0.5 * math.erfc((_logit(best) - latent[0]) / latent[1] / math.sqrt(2))


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
    return -0.5 * ((_logit(place) - latent[0]) / latent[1]) ** 2 - math.log(place * (1 - place))


def _latent(mean: float, std: float) -> tuple[float, float] | None:
    """Mean and deviation of the logit; None where it cannot be found, or the quality does not vary.

    Newton's method on what is nearly linear in them: the logit of the mean, and the logarithm of the deviation. A step
    that does not come closer is halved. Simpler rounds swing without end where a high quality is very uncertain.
    """
    if not 0 < mean < 1 or not 0 < std < 0.9 * math.sqrt(mean * (1 - mean)):
        return None
    wanted = _logit(mean), math.log(std)
    at = _logit(mean), min(math.log(std / (mean * (1 - mean))), 1.0)
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
    return _logit(mean) - wanted[0], math.log(deviation) - wanted[1]


def _step(at: tuple[float, float], off: tuple[float, float], wanted: tuple[float, float]) -> tuple[float, float]:
    """Newton's step with slopes by differences; never further than 2 in the centre and 1 in the spread."""
    aside, wider = _off((at[0] + _SMALL, at[1]), wanted), _off((at[0], at[1] + _SMALL), wanted)
    a, c = (aside[0] - off[0]) / _SMALL, (aside[1] - off[1]) / _SMALL
    b, d = (wider[0] - off[0]) / _SMALL, (wider[1] - off[1]) / _SMALL
    centre, spread = (b * off[1] - d * off[0]) / (a * d - b * c), (c * off[0] - a * off[1]) / (a * d - b * c)
    shorter = max(1.0, abs(centre) / 2, abs(spread))
    return centre / shorter, spread / shorter


def _logit(quality: float) -> float:
    return math.log(quality / (1 - quality))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value))

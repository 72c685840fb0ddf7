"""From a score in the metric's own unit to quality in [0, 1], higher is better, and back.

Every map is strictly monotone: two scores that differ have qualities that differ, in the same order (or the reverse
one, where less is better). In floating point the order is never reversed, but scores that differ by less than a
rounding error, or that are hundreds of scales away, may share a quality. ``metric`` says which metric has which.

    name       quality of score s                  defined for     where
    identity   s                                   [0, 1]          shares
    affine     (s - worst) / (best - worst)        [worst, best]   callables with two bounds
    exp        exp(-s)                             [0, inf]        log loss: the geometric mean chance of the true class
    decay      1 / (1 + |best - s| / scale)        best .. worst   mean absolute error; callables with one bound
    growth     d / (d + scale), d = |s - worst|    worst .. best   callables with the worst bound alone
    square     1 / (1 + (s / scale)^2)             [0, inf]        root mean squared error
    r2         1 / (2 - s)                         [-inf, 1]       R2: what ``square`` gives on the same rows
    logistic   1 / (1 + exp(-+ s / scale))         [-inf, inf]     callables without bounds

Derivatives of ``exp``, ``decay``, ``growth``, ``square`` (s > 0), ``r2``, ``logistic``: -q, -+ q^2 / scale,
+- (1 - q)^2 / scale, -2 q^2 s / scale^2, q^2, +- q (1 - q) / scale; none is 0 where 0 < q < 1. As 1 - R2 is
(rmse / scale)^2, ``r2`` is ``square`` of the error. Each is computed by steps that are monotone themselves, so that
rounding cannot reverse an order: s / (1 + s) is not among them, 1 / (1 + 1 / s) is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class QualityMap(Protocol):
    """A strictly monotone map between scores and qualities; ``scale`` > 0 is looked at by some only."""

    @property
    def formula(self) -> str:
        """The map in words and signs, with ``score`` and ``scale``."""

    def quality(self, score: float, scale: float) -> float:
        """Quality in [0, 1] of a score in the metric's range."""

    def score(self, quality: float, scale: float) -> float:
        """The score that has this quality; infinite at the open end."""


@dataclass(frozen=True, slots=True)
class Affine:
    """(score - worst) / (best - worst), for two finite bounds; the identity for 0 and 1."""

    worst: float = 0.0
    best: float = 1.0

    @property
    def formula(self) -> str:
        """The map in words and signs."""
        if (self.worst, self.best) == (0.0, 1.0):
            return "score"
        return f"(score - {self.worst:g}) / ({self.best:g} - {self.worst:g})"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score; halves are taken so that the difference of large bounds stays finite."""
        return (score / 2 - self.worst / 2) / (self.best / 2 - self.worst / 2)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return self.worst * (1 - quality) + self.best * quality


@dataclass(frozen=True, slots=True)
class Exponential:
    """exp(-score)."""

    formula: str = "exp(-score)"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score >= 0."""
        return math.exp(-score)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return -math.log(quality) if quality > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Decay:
    """1 / (1 + d / scale), with d >= 0 how far the score is from the best one; half at one scale.

    Attributes:
        best: The bound that there is; finite.
        sign: 1 if scores lie above it (less is better), -1 if they lie below.
    """

    best: float = 0.0
    sign: int = 1

    @property
    def formula(self) -> str:
        """The map in words and signs."""
        distance = "score" if (self.best, self.sign) == (0.0, 1) else f"|{self.best:g} - score|"
        return f"1 / (1 + {distance} / scale)"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score."""
        return 1 / (1 + self.sign * (score - self.best) / scale)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return self.best + self.sign * _odds_against(quality) * scale


@dataclass(frozen=True, slots=True)
class Growth:
    """d / (d + scale), with d >= 0 how far the score is from the worst one; half at one scale.

    Attributes:
        worst: The bound that there is; finite.
        sign: 1 if scores lie above it (more is better), -1 if they lie below.
    """

    worst: float = 0.0
    sign: int = 1

    @property
    def formula(self) -> str:
        """The map in words and signs."""
        return f"1 - 1 / (1 + |score - {self.worst:g}| / scale)"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score; not as 1 - 1 / (1 + d / scale), which loses the digits of a small quality."""
        return _share(self.sign * (score - self.worst) / scale)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return self.worst + self.sign * _odds_against(1 - quality) * scale


@dataclass(frozen=True, slots=True)
class Square:
    """1 / (1 + (score / scale)^2): half at one scale."""

    formula: str = "1 / (1 + (score / scale)^2)"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score >= 0. A product, since ``**`` raises OverflowError where it gives infinity."""
        ratio = score / scale
        return 1 / (1 + ratio * ratio)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return math.sqrt(_odds_against(quality)) * scale


@dataclass(frozen=True, slots=True)
class ShareExplained:
    """1 / (2 - score), for R2: the quality that ``Square`` gives to the error that R2 comes from."""

    formula: str = "1 / (2 - score)"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score <= 1."""
        return 1 / (2 - score)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return 1 - _odds_against(quality)


@dataclass(frozen=True, slots=True)
class Logistic:
    """1 / (1 + exp(-sign score / scale)).

    Attributes:
        sign: 1 if more is better, -1 if less is.
    """

    sign: int = 1

    @property
    def formula(self) -> str:
        """The map in words and signs."""
        return f"1 / (1 + exp({'-' if self.sign > 0 else ''}score / scale))"

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score; the exponential of a negative number only, so that nothing overflows."""
        x = self.sign * score / scale
        small = math.exp(-abs(x))
        return 1 / (1 + small) if x >= 0 else _share(small)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        if quality in (0.0, 1.0):
            return math.copysign(math.inf, self.sign * (quality - 0.5))
        return self.sign * (math.log(quality) - math.log1p(-quality)) * scale


def _odds_against(quality: float) -> float:
    """(1 - q) / q; infinite at 0."""
    return (1 - quality) / quality if quality > 0 else math.inf


def _share(odds: float) -> float:
    """Odds / (1 + odds), monotone in floating point too."""
    return 1 / (1 + 1 / odds) if odds > 1e-300 else 0.0

"""A metric of the user's own: a function with a statement of what it needs, its direction and its range.

Importing this module imports no library. ``metric.metric_of`` finds the function by ``module:function``.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.metrics.quality import Affine, Decay, Growth, Logistic
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import JsonObject
    from easeml_core.metrics.quality import QualityMap

NEEDS = ("labels", "probabilities", "numbers")
"""What can be scored."""

_MARK = "__easeml_metric__"


def user_metric(
    *, needs: str, higher_is_better: bool, low: float = -math.inf, high: float = math.inf, scale: float = 1.0
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Mark a function as a metric, and state what it needs and where its scores lie.

    The function is called with targets, predictions and probabilities (None unless needed), as ``Metric.score`` has
    checked them, and gives a finite number. Its quality: the share of the way from the worst to the best score where
    both bounds are given; 1 / (1 + d / scale), d = distance from the best, where that alone is; d / (d + scale), d =
    distance from the worst, where that alone is; 1 / (1 + exp(-score / scale)) where neither is, without the minus if
    less is better.
    """
    require(needs in NEEDS, "needs", needs, "one of " + ", ".join(NEEDS))
    require(low < high, "low", low, f"less than high = {high:g}")
    require(0 < scale < math.inf, "scale", scale, "a finite number > 0")
    statement = {"needs": needs, "higher_is_better": bool(higher_is_better), "low": float(low), "high": float(high)}
    statement["map"] = _Scaled(_map_of(bool(higher_is_better), float(low), float(high)), float(scale))

    def mark(function: Callable[..., float]) -> Callable[..., float]:
        setattr(function, _MARK, statement)
        return function

    return mark


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A map whose scale is fixed, not taken from the data."""

    inner: QualityMap
    own_scale: float

    @property
    def formula(self) -> str:
        """The map in words and signs, with the scale as a number."""
        return self.inner.formula.replace("scale", f"{self.own_scale:g}")

    def quality(self, score: float, scale: float) -> float:
        """Quality of a score."""
        return self.inner.quality(score, self.own_scale)

    def score(self, quality: float, scale: float) -> float:
        """The score of a quality."""
        return self.inner.score(quality, self.own_scale)


def _map_of(higher_is_better: bool, low: float, high: float) -> QualityMap:
    """The map for what a user stated about a metric."""
    best, worst = (high, low) if higher_is_better else (low, high)
    sign = -1 if higher_is_better else 1
    if math.isfinite(best) and math.isfinite(worst):
        return Affine(worst, best)
    if math.isfinite(best):
        return Decay(best, sign)
    return Growth(worst, -sign) if math.isfinite(worst) else Logistic(-sign)


def stated_function(name: str) -> tuple[Callable[..., float], JsonObject]:
    """The function of ``module:function``, and what it states; imports that module."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        kind = "metric"
        remedy = f"importing it said: {error}; a metric of your own is module:function, installed where trials run"
        raise NotFoundError(kind, name, remedy=remedy) from error
    stated = getattr(found, _MARK, None)
    if not callable(found) or not isinstance(stated, dict):
        message = f"{name} is not marked as a metric; state its direction and range with @user_metric(...) above it"
        raise InvalidInputError(message)
    return partial(_number, name, found), stated


def _number(name: str, function: Callable[..., object], *arrays: Any) -> float:
    """What the function says, as a float."""
    said = function(*arrays)
    try:
        return float(said)  # type: ignore[arg-type]  # a function of a user: whatever float takes
    except (TypeError, ValueError) as error:
        message = f"{name} must give a number, got {type(said).__name__}"
        raise InvalidInputError(message) from error

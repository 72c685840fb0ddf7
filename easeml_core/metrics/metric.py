"""The user's metric: what it needs, which way and how far it goes, and its quality in [0, 1].

    accuracy, balanced_accuracy, f1      labels           shares in [0, 1]
    auc, log_loss                        probabilities    a column for each class
    rmse, mae, r2, within:T              numbers          within:T is the share of predictions at most T off; numbers
                                                          may be one a row, or several (images, series)
    module:function                      as it states     a function marked with ``user_metric``

The scheduler only sees ``Metric.quality``; people see the score in its own unit. scikit-learn is imported when
something is scored, a module of the user's when its metric is asked for: do that in the training child, and check the
name alone (``check_metric_name``) elsewhere. The maps to quality are in ``quality``, the computation and the checks of
arrays in ``scores``.

Gate and meter take the answers of models in one form, right or wrong. Answers that are classes are compared as they
are. Of numbers, one that is at most T off (``within:T``) is right; labels and predictions are turned into two classes
then: 0 is right, 1 is wrong. Two models that are both right, or both wrong, count as equal, as far as their numbers may
be from each other.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from easeml_core.errors import InvalidInputError, NotFoundError, NumericalError
from easeml_core.metrics import scores
from easeml_core.metrics.custom import stated_function
from easeml_core.metrics.quality import Affine, Decay, Exponential, ShareExplained, Square
from easeml_core.metrics.scores import (
    checked_labels,
    checked_numbers,
    checked_probabilities,
    checked_rows,
    checked_targets,
)
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from easeml_core.metrics.quality import QualityMap


Needs = Literal["labels", "probabilities", "numbers"]

_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_LONGEST_NAME = 200
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes:
        name: Canonical: ``within:.50`` is called ``within:0.5``.
        needs: What is scored: labels (whole numbers >= 0), the probabilities of the classes, or numbers.
        higher_is_better: Its direction. Of qualities, higher is always better.
        low: The least score there can be; -inf where there is none.
        high: The greatest score there can be; inf where there is none.
        map: From score to quality, strictly monotone, onto [0, 1].
        scored: The score of checked arrays; the third is None unless probabilities are needed.
        scale_kind: What ``scale_of`` takes of the validation targets, or ``none``.
    """

    name: str
    needs: Needs
    higher_is_better: bool
    low: float
    high: float
    map: QualityMap
    scored: Callable[[Any, Any, Any], float]
    scale_kind: Literal["none", "std", "deviation"] = "none"

    def score(self, targets: ArrayLike, predictions: ArrayLike | None, probabilities: ArrayLike | None = None) -> float:
        """The score of a model on validation rows, in the metric's own unit.

        Example:
            >>> metric_of("within:0.5").score([1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 3.6, 9.0])
            0.5
        """
        arrays = self._arrays(targets, predictions, probabilities)
        score = self._unrounded(float(self.scored(*arrays)))
        if not math.isfinite(score) or not self.low <= score <= self.high:
            message = f"{self.name} came out as {score:g}; it must be finite and in [{self.low:g}, {self.high:g}]"
            raise NumericalError(message)
        return score

    def scale_of(self, targets: ArrayLike) -> float:
        """The unit in which errors are measured, from the validation targets; 1 for metrics that need none.

        For ``rmse`` and ``r2`` the standard deviation (divided by the rows, not rows - 1), which is the error of the
        best constant prediction, the mean; for ``mae`` the mean distance from the median, likewise. So the best
        constant prediction has quality 1/2. Of several numbers a row it is the mean (median) of each place.

        Example:
            >>> metric_of("rmse").scale_of([1.0, 3.0, 5.0, 7.0]) == 5**0.5
            True
        """
        if self.scale_kind == "none":
            return 1.0
        values = checked_targets(targets)
        scores.need_spread(self.name, values)
        return scores.spread(self.scale_kind, values)

    def quality(self, score: float, scale: float | None = None) -> float:
        """Quality in [0, 1], higher is better, of a score.

        Example:
            >>> metric_of("rmse").quality(2.0, 2.0)
            0.5
        """
        require(self.low <= score <= self.high, f"{self.name} score", score, f"in [{self.low:g}, {self.high:g}]")
        return min(1.0, max(0.0, self.map.quality(score, self._checked_scale(scale))))

    def value(self, quality: float, scale: float | None = None) -> float:
        """The score that has this quality, for display: the inverse of ``quality``.

        Example:
            >>> metric_of("r2").value(0.5)
            0.0
        """
        require(0 <= quality <= 1, "quality", quality, "in [0, 1]")
        return min(self.high, max(self.low, self.map.score(quality, self._checked_scale(scale))))

    def hits(self, targets: ArrayLike, predictions: ArrayLike) -> NDArray[np.bool_]:
        """Which examples are right, shape (rows,); their mean is the score. For the gate's metrics only."""
        require_gate_metric(self.name)
        checked = self._arrays(targets, predictions, None)
        if self.needs == "labels":
            return scores.equal(checked[0], checked[1])
        return scores.near(checked[0], checked[1], float(self.name.partition(":")[2]))

    def _unrounded(self, score: float) -> float:
        """The bound itself for what is outside by a rounding error, such as an area of 1 + 2e-16."""
        nearest = min(self.high, max(self.low, score))
        return nearest if abs(score - nearest) <= _ROUNDING else score

    def _arrays(self, targets: Any, predictions: Any, probabilities: Any) -> tuple[Any, Any, Any]:
        if self.needs == "probabilities":
            labels = checked_labels("targets", targets)
            return labels, None, checked_probabilities(self.name, probabilities, labels)
        if self.needs == "numbers" and getattr(targets, "ndim", 1) == 2:
            return *checked_rows(targets, predictions), None
        checked = checked_labels if self.needs == "labels" else checked_numbers
        true = checked("targets", targets)
        return true, checked("predictions", predictions, len(true)), None

    def _checked_scale(self, scale: float | None) -> float:
        if self.scale_kind == "none" or isinstance(self.map, ShareExplained):
            return 1.0 if scale is None else scale
        allowed = "a finite number > 0, from Metric.scale_of(validation targets)"
        require(scale is not None and 0 < scale < math.inf, f"scale of {self.name}", scale, allowed)
        return float(scale or 1.0)


def metric_of(name: str) -> Metric:
    """The metric of a name.

    Example:
        >>> metric_of("log_loss").map.formula
        'exp(-score)'
    """
    check_metric_name(name)
    if name in METRICS:
        return METRICS[name]
    if name.startswith("within:"):
        return _within(_tolerance(name))
    function, stated = stated_function(name)
    return Metric(name=name, scored=function, **stated)


def check_metric_name(name: object) -> str:
    """The name itself, if it has the form of a metric's; nothing is imported.

    Example:
        >>> check_metric_name("shop.metrics:profit")
        'shop.metrics:profit'
    """
    if isinstance(name, str) and name.startswith("within:"):
        _tolerance(name)
        return name
    fits = isinstance(name, str) and len(name) <= _LONGEST_NAME and _ENTRY_POINT.fullmatch(name)
    if not isinstance(name, str) or (name not in METRICS and not fits):
        remedy = "within:T takes numbers at most T off, and a function of your own is named module:function"
        shown = name[:_LONGEST_NAME] if isinstance(name, str) else type(name).__name__
        kind = "metric"
        raise NotFoundError(kind, shown, known=[*METRICS, "within:T"], remedy=remedy)
    return name


def require_gate_metric(name: str) -> str:
    """The name itself, if the gate can take the metric.

    The gate's tests are about means of bounded losses, one for each example. That leaves ``accuracy`` and ``within:T``.

    Example:
        >>> require_gate_metric("within:0.5")
        'within:0.5'
    """
    check_metric_name(name)
    if name == "accuracy" or name.startswith("within:"):
        return name
    reason, instead = _NOT_GATED.get(name, ("it is not known to be a mean of one loss for each example", _EITHER))
    message = (
        f"the gate cannot take the metric {name!r}: {reason}. It takes means of bounded losses only: gate on "
        f"{instead}; candidates may still be compared by {name!r}"
    )
    raise InvalidInputError(message)


def _tolerance(name: str) -> float:
    text = name.partition(":")[2]
    try:
        tolerance = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        tolerance = math.nan
    require(0 < tolerance < math.inf, "within:T", text[:40], "a number T > 0, in the unit of the targets")
    return tolerance


def _within(tolerance: float) -> Metric:
    def scored(targets: Any, predictions: Any, _: Any) -> float:
        return float(scores.near(targets, predictions, tolerance).mean())

    return Metric(f"within:{tolerance!r}", "numbers", True, 0.0, 1.0, Affine(), scored)


_EITHER = "'accuracy' for labels or 'within:T' for numbers (the share of predictions at most T off)"
_FOR_LABELS = "'accuracy'; where some inputs matter more, add a condition on a slice of them"
_FOR_NUMBERS = "'within:T', the share of predictions at most T off, such as 'within:0.5'"
_NOT_GATED = {
    "balanced_accuracy": ("it weights each example by how rare its class turned out to be", _FOR_LABELS),
    "f1": ("it is a ratio of counts, not a mean over examples", _FOR_LABELS),
    "auc": ("it is a mean over pairs of examples, which are not independent", _FOR_LABELS),
    "log_loss": ("one example can cost any amount", "'accuracy'"),
    "rmse": ("one example can cost any amount", _FOR_NUMBERS),
    "mae": ("one example can cost any amount", _FOR_NUMBERS),
    "r2": ("one example can cost any amount", _FOR_NUMBERS),
}
"""Metric -> why the gate cannot take it, and what to use instead."""

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "labels", True, 0.0, 1.0, Affine(), scores.accuracy),
        Metric("balanced_accuracy", "labels", True, 0.0, 1.0, Affine(), scores.balanced_accuracy),
        Metric("f1", "labels", True, 0.0, 1.0, Affine(), scores.macro_f1),
        Metric("auc", "probabilities", True, 0.0, 1.0, Affine(), scores.macro_auc),
        Metric("log_loss", "probabilities", False, 0.0, math.inf, Exponential(), scores.log_loss_mean),
        Metric("rmse", "numbers", False, 0.0, math.inf, Square(), scores.rmse, "std"),
        Metric("mae", "numbers", False, 0.0, math.inf, Decay(), scores.mae, "deviation"),
        Metric("r2", "numbers", True, -math.inf, 1.0, ShareExplained(), scores.r2, "std"),
    )
}
"""Name -> metric, for those with a fixed name; ``within:T`` and ``module:function`` are made by ``metric_of``."""


CLASSES = "accuracy"
"""What counts as right where classes are predicted: the class itself."""


def wrong(hit: str, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.bool_]:
    """Which predictions are wrong, shape (examples,).

    Example:
        >>> import numpy as np
        >>> wrong("within:0.5", np.array([1.0, 7.0]), np.array([1.5, 6.0])).tolist()
        [False, True]
    """
    import numpy as np

    if hit == CLASSES:
        return np.asarray(labels != predictions)
    return ~metric_of(hit).hits(labels, predictions)


def as_classes(hit: str, labels: NDArray[Any], *predictions: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """Labels, and the predictions of each model, as classes that are equal exactly where a prediction is right.

    Example:
        >>> import numpy as np
        >>> labels, new = as_classes("within:0.5", np.array([1.0, 7.0]), np.array([1.5, 6.0]))
        >>> labels.tolist(), new.tolist()
        ([0, 0], [0, 1])
    """
    import numpy as np

    if hit == CLASSES:
        return (labels.astype(np.int64), *predictions)
    coded = (wrong(hit, labels, answers).astype(np.int64) for answers in predictions)
    return (np.zeros(len(labels), dtype=np.int64), *coded)

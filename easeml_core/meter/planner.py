"""How many labelled examples a sealed meter set needs, for each way of paying for the developer's reactions.

What the methods count is in ``node_counts.py``; how an answer is given, in ``path_adaptive.py``, which follows the
default method. The size of the validation set that keeps pure sampling noise in range 1 is given along.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import MeterConfig, require
from easeml_core.meter.node_counts import METHODS, Tree
from easeml_core.meter.ranges import exact, narrowest_inner_range
from easeml_core.stats.clopper_pearson import log_lower_tail, log_upper_tail
from easeml_core.stats.hoeffding import hoeffding_sample_size

if TYPE_CHECKING:
    from collections.abc import Sequence

_LN2 = math.log(2)
_LOOK_BACK = 500

_PRUNED_NEEDS = (
    "at least 2 tolerances wide between boundaries for the method 'pruned' (widen the ranges, lower the "
    "tolerance, or take 'path-adaptive')"
)

_CAVEATS = {
    "non-adaptive": "sound only if every model is fixed before the first signal is shown",
    "first-change": "the set is retired at the first signal other than 1",
    "fresh": "the labels of all submissions together; each submission takes a new set",
}


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """What a sealed meter set must have, and what was assumed.

    Attributes:
        labels: n >= 1, labelled examples of the sealed set (of all sets together for ``fresh``).
        log_nodes: ln N, the price of the developer's reactions.
        method: One of `METHODS`.
        tail: ``hoeffding`` or ``clopper-pearson``.
        validation_minimum: Least size of the validation set; None when the first boundary is not above 0.
        warnings: Sentences for whoever plans; empty when there is nothing to say.
    """

    labels: int
    log_nodes: float
    method: str
    tail: str
    validation_minimum: int | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}


def plan_meter(
    *,
    ranges: Sequence[float],
    tolerance: float,
    reliability: float,
    steps: int,
    method: str = "path-adaptive",
    ambiguous: int = 2,
    tail: str = "hoeffding",
    error_rate: float | None = None,
) -> MeterPlan:
    """The number of labels with which all T signals hold together with the reliability.

        n = ceil( (ln N + ln(2 / delta)) / (2 epsilon^2) ),   delta = 1 - reliability          (hoeffding)
        n = least n whose Clopper-Pearson interval of round(n p) errors at level delta / N
            reaches no further than epsilon to either side                                (clopper-pearson)

    Source: Hoeffding (1963), Theorem 2, two-sided, with a union bound over N nodes; Clopper and Pearson (1934).

    Args:
        ranges: Inner boundaries b_1 < ... < b_{m-1} between -1 and 1.
        tolerance: epsilon, in (0, 1).
        reliability: 1 - delta, in (0, 1), for all signals together.
        steps: T >= 1, submissions that the set must serve.
        method: One of `METHODS`.
        ambiguous: b >= 0, ambiguous answers planned for; only ``path-adaptive`` looks at it.
        tail: ``hoeffding`` (holds for every error rate) or ``clopper-pearson`` (fewer labels).
        error_rate: p in [0, 1] that ``clopper-pearson`` plans with; None is the worst one, so that no count of
            errors retires the set early. A wrong guess costs answers, never the guarantee.

    Returns:
        The plan. More steps or a higher reliability never need fewer labels with ``hoeffding``.

    Raises:
        ConfigError: If an argument is outside its range, or ``pruned`` is asked for ranges narrower than two
            tolerances, where its count would be wrong.

    Example:
        >>> plan_meter(ranges=(0.2, 0.4, 0.6, 0.8), tolerance=0.05, reliability=0.99, steps=32, ambiguous=5).labels
        2446
    """
    config = MeterConfig(
        ranges=tuple(ranges),
        tolerance=tolerance,
        reliability=reliability,
        steps=steps,
        ambiguous=ambiguous,
        tail=tail,
    )
    require(method in METHODS, "method", method, "one of " + ", ".join(METHODS))
    require(error_rate is None or 0 <= error_rate <= 1, "error_rate", error_rate, "in [0, 1], or None for the worst")
    require(method != "pruned" or not _narrower_than(config, 2), "ranges", config.ranges, _PRUNED_NEEDS)
    examples, log_nodes = _least_size(config, method, _worst_rate(tolerance) if error_rate is None else error_rate)
    return MeterPlan(
        labels=examples * steps if method == "fresh" else examples,
        log_nodes=log_nodes,
        method=method,
        tail=tail,
        validation_minimum=validation_minimum(ranges=config.ranges, reliability=reliability),
        warnings=_warnings(config, method),
    )


def validation_minimum(*, ranges: Sequence[float], reliability: float) -> int | None:
    """The size of a validation set on which a model that never saw it stays in range 1.

        n_val = ceil( ln(2 / delta) / (2 b_1^2) )

    The validation loss is known exactly, so this is not needed for the meter's guarantee; without it, the signal
    tells of sampling noise more than of tuning. Source: Hoeffding (1963), Theorem 2, two-sided.

    Args:
        ranges: Inner boundaries; only the first counts.
        reliability: 1 - delta, in (0, 1).

    Returns:
        n_val >= 1, or None when b_1 <= 0, where no size is enough.

    Raises:
        ConfigError: If there is no boundary, or the reliability is outside its range.

    Example:
        >>> validation_minimum(ranges=(0.05,), reliability=0.99)
        1060
    """
    require(len(ranges) > 0, "ranges", ranges, "at least one boundary")
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    if ranges[0] <= 0:
        return None
    return hoeffding_sample_size(tolerance=ranges[0], log_level=-_log_two_sided(reliability))


def _log_two_sided(reliability: float) -> float:
    """Ln(2 / delta)."""
    return _LN2 - math.log1p(-reliability)


def _worst_rate(tolerance: float) -> float:
    """The error rate whose interval reaches furthest: not 1/2, but 2 epsilon / 3 beside it.

    How far the upper end lies off is ruled by the variances between p and p + epsilon, of which the one at
    p + 2 epsilon / 3 counts as the mean (third-order expansion of the divergence), and a variance is largest at 1/2.
    """
    return max(0.0, 0.5 - 2 * tolerance / 3)


def _least_size(config: MeterConfig, method: str, error_rate: float) -> tuple[int, float]:
    """The least n that is enough for the ln N which it brings about, and that ln N.

    Both grow with n, so climbing from 1 reaches the least fixed point; where ln N ignores n, in one step.
    """
    tree = Tree(signals=len(config.ranges) + 1, steps=config.steps, ambiguous=config.ambiguous)
    n, enough = 0, 1
    while enough > n:
        n = enough
        log_nodes = METHODS[method](tree, n)
        log_side = -log_nodes - _log_two_sided(config.reliability)
        enough = hoeffding_sample_size(tolerance=config.tolerance, log_level=log_side)
        if config.tail == "clopper-pearson":
            enough = _clopper_pearson_size(log_side, config.tolerance, error_rate, enough)
    return n, log_nodes


def _clopper_pearson_size(log_side: float, tolerance: float, error_rate: float, enough: int) -> int:
    """The least n <= enough (Hoeffding's, which always is) whose interval is narrow enough at the planned errors.

    Rounding n p makes the condition ripple in n with a period of 1 / p, so the edge that bisection finds may not be
    the first one: the last few hundred sizes before it are looked at one by one.
    """

    def narrow(n: int) -> bool:
        return _within(round(n * error_rate), n, tolerance, log_side)

    few = 0
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if narrow(middle) else (middle, enough)
    return next((n for n in range(max(1, enough - _LOOK_BACK), enough) if narrow(n)), enough)


def _within(errors: int, examples: int, tolerance: float, log_side: float) -> bool:
    """Whether both ends of the interval lie within the tolerance of k / n, without solving for them.

    The lower end lies above k / n - epsilon just when so many errors are too unlikely there; likewise the upper end.
    """
    rate = errors / examples
    low_end = rate <= tolerance or log_upper_tail(errors, examples, rate - tolerance) <= log_side
    return low_end and (rate + tolerance >= 1 or log_lower_tail(errors, examples, rate + tolerance) <= log_side)


def _narrower_than(config: MeterConfig, tolerances: int) -> bool:
    """Whether a range between two boundaries is narrower than so many tolerances, compared exactly."""
    width = narrowest_inner_range(config.ranges)
    return width is not None and width < tolerances * exact(config.tolerance)


def _warnings(config: MeterConfig, method: str) -> tuple[str, ...]:
    """Sentences about choices that are allowed and cost something."""
    found = [f"{method}: {_CAVEATS[method]}"] if method in _CAVEATS else []
    if _narrower_than(config, 4):
        found.append(
            f"a range between two boundaries is narrower than 4 tolerances ({4 * config.tolerance:g}): its answers "
            "are always ambiguous and shorten the life of the set"
        )
    if exact(config.ranges[0]) < 2 * exact(config.tolerance):
        found.append(
            f"the first boundary {config.ranges[0]:g} is below 2 tolerances ({2 * config.tolerance:g}): even a model "
            "without overfitting gets ambiguous answers"
        )
    return tuple(found)

"""One reading of the sealed set: the interval of the true loss, and the range of the gap.

The level comes from ``meter.py``. Only the signal (and the edges of a dithered meter) may reach the developer: the
other fields depend on the sealed set, and releasing them would add branches that no level pays for. ``interval_size``
is the number of examples at which the interval reaches no further than the tolerance.
"""

from __future__ import annotations

import math
import numbers
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from easeml_core.meter.ranges import exact, signal_of
from easeml_core.settings.config import require
from easeml_core.stats.binomial_bounds import clopper_pearson, log_lower_tail, log_upper_tail, upper_bound
from easeml_core.stats.concentration import hoeffding_half_width, hoeffding_sample_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import JsonObject
    from easeml_core.settings.config import MeterConfig

_LN2 = math.log(2)
_SLACK = 1e-9
"""Rounding of log tails: a count so close to the edge is taken to be reachable, the safe side."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one submission was answered, and what the ledger must know of it. For the referee, but for the signal.

    Attributes:
        signal: What is answered, 1..m; None when the set must be retired and no answer is given.
        gap: Sealed loss minus validation loss, in [-1, 1].
        tolerance_now: epsilon_t, how far the true gap may lie from the measured one.
        low: Lower end of the interval of the true sealed loss, in [0, 1]; 0 when only the upper side is promised.
        high: Upper end.
        reachable: Ranges that could have been the answer, >= 1; 1 when retired.
        log_cost: To be added to the log weight of the next submission, >= 0; 0 when retired.
        log_level: ln a, the level at which this submission was read.
        edges: The boundaries that were really used, where they were shifted; else empty. The developer sees them.
        ends: Whether the set is retired after this answer (for the team that it was given to).
        why: Why no answer is given: ``tolerance``, ``steps``, ``regulation`` or ``retired``, ``failure``
            (the model could not be run), or an error of the program; empty for an answer.
    """

    signal: int | None
    gap: float
    tolerance_now: float
    low: float
    high: float
    reachable: int
    log_cost: float
    log_level: float
    edges: tuple[float, ...] = ()
    ends: bool = False
    why: str = ""

    @property
    def retired(self) -> bool:
        """Whether the set has no more answers within the promise."""
        return self.signal is None

    def to_json(self) -> JsonObject:
        """The reading as plain JSON, for the ledger only."""
        return {**asdict(self), "edges": list(self.edges)}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One submission in exact numbers.

    Attributes:
        errors: k, wrong predictions on the sealed set, in 0..n.
        examples: n >= 1, size of the sealed set.
        validation_loss: v, in [0, 1].
        edges: Boundaries of the ranges.
    """

    errors: int
    examples: int
    validation_loss: Fraction
    edges: tuple[Fraction, ...]

    def gap(self, errors: int) -> Fraction:
        """The gap that so many errors would show."""
        return Fraction(errors, self.examples) - self.validation_loss

    def span(self, low: Fraction, high: Fraction) -> range:
        """The signals of all gaps from low to high."""
        return range(signal_of(low, self.edges), signal_of(high, self.edges) + 1)


def measurement(
    *, errors: int, examples: int, validation_loss: float, edges: Sequence[float | Fraction]
) -> Measurement:
    """Check the numbers of a submission and make them exact."""
    whole = isinstance(examples, numbers.Integral) and examples >= 1
    require(whole, "examples", examples, "a whole number >= 1, the size of the sealed set")
    counted = isinstance(errors, numbers.Integral) and 0 <= errors <= examples
    require(counted, "errors", errors, f"a whole number from 0 to {examples} (count the wrong predictions)")
    remedy = "in [0, 1] (give the share of wrong predictions on the validation set; a model without one is not metered)"
    require(0 <= validation_loss <= 1, "validation_loss", validation_loss, remedy)
    return Measurement(int(errors), int(examples), exact(validation_loss), tuple(exact(edge) for edge in edges))


def read(seen: Measurement, config: MeterConfig, *, log_level: float, limit: float) -> tuple[Reading, range]:
    """Read one submission at a level, or retire where the limit of the tolerance would be passed.

        epsilon_t = sqrt( ln(2 / a) / (2 n) )                  hoeffding; ln(1 / a) when only one side is promised
        epsilon_t = max(k/n - p_L, p_U - k/n)                  clopper-pearson, [p_L, p_U] at level a
        reachable = ranges that meet [gap - 2 epsilon_t, gap + 2 epsilon_t]         hoeffding
        reachable = signals of the counts whose intervals meet [p_L, p_U]           clopper-pearson

    Args:
        seen: The submission.
        config: Tail and sides of the promise.
        log_level: ln a, finite and < 0.
        limit: Largest tolerance that may be answered with.

    Returns:
        The reading without a log cost, and the signals that could have been answered (all, for one side).
    """
    low, high, tolerance_now = _INTERVALS[config.tail, config.one_sided](seen, log_level)
    gap = seen.gap(seen.errors)
    reading = Reading(signal_of(gap, seen.edges), float(gap), tolerance_now, low, high, 1, 0.0, log_level)
    if tolerance_now > limit:
        return replace(reading, signal=None, why="tolerance"), range(1, 2)
    if config.one_sided:
        span = range(1, len(seen.edges) + 2)
    elif config.tail == "hoeffding":
        span = _reachable_by_gap(gap, tolerance_now, seen)
    else:
        span = _reachable_by_count(low, high, seen, log_level)
    return replace(reading, reachable=len(span)), span


def _hoeffding_interval(seen: Measurement, log_level: float) -> tuple[float, float, float]:
    radius = hoeffding_half_width(seen.examples, log_level=log_level - _LN2)
    rate = seen.errors / seen.examples
    return max(0.0, rate - radius), min(1.0, rate + radius), radius


def _hoeffding_above(seen: Measurement, log_level: float) -> tuple[float, float, float]:
    radius = hoeffding_half_width(seen.examples, log_level=log_level)
    return 0.0, min(1.0, seen.errors / seen.examples + radius), radius


def _clopper_pearson_interval(seen: Measurement, log_level: float) -> tuple[float, float, float]:
    low, high = clopper_pearson(seen.errors, seen.examples, log_level=log_level)
    rate = seen.errors / seen.examples
    return low, high, max(rate - low, high - rate)


def _clopper_pearson_above(seen: Measurement, log_level: float) -> tuple[float, float, float]:
    high = upper_bound(seen.errors, seen.examples, log_level=log_level)
    return 0.0, high, high - seen.errors / seen.examples


_INTERVALS = {
    ("hoeffding", False): _hoeffding_interval,
    ("hoeffding", True): _hoeffding_above,
    ("clopper-pearson", False): _clopper_pearson_interval,
    ("clopper-pearson", True): _clopper_pearson_above,
}


def _reachable_by_gap(gap: Fraction, radius: float, seen: Measurement) -> range:
    """Ranges that the true gap's neighbourhood can meet: it lies within one radius, its answers within two."""
    return seen.span(gap - 2 * Fraction(radius), gap + 2 * Fraction(radius))


def _reachable_by_count(low: float, high: float, seen: Measurement, log_level: float) -> range:
    """Signals from the lowest count whose interval holds ``low`` to the highest whose interval holds ``high``.

    An interval holds p just when neither tail at p is below half of the level, so the intervals of the other counts
    need not be found: tails rise with the count, and two bisections over them are enough for any n.
    """
    n, k, side = seen.examples, seen.errors, log_level - _LN2 - _SLACK
    lowest = bisect_left(range(k), side, key=lambda count: log_lower_tail(count, n, low))
    above = bisect_left(range(n - k), side, key=lambda correct: log_upper_tail(n - correct, n, high))
    return seen.span(seen.gap(lowest), seen.gap(n - above))


def interval_size(
    *, tail: str, log_side: float, tolerance: float, error_rate: float | None = None, one_sided: bool = False
) -> int:
    """The n whose interval lies within the tolerance of k / n, to the promised sides.

        n = ceil( -ln side / (2 epsilon^2) )                                               hoeffding
        n whose interval of round(n p) errors is narrow enough, while n - 1 is not         clopper-pearson

    Numerics: log tails are exact far below e^-745, where those of scipy end; see ``stats/binomial_bounds.py``.

    Args:
        tail: ``hoeffding`` or ``clopper-pearson``.
        log_side: Ln of the failure probability of one side, finite and < 0.
        tolerance: epsilon, in (0, 1).
        error_rate: p in [0, 1] that ``clopper-pearson`` plans with; None for the one that needs most.
        one_sided: Whether only the upper end is promised.

    Returns:
        n >= 1.

    Example:
        >>> import math
        >>> interval_size(tail="hoeffding", log_side=math.log(0.01 / 2 / 32), tolerance=0.05)
        1753
    """
    enough = hoeffding_sample_size(tolerance=tolerance, log_level=log_side)
    if tail == "hoeffding":
        return enough
    return _clopper_pearson_size(
        log_side, tolerance, worst_rate(tolerance) if error_rate is None else error_rate, enough, one_sided=one_sided
    )


def worst_rate(tolerance: float) -> float:
    """The error rate whose interval reaches furthest: not 1/2, but 2 epsilon / 3 beside it.

    How far the upper end lies off is ruled by the variances between p and p + epsilon, of which the one at
    p + 2 epsilon / 3 counts as the mean (third-order expansion of the divergence), and a variance is largest at 1/2.
    """
    return max(0.0, 0.5 - 2 * tolerance / 3)


def _clopper_pearson_size(log_side: float, tolerance: float, error_rate: float, enough: int, *, one_sided: bool) -> int:
    """An n whose interval is narrow enough at the planned errors, while that of n - 1 is not.

    Rounding n p makes the condition ripple in n with a period of 1 / p, so there can be several edges within a per cent
    (n is enough, n - 1 is not); each is a right answer. Bisection from 10 to twice Hoeffding's size finds one of them,
    the same one for the same question.
    """

    def narrow(n: int) -> bool:
        return _within(round(n * error_rate), n, tolerance, log_side, one_sided=one_sided)

    few, enough = (0, 10) if narrow(10) else (10, 2 * enough)
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if narrow(middle) else (middle, enough)
    return enough


def _within(errors: int, examples: int, tolerance: float, log_side: float, *, one_sided: bool) -> bool:
    """Whether the ends of the interval lie within the tolerance of k / n, without solving for them.

    The lower end lies above k / n - epsilon just when so many errors are too unlikely there; likewise the upper end.
    """
    rate = errors / examples
    low_end = one_sided or rate <= tolerance or log_upper_tail(errors, examples, rate - tolerance) <= log_side
    return low_end and (rate + tolerance >= 1 or log_lower_tail(errors, examples, rate + tolerance) <= log_side)

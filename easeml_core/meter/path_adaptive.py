"""The path-adaptive meter: one submission in, one signal out, and the price of having answered.

Each answer leaves less failure probability for the later ones, divided by the number of ranges that it could have
been. A clear answer is free, an ambiguous one costs ln 2, and the set is retired before an answer would need more
than the promised tolerance. Only the signal may reach the developer: the other fields of a reading depend on the
sealed set, and showing them would add branches that nobody has paid for.

The system: Hubis, Wu, Zhang (2019), arXiv 1906.00299. Paying by what could have been answered: the microchoice
bounds of Langford and Blum (2003). Why the sum of all failures stays below delta: in each level of the developer's
tree the weights exp(-log_weight) of the nodes that can be reached add up to at most 1, and as long as no earlier
claim has failed, the number of ranges counted here is never below the true number that could be answered.
"""

from __future__ import annotations

import math
import numbers
from bisect import bisect_left
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.meter.ranges import exact, signal_of
from easeml_core.stats.clopper_pearson import clopper_pearson, log_lower_tail, log_upper_tail
from easeml_core.stats.hoeffding import hoeffding_half_width

if TYPE_CHECKING:
    from easeml_core.config import MeterConfig

_LN2 = math.log(2)
_SLACK = 1e-9
"""Rounding of log tails: a count so close to the edge is taken to be reachable, the safe side."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one submission was answered, and what the ledger must know of it. For the referee, but for the signal.

    Attributes:
        signal: Range of the gap, 1..m; None when the set must be retired and no answer is given.
        gap: Sealed loss minus validation loss, in [-1, 1].
        tolerance_now: epsilon_t, how far the true gap may lie from the measured one.
        low: Lower end of the interval of the true sealed loss, in [0, 1].
        high: Upper end.
        reachable: Ranges that could have been the answer, >= 1; 1 when retired.
        log_cost: ln reachable, to be added to the log weight of the next submission; 0 when retired.
        log_level: ln a, the level at which this submission was read.
    """

    signal: int | None
    gap: float
    tolerance_now: float
    low: float
    high: float
    reachable: int
    log_cost: float
    log_level: float

    @property
    def retired(self) -> bool:
        """Whether the set has no more answers within the promised tolerance."""
        return self.signal is None

    def to_json(self) -> dict[str, Any]:
        """The reading as plain JSON, for the ledger only."""
        return asdict(self)


def read_meter(
    *, errors: int, examples: int, validation_loss: float, config: MeterConfig, log_weight: float
) -> Reading:
    """Answer one submission.

        a = (delta / T) exp(-log_weight)                       level of this step
        epsilon_t = sqrt( ln(2 / a) / (2 n) )                  hoeffding
        epsilon_t = max(k/n - p_L, p_U - k/n)                  clopper-pearson, [p_L, p_U] at level a
        retire when epsilon_t > epsilon, otherwise signal = range of k/n - v
        reachable = ranges that meet [gap - 2 epsilon_t, gap + 2 epsilon_t]         hoeffding
        reachable = signals of the counts whose intervals meet [p_L, p_U]           clopper-pearson

    With the reliability, for all T submissions at once: the true gap of a submission answered with signal i lies
    between b_{i-1} - epsilon_t and b_i + epsilon_t. That the caller answers at most T submissions, adds up the
    costs, and answers a repeated artifact from its log is part of the proof.

    Args:
        errors: k, wrong predictions on the sealed set, in 0..n.
        examples: n >= 1, size of the sealed set.
        validation_loss: v, in [0, 1], of the same model on the open validation set.
        config: What the set was planned for.
        log_weight: Sum of the log costs of the earlier readings on this set, >= 0; 0 at first.

    Returns:
        The reading. With ``hoeffding``, epsilon_t depends on n and the log weight alone, so that a retirement tells
        nothing of the sealed labels.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, reliability=0.95, steps=8)
        >>> reading = read_meter(errors=600, examples=4000, validation_loss=0.13, config=config, log_weight=0.0)
        >>> reading.signal, reading.reachable, reading.log_cost
        (1, 1, 0.0)
    """
    _check(errors, examples, validation_loss, log_weight)
    log_level = math.log1p(-config.reliability) - math.log(config.steps) - log_weight
    step = _Step(int(errors), int(examples), exact(validation_loss), config.ranges, log_level)
    low, high, tolerance_now = _INTERVALS[config.tail](step)
    gap = step.gap(step.errors)
    if tolerance_now > config.tolerance:
        return Reading(None, float(gap), tolerance_now, low, high, 1, 0.0, log_level)
    if config.tail == "hoeffding":
        reachable = _reachable_by_gap(gap, tolerance_now, step)
    else:
        reachable = _reachable_by_count(low, high, step)
    signal = signal_of(gap, config.ranges)
    return Reading(signal, float(gap), tolerance_now, low, high, reachable, math.log(reachable), log_level)


@dataclass(frozen=True, slots=True)
class _Step:
    """One submission in exact numbers, with the logarithm of its level."""

    errors: int
    examples: int
    validation_loss: Fraction
    ranges: tuple[float, ...]
    log_level: float

    def gap(self, errors: int) -> Fraction:
        return Fraction(errors, self.examples) - self.validation_loss

    def signals_between(self, low: Fraction, high: Fraction) -> int:
        return signal_of(high, self.ranges) - signal_of(low, self.ranges) + 1


def _check(errors: int, examples: int, validation_loss: float, log_weight: float) -> None:
    whole = isinstance(examples, numbers.Integral) and examples >= 1
    require(whole, "examples", examples, "a whole number >= 1, the size of the sealed set")
    counted = isinstance(errors, numbers.Integral) and 0 <= errors <= examples
    require(counted, "errors", errors, f"a whole number from 0 to {examples} (count the wrong predictions)")
    remedy = "in [0, 1] (give the share of wrong predictions on the validation set; a model without one is not metered)"
    require(0 <= validation_loss <= 1, "validation_loss", validation_loss, remedy)
    remedy = ">= 0 and finite (add up the log costs of the earlier readings)"
    require(0 <= log_weight < math.inf, "log_weight", log_weight, remedy)


def _hoeffding_interval(step: _Step) -> tuple[float, float, float]:
    radius = hoeffding_half_width(step.examples, log_level=step.log_level - _LN2)
    rate = step.errors / step.examples
    return max(0.0, rate - radius), min(1.0, rate + radius), radius


def _clopper_pearson_interval(step: _Step) -> tuple[float, float, float]:
    low, high = clopper_pearson(step.errors, step.examples, log_level=step.log_level)
    rate = step.errors / step.examples
    return low, high, max(rate - low, high - rate)


_INTERVALS = {"hoeffding": _hoeffding_interval, "clopper-pearson": _clopper_pearson_interval}


def _reachable_by_gap(gap: Fraction, radius: float, step: _Step) -> int:
    """Ranges that the true gap's neighbourhood can meet: it lies within one radius, its answers within two."""
    return step.signals_between(gap - 2 * Fraction(radius), gap + 2 * Fraction(radius))


def _reachable_by_count(low: float, high: float, step: _Step) -> int:
    """Signals from the lowest count whose interval holds ``low`` to the highest whose interval holds ``high``.

    An interval holds p just when neither tail at p is below half of the level, so the intervals of the other counts
    need not be found: tails rise with the count, and two bisections over them are enough for any n.
    """
    n, k, side = step.examples, step.errors, step.log_level - _LN2 - _SLACK
    lowest = bisect_left(range(k), side, key=lambda count: log_lower_tail(count, n, low))
    above = bisect_left(range(n - k), side, key=lambda correct: log_upper_tail(n - correct, n, high))
    return step.signals_between(step.gap(lowest), step.gap(n - above))

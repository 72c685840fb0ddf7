"""Two meters that tell tuning from drift: is it the sample that was overfitted, or is the world another one?

    gap = [ L(h, val) - l(h, D_val) ]  +  [ L(h, test) - L(h, val) ]
          direct: tuned to the sample       drift: validation and test distribution differ

The test set shows only the sum. A second hidden sample, drawn from the validation distribution, shows the first part;
a meter runs on each, with half of the failure probability. The two samples are independent, so neither meter pays for
the other's signals: given one sample, what the developer hears of it is but private randomness for the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

from attrs import evolve

from easeml_core.meter.ranges import decimal_of, exact
from easeml_core.meter.sentences import TwoSignals, promised_sides
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from fractions import Fraction

    from easeml_core.settings.config import MeterConfig

_LAST_DIGIT = Decimal("1e-12")


def split_meters(config: MeterConfig, *, direct_share: float = 0.5) -> tuple[MeterConfig, MeterConfig]:
    """The settings of both meters, whose failure probabilities add up to that of the settings given.

    Args:
        config: What is promised for both together.
        direct_share: Part of delta for the meter on the second validation sample, in (0, 1).

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> total, direct = split_meters(MeterConfig(reliability=0.9))
        >>> round(total.reliability, 9), round(direct.reliability, 9)
        (0.95, 0.95)
    """
    require(0 < direct_share < 1, "direct_share", direct_share, "> 0 and < 1")
    delta = 1 - config.reliability
    # Reliabilities are rounded towards 1, so that the sum of the two deltas is never above delta.
    total, direct = (math.nextafter(1 - delta * share, 1.0) for share in (1 - direct_share, direct_share))
    return evolve(config, reliability=total), evolve(config, reliability=direct)


def both_reliability(total: MeterConfig, direct: MeterConfig) -> float:
    """1 - delta of both meters together: their failure probabilities add up, and where they exceed 1, nothing is left.

    Returns:
        In [0, 1), rounded down to 12 digits.

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> both_reliability(MeterConfig(reliability=0.975), MeterConfig(reliability=0.975))
        0.95
        >>> both_reliability(MeterConfig(reliability=0.5), MeterConfig(reliability=0.3))
        0.0
    """
    both = decimal_of(total.reliability) + decimal_of(direct.reliability) - 1
    return max(0.0, float(both.quantize(_LAST_DIGIT, rounding=ROUND_FLOOR)))


@dataclass(frozen=True, slots=True)
class Said:
    """One meter's answer on a submission, with all that it promises.

    Attributes:
        signal: 1..m.
        config: What its set was planned for.
        edges: The m - 1 boundaries that were used, where they were shifted; empty for those of the plan.
        tolerance: What was promised with this signal, in (0, 1); None for that of the plan.
    """

    signal: int
    config: MeterConfig
    edges: tuple[float, ...] = ()
    tolerance: float | None = None

    def ends(self) -> tuple[Fraction | None, Fraction | None]:
        """Both ends of the range that was answered; None where it has none."""
        edges = [None, *(exact(edge) for edge in self.edges or self.config.ranges), None]
        return edges[self.signal - 1], edges[self.signal]

    def bounds(self) -> tuple[Fraction | None, Fraction | None]:
        """Least and largest true gap that go with the answer; None where nothing is promised on that side."""
        low, high = self.ends()
        slack = exact(self.config.tolerance if self.tolerance is None else self.tolerance)
        sides = promised_sides(self.config)
        return (
            low - slack if low is not None and "lower" in sides else None,
            high + slack if high is not None and "upper" in sides else None,
        )


def combine(total: Said, direct: Said) -> TwoSignals:
    """Combine two answers that may differ in their boundaries and tolerances.

        drift = gap on the test set - gap on the second sample, so it lies between
        low(total) - high(direct)   and   high(total) - low(direct)

    A side that a method does not promise (``promised_sides``) is no ground for anything: then drift is never
    certain on it. Nor is it where the two failure probabilities leave no reliability. Shifted boundaries may be other
    ones for each answer, where one of them is from the ledger: then signals differ by the shifts alone, and what is
    compared are the ranges that they stand for.
    """
    (total_low, total_high), (direct_low, direct_high) = total.bounds(), direct.bounds()
    low = -math.inf if total_low is None or direct_high is None else total_low - direct_high
    high = math.inf if total_high is None or direct_low is None else total_high - direct_low
    certain = (low > 0 or high < 0) and both_reliability(total.config, direct.config) > 0
    drift = "certain" if certain else "likely" if _apart(total, direct) else "none seen"
    return TwoSignals(total.signal, direct.signal, float(low), float(high), drift)


def _apart(total: Said, direct: Said) -> bool:
    """Whether no gap lies in both answered ranges.

    The higher range has the higher signal then, also with shifted boundaries: a shift is less than a range is wide.
    """
    (total_low, total_high), (direct_low, direct_high) = total.ends(), direct.ends()
    above = total_low is not None and direct_high is not None and total_low >= direct_high
    below = total_high is not None and direct_low is not None and total_high <= direct_low
    return above or below

"""Two meters that tell tuning from drift: is it the sample that was overfitted, or is the world another one?

    gap = [ L(h, val) - l(h, D_val) ]  +  [ L(h, test) - L(h, val) ]
          direct: tuned to the sample       drift: validation and test distribution differ

The test set shows only the sum. A second hidden sample, drawn from the validation distribution, shows the first part;
a meter runs on each, with half of the failure probability. The two samples are independent, so neither meter pays for
the other's signals: given one sample, what the developer hears of it is but private randomness for the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.meter.ranges import exact

if TYPE_CHECKING:
    from easeml_core.config import MeterConfig


def split_meters(config: MeterConfig, *, direct_share: float = 0.5) -> tuple[MeterConfig, MeterConfig]:
    """The settings of both meters, whose failure probabilities add up to that of the settings given.

    Args:
        config: What is promised for both together.
        direct_share: Part of delta for the meter on the second validation sample, in (0, 1).

    Returns:
        Settings of the meter on the test set, and of the one on the second validation sample.

    Raises:
        ConfigError: If the share is outside its range.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> total, direct = split_meters(MeterConfig(reliability=0.9))
        >>> round(total.reliability, 9), round(direct.reliability, 9)
        (0.95, 0.95)
    """
    require(0 < direct_share < 1, "direct_share", direct_share, "> 0 and < 1")
    delta = 1 - config.reliability
    # Reliabilities are rounded towards 1, so that the sum of the two deltas is never above delta.
    total, direct = (math.nextafter(1 - delta * share, 1.0) for share in (1 - direct_share, direct_share))
    return replace(config, reliability=total), replace(config, reliability=direct)


@dataclass(frozen=True, slots=True)
class TwoSignals:
    """What both meters say of one submission.

    Attributes:
        total: Signal of the meter on the test set, 1..m.
        direct: Signal of the meter on the second validation sample, 1..m.
        drift_low: The drift is at least this (minus infinity: nothing is said), with the reliability of both together.
        drift_high: The drift is at most this.
        drift: ``certain`` when it cannot be zero, ``likely`` when the signals differ, ``none seen`` otherwise.
        sentence: What it means and what to do.
    """

    total: int
    direct: int
    drift_low: float
    drift_high: float
    drift: str
    sentence: str


def combine_signals(*, total: int, direct: int, config: MeterConfig) -> TwoSignals:
    """Combine the two signals of one submission.

        b_{i-1} - b_j - 2 epsilon  <=  drift  <=  b_i - b_{j-1} + 2 epsilon      for total i and direct j

    Args:
        total: Signal of the meter on the test set.
        direct: Signal of the meter on the second validation sample.
        config: Ranges and tolerance of both.

    Returns:
        Both signals, what follows for the drift, and a sentence.

    Raises:
        ConfigError: If there is no such signal.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> found = combine_signals(total=3, direct=1, config=MeterConfig(ranges=(0.1, 0.3), tolerance=0.05))
        >>> found.drift, round(found.drift_low, 9)
        ('certain', 0.1)
    """
    signals = len(config.ranges) + 1
    for name, signal in (("total", total), ("direct", direct)):
        require(1 <= signal <= signals, name, signal, f"a signal from 1 to {signals}")
    bounds = [None, *(exact(b) for b in config.ranges), None]
    slack = 2 * exact(config.tolerance)
    below, above = bounds[total - 1], bounds[direct]
    low = -math.inf if below is None or above is None else below - above - slack
    below, above = bounds[direct - 1], bounds[total]
    high = math.inf if below is None or above is None else above - below + slack
    certain = low > 0 or high < 0
    drift = "certain" if certain else "likely" if total != direct else "none seen"
    return TwoSignals(total, direct, float(low), float(high), drift, _sentence(total, direct, drift))


def _sentence(total: int, direct: int, drift: str) -> str:
    shown = f"test signal {total}, validation signal {direct}"
    if total > direct:
        harder = "has" if drift == "certain" else "seems to have"
        return (
            f"{shown}: drift, the test distribution {harder} become harder than the validation distribution; "
            "collect validation data from where the models are used, more of the old kind does not help"
        )
    if total < direct:
        easier = "is" if drift == "certain" else "seems to be"
        return (
            f"{shown}: drift, the test distribution {easier} easier than the validation distribution and hides tuning "
            "to the sample; renew the validation set"
        )
    if direct == 1:
        return f"{shown}: neither tuning to the validation set nor drift is seen; go on"
    return f"{shown}: the validation set itself is overfitted, no drift is seen; renew it from the same source"

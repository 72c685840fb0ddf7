"""The open validation set is used up too: how large it must be, in which state it is, and what to add.

Nothing here is needed for the meter's guarantee. It says whether a signal above range 1 can come from the set's own
sampling noise, and how much choosing among many models can flatter on a set of this size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.meter.planner import validation_minimum
from easeml_core.stats.binomial_sizes import MOST_EXAMPLES, binomial_deviation_size
from easeml_core.stats.clopper_pearson import log_lower_tail, log_upper_tail
from easeml_core.stats.hoeffding import hoeffding_sample_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.config import MeterConfig

_LN2 = math.log(2)
LOOKS = ("trials", "rungs", "submissions", "nights")


class ValidationState(StrEnum):
    """How far a validation set has been used up."""

    FRESH = "fresh"
    USED = "used"
    WORN = "worn"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class ValidationUse:
    """What is known of a validation set.

    Attributes:
        rows: Its size, >= 1.
        looks: How often models were chosen by it, by kind (trials, rungs, submissions, nights); each >= 0.
        signals: Signals of the meter since it came into use, oldest first.
        replaced: Whether another set has taken its place.
    """

    rows: int
    looks: Mapping[str, int] = field(default_factory=dict)
    signals: Sequence[int] = ()
    replaced: bool = False

    def __post_init__(self) -> None:
        require(self.rows >= 1, "rows", self.rows, ">= 1")
        for kind, count in self.looks.items():
            require(kind in LOOKS, "looks", kind, "one of " + ", ".join(LOOKS))
            require(count >= 0, f"looks[{kind}]", count, ">= 0")

    @property
    def total(self) -> int:
        """All looks together."""
        return sum(self.looks.values())


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """State and advice.

    Attributes:
        state: How far the set is used up.
        minimum: Rows with which a model that never saw it stays in range 1; None when no number is enough.
        rows_for_looks: Rows with which that holds for all models of so many looks at once; None likewise.
        add_rows: How many rows are missing, >= 0.
        advice: What to do.
    """

    state: ValidationState
    minimum: int | None
    rows_for_looks: int | None
    add_rows: int
    advice: str


def exact_validation_minimum(
    *, ranges: Sequence[float], reliability: float, error_rate: float | None = None
) -> int | None:
    """The size of ``planner.validation_minimum`` by exact binomial tails, which is smaller.

        n_val = least n with P(|X / n - p| >= b_1) <= delta,   X ~ Bin(n, p)

    Args:
        ranges: Inner boundaries; only the first counts.
        reliability: 1 - delta, in (0, 1).
        error_rate: p in [0, 1], true error rate of a model; None for the worst one.

    Returns:
        n_val >= 1, or None when b_1 <= 0.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> exact_validation_minimum(ranges=(0.05,), reliability=0.99, error_rate=0.1)
        241
    """
    most = validation_minimum(ranges=ranges, reliability=reliability)
    if most is None:
        return None
    b_1, log_delta = ranges[0], math.log1p(-reliability)
    if error_rate is None:
        found = binomial_deviation_size(tolerance=b_1, log_level=log_delta, sides=2)
        return min(found, most) if found <= MOST_EXAMPLES else most
    require(0 <= error_rate <= 1, "error_rate", error_rate, "in [0, 1], or None for the worst")
    few, enough = 0, most
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if _log_deviation(middle, error_rate, b_1) <= log_delta else (middle, enough)
    return enough


def _log_deviation(n: int, p: float, b: float) -> float:
    """Ln P(|X / n - p| >= b); counts at the edge are taken to be outside, the safe side."""
    low, high = math.floor(n * (p - b) + 1e-9), math.ceil(n * (p + b) - 1e-9)
    logs = [-math.inf]
    if low >= 0:
        logs.append(log_lower_tail(low, n, p))
    if high <= n:
        logs.append(log_upper_tail(high, n, p))
    top = max(logs)
    return top if top == -math.inf else top + math.log(sum(math.exp(value - top) for value in logs))


def rows_for_looks(looks: int, *, ranges: Sequence[float], reliability: float) -> int | None:
    """Rows with which none of so many models, fixed before, shows a gap above b_1 by noise alone.

        n = ceil( ln(2 looks / delta) / (2 b_1^2) )

    Models that are tuned on the set's answers can flatter more; that is what the meter is for.

    Example:
        >>> rows_for_looks(1, ranges=(0.05,), reliability=0.99), rows_for_looks(500, ranges=(0.05,), reliability=0.99)
        (1060, 2303)
    """
    if validation_minimum(ranges=ranges, reliability=reliability) is None:
        return None
    log_side = math.log1p(-reliability) - _LN2 - math.log(max(1, looks))
    return hoeffding_sample_size(tolerance=ranges[0], log_level=log_side)


def validation_report(use: ValidationUse, config: MeterConfig) -> ValidationReport:
    """In which state a validation set is, and what to do about it.

        fresh      no model was chosen by it
        used       models were, and it still carries them
        worn       the last signal is above range 1, or it was looked at more often than its size carries
        replaced   another one has taken its place

    Args:
        use: What is known of it.
        config: Ranges and reliability of the study's meter.

    Returns:
        State, sizes and advice.

    Raises:
        ConfigError: If a signal does not exist.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> config = MeterConfig(ranges=(0.05, 0.3), reliability=0.99)
        >>> report = validation_report(ValidationUse(rows=2_000, looks={"trials": 500}), config)
        >>> report.state.value, report.add_rows
        ('worn', 303)
    """
    signals = len(config.ranges) + 1
    for signal in use.signals:
        require(1 <= signal <= signals, "signals", signal, f"from 1 to {signals}")
    minimum = validation_minimum(ranges=config.ranges, reliability=config.reliability)
    needed = rows_for_looks(use.total, ranges=config.ranges, reliability=config.reliability)
    missing = max(0, (needed or 0) - use.rows)
    last = use.signals[-1] if use.signals else 1
    state = _state(use, last, missing)
    return ValidationReport(state, minimum, needed, missing, _advice(state, use, last, signals, minimum, missing))


def _state(use: ValidationUse, last: int, missing: int) -> ValidationState:
    if use.replaced:
        return ValidationState.REPLACED
    if last > 1 or (missing > 0 and use.total > 0):
        return ValidationState.WORN
    return ValidationState.USED if use.total > 0 else ValidationState.FRESH


def _advice(
    state: ValidationState, use: ValidationUse, last: int, signals: int, minimum: int | None, missing: int
) -> str:
    if state is ValidationState.REPLACED:
        return "use the set that has taken its place"
    if last == signals:
        rows = max(minimum or 0, use.rows)
        return f"replace it by at least {rows:,} new rows: it has lost its value for choosing models"
    if last > 1:
        rows = max(missing, use.rows)
        return f"add {rows:,} or more new rows, so that new ones outweigh those tuned on, or stop tuning on it"
    if missing > 0:
        why = f"carry {use.total:,} looks" if use.total > 1 else "keep its own noise in range 1"
        return f"add {missing:,} rows: {use.rows:,} are too few to {why}"
    return "go on"

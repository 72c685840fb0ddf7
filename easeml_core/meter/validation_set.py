"""The open validation set is used up too: how large it must be, in which state it is, and what to add.

Nothing here is needed for the meter's guarantee. It says whether a signal above range 1 can come from the set's own
sampling noise, and how much choosing among many models can flatter on a set of this size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import require
from easeml_core.errors import counted
from easeml_core.meter.planner import validation_minimum
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail
from easeml_core.stats.binomial_sizes import log_largest_deviation
from easeml_core.stats.hoeffding import hoeffding_sample_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

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
        inherited_looks: Those of the earlier sets that it goes on with (``heritage``); each >= 0.
        inherited_signals: Signals of these, oldest first; they count until it has one of its own.
    """

    rows: int
    looks: Mapping[str, int] = field(default_factory=dict)
    signals: Sequence[int] = ()
    replaced: bool = False
    inherited_looks: Mapping[str, int] = field(default_factory=dict)
    inherited_signals: Sequence[int] = ()

    def __post_init__(self) -> None:
        require(self.rows >= 1, "rows", self.rows, ">= 1")
        for name, looks in (("looks", self.looks), ("inherited_looks", self.inherited_looks)):
            for kind, count in looks.items():
                require(kind in LOOKS, name, kind, "one of " + ", ".join(LOOKS))
                require(count >= 0, f"{name}[{kind}]", count, ">= 0")

    @property
    def total(self) -> int:
        """All looks together, inherited ones too."""
        return sum(self.looks.values()) + sum(self.inherited_looks.values())

    @property
    def all_signals(self) -> list[int]:
        """Inherited signals, then its own; oldest first."""
        return [*self.inherited_signals, *self.signals]


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

        n_val = least n so that P(|X / m - p| >= b_1) <= delta for every m >= n,   X ~ Bin(m, p)

    The tails rise and fall with m, since counts are whole: a smaller number may meet the level while a larger one does
    not. From ``validation_minimum`` on all do, by Hoeffding's inequality; below it the largest one that does not is
    looked for.

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
        247
    """
    most = validation_minimum(ranges=ranges, reliability=reliability)
    if most is None:
        return None
    b_1, log_delta = ranges[0], math.log1p(-reliability)
    if error_rate is None:
        return _last_above(log_delta, lambda few, many: _log_worst_deviation(few, many, b_1), 1, most - 1) + 1
    require(0 <= error_rate <= 1, "error_rate", error_rate, "in [0, 1], or None for the worst")
    return _last_above(log_delta, lambda few, many: _log_deviation(few, many, error_rate, b_1), 1, most - 1) + 1


def _last_above(log_level: float, log_bound: Callable[[int, int], float], few: int, many: int) -> int:
    """The largest n in few..many whose chance is above the level; few - 1 where there is none.

    ``log_bound(few, many)`` is no smaller than ln of the chance of any n in between, and it is that where both are
    the same n. So whole stretches are passed over, and what remains is exact.
    """
    if few > many or log_bound(few, many) <= log_level:
        return few - 1
    if few == many:
        return few
    middle = (few + many) // 2
    found = _last_above(log_level, log_bound, middle + 1, many)
    return found if found > middle else _last_above(log_level, log_bound, few, middle)


def _log_deviation(few: int, many: int, p: float, b: float) -> float:
    """An upper bound of ln P(|X / n - p| >= b) for all n in few..many, and its value where these are the same.

    More draws have more successes: no n has a larger upper tail than ``many`` draws above the threshold of ``few``, nor
    a larger lower tail than ``few`` draws below that of ``many``. Counts at the edge are taken to be outside.
    """
    low, high = math.floor(many * (p - b) + 1e-9), math.ceil(few * (p + b) - 1e-9)
    lower = -math.inf if low < 0 else log_lower_tail(min(low, few), few, p)
    upper = -math.inf if high > many else log_upper_tail(high, many, p)
    return min(0.0, float(np.logaddexp(lower, upper)))


def _log_worst_deviation(few: int, many: int, b: float) -> float:
    """The same for the worst p.

    With n <= many examples of which n (p + b) are wrong, at least few (p + b) of ``many`` are: a share that is off by
    b - (1 + b) (many - few) / many or more, to either side alike.
    """
    if few == many:
        return log_largest_deviation(many, b, sides=2)
    tolerance = b - (1 + b) * (many - few) / many - 1e-12
    return log_largest_deviation(many, tolerance, sides=2) if tolerance > 0 else 0.0


def heritage(parts: Sequence[Set[bytes]]) -> list[int]:
    """Whose looks and signals the last validation set goes on with: one new row makes no worn set fresh.

    Where rows that were in an earlier set outnumber those that were in none, it is that set of which it keeps the most
    rows (the newest of several), and whose that one goes on with.

    Args:
        parts: What tells the rows of each set apart, oldest first; at least one.

    Returns:
        Places in ``parts``, oldest first; none of the last.

    Example:
        >>> heritage([{b"1", b"2"}, {b"1", b"2", b"3"}]), heritage([{b"1", b"2"}, {b"1", b"2", b"3", b"4"}])
        ([0], [])
    """
    found: list[int] = []
    at = len(parts) - 1
    while True:
        kept = len(parts[at] & set[bytes]().union(*parts[:at]))
        if kept <= len(parts[at]) - kept:
            return found[::-1]
        at = _nearest(parts[at], parts[:at])
        found.append(at)


def _nearest(rows: Set[bytes], earlier: Sequence[Set[bytes]]) -> int:
    """The place of the set that has most of these rows, the newest of several."""
    return max(range(len(earlier)), key=lambda i: (len(rows & earlier[i]), i))


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

    Inherited looks and signals count like its own.

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
    for signal in use.all_signals:
        require(1 <= signal <= signals, "signals", signal, f"from 1 to {signals}")
    minimum = validation_minimum(ranges=config.ranges, reliability=config.reliability)
    needed = rows_for_looks(use.total, ranges=config.ranges, reliability=config.reliability)
    missing = max(0, (needed or 0) - use.rows)
    last = use.all_signals[-1] if use.all_signals else 1
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
        return f"replace it by at least {counted(rows, 'new row')}: it has lost its value for choosing models"
    if last > 1:
        rows = max(missing, use.rows)
        return f"add {rows:,} or more new rows, so that new ones outweigh those tuned on, or stop tuning on it"
    if missing > 0:
        why = f"carry {use.total:,} looks" if use.total > 1 else "keep its own noise in range 1"
        return f"add {counted(missing, 'row')}: {use.rows:,} are too few to {why}"
    return "go on"

"""The open validation set is used up too: how large it must be, in which state it is, and what to add.

Nothing here is needed for the meter's guarantee. It says whether a signal above range 1 can come from the set's own
sampling noise, and how much choosing among many models can flatter on a set of this size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.errors import counted
from easeml_core.meter.planner import validation_minimum
from easeml_core.settings.config import require
from easeml_core.stats.concentration import hoeffding_sample_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from easeml_core.settings.config import MeterConfig

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
        inherited_signals: Signals of these, oldest first; they count until this set has a signal.
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


def heritage(parts: Sequence[Set[bytes]]) -> list[int]:
    """Whose looks and signals the last validation set goes on with: one new row makes no worn set fresh.

    Where rows that were in an earlier set outnumber those that were in none, it is that set of which it keeps the most
    rows (the newest of several), and whose that one goes on with.

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
        >>> from easeml_core.settings.config import MeterConfig
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

"""How many labels a new meter set needs, by every method, for the planning page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import evolve

from easeml_core.config import MeterConfig, require
from easeml_core.meter.alternatives import alternatives_to
from easeml_core.meter.planner import plan_config

if TYPE_CHECKING:
    from easeml_core.meter.planner import MeterPlan

MOST_STEPS = 1024
MOST_RANGES = 12
MOST_TEAMS = 32
LEAST_TOLERANCE = 0.005
"""Within these limits a plan takes under a second; `easeml meter plan` has none."""

ERROR_RATE = 0.2
"""Error rate that exact tails are planned with; a wrong guess costs answers, never the guarantee."""

AMBIGUOUS = 5
"""Ambiguous answers that are planned for."""


@dataclass(frozen=True, slots=True)
class MeterPlans:
    """The plans for the same ranges, tolerance, reliability and submissions.

    Attributes:
        best: Path-adaptive with exact tails: what a new set is planned with.
        others: All other methods by Hoeffding's inequality, cheapest first.
        validation_minimum: Validation rows with which sampling noise stays in range 1; None where no number is enough.
        warnings: About the ranges.
    """

    best: MeterPlan
    others: tuple[MeterPlan, ...]
    validation_minimum: int | None
    warnings: tuple[str, ...]


@lru_cache(maxsize=256)
def meter_plans(
    *,
    ranges: tuple[float, ...],
    tolerance: float,
    reliability: float,
    steps: int,
    teams: int = 1,
    ambiguous: int = AMBIGUOUS,
    error_rate: float = ERROR_RATE,
) -> MeterPlans:
    """Return plans by every method; cached, since a page requests the same ones repeatedly.

    Args:
        ranges: Inner boundaries, at most ``MOST_RANGES``.
        tolerance: epsilon, at least ``LEAST_TOLERANCE``.
        reliability: 1 - delta.
        steps: Submissions, 1 to ``MOST_STEPS``.
        teams: That share nothing, 1 to ``MOST_TEAMS``.
        ambiguous: Ambiguous answers planned for, 0 to 100.
        error_rate: That exact tails are planned with.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> plans = meter_plans(ranges=(0.05, 0.13, 0.25), tolerance=0.02, reliability=0.99, steps=32)
        >>> plans.best.labels < min(plan.labels for plan in plans.others if plan.method == "path-adaptive")
        True
    """
    require(1 <= len(ranges) <= MOST_RANGES, "ranges", ranges, f"1 to {MOST_RANGES} boundaries")
    require(tolerance >= LEAST_TOLERANCE, "tolerance", tolerance, f"at least {LEAST_TOLERANCE}")
    require(0.5 <= reliability <= 0.999_999, "reliability", reliability, "from 0.5 to 0.999999")
    require(1 <= steps <= MOST_STEPS, "steps", steps, f"from 1 to {MOST_STEPS:,}")
    require(1 <= teams <= MOST_TEAMS, "teams", teams, f"from 1 to {MOST_TEAMS}")
    require(0 <= ambiguous <= 100, "ambiguous", ambiguous, "from 0 to 100")
    rough = MeterConfig(
        ranges=ranges,
        tolerance=tolerance,
        reliability=reliability,
        steps=steps,
        teams=teams,
        ambiguous=ambiguous,
        tail="hoeffding",
    )
    best = plan_config(evolve(rough, tail="clopper-pearson"), error_rate=error_rate)
    others = (plan_config(rough), *alternatives_to(rough))
    return MeterPlans(best, tuple(sorted(others, key=_size)), best.validation_minimum, best.warnings)


def _size(plan: MeterPlan) -> tuple[int, str]:
    return plan.labels, plan.method

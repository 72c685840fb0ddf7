"""What the other methods would need for the same ranges, tolerance, reliability and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from easeml_core.config import METER_METHODS, MeterConfig, require
from easeml_core.errors import ConfigError
from easeml_core.meter.planner import plan_config
from easeml_core.meter.tree_size import METHODS

if TYPE_CHECKING:
    from easeml_core.meter.planner import MeterPlan

_PLAN_ONLY = tuple(method for method in METHODS if method not in METER_METHODS)


def alternatives_to(
    config: MeterConfig,
    *,
    error_rate: float | None = None,
    method: str | None = None,
    teams: int | None = None,
    tolerances: tuple[float, ...] = (),
) -> tuple[MeterPlan, ...]:
    """Plans by all other methods that are possible with these settings, cheapest first.

    An automaton and tolerances by the worst signal are compared only where they are given; teams where there are
    several. A method that promises less, or is sound on a condition only, says so in its warnings.

    Args:
        config: The settings.
        error_rate: As of ``plan_meter``.
        method: The method that is left out; None for that of the settings.
        teams: K of ``multitenant``, where the settings' method has no teams; None for that of the settings.
        tolerances: Those of ``nonuniform``, where the settings' method has none.

    Returns:
        The plans.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> plans = alternatives_to(MeterConfig(ranges=(0.1, 0.3), tolerance=0.05))
        >>> [plan.method for plan in plans][:2]
        ['first-change', 'non-adaptive']
    """
    chosen, plans = method or config.method, []
    for other in METHODS:
        if other == chosen:
            continue
        try:
            plans.append(
                plan_config(
                    _settings(config, other, teams or config.teams, tolerances),
                    error_rate=error_rate,
                    method=other if other in _PLAN_ONLY else None,
                )
            )
        except ConfigError:
            continue  # not possible with these ranges, sides or ends
    return tuple(sorted(plans, key=lambda plan: (plan.labels, plan.method)))


def _settings(config: MeterConfig, method: str, teams: int, tolerances: tuple[float, ...]) -> MeterConfig:
    """The settings with another method, and without what belongs to the present one only."""
    require(method != "multitenant" or teams > 1, "teams", teams, "2 or more to be compared")
    changes: dict[str, Any] = {"method": "full" if method in _PLAN_ONLY else method}
    changes["teams"] = teams if method == "multitenant" else 1
    changes["tolerances"] = tolerances if method == "nonuniform" else ()
    if method != "automaton":
        changes["automaton"] = ()
    if method != "path-adaptive":
        changes["developer"] = "any"
    return evolve(config, **changes)

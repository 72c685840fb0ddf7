"""The plan of a meter's sealed set as one value, with what the other methods would need for the same settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attrs import evolve

from easeml_core.errors import ConfigError, counted
from easeml_core.formats.display import Bar, data_frame, draw_bars, html_page, html_table
from easeml_core.formats.encoding import row_of
from easeml_core.meter.planner import MeterAlternative, MeterPlanReport, plan_config, plan_meter
from easeml_core.meter.sentences import promise
from easeml_core.meter.tree_size import METHODS
from easeml_core.settings.config import METER_METHODS, MeterConfig, numbers_of, require, whole_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import JsonObject
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

    Example:
        >>> from easeml_core.settings.config import MeterConfig
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


@dataclass(frozen=True, slots=True, repr=False)
class PlannedMeter:
    """The plan of a sealed set for a meter, and what the other methods would need.

    Attributes:
        config: The settings; of a method that can only be planned with, those of ``full``.
        found: The size of the set.
        alternatives: The plans of the other methods that are possible with the settings, cheapest first.
    """

    config: MeterConfig
    found: MeterPlan
    alternatives: tuple[MeterPlan, ...]

    @property
    def labels(self) -> int:
        """Labelled examples of the sealed set."""
        return self.found.labels

    @property
    def method(self) -> str:
        """How the developer's reactions are paid for."""
        return self.found.method

    @property
    def promise(self) -> str:
        """What holds for all submissions at once with the reliability."""
        return promise(self.config)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about choices that are allowed and cost something."""
        return self.found.warnings

    def plot(self) -> Any:
        """Return a matplotlib Figure of the labels that each method needs.

        Raises:
            InvalidInputError: matplotlib is not installed.
        """
        return draw_meter_plan(self.found, self.alternatives, self.config.to_json())

    def report(self) -> MeterPlanReport:
        """Return what ``easeml meter plan --json`` prints."""
        alternatives = [MeterAlternative(other.method, other.labels) for other in self.alternatives]
        return MeterPlanReport(**row_of(self.found), promise=self.promise, alternatives=alternatives)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: the plan in the first row, another method in each other.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        return data_frame(self._rows())

    def _rows(self) -> list[dict[str, object]]:
        plans = (self.found, *self.alternatives)
        return [{"method": p.method, "labels": p.labels, "tail": p.tail, "asked": p is self.found} for p in plans]

    def __str__(self) -> str:
        found, config = self.found, self.config
        return (
            f"{counted(found.labels, 'labelled example')} ({found.method}, {found.tail}), for "
            f"{counted(config.steps, 'submission')} at tolerance {config.tolerance:g} and reliability "
            f"{config.reliability:g}"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def _repr_html_(self) -> str:
        columns = {"Method": "method", "Labels": "labels", "Inequality": "tail"}
        return html_page(html_table(str(self), columns, self._rows()), notes=self.warnings)


def plan(
    *,
    ranges: Sequence[float] = (0.1, 0.3, 0.5, 0.7),
    tolerance: float = 0.05,
    reliability: float = 0.99,
    steps: int = 32,
    method: str = "path-adaptive",
    ambiguous: int = 5,
    deviations: int = 3,
    teams: int = 1,
    tolerances: Sequence[float] = (),
    tail: str = "hoeffding",
    one_sided: bool = False,
    open_ended: bool = False,
    developer: str = "any",
    error_rate: float | None = None,
) -> PlannedMeter:
    """Plan how many examples the sealed set of an overfitting meter needs; ``easeml meter plan`` calls this function.

    Args:
        ranges: Inner boundaries of the overfitting ranges, rising, between -1 and 1: one signal more than boundaries.
        tolerance: epsilon, in (0, 1): how far a boundary may be off.
        reliability: 1 - delta, in (0, 1), for all submissions together.
        steps: Submissions that the set must serve, >= 1.
        method: How the developer's reactions are paid for, such as ``path-adaptive``, ``full`` or ``ratchet``.
        ambiguous: With ``path-adaptive``: ambiguous answers that are planned for, >= 0.
        deviations: With ``deviations``: how many the set survives, >= 0.
        teams: Teams that exchange nothing, with ``multitenant`` and ``path-adaptive``, >= 1.
        tolerances: With ``nonuniform``: one for each worst signal so far.
        tail: ``hoeffding`` or ``clopper-pearson``.
        one_sided: Promise only that the gap is not above the answered range.
        open_ended: The set serves more than ``steps`` submissions while it lasts.
        developer: With ``path-adaptive``: ``any``, ``kt`` or ``sticky``, the histories that are made cheap.
        error_rate: With ``clopper-pearson``: the error rate in [0, 1] that is planned with; None for the worst.

    Returns:
        The plan; a table in Jupyter.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> import easeml_core as easeml
        >>> meter = easeml.meter.plan(tolerance=0.05, steps=100, ranges=[0.02, 0.1])
        >>> meter.labels, meter.warnings[-1][:49]
        (2674, 'the first boundary 0.02 is below 2 tolerances (0.')
    """
    settings: dict[str, Any] = {
        "ranges": numbers_of("ranges", ranges),
        "tolerance": tolerance,
        "reliability": reliability,
        "steps": whole_of("steps", steps),
        "ambiguous": ambiguous,
        "deviations": deviations,
        # Other methods have no teams and one tolerance; what is given is for the comparison with those that do.
        "teams": teams if method in ("path-adaptive", "multitenant") else 1,
        "tolerances": numbers_of("tolerances", tolerances) if method == "nonuniform" else (),
        "tail": tail,
        "one_sided": one_sided,
        "open_ended": open_ended,
        "developer": developer,
    }
    found = plan_meter(**settings, method=method, error_rate=error_rate)
    config = MeterConfig(**settings, method=method if method in METER_METHODS else "full")
    others = alternatives_to(config, error_rate=error_rate, method=method, teams=teams, tolerances=tuple(tolerances))
    return PlannedMeter(config, found, others)


def draw_meter_plan(found: MeterPlan, others: Sequence[MeterPlan], settings: JsonObject) -> Any:
    """Bars of the labels that each method needs for the same promise."""
    bars = [Bar(plan.method, plan.labels, chosen=plan is found) for plan in (found, *others)]
    least = min(others, key=lambda plan: plan.labels, default=found)
    finding = (
        f"{found.method} needs {counted(found.labels, 'labelled example')} for "
        f"{counted(settings['steps'], 'submission')}"
    )
    if least.labels < found.labels:
        finding += f"; the fewest are {least.labels:,} by {least.method}, on other terms"
    ranges = ", ".join(f"{boundary:g}" for boundary in settings["ranges"])
    how = (
        f"boundaries {ranges}; tolerance {settings['tolerance']:g}, reliability {settings['reliability']:g}, "
        f"{found.tail}; blue: as asked; grey: other methods, whose promises differ (docs/meter.md)"
    )
    return draw_bars(bars, unit="labelled examples of the sealed set", finding=finding, how=how)

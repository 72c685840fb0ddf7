"""Compare policies on known results, as one value: for notebooks, and for ``easeml simulate``.

Efficiency against fairness is the same protocol over the values of one knob of the default policy: the guard and the
fairness weight of the objective both move compute from the largest improvement to the tenant with the least. Their cost
is the total regret, their benefit the regret of the worst-off tenant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.display import data_frame, html_page, html_table
from easeml_core.formats.encoding import to_json
from easeml_core.selection.simulate.protocol import Contestant, Protocol, parse_contestants
from easeml_core.selection.simulate.repeats import run_repeats
from easeml_core.selection.simulate.report import FairnessCurve, FairnessPoint, Simulation
from easeml_core.selection.simulate.tables import parse_synthetic, read_table, results_table
from easeml_core.settings.config import OBJECTIVES, SelectionConfig, number_of, numbers_of, require, whole_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from easeml_core.entities import JsonObject
    from easeml_core.selection.simulate.report import SimulatedPolicy
    from easeml_core.selection.simulate.tables import Table

KNOBS: Mapping[str, tuple[float, ...]] = {
    "guard": (0.0, 0.05, 0.1, 0.2, 0.4, 0.8),
    "objective": (0.0, 0.25, 0.5, 0.75, 1.0),
}
"""Settings of the default policy that trade efficiency for fairness, and the values that are tried."""


@dataclass(frozen=True, slots=True)
class Point:
    """A policy at one value of a knob.

    Attributes:
        policy: Name of the policy, without the knob.
        value: Value of the knob; None for a policy that does not have it.
        contestant: The policy at that value, named ``POLICY:KNOB=VALUE``.
    """

    policy: str
    value: float | None
    contestant: Contestant


def points_of(contestants: Sequence[Contestant], knob: str) -> tuple[Point, ...]:
    """The default policies among the contestants at every value of a knob, the others as they are, for comparison."""
    points: list[Point] = []
    for contestant in contestants:
        if contestant.config is None or contestant.config.policy != "default":
            points.append(Point(contestant.name, None, contestant))
            continue
        if f"{knob}=" in contestant.name:
            message = f"policy {contestant.name!r} says its {knob} already; leave it out, the curve tries all values"
            raise InvalidInputError(message)
        for value in KNOBS[knob]:
            name = f"{contestant.name}{',' if ':' in contestant.name else ':'}{knob}={value:g}"
            config = evolve(contestant.config, **cast("Any", {knob: value}))
            points.append(Point(contestant.name, value, Contestant(name, config)))
    if all(point.value is None for point in points):
        message = f"a curve over the {knob} needs the policy default, which alone has one; add --policy default"
        raise InvalidInputError(message)
    return tuple(points)


def fairness_curve(knob: str, points: Sequence[Point], policies: Mapping[str, SimulatedPolicy]) -> FairnessCurve:
    """Return the curve, from the policies' figures in a report."""
    return FairnessCurve(knob, tuple(_point(point, policies[point.contestant.name]) for point in points))


def _point(point: Point, figures: SimulatedPolicy) -> FairnessPoint:
    return FairnessPoint(
        policy=point.policy,
        value=point.value,
        total_regret=figures.regret.total,
        worst_tenant_regret=figures.regret.worst_tenant,
        p10_tenant_regret=figures.regret.p10_tenant,
        first_model_worst_percent=figures.first_model_percent.worst,
        percent_to_loss={loss: needed.median for loss, needed in figures.percent_to_loss.items()},
    )


@dataclass(frozen=True, slots=True)
class SimulationSource:
    """The origin of the results, and the settings that all policies share; a path is None for values of Python."""

    quality: Path | None
    cost: Path | None
    synthetic: str | None
    tenants: int
    candidates: int
    beta_scale: float
    guard: float
    objective: float


@dataclass(frozen=True, slots=True)
class ComparedPolicies:
    """A finished simulation; a table in Jupyter.

    Attributes:
        source: Where the results come from.
        simulation: All repeats of all policies.
        policies: The figures of each policy, by its name.
        curve: Efficiency against fairness; None where it was not asked for.
    """

    source: SimulationSource
    simulation: Simulation = field(repr=False)
    policies: Mapping[str, SimulatedPolicy]
    curve: FairnessCurve | None

    def plot(self) -> Any:
        """Return a matplotlib Figure: loss over cost, or efficiency against fairness where a curve was asked for.

        Raises:
            InvalidInputError: matplotlib is not installed.
        """
        from easeml_core.selection.simulate.plot import draw_fairness, draw_losses

        return draw_losses(self.simulation) if self.curve is None else draw_fairness(self.curve)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each policy; costs are in percent of the cost of everything.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        return data_frame(self._rows())

    def to_json(self) -> JsonObject:
        """Return what ``easeml simulate --json`` prints."""
        protocol = {**to_json(self.source), **to_json(self.simulation.protocol)}
        curve = {"curve": self.curve} if self.curve else {}
        found: JsonObject = to_json({"protocol": protocol, "policies": self.policies, **curve})
        return found

    def _rows(self) -> list[dict[str, object]]:
        return [
            {
                "policy": name,
                **{f"percent_to_{loss}": price.median for loss, price in figures.percent_to_loss.items()},
                "total_regret": figures.regret.total,
                "worst_tenant_regret": figures.regret.worst_tenant,
                "p10_tenant_regret": figures.regret.p10_tenant,
                "first_model_worst_percent": figures.first_model_percent.worst,
                "decision_microseconds": figures.decision_microseconds,
            }
            for name, figures in self.policies.items()
        ]

    def _repr_html_(self) -> str:
        protocol, rows = self.simulation.protocol, self._rows()
        title = (
            f"{counted(protocol.repeats, 'repeat')}, {protocol.served} of {self.source.tenants} tenants served, "
            f"{counted(self.source.candidates, 'candidate')}, costs {protocol.cost_mode}"
        )
        columns = {name.replace("_", " "): name for name in rows[0] if name != "decision_microseconds"}
        note = "percent to LOSS: median cost, in percent of the cost of everything, to an average loss of LOSS"
        return html_page(html_table(title, columns, rows), notes=[note])


def simulate(
    quality: Any = None,
    cost: Any = None,
    *,
    synthetic: str | None = None,
    policies: Sequence[str] = ("default", "hybrid", "roundrobin"),
    served: int = 10,
    repeats: int = 30,
    seed: int = 0,
    history: int | None = None,
    devices: int = 1,
    drive: str = "stream",
    cost_mode: str | None = None,
    beta_scale: float = 1.0,
    guard: float = 0.1,
    objective: str | float = "mean",
    losses: Sequence[float] = (0.05, 0.02, 0.01),
    until: float = 100.0,
    curve: str | None = None,
    processes: int | None = 1,
    on_done: Callable[[int, int], None] | None = None,
) -> ComparedPolicies:
    """Compare policies on a table of known results; needs no database and trains nothing.

    In each repeat some tenants are drawn and served, the others are history. ``easeml simulate`` calls the same
    function.

    Args:
        quality: Qualities in [0, 1], tenants by candidates, NaN where a candidate is not available: a DataFrame (names
            from index and columns), an array, a list of lists, or the path of a CSV file.
        cost: Costs > 0 of the same form; DataFrames are matched by their names. None: all are 1.
        synthetic: ``SYN(SIGMA,ALPHA)``, a generated table of 200 x 100, instead of the two.
        policies: Names such as ``default``, ``hybrid``, ``hybrid@0.05``, ``default:guard=0``, ``order:FILE``, or
            ``module:function`` of a policy of yours (``selection.Seen``).
        served: Tenants served in each repeat, >= 1.
        repeats: Draws of tenants, 1 to 10,000.
        seed: The same seed gives the same figures, measured times apart.
        history: How many of the other tenants are history; None for all.
        devices: Devices; cost is wall time x devices.
        drive: ``stream``, or ``rounds`` where a free device waits for the others.
        cost_mode: ``known``, ``predicted`` or ``unit``; None for ``known`` where there are costs, else ``unit``.
        beta_scale: Multiplier of beta, > 0, where a policy names none.
        guard: Share of the compute for the least-served tenant, in [0, 1).
        objective: ``mean``, ``maxmin``, or a dial between them in [0, 1].
        losses: Average losses whose price is wanted, each in [0, 1].
        until: Percent of the cost at which a repeat ends, in (0, 100].
        curve: ``guard`` or ``objective``: run the default policy over the values of this setting.
        processes: Processes that share the repeats; None for one on each core. With several, a script must guard its
            top level with ``if __name__ == "__main__":``.
        on_done: Called after each repeat of each policy with how many are done, of how many.

    Returns:
        The comparison.

    Raises:
        InvalidInputError: A table cannot be read, a value is no quality or cost, or a policy is unknown.
        ShapeError: ``cost`` has another shape than ``quality``.
        ConfigError: A setting is outside its range.

    Example:
        >>> import easeml_core as easeml
        >>> quality = [[0.9, 0.5, 0.7], [0.6, 0.8, 0.7], [0.7, 0.6, 0.9]]
        >>> result = easeml.simulate(quality, policies=["default", "roundrobin"], served=2, repeats=3)
        >>> result.to_frame()["policy"].tolist()
        ['default', 'roundrobin']
    """
    protocol = Protocol(
        served=whole_of("served", served),
        repeats=whole_of("repeats", repeats),
        seed=whole_of("seed", seed),
        history=None if history is None else whole_of("history", history),
        devices=whole_of("devices", devices),
        cost_mode=cost_mode or ("unit" if cost is None and synthetic is None else "known"),
        until=number_of("until", until),
        losses=numbers_of("losses", losses),
        drive=drive,
    )
    require(curve is None or curve in KNOBS, "curve", curve, f"one of {', '.join(KNOBS)}, or left out")
    base = SelectionConfig(beta_multiplier=beta_scale, guard=guard, objective=_dial(objective))
    table = _table(quality, cost, synthetic, seed)
    if isinstance(policies, str):
        policies = (policies,)
    contestants = parse_contestants(policies, base=base, candidates=table.candidates)
    points = points_of(contestants, curve) if curve else ()
    if curve:
        contestants = tuple(point.contestant for point in points)
    protocol.check(table)
    outcomes = run_repeats(table, protocol, contestants, processes=processes, on_done=on_done or _ignored)
    simulation = Simulation(protocol, outcomes)
    figures = simulation.figures()
    return ComparedPolicies(
        source=SimulationSource(
            quality=_path(quality),
            cost=_path(cost),
            synthetic=synthetic,
            tenants=len(table.tenants),
            candidates=len(table.candidates),
            beta_scale=base.beta_multiplier,
            guard=base.guard,
            objective=base.objective,
        ),
        simulation=simulation,
        policies=figures,
        curve=fairness_curve(curve, points, figures) if curve else None,
    )


def _ignored(done: int, of: int) -> None:
    """Report no progress."""


def _dial(objective: str | float) -> float:
    if not isinstance(objective, str):
        return objective
    if objective not in OBJECTIVES:
        message = f"objective must be {', '.join(OBJECTIVES)} or a number in [0, 1], got {objective!r}"
        raise InvalidInputError(message)
    return OBJECTIVES[objective]


def _table(quality: Any, cost: Any, synthetic: str | None, seed: int) -> Table:
    if (quality is None) == (synthetic is None):
        message = 'give either quality (with cost, or all costs are 1) or a synthetic table such as "SYN(0.01,1.0)"'
        raise InvalidInputError(message)
    if synthetic is not None:
        if cost is not None:
            message = "a synthetic table has its costs; leave out cost, or set the cost mode unit for costs of 1"
            raise InvalidInputError(message)
        return parse_synthetic(synthetic).table(seed)
    path, priced = _path(quality), _path(cost)
    if path is None:
        return results_table(quality, cost)
    if cost is not None and priced is None:
        message = f"quality is the file {path}, so cost must be a file too, got {type(cost).__name__}"
        raise InvalidInputError(message)
    return read_table(path, priced)


def _path(value: Any) -> Path | None:
    return Path(value) if isinstance(value, str | Path) else None

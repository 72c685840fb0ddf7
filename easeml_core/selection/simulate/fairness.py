"""Efficiency against fairness: the same protocol over the values of one knob of the default policy.

The guard and the fairness weight of the objective both move compute from the largest improvement to the tenant with the
least. Their cost is the total regret, their benefit the regret of the worst-off tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from easeml_core.errors import InvalidInputError
from easeml_core.selection.simulate.contestants import Contestant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.simulate.report import SimulatedPolicy

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
    """The default policies among the contestants at every value of a knob, the others as they are, for comparison.

    Args:
        contestants: Policies, among them one that has the knob.
        knob: A key of KNOBS.

    Raises:
        InvalidInputError: If no contestant has the knob, or one says its value already.
    """
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


@dataclass(frozen=True, slots=True)
class FairnessPoint:
    """What one policy at one value of the knob costs, and how its tenants fare; medians over the repeats.

    Attributes:
        policy: Name of the policy, without the knob.
        value: Value of the knob; None for a policy that does not have it.
        total_regret: Loss x cost, of all tenants.
        worst_tenant_regret: Of the worst-off tenant.
        p10_tenant_regret: A tenth of the tenants have more.
        first_model_worst_percent: Cost, in percent, at which the last tenant of all repeats got its first model.
        percent_to_loss: Cost to each average loss, in percent.
    """

    policy: str
    value: float | None
    total_regret: float
    worst_tenant_regret: float
    p10_tenant_regret: float
    first_model_worst_percent: float
    percent_to_loss: dict[str, float]


@dataclass(frozen=True, slots=True)
class FairnessCurve:
    """Efficiency against fairness over the values of one knob, a key of KNOBS."""

    knob: str
    points: tuple[FairnessPoint, ...]


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

"""The outcomes of a simulation, and the figures of every policy: loss and its price, regret, first models, fairness.

The *loss* of a tenant is f* - b: the best quality there is for it, less the best one observed, 0 before its first
result. The loss of a moment is the average over the tenants. Costs are percent of the cost of everything the tenants
have, and with M devices wall time x M.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), sections 2 and 5, for loss and regret; Yu et al. (AISTATS 2019) for
several devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.simulate.protocol import Protocol
    from easeml_core.selection.simulate.run import Course
    from easeml_core.selection.surrogate.posterior import Array

ROUNDING = 1e-10
"""A loss counts as reached when it is at most this much above: losses are sums of differences."""
PERCENTAGES = (1.0, 10.0, 50.0)
"""Percentages of the cost at which worst losses and shares of the compute are reported."""
NEVER = 100.0
"""What a loss that was never reached, or a model that never came, counts as, in percent of the cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A loss as a step function of the cost spent.

    Attributes:
        percent: Cost at each step, from 0, never falling, shape ``(n_steps,)``.
        loss: Loss from that cost on, never rising, same shape.
    """

    percent: Array
    loss: Array

    def percent_to(self, loss: float) -> float:
        """The cost at which the loss is first at or below a level, in percent; infinite when it never is.

        Example:
            >>> Curve(np.array([0.0, 50.0]), np.array([0.9, 0.1])).percent_to(0.2)
            50.0
        """
        reached = self.loss <= loss + ROUNDING
        return float(self.percent[np.argmax(reached)]) if reached.any() else float("inf")

    def at(self, percent: Array) -> Array:
        """The loss when so much is spent; shape of the argument."""
        return np.asarray(self.loss[np.searchsorted(self.percent, percent, side="right") - 1])


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The average of curves, exact: a step wherever one of them has a step.

    Example:
        >>> one = Curve(np.array([0.0, 10.0]), np.array([0.8, 0.0]))
        >>> two = Curve(np.array([0.0, 20.0]), np.array([0.4, 0.2]))
        >>> mean_curve([one, two]).loss.round(9).tolist()
        [0.6, 0.2, 0.1]
    """
    percent = np.concatenate([curve.percent[1:] for curve in curves])
    drops = np.concatenate([-np.diff(curve.loss) for curve in curves]) / len(curves)
    order = np.argsort(percent, kind="stable")
    start = float(np.mean([curve.loss[0] for curve in curves]))
    return _falling(start, percent[order], drops[order])


def _falling(start: float, percent: Array, drops: Array) -> Curve:
    """The curve that starts at a loss and falls by so much at each cost."""
    loss = np.maximum(start - np.concatenate([[0.0], np.cumsum(drops)]), 0.0)
    return Curve(np.concatenate([[0.0], percent]), loss)


def drops(course: Course) -> Array:
    """By how much each trial lowered the loss of its tenant, >= 0, shape ``(n_trials,)``; 0 after the horizon."""
    fallen = np.zeros(len(course.tenant))
    best = np.zeros(len(course.optimum))
    finished = course.finished
    for i, (tenant, quality) in enumerate(zip(course.tenant.tolist(), course.quality.tolist(), strict=True)):
        if finished[i] and quality > best[tenant]:
            fallen[i], best[tenant] = quality - best[tenant], quality
    return fallen


def loss_curve(course: Course) -> Curve:
    """Average loss over the tenants, a step at the end of every trial within the horizon."""
    finished = course.finished
    fallen = drops(course)[finished] / len(course.optimum)
    return _falling(float(course.optimum.mean()), course.percent(course.end[finished]), fallen)


def regret(course: Course) -> Array:
    """Cost-weighted ease.ml regret of each tenant up to the horizon, shape ``(n_tenants,)``, in quality x cost.

        R_i = sum over t of  C_t ( f*_i - b_i,t ),   C_t the cost since the result before t

    b_i,t is the best quality after result t of any tenant, so all tenants pay for every trial. With M
    devices C_t is M times the time since the result before, results of one moment counting as one, and what is spent
    after the last result counts at the loss after it.
    """
    finished = course.finished
    end, tenant, fallen = course.end[finished], course.tenant[finished], drops(course)[finished]
    moments, moment = np.unique(end, return_inverse=True)
    before = np.concatenate([[0.0], moments[:-1]])[moment]
    saved = np.bincount(tenant, weights=fallen * (course.horizon - before), minlength=len(course.optimum))
    return np.maximum(course.devices * (course.optimum * course.horizon - saved), 0.0)


def first_models(course: Course) -> Array:
    """Return the cost spent until each tenant's first result, by all tenants, in percent, shape ``(n_tenants,)``.

    Infinite for a tenant that got none before the horizon.
    """
    first = np.full(len(course.optimum), np.inf)
    finished = course.finished
    np.minimum.at(first, course.tenant[finished], course.percent(course.end[finished]))
    return first


def compute_shares(course: Course, percent: float) -> Array:
    """Share of the compute of each tenant over its share of the weights, shape ``(n_tenants,)``; 1 is its due."""
    moment = percent / 100 * course.total_cost / course.devices
    worked = np.clip(np.minimum(course.end, moment) - course.start, 0.0, None)
    used = np.bincount(course.tenant, weights=worked, minlength=len(course.optimum))
    due = course.weight / course.weight.sum()
    with np.errstate(invalid="ignore"):
        return np.asarray(used / used.sum() / due)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What is kept of one repeat of one policy.

    Attributes:
        curve: Average loss over the cost.
        regret: Of each tenant, shape ``(n_tenants,)``.
        first_model: Percent of the cost at each tenant's first result, same shape; infinite for none.
        share_range: Least and greatest share of compute over weight at each of PERCENTAGES, shape ``(n, 2)``.
        decision_seconds: Measured; the only thing here that two runs do not have in common.
    """

    curve: Curve
    regret: Array
    first_model: Array
    share_range: Array
    decision_seconds: float


@dataclass(frozen=True, slots=True)
class LossPrice:
    """Cost to an average loss, in percent of the cost of everything; a repeat that never gets there counts as 100.

    Attributes:
        median: Over the repeats.
        p10: 10th percentile.
        p90: 90th percentile.
        mean_curve: Of the mean of all repeats' curves.
        reached: Share of the repeats that got there, in [0, 1].
    """

    median: float
    p10: float
    p90: float
    mean_curve: float
    reached: float


@dataclass(frozen=True, slots=True)
class Regret:
    """Regret in quality x cost, medians over the repeats: the sum over the tenants, and that of single tenants.

    ``worst_tenant`` is the largest of a tenant. A tenth of the tenants fare worse than ``p10_tenant``: the
    90th percentile of the regrets.
    """

    total: float
    worst_tenant: float
    p10_tenant: float


@dataclass(frozen=True, slots=True)
class FirstModel:
    """Cost spent, in percent, when a tenant gets its first model, over all tenants of all repeats; never is 100."""

    median: float
    worst: float


@dataclass(frozen=True, slots=True)
class ComputeShare:
    """Share of the compute over share of the weights; 1 is what is due. Of the tenants served least and most."""

    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class SimulatedPolicy:
    """Figures of one policy.

    Attributes:
        percent_to_loss: By loss.
        worst_loss: The largest loss over the repeats, by percent of the cost spent; None beyond the end.
        regret: Of the tenants.
        first_model_percent: Cost at which a tenant gets its first model.
        compute_share: By percent of the cost spent; None beyond the end.
        decision_microseconds: Measured time of a decision, median over the repeats.
    """

    percent_to_loss: dict[str, LossPrice]
    worst_loss: dict[str, float | None]
    regret: Regret
    first_model_percent: FirstModel
    compute_share: dict[str, ComputeShare | None]
    decision_microseconds: float


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
    """Efficiency against fairness over the values of one knob, a key of ``compare.KNOBS``."""

    knob: str
    points: tuple[FairnessPoint, ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    """A finished simulation.

    Attributes:
        protocol: How it was done.
        outcomes: All repeats, by policy.
    """

    protocol: Protocol
    outcomes: Mapping[str, Sequence[Outcome]]

    def figures(self) -> dict[str, SimulatedPolicy]:
        """Return the figures of every policy; only ``decision_microseconds`` is measured."""
        return {name: self._figures(outcomes) for name, outcomes in self.outcomes.items()}

    def _figures(self, outcomes: Sequence[Outcome]) -> SimulatedPolicy:
        curves = [outcome.curve for outcome in outcomes]
        return SimulatedPolicy(
            percent_to_loss=percent_to_loss(curves, self.protocol.losses),
            worst_loss=worst_loss(curves, until=self.protocol.until),
            regret=regret_figures([outcome.regret for outcome in outcomes]),
            first_model_percent=first_model_figures([outcome.first_model for outcome in outcomes]),
            compute_share=share_figures([o.share_range for o in outcomes], until=self.protocol.until),
            decision_microseconds=float(np.median([1e6 * outcome.decision_seconds for outcome in outcomes])),
        )


def percent_to_loss(curves: Sequence[Curve], losses: Sequence[float]) -> dict[str, LossPrice]:
    """Return the cost to each loss."""
    figures: dict[str, LossPrice] = {}
    together = mean_curve(curves)
    for loss in losses:
        needed = np.array([curve.percent_to(loss) for curve in curves])
        counted = np.minimum(needed, NEVER)
        figures[f"{loss:g}"] = LossPrice(
            median=float(np.median(counted)),
            p10=float(np.quantile(counted, 0.1)),
            p90=float(np.quantile(counted, 0.9)),
            mean_curve=min(together.percent_to(loss), NEVER),
            reached=float(np.isfinite(needed).mean()),
        )
    return figures


def worst_loss(curves: Sequence[Curve], *, until: float) -> dict[str, float | None]:
    """The largest loss over the repeats when so many percent of the cost are spent; None beyond the end."""
    return {
        f"{percent:g}": float(max(curve.at(np.array(percent)) for curve in curves)) if percent <= until else None
        for percent in PERCENTAGES
    }


def regret_figures(regrets: Sequence[Array]) -> Regret:
    """Return the regret of all tenants together and of single tenants; one array of tenants for each repeat."""
    return Regret(
        total=float(np.median([regret.sum() for regret in regrets])),
        worst_tenant=float(np.median([regret.max() for regret in regrets])),
        p10_tenant=float(np.median([np.quantile(regret, 0.9) for regret in regrets])),
    )


def first_model_figures(percents: Sequence[Array]) -> FirstModel:
    """Return when tenants get their first model; one array of tenants for each repeat, in percent of the cost."""
    counted = np.minimum(np.concatenate(percents), NEVER)
    return FirstModel(float(np.median(counted)), float(counted.max()))


def share_figures(ranges: Sequence[Array], *, until: float) -> dict[str, ComputeShare | None]:
    """Return the share of the compute over the share of the weights when so much is spent, medians over the repeats."""
    least, greatest = np.moveaxis(np.median(np.array(ranges), axis=0), -1, 0)
    return {
        f"{percent:g}": ComputeShare(float(low), float(high)) if percent <= until and not math.isnan(low) else None
        for percent, low, high in zip(PERCENTAGES, least, greatest, strict=True)
    }

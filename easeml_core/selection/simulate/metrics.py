"""What came of a repeat, in figures: loss, price of a loss, regret, first models, shares of the compute.

The *loss* of a tenant is f* - b: the best quality there is for it, less the best one observed, 0 before its first
result. The loss of a moment is the average over the tenants. Costs are percent of the cost of everything the tenants
have, and with M devices wall time x M.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), sections 2 and 5, for loss and regret; Yu et al. (AISTATS 2019) for
several devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.simulate.run import Course
    from easeml_core.selection.surrogate.posterior import Array

ROUNDING = 1e-10
"""A loss counts as reached when it is at most this much above: losses are sums of differences."""
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
    """Share of the compute of each tenant over its share of the weights, shape ``(n_tenants,)``; 1 is its due.

    Args:
        course: The repeat.
        percent: When: the compute is what devices worked until then, finished or not. NaN when they have not.
    """
    moment = percent / 100 * course.total_cost / course.devices
    worked = np.clip(np.minimum(course.end, moment) - course.start, 0.0, None)
    used = np.bincount(course.tenant, weights=worked, minlength=len(course.optimum))
    due = course.weight / course.weight.sum()
    with np.errstate(invalid="ignore"):
        return np.asarray(used / used.sum() / due)

"""The outcomes of a simulation, and the figures of every policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.simulate.metrics import NEVER, mean_curve
from easeml_core.selection.simulate.repeats import PERCENTAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.simulate.metrics import Curve
    from easeml_core.selection.simulate.protocol import Protocol
    from easeml_core.selection.simulate.repeats import Outcome
    from easeml_core.selection.surrogate.posterior import Array


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

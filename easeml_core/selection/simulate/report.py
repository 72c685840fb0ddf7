"""The outcomes of a simulation as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
class Report:
    """A finished simulation.

    Attributes:
        protocol: How it was done.
        source: Where the table came from, and the settings that all policies share; joins the protocol in JSON.
        outcomes: All repeats, by policy.
    """

    protocol: Protocol
    source: Mapping[str, Any]
    outcomes: Mapping[str, Sequence[Outcome]]

    def to_json(self) -> dict[str, Any]:
        """Protocol and figures as plain JSON; measured times are under ``decision_microseconds`` alone."""
        return {
            "protocol": {**self.source, **self.protocol.to_json()},
            "policies": {name: self._figures(outcomes) for name, outcomes in self.outcomes.items()},
        }

    def _figures(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        curves = [outcome.curve for outcome in outcomes]
        return {
            "percent_to_loss": percent_to_loss(curves, self.protocol.losses),
            "worst_loss": worst_loss(curves, until=self.protocol.until),
            "regret": regret_figures([outcome.regret for outcome in outcomes]),
            "first_model_percent": first_model_figures([outcome.first_model for outcome in outcomes]),
            "compute_share": share_figures([o.share_range for o in outcomes], until=self.protocol.until),
            "decision_microseconds": float(np.median([1e6 * outcome.decision_seconds for outcome in outcomes])),
        }


def percent_to_loss(curves: Sequence[Curve], losses: Sequence[float]) -> dict[str, dict[str, float]]:
    """Cost to each loss: median, 10th and 90th percentile of the repeats, of the mean curve, share that got there.

    A repeat that never gets there counts as 100 percent.
    """
    figures: dict[str, dict[str, float]] = {}
    together = mean_curve(curves)
    for loss in losses:
        needed = np.array([curve.percent_to(loss) for curve in curves])
        counted = np.minimum(needed, NEVER)
        figures[f"{loss:g}"] = {
            "median": float(np.median(counted)),
            "p10": float(np.quantile(counted, 0.1)),
            "p90": float(np.quantile(counted, 0.9)),
            "mean_curve": min(together.percent_to(loss), NEVER),
            "reached": float(np.isfinite(needed).mean()),
        }
    return figures


def worst_loss(curves: Sequence[Curve], *, until: float) -> dict[str, float | None]:
    """The largest loss over the repeats when so many percent of the cost are spent; None beyond the end."""
    return {
        f"{percent:g}": float(max(curve.at(np.array(percent)) for curve in curves)) if percent <= until else None
        for percent in PERCENTAGES
    }


def regret_figures(regrets: Sequence[Array]) -> dict[str, float]:
    """Regret in quality x cost, medians over the repeats: the sum over the tenants, and that of single tenants.

    ``worst_tenant`` is the largest of a tenant. A tenth of the tenants fare worse than ``p10_tenant``: the
    90th percentile of the regrets.
    """
    return {
        "total": float(np.median([regret.sum() for regret in regrets])),
        "worst_tenant": float(np.median([regret.max() for regret in regrets])),
        "p10_tenant": float(np.median([np.quantile(regret, 0.9) for regret in regrets])),
    }


def first_model_figures(percents: Sequence[Array]) -> dict[str, float]:
    """Cost spent when a tenant gets its first model: median and worst over all tenants of all repeats; never is 100."""
    counted = np.minimum(np.concatenate(percents), NEVER)
    return {"median": float(np.median(counted)), "worst": float(counted.max())}


def share_figures(ranges: Sequence[Array], *, until: float) -> dict[str, dict[str, float] | None]:
    """Share of the compute over share of the weights when so much is spent, medians over the repeats.

    ``least`` is that of the tenant served least, ``greatest`` of the one served most; 1 is what is due.
    """
    least, greatest = np.moveaxis(np.median(np.array(ranges), axis=0), -1, 0)
    return {
        f"{percent:g}": {"least": float(low), "greatest": float(high)}
        if percent <= until and not math.isnan(low)
        else None
        for percent, low, high in zip(PERCENTAGES, least, greatest, strict=True)
    }

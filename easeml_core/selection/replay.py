"""What a policy would have done on a table of known results: a run of the scheduler without any training.

One device, costs known, as in the experiments of Ease.ml (PVLDB 11(5), 2018), section 5: the accuracy loss averaged
over tenants, against the share of the total cost that was spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import ShapeError
from easeml_core.selection.policies import choose
from easeml_core.selection.prior import PSEUDO_STUDIES, learn_prior
from easeml_core.selection.problem import Arms, Past
from easeml_core.selection.standings import Standing, Standings

if TYPE_CHECKING:
    from easeml_core.config import SelectionConfig
    from easeml_core.selection.posterior import Array


@dataclass(frozen=True, slots=True, eq=False)
class LossCurve:
    """Average loss as a step function of the cost spent.

    Attributes:
        share: Cost spent over the cost of everything, rising from 0, shape ``(n_runs + 1,)``.
        loss: Mean over tenants of (best quality there is) - (best observed), never rising, same shape.
        schedule: (tenant, arm) of each run, arms counted as the columns of the table.
    """

    share: Array
    loss: Array
    schedule: tuple[tuple[int, int], ...]

    def share_to_reach(self, loss: float) -> float:
        """The share of the total cost at which the loss is first at or below a level; infinite if it never is.

        Example:
            >>> LossCurve(np.array([0.0, 0.5]), np.array([0.9, 0.1]), ((0, 0),)).share_to_reach(0.2)
            0.5
        """
        reached = np.flatnonzero(self.loss <= loss + 1e-12)
        return float(self.share[reached[0]]) if len(reached) else float("inf")


def replay(
    quality: Array,
    cost: Array,
    *,
    past_quality: Array,
    config: SelectionConfig,
    cost_aware: bool = True,
    kernel: str = "empirical",
    pseudo_studies: float = PSEUDO_STUDIES,
    until: float = 1.0,
) -> LossCurve:
    """Run a policy on a table until everything has run, or a share of the total cost is spent.

    Args:
        quality: In [0, 1], NaN where the candidate is not available, shape ``(n_tenants, n_candidates)``.
        cost: > 0, same shape; all 1 for the study in which costs do not count.
        past_quality: Rows of the training tenants, shape ``(n_past, n_candidates)``, NaN where unknown.
        config: Policy and its settings; the seed is that of the ``random`` policy.
        cost_aware: Whether the policy knows the costs; else it believes that all are equal.
        kernel: One of ``prior.KERNELS``.
        pseudo_studies: Shrinkage of the prior, see ``prior.learn_prior``; 0.01 for the paper's plain covariance.
        until: Share of the total cost, in (0, 1].

    Returns:
        The loss after each run; before its first run a tenant's best is 0.

    Raises:
        ShapeError: If the tables do not fit.
    """
    if cost.shape != quality.shape:
        name = "cost"
        raise ShapeError(name, cost.shape, f"{quality.shape}, that of the qualities")
    history = [_past(row) for row in past_quality]
    columns = [np.flatnonzero(~np.isnan(row)) for row in quality]
    tenants = [
        Standing(
            Arms(i, 1.0, tuple(map(str, available))),
            prior=learn_prior([str(k) for k in available], history, kernel=kernel, pseudo_studies=pseudo_studies),
            costs=cost[i, available] if cost_aware else np.ones(len(available)),
            costs_known=True,
            noise_variance=config.noise_variance,
        )
        for i, available in enumerate(columns)
    ]
    return _play(Standings(tenants, config=config), quality, cost, config=config, columns=columns, until=until)


def _past(row: Array) -> Past:
    """A row of the training table as the results of a past study."""
    known = np.flatnonzero(~np.isnan(row))
    return Past(-1, tuple(map(str, known)), tuple(row[known].tolist()), (None,) * len(known))


def _play(
    standings: Standings,
    quality: Array,
    cost: Array,
    *,
    config: SelectionConfig,
    columns: list[np.ndarray],
    until: float,
) -> LossCurve:
    """The loop of the simulation: choose, look up, record."""
    gaps = np.nanmax(quality, axis=1)
    total = float(np.sum(cost[~np.isnan(quality)]))
    spent, shares, losses, schedule = 0.0, [0.0], [float(gaps.mean())], []
    while shares[-1] < until:
        choice = choose(standings, config.policy, seed=(config.seed % 2**64, standings.given))
        if choice is None:
            break
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        column = int(columns[tenant][arm])
        standings.record(tenant, arm, float(quality[tenant, column]), float(cost[tenant, column]))
        spent += float(cost[tenant, column])
        gaps[tenant] = min(gaps[tenant], np.nanmax(quality[tenant]) - quality[tenant, column])
        shares.append(spent / total)
        losses.append(float(gaps.mean()))
        schedule.append((tenant, column))
    return LossCurve(np.array(shares), np.array(losses), tuple(schedule))

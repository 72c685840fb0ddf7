"""GP-UCB: upper confidence bounds over finitely many arms, and how wide they are.

``beta`` stands *inside* the square root, as in the literature: B(k) = mean(k) + sqrt(beta / c_k) std(k). The run index
in beta is the tenant's own, counted from 1, never the global round.

Sources: Srinivas et al. (ICML 2010), Theorem 1, for finitely many arms; Li et al., Ease.ml (PVLDB 11(5), 2018),
sections 3 and 4, for costs and for many tenants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from easeml_core.selection.surrogate.posterior import Array


def beta_of_theorem(*, arms: int, run: int, delta: float) -> float:
    """The beta of the regret bounds: with probability 1 - delta all bounds hold in all rounds.

        beta_t = 2 ln( pi^2 K t^2 / (6 delta) )

    The union bound runs over K arms and all t, since the sum over t of 6 / (pi t)^2 is 1.

    Args:
        arms: K >= 1.
        run: t >= 1.
        delta: Probability that the bounds fail, in (0, 1).

    Raises:
        InvalidInputError: If an argument is outside its range.

    Example:
        >>> round(beta_of_theorem(arms=8, run=1, delta=0.1), 4)
        9.7595
    """
    _check(arms=arms, run=run, delta=delta)
    return 2 * math.log(math.pi**2 * arms * run**2 / (6 * delta))


def beta_multi_tenant(*, tenants: int, arms: int, run: int, delta: float, max_cost: float) -> float:
    """The beta that makes the bounds of all tenants hold together.

        beta^i_s = 2 c* ln( pi^2 n K* s^2 / (6 delta) )

    Args:
        tenants: n >= 1.
        arms: K* >= 1, the largest number of candidates of any tenant.
        run: s >= 1, the index of the tenant's own run.
        delta: Probability that any bound fails, in (0, 1).
        max_cost: c* > 0, *one* maximum over all tenants; one for each tenant would change whom GREEDY serves.

    Raises:
        InvalidInputError: If an argument is outside its range.

    Example:
        >>> round(beta_multi_tenant(tenants=10, arms=8, run=1, delta=0.1, max_cost=2.0), 4)
        28.7292
    """
    if not (tenants >= 1 and 0 < max_cost < math.inf):
        message = f"beta needs tenants >= 1 and a finite max_cost > 0, got {tenants!r} and {max_cost!r}"
        raise InvalidInputError(message)
    return max_cost * beta_of_theorem(arms=tenants * arms, run=run, delta=delta)


def _check(*, arms: int, run: int, delta: float) -> None:
    if not (arms >= 1 and run >= 1 and 0 < delta < 1):
        message = f"beta needs arms >= 1, run >= 1 and delta in (0, 1), got {arms!r}, {run!r} and {delta!r}"
        raise InvalidInputError(message)


def ucb(mean: Array, std: Array, *, beta: float, costs: Array | float = 1.0) -> Array:
    """Upper confidence bound of each arm.

        B(k) = mean(k) + sqrt( beta / c_k ) std(k)

    Args:
        mean: Shape ``(n_arms,)``.
        std: Shape ``(n_arms,)``, >= 0.
        beta: >= 0.
        costs: c_k > 0, shape ``(n_arms,)``; 1 for the rule that ignores costs.

    Returns:
        Shape ``(n_arms,)``. Only the ratios c* / c_k matter: the unit of the costs does not.

    Example:
        >>> ucb(np.array([0.5]), np.array([0.1]), beta=8.0, costs=np.array([2.0])).tolist()
        [0.7]
    """
    return np.asarray(mean + np.sqrt(beta / costs) * std, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class BetaSchedule:
    """What the bounds of all tenants have in common; called with the index of a tenant's own run.

    Attributes:
        tenants: n.
        arms: K*.
        max_cost: c*.
        delta: Probability that any bound fails.
        multiplier: Factor > 0 on the theoretical beta; 1 keeps the promise of the theorem, 0.01 to 0.1 often learns
            faster on many candidates.
    """

    tenants: int
    arms: int
    max_cost: float
    delta: float
    multiplier: float = 1.0

    def __call__(self, run: int) -> float:
        """beta^i_s times the multiplier, for the s-th run of a tenant."""
        beta = beta_multi_tenant(
            tenants=self.tenants, arms=self.arms, run=run, delta=self.delta, max_cost=self.max_cost
        )
        return self.multiplier * beta

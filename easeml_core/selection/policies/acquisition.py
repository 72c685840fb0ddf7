"""What an arm is worth to a policy, and the best two arms of every tenant.

An acquisition is a number for each arm of a tenant; the larger, the sooner it runs. Which tenant runs is the question
of ``tenant_policies.py``, unless the policy compares all pairs (``published.py``).
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.policies.expected_improvement import expected_improvement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.selection.limits import Mask
    from easeml_core.selection.policies.standings import Standings
    from easeml_core.selection.surrogate.posterior import Array

MARGIN = 1e-4
"""epsilon of the earlier expected improvement per second: what an improvement must exceed to count."""


def upper_bound(standings: Standings, tenant: int) -> Array:
    """GP-UCB: the upper confidence bound, cost-aware unless the configuration says otherwise."""
    return standings.tenants[tenant].bounds(standings.beta)


def ei_rate(standings: Standings, tenant: int) -> Array:
    """MM-GP-EI: improvement expected per second, summed over all who share the candidate.

        EIrate(k) = sum over i that share k of w_i EI_i(k) / c(k)

    Source: Yu et al. (AISTATS 2019); weights are ours, theirs are 1.
    """
    standing = standings.tenants[tenant]
    gain = standing.arms.weight * standing.improvement()
    for arm, places in standings.shared.groups(tenant):
        others = [(standings.tenants[i], k) for i, k in places if (i, k) != (tenant, arm)]
        gain[arm] += sum(other.arms.weight * other.improvement()[k] for other, k in others)
    return np.asarray(gain / standing.prices)


def ei_per_second(standings: Standings, tenant: int) -> Array:
    """The earlier single-tenant rule: improvement by more than MARGIN, per second."""
    standing = standings.tenants[tenant]
    posterior = standing.posterior
    gain = expected_improvement(posterior.mean, posterior.std, best=standing.best + MARGIN)
    return np.asarray(gain / standing.prices)


def cheapness(standings: Standings, tenant: int) -> Array:
    """Minus the cost."""
    return -standings.tenants[tenant].prices


def place_in_order(standings: Standings, tenant: int) -> Array:
    """Minus the place in the configured order, from 0; candidates it does not name follow in their own order."""
    order = standings.config.order
    places = {name: place for place, name in enumerate(order)}
    names = standings.tenants[tenant].arms.names
    return -np.array([places.get(name, len(order) + k) for k, name in enumerate(names)], dtype=np.float64)


ACQUISITIONS: Mapping[str, Callable[[Standings, int], Array]] = MappingProxyType(
    {
        "upper-bound": upper_bound,
        "ei-rate": ei_rate,
        "ei-per-second": ei_per_second,
        "cheapness": cheapness,
        "order": place_in_order,
    }
)


class Ranking:
    """The two best arms of every tenant that may run, under one acquisition.

    Attributes:
        arms: Shape ``(n, 2)``, best first, ties in order; -1 where there is none.
        values: Their acquisition, shape ``(n, 2)``; -inf where there is none.
        stale: Tenants whose rows are out of date.
    """

    def __init__(self, tenants: int) -> None:
        self.arms = np.full((tenants, 2), -1)
        self.values = np.full((tenants, 2), -math.inf)
        self.stale = set(range(tenants))

    def put(self, tenant: int, values: Array, left: Mask) -> None:
        """Replace the row of a tenant by the best two of the arms that are left."""
        masked = np.where(left, values, -math.inf)
        for place in (0, 1):
            arm = int(masked.argmax())
            value = float(masked[arm])
            self.arms[tenant, place] = arm if value > -math.inf else -1
            self.values[tenant, place] = value
            masked[arm] = -math.inf

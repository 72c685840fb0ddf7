"""The clairvoyant: a scheduler that has seen the table. No policy can know what it knows; it shows what is possible.

It is greedy, not optimal: the cheapest way to one given loss is a knapsack, and the solution for one loss is not the
beginning of that for the next. On published tables it spends up to twice what the exact knapsack of one loss does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.scheduler import Choice, Forecast, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.surrogate.posterior import Array

NOTHING = -np.inf


class ClairvoyantScheduler:
    """The pair with the largest true improvement per cost; see ``scheduler.Scheduler`` for the methods.

        argmax over (i, k) of  ( f^i(k) - b^i )+ / c^i(k)

    Trials under way count as finished: their outcome is known. Ends as soon as every tenant has its best candidate.
    Ties go to the lowest tenant, then to the lowest arm.
    """

    def __init__(self, quality: Sequence[Array], cost: Sequence[Array]) -> None:
        """Start before any trial.

        Args:
            quality: True quality of each arm of each tenant, shapes ``(n_arms,)``.
            cost: True cost > 0 of each, same shapes.
        """
        self._quality, self._cost = tuple(quality), tuple(cost)
        self._best = np.zeros(len(self._quality))
        self._arm = np.zeros(len(self._quality), dtype=np.intp)
        self._rate = np.full(len(self._quality), NOTHING)
        for tenant in range(len(self._quality)):
            self._rescore(tenant)

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way: it is as good as finished."""
        self._best[tenant] = max(self._best[tenant], self._quality[tenant][arm])
        self._rescore(tenant)

    def record(
        self, tenant: int, arm: int, quality: float | None, cost_seconds: float, *, device: str | None = None
    ) -> None:
        """Take in a finished trial, started before or not."""
        self.start(tenant, arm)

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The next trial, or None when every tenant has its best candidate."""
        first = int(np.argmax(self._rate))
        if self._rate[first] == NOTHING:
            return None
        rest = self._rate.copy()
        rest[first] = NOTHING
        second = int(np.argmax(rest))
        return Choice(self._pair(first), self._pair(second) if rest[second] > NOTHING else None)

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What will come of one trial, without any doubt."""
        quality, best = float(self._quality[tenant][arm]), float(self._best[tenant])
        return Forecast(quality, 0.0, float(self._cost[tenant][arm]), True, max(0.0, quality - best), best)

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """What each arm of a tenant will gain per second; -inf where it gains nothing."""
        gains = self._quality[tenant] - self._best[tenant]
        return np.where(gains > 0, gains / self._cost[tenant], -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """Infinite, since it asks for no price; -inf where nothing gains."""
        return math.inf if (self.worth(tenant) > -math.inf).any() else -math.inf

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Nothing: the simulator knows no deadline."""

    def _pair(self, tenant: int) -> Pair:
        return Pair(tenant, int(self._arm[tenant]), float(self._rate[tenant]))

    def _rescore(self, tenant: int) -> None:
        """The best arm of a tenant, as long as one improves on what it has."""
        gains = self._quality[tenant] - self._best[tenant]
        rates = np.where(gains > 0, gains / self._cost[tenant], NOTHING)
        self._arm[tenant] = np.argmax(rates)
        self._rate[tenant] = rates[self._arm[tenant]]

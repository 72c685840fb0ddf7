"""The guard of the ``default`` policy: a lower bound of every tenant's share of the compute.

Every second of compute entitles each tenant that is not finished to a part of it,

    entitlement_i = g w_i sum over seconds c of  c / W

with g the guard's share, w_i the tenant's weight and W the weights of the unfinished. What was spent before a tenant
came, or came back, entitles it to nothing, nor is it charged with it. A tenant whose entitlement is ahead of what it
was charged by at least the cost of the trial it would get, gets that trial; of several, the one that is furthest ahead.

*Bound.* Let n tenants of equal weight always have something to run, and no trial cost more than c_max. Then no tenant
is ever behind g times its equal share by more than

    c_max + (1 + 1/n) g / (1 - g) c_max

at the default g = .1 one longest trial and a ninth of another. Where the trial that a tenant waits for changes only
when it has been served (one device, known costs, no shared candidates), the first c_max is the cost of that trial.

Proof. Only starts matter, since a trial under way is charged in full. Let B_i be how far i is behind, and s the last
decision up to now at which no tenant was owed a trial: there B_i <= c_max for all i. Let C be the compute that was
started from then on: one trial of any tenant, and owed ones. A tenant that is owed a trial is behind by its whole
cost, so it is not ahead afterwards, and what i was owed since s is at most B_i(s) plus what i became entitled to.
Over all tenants, C - c_max <= n c_max + g C, hence C <= (n + 1) c_max / (1 - g). Since s, B_i has grown by at most g
C / n.

When tenants finish, the others' shares grow: then n + 1 counts those at s and the dividing n those now. A tenant that
its own limits keep waiting is owed, later, what has built up. Where costs are predicted, the errors of the
predictions come on top until a trial has ended.

Everything is counted from finished trials in the order of their end, and from those under way in the order of their
start, so a restarted scheduler owes what it owed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.surrogate.posterior import Array

_SURELY = 1 - 1e-9
"""Far beyond the rounding of a few sums: a rate below this part of what is due is below it in exact numbers, too."""


class Guard:
    """Who is owed a trial.

    Attributes:
        share: g in [0, 1).
        charged: Seconds of each tenant's finished trials since it came, shape ``(n_tenants,)``.
    """

    def __init__(self, share: float, weights: Array, joined: Sequence[int] = ()) -> None:
        """Start with no compute spent.

        Args:
            share: g in [0, 1).
            weights: w_i > 0, shape ``(n_tenants,)``.
            joined: How many trials had ended before each tenant came; or empty, when all were there from the beginning.
        """
        self.share = share
        self.charged = np.zeros(len(weights))
        self._weights = weights
        self._to_come = sorted((ended, tenant) for tenant, ended in enumerate(joined) if ended > 0)[::-1]
        self._away = np.zeros(len(weights), dtype=bool)
        self._away[[tenant for _, tenant in self._to_come]] = True
        self._finished = np.zeros(len(weights), dtype=bool)
        self._unfinished = self._weight_of_unfinished()
        self._ended = 0
        self._rate = 0.0
        self._joined_at = np.zeros(len(weights))
        self._under_way: dict[tuple[int, int], float] = {}
        self._committed = np.zeros(len(weights))

    def start(self, tenant: int, arm: int, cost: float) -> None:
        """Charge a trial under way with its predicted cost."""
        self._under_way[tenant, arm] = cost
        self._commit(tenant)

    def under_way(self, tenant: int) -> list[int]:
        """The tenant's trials under way."""
        return [arm for i, arm in self._under_way if i == tenant] if self._committed[tenant] else []

    def finish(self, tenant: int, arm: int, cost: float) -> Sequence[int]:
        """Charge a finished trial with its measured cost; return the tenants that have come with its end."""
        self._rate += self.share * cost / self._unfinished
        self.charged[tenant] += cost
        if self._under_way.pop((tenant, arm), None) is not None:
            self._commit(tenant)
        self._ended += 1
        if not (self._to_come and self._to_come[-1][0] <= self._ended):
            return ()
        came = []
        while self._to_come and self._to_come[-1][0] <= self._ended:
            came.append(self._to_come.pop()[1])
            self._join(came[-1])
        return came

    def _join(self, tenant: int) -> None:
        """From here on the tenant is entitled, and charged."""
        self._away[tenant] = False
        self._joined_at[tenant], self.charged[tenant] = self._rate, 0.0
        self._unfinished = self._weight_of_unfinished()

    def retire(self, tenant: int) -> None:
        """A tenant has no arm left that has not run: it is owed nothing any more."""
        if not self._finished[tenant]:
            self._finished[tenant] = True
            self._unfinished = self._weight_of_unfinished()

    def _weight_of_unfinished(self) -> float:
        """Return W; that of all tenants if none is unfinished, so that W > 0."""
        there = self._weights[~(self._finished | self._away)]
        return float(there.sum()) if len(there) else float(self._weights.sum())

    def owed(self, waiting: NDArray[np.bool_], next_cost: Array) -> int | None:
        """The tenant that is served out of turn, or None.

        Args:
            waiting: Which tenants have something that may run, shape ``(n_tenants,)``.
            next_cost: Seconds of the trial that each would get, same shape.
        """
        if self.share == 0:
            return None
        ahead = self._rate_now() - self._joined_at
        ahead *= self._weights
        ahead -= self.charged
        ahead -= self._committed
        ahead -= next_cost
        np.putmask(ahead, ~waiting, -np.inf)
        tenant = int(ahead.argmax())
        return tenant if ahead[tenant] > 0 else None

    def due(self, tenant: int, next_cost: float) -> float:
        """Return the rate from which on the tenant is owed a trial of so many seconds, but for rounding.

        It changes with a start, an end and the coming of the tenant only, and with the costs that are predicted for it.
        """
        taken = self.charged.item(tenant) + self._committed.item(tenant) + next_cost
        return self._joined_at.item(tenant) + taken / self._weights.item(tenant)

    def owes_nothing(self, least_due: float) -> bool:
        """Whether ``owed`` is None, by the least ``due`` of the tenants that wait; False where it is too close."""
        return self.share == 0 or self._rate_now() < least_due * _SURELY

    def _rate_now(self) -> float:
        """Return what a weight of 1 was entitled to since the beginning, trials under way included."""
        return self._rate + self.share * sum(self._under_way.values()) / self._unfinished

    def _commit(self, tenant: int) -> None:
        self._committed[tenant] = sum(cost for (i, _), cost in self._under_way.items() if i == tenant)

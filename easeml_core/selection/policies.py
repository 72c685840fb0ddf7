"""What runs next: a tenant policy followed by GP-UCB, or MM-GP-EI over all pairs of tenant and candidate.

``mm-gp-ei`` is the published rule, ``default`` the same rule with the devices spread over the tenants: they differ
only while trials are under way.

One function, ``choose``, serves the live scheduler (``suggest.py``) and the simulator (``replay.py``).

Sources: Li et al., Ease.ml (PVLDB 11(5), 2018); Yu et al. (AISTATS 2019) for MM-GP-EI.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.expected_improvement import ei_rate
from easeml_core.selection.tenant_policies import TENANT_POLICIES, WAITING, turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.selection.standings import Standing, Standings

    Preference = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A tenant's index, one of its arms, and what trying it is worth to the policy."""

    tenant: int
    arm: int
    acquisition: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs next, and what would have if it were not there."""

    chosen: Pair
    runner_up: Pair | None


def choose(standings: Standings, policy: str, *, seed: tuple[int, ...] = (0,)) -> Choice | None:
    """The next trial, or None when nothing is left to run.

    Args:
        standings: Where the tenants stand.
        policy: One of ``config.POLICIES``.
        seed: Whole numbers >= 0; the same seed and standings give the same choice.
    """
    if policy == "default":
        return spread_mm_gp_ei(standings)
    if policy == "mm-gp-ei":
        return mm_gp_ei(standings)
    tenant = TENANT_POLICIES[policy](standings, np.random.default_rng(seed))
    return None if tenant is None else gp_ucb(standings, tenant)


def gp_ucb(standings: Standings, tenant: int) -> Choice:
    """The arm of a tenant with the largest cost-aware upper confidence bound, of those that are left.

    Ties go to the lowest arm. The runner-up is the tenant's second best arm.
    """
    standing = standings.tenants[tenant]
    bounds = standing.bounds(standings.beta)
    pairs = [Pair(tenant, arm, float(bounds[arm])) for arm in _two_best(standing, bounds)]
    return Choice(pairs[0], pairs[1] if len(pairs) > 1 else None)


def mm_gp_ei(standings: Standings) -> Choice | None:
    """The pair of tenant and candidate that promises most improvement per second, over everything not yet started.

        argmax over (i, k) of  w_i EI_i(k) / c_i(k)

    Only finished runs shape the posterior; runs under way are excluded and their outcome is not imagined. A tenant's
    best so far is 0 before its first observation, which makes its first run worth its whole expected quality; so that
    this counts once, and not again while the answer is under way, every tenant gets one run first and a tenant that
    waits for its first answer stands back. Ties go to the tenant with fewest runs, then in order.
    """

    def preference(pair: Pair) -> Preference:
        standing = standings.tenants[pair.tenant]
        given, its_turn = _given(standing), turn(standing)
        return its_turn, given if its_turn == WAITING else 0, -pair.acquisition, given, pair.tenant, pair.arm

    return _best(standings, preference)


def spread_mm_gp_ei(standings: Standings) -> Choice | None:
    """MM-GP-EI among the tenants with fewest trials under way: the ``default`` policy.

    Departs from Yu et al. (AISTATS 2019), who compare all pairs at once. A trial under way changes no posterior, so
    the tenant that was best stays best until an answer comes; where the prior has all untried arms of a tenant tie, a
    whole batch would go to it. Yet the second trial of a batch is worth less than its EI says: the first may already
    bring the improvement. Hence fewest under way first, among those EI per second. With one device nothing is under
    way when it is asked, and the rule is that of ``mm_gp_ei``. First runs and the tenants that wait for them as there.
    """

    def preference(pair: Pair) -> Preference:
        standing = standings.tenants[pair.tenant]
        under_way = int(standing.under_way.sum())
        return turn(standing), under_way, -pair.acquisition, _given(standing), pair.tenant, pair.arm

    return _best(standings, preference)


def _given(standing: Standing) -> int:
    """Trials that a tenant has had, those under way included."""
    return standing.runs + int(standing.under_way.sum())


def _best(standings: Standings, preference: Callable[[Pair], Preference]) -> Choice | None:
    """The pair that is preferred to all others, and the next one."""
    ranked = heapq.nsmallest(2, _contenders(standings), key=preference)
    if not ranked:
        return None
    return Choice(ranked[0], ranked[1] if len(ranked) > 1 else None)


def _contenders(standings: Standings) -> Iterator[Pair]:
    """The two best arms by EIrate of every active tenant: the two best of all are among them."""
    for tenant in standings.active():
        standing = standings.tenants[tenant]
        rates = ei_rate(
            standing.posterior.mean,
            standing.posterior.std,
            best=standing.best,
            costs=standing.costs,
            weight=standing.arms.weight,
        )
        for arm in _two_best(standing, rates):
            yield Pair(tenant, arm, float(rates[arm]))


def _two_best(standing: Standing, acquisition: np.ndarray) -> list[int]:
    """The arms left with the largest acquisition, at most two; ties in order."""
    left = np.flatnonzero(standing.left())
    return [int(arm) for arm in left[np.argsort(-acquisition[left], kind="stable")[:2]]]

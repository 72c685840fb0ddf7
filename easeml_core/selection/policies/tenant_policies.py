"""Who is served next: the tenant policies of Ease.ml, as functions of where the tenants stand.

Each takes a round in which at least one tenant has something left, and gives the index of one that has. Which
candidate of that tenant runs is the question of the acquisition; policies that choose tenant and candidate at once are
in ``published.py``.

Warm-up: all but FCFS and ROUNDROBIN first give every tenant one run, in order (the UCB drop: two). A tenant whose first
run is still under way stands back while others have something to run: nothing can be said about it before its first
answer.

Sources: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4; the rules of its earlier code (DS3Lab/GP-UCB,
DS3Lab/gp-ucb2), which compares the posterior standard deviation or the bound of the arm run last, as it is after that
run, with those of the arm run before it, as they were after *that* run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from easeml_core.selection.policies.expected_improvement import candidate_set
from easeml_core.selection.policies.standings import UNTRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from easeml_core.selection.policies.standings import Ranking, Standings

    Tenants: TypeAlias = NDArray[np.intp]
    TenantPolicy: TypeAlias = Callable[["Round"], int]


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One question: whom does a free device serve?

    Attributes:
        standings: Where all tenants stand.
        among: Those that have something left for the device, rising, at least one.
        ranking: The two best arms of each of them.
        seed: Whole numbers >= 0, for RANDOM.
    """

    standings: Standings
    among: Tenants
    ranking: Ranking
    seed: tuple[int, ...]

    def first_in_turn(self) -> tuple[int, Tenants]:
        """The turn that comes first, and who has it."""
        turns = self.standings.turns[self.among]
        first = int(turns.min())
        return first, self.among[turns == first]


def fcfs(now: Round) -> int:
    """First come, first served: the first tenant until it is finished, then the next."""
    return int(now.among[0])


def round_robin(now: Round) -> int:
    """The next tenant in the circle after the one served last; finished ones are skipped."""
    following = int(np.searchsorted(now.among, now.standings.last_served, side="right"))
    return int(now.among[following % len(now.among)])


def uniform_random(now: Round) -> int:
    """Any active tenant, each as likely, after the warm-up."""
    first, tenants = now.first_in_turn()
    return int(tenants[0] if first == UNTRIED else np.random.default_rng(now.seed).choice(tenants))


def greedy(now: Round) -> int:
    """The tenant of the candidate set V with the most to gain.

        argmax over i in V of  max_k B^i(k) - b^i,   k over the arms that are left

    With ``greedy_gap_per_cost`` the gap is divided by the cost of the arm that would run. With several devices,
    tenants of V with fewer runs under way come first, so that one tenant does not take them all. Any rule inside V
    keeps the regret bound.
    """
    first, tenants = now.first_in_turn()
    if first == UNTRIED:
        return int(tenants[0])
    standings = now.standings
    members = standings.candidate_set(tenants)
    gaps = now.ranking.values[members, 0] - standings.best[members]
    if standings.config.greedy_gap_per_cost:
        gaps = _per_cost(gaps, now, members)
    return int(members[np.lexsort((-gaps, standings.under_way[members]))[0]])


def _per_cost(gaps: NDArray[np.float64], now: Round, members: Tenants) -> NDArray[np.float64]:
    """Gaps by the cost of the arm that would run; one below 0 is multiplied, since dividing would favour dear arms."""
    arms = now.ranking.arms[members, 0]
    prices = np.array([now.standings.tenants[i].prices[k] for i, k in zip(members, arms, strict=True)])
    return np.asarray(np.where(gaps > 0, gaps / prices, gaps * prices))


def hybrid(now: Round) -> int:
    """GREEDY until it freezes, round robin from then on: what Ease.ml runs."""
    return round_robin(now) if now.standings.freeze.frozen else greedy(now)


# The earlier rules


def _largest(score: Callable[[Round, int], float], now: Round, *, warm_up: int = 1) -> int:
    """Return the tenant with the largest score, ties in order, once every tenant has ``warm_up`` runs."""
    first, tenants = now.first_in_turn()
    given = now.standings.runs[tenants] + now.standings.under_way[tenants]
    if first == UNTRIED or (given < warm_up).any():
        return int(tenants[given.argmin()])
    scores = [score(now, int(i)) for i in tenants]
    return int(tenants[np.argmax(scores)])


def _std_drop(now: Round, tenant: int) -> float:
    """How much smaller the standard deviation of the arm run last is than that of the one before was."""
    echoes = now.standings.tenants[tenant].echoes
    return echoes[0].std - echoes[1].std if echoes else 0.0


def _bound_drop(now: Round, tenant: int) -> float:
    """How much lower the bound of the arm run last is than that of the one before was."""
    echoes = now.standings.tenants[tenant].echoes
    return echoes[0].bound - echoes[1].bound if echoes else 0.0


def _bonus(now: Round, tenant: int) -> float:
    """sqrt(beta / c) std of the arm that would run next."""
    standing, arm = now.standings.tenants[tenant], int(now.ranking.arms[tenant, 0])
    return float(now.ranking.values[tenant, 0] - standing.posterior.mean[arm])


def variance_drop(now: Round) -> int:
    """The tenant whose posterior standard deviation fell most between its last two runs."""
    return _largest(_std_drop, now)


def information_gain(now: Round) -> int:
    """The largest standard deviation of the arm run last, over that of the arm run before: minus the variance drop."""
    return _largest(lambda now, i: -_std_drop(now, i), now)


def bound_drop(now: Round) -> int:
    """The tenant whose upper confidence bound fell most between its last two runs; every tenant starts with two."""
    return _largest(_bound_drop, now, warm_up=2)


def maximal_variance(now: Round) -> int:
    """The tenant whose next arm has the largest sqrt(beta / c) std."""
    return _largest(_bonus, now)


def above_average_bonus(now: Round) -> int:
    """Of the tenants whose next arm's bonus is at least their average, the one with the largest variance drop.

    The precursor of GREEDY's candidate set.
    """
    first, tenants = now.first_in_turn()
    if first == UNTRIED:
        return int(tenants[0])
    bonuses = np.array([_bonus(now, i) for i in tenants])
    return _largest(_std_drop, replace(now, among=tenants[candidate_set(bonuses)]))


TENANT_POLICIES: Mapping[str, TenantPolicy] = MappingProxyType(
    {
        "fcfs": fcfs,
        "roundrobin": round_robin,
        "random": uniform_random,
        "greedy": greedy,
        "hybrid": hybrid,
        "variance-drop": variance_drop,
        "maximal-variance": maximal_variance,
        "ucb-drop": bound_drop,
        "information-gain": information_gain,
        "above-average-bonus": above_average_bonus,
    }
)

"""What runs next: a policy is a tenant rule with an acquisition, or an acquisition over all pairs of both.

One function, ``choose``, serves the live scheduler and the simulator, see ``published.py``.

Sources: Li et al., Ease.ml (PVLDB 11(5), 2018); Yu et al. (AISTATS 2019) for MM-GP-EI.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.policies.standings import WAITING
from easeml_core.selection.policies.tenant_policies import TENANT_POLICIES, Round, round_robin, uniform_random
from easeml_core.selection.scheduler import Choice, Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.selection.policies.acquisition import Ranking
    from easeml_core.selection.policies.standings import Standings
    from easeml_core.selection.policies.tenant_policies import TenantPolicy


@dataclass(frozen=True, slots=True)
class Policy:
    """How a policy chooses.

    Attributes:
        acquisition: What an arm is worth, a key of ``acquisition.ACQUISITIONS``.
        tenant: Who is served; None when all pairs of tenant and arm are compared.
        joint: The choice over all pairs; None when the tenant is chosen first.
    """

    acquisition: str = "upper-bound"
    tenant: TenantPolicy | None = None
    joint: Callable[[Round], Choice] | None = None


def choose(
    standings: Standings, policy: str, *, seed: tuple[int, ...] = (0,), device: str | None = None
) -> Choice | None:
    """The next trial, or None when nothing is left to run.

    Args:
        standings: Where the tenants stand.
        policy: A key of ``PUBLISHED_POLICIES``.
        seed: Whole numbers >= 0; the same seed and standings give the same choice.
        device: Kind of the free device; None when every candidate runs on it.
    """
    among = standings.eligible(device=device)
    if not len(among):
        return None
    rule = PUBLISHED_POLICIES[policy]
    now = Round(standings, among, standings.ranking(rule.acquisition, device=device), seed)
    if rule.joint is not None:
        return rule.joint(now)
    assert rule.tenant is not None
    return best_of(now.ranking, rule.tenant(now))


def best_of(ranking: Ranking, tenant: int) -> Choice:
    """The best arm of a tenant, and its second best as the runner-up; ties go to the lowest arm."""
    first, second = _pair(ranking, tenant, 0), _pair(ranking, tenant, 1)
    return Choice(first, second if second.arm >= 0 else None)


def _pair(ranking: Ranking, tenant: int, place: int) -> Pair:
    return Pair(tenant, int(ranking.arms[tenant, place]), float(ranking.values[tenant, place]))


def warm_and_best(now: Round) -> Choice:
    """MM-GP-EI: the pair that promises most improvement per second, over everything not yet started.

        argmax over (i, k) of  w_i EI_i(k) / c_i(k)

    Only finished runs shape the posterior; runs under way are excluded and their outcome is not imagined. A tenant's
    best so far is 0 before its first observation, which makes its first run worth its whole expected quality; so that
    this counts once, and not again while the answer is under way, every tenant gets one run first and a tenant that
    waits for its first answer stands back (the paper lets every tenant's two cheapest candidates finish first). Ties
    go to the tenant with fewest runs, then in order.
    """
    standings, members = now.standings, now.among
    turns, given = standings.turns[members], standings.runs[members] + standings.under_way[members]
    waiting = np.where(turns == WAITING, given, 0)
    return _first_two(now, (given, waiting, turns))


def cheapest(now: Round) -> Choice:
    """The pair with the lowest cost of all, whoever's it is; ties go to the tenant with fewest runs, then in order."""
    given = now.standings.runs[now.among] + now.standings.under_way[now.among]
    return _first_two(now, (given, np.zeros_like(given), np.zeros_like(given)))


def _first_two(now: Round, keys: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Choice:
    """The best two pairs: lowest third key, then lowest second, then largest acquisition, then lowest first key.

    The two best arms of every tenant are compared: the two best pairs of all are among them.
    """
    given, second, first = (np.repeat(key, 2) for key in keys)
    arms, values = now.ranking.arms[now.among].ravel(), now.ranking.values[now.among].ravel()
    missing = arms < 0
    order = np.lexsort((given, -values, second, first, missing))[:2]
    pairs = [_pair(now.ranking, int(now.among[i // 2]), int(i % 2)) for i in order if not missing[i]]
    return Choice(pairs[0], pairs[1] if len(pairs) > 1 else None)


PUBLISHED_POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        **{name: Policy(tenant=rule) for name, rule in TENANT_POLICIES.items()},
        "ei-per-second": Policy("ei-per-second", tenant=round_robin),
        "order": Policy("order", tenant=round_robin),
        "cheapest": Policy("cheapness", joint=cheapest),
        "mm-gp-ei": Policy("ei-rate", joint=warm_and_best),
        "gp-ei-random": Policy("ei-rate", tenant=uniform_random),
        "gp-ei-roundrobin": Policy("ei-rate", tenant=round_robin),
    }
)
"""All published policies by name; the last two are the baselines of MM-GP-EI in its paper."""

"""Who is served next: the tenant policies of Ease.ml, as functions of where the tenants stand.

Each takes the standings and a random generator (which only RANDOM uses) and gives the index of a tenant that has
something left, or None when nobody has. Which candidate of that tenant runs is GP-UCB's question, the same for all of
them; MM-GP-EI, which chooses tenant and candidate at once, is in ``policies.py``.

Warm-up: RANDOM, GREEDY and HYBRID first give every tenant one run, in order. A tenant whose first run is still under
way stands back while others have something to run: nothing can be said about it before its first answer.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from easeml_core.selection.standings import Standing, Standings


UNTRIED, NORMAL, WAITING = range(3)


def turn(standing: Standing) -> int:
    """UNTRIED: no run given yet, comes first. WAITING: its first answer is under way, stands back. NORMAL otherwise."""
    if standing.observations:
        return NORMAL
    if standing.under_way.any():
        return WAITING
    return NORMAL if standing.runs else UNTRIED


def first_in_turn(standings: Standings) -> tuple[int, list[int]]:
    """The turn that comes first among the active tenants, and who has it."""
    turns = {i: turn(standings.tenants[i]) for i in standings.active()}
    first = min(turns.values(), default=NORMAL)
    return first, [i for i, its in turns.items() if its == first]


def fcfs(standings: Standings, generator: np.random.Generator) -> int | None:
    """First come, first served: the first tenant until it is finished, then the next."""
    return next(iter(standings.active()), None)


def round_robin(standings: Standings, generator: np.random.Generator) -> int | None:
    """The next tenant in the circle after the one served last; finished ones are skipped."""
    active = standings.active()
    return next((i for i in active if i > standings.last_served), active[0] if active else None)


def uniform_random(standings: Standings, generator: np.random.Generator) -> int | None:
    """Any active tenant, each as likely, after the warm-up."""
    first, tenants = first_in_turn(standings)
    if not tenants:
        return None
    return tenants[0] if first == UNTRIED else int(generator.choice(tenants))


def greedy(standings: Standings, generator: np.random.Generator) -> int | None:
    """The tenant of the candidate set V with the most to gain.

        argmax over i in V of  max_k B^i(k) - b^i,   k over the arms that are left

    With several devices, tenants of V with fewer runs under way come first, so that one tenant does not take them
    all; any rule inside V keeps the regret bound.
    """
    first, tenants = first_in_turn(standings)
    if not tenants:
        return None
    if first == UNTRIED:
        return tenants[0]

    def preference(i: int) -> tuple[int, float, int]:
        standing = standings.tenants[i]
        gap = float(standing.bounds(standings.beta)[standing.left()].max()) - standing.best
        return int(standing.under_way.sum()), -gap, i

    return min(standings.candidate_set(tenants), key=preference)


def hybrid(standings: Standings, generator: np.random.Generator) -> int | None:
    """GREEDY until it freezes, round robin from then on: what Ease.ml runs."""
    rule = round_robin if standings.freeze.frozen else greedy
    return rule(standings, generator)


TENANT_POLICIES: Mapping[str, Callable[[Standings, np.random.Generator], int | None]] = MappingProxyType(
    {"fcfs": fcfs, "roundrobin": round_robin, "random": uniform_random, "greedy": greedy, "hybrid": hybrid}
)

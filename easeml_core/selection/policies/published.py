"""The published policies, and their scheduler: the standings, the policies, and costs that are learnt on the way.

A policy is a tenant policy with an acquisition, or an acquisition over all pairs of both. A tenant policy takes a round
in which at least one tenant has an arm left, and returns the index of such a tenant; the acquisition chooses its arm.

Warm-up: all but FCFS and ROUNDROBIN first give every tenant one run, in order (the UCB drop: two). A tenant whose first
run is still under way waits while others have an arm to run, since its state is unknown before its first result.

Sources: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4; Yu et al. (AISTATS 2019) for MM-GP-EI; the rules of the
earlier code of Ease.ml (DS3Lab/GP-UCB, DS3Lab/gp-ucb2), which compares the posterior standard deviation or the bound of
the arm run last, after that run, with those of the arm run before it, after *that* run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from easeml_core.selection.costs.learn import learn_costs
from easeml_core.selection.limits import Limits
from easeml_core.selection.policies.acquisition import candidate_set
from easeml_core.selection.policies.standings import ACQUISITIONS, UNTRIED, WAITING, Standing, Standings
from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair, ReplayingScheduler
from easeml_core.selection.surrogate.prior import PSEUDO_STUDIES, learn_prior, priors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.policies.standings import Ranking
    from easeml_core.selection.problem import Past, Problem, Pull
    from easeml_core.selection.surrogate.posterior import Array, Belief
    from easeml_core.settings.config import SelectionConfig

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


@dataclass(frozen=True, slots=True)
class Policy:
    """How a policy chooses.

    Attributes:
        acquisition: What an arm is worth, a key of ``standings.ACQUISITIONS``.
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
    """Return the pair with the lowest cost of all tenants; ties go to the tenant with fewest runs, then in order."""
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


PLAIN, ENOUGH_PAST = 0.01, 30
"""Pseudo-studies that leave the empirical covariance as the paper has it, and past studies that are always enough."""


class PublishedScheduler(ReplayingScheduler[Standings]):
    """A published policy after the trials so far; see ``scheduler_interface.Scheduler`` for the methods."""

    def __init__(
        self, problem: Problem, *, config: SelectionConfig, known_costs: Mapping[int, Array] | None = None
    ) -> None:
        """Start before any trial: the problem's own are fed in by ``scheduler_for``."""
        self._config, self._known = config, known_costs
        menus = dict.fromkeys(arms.names for arms in problem.studies)
        self._priors = priors_of(menus, set().union(*menus), lambda names: self._prior(names, problem.history))
        super().__init__(problem, refits=known_costs is None)

    def _prior(self, names: tuple[str, ...], past: Sequence[Past]) -> Belief:
        """The paper's plain covariance where the past can carry it, a shrunk one where it would be singular."""
        plain = len(past) > min(len(names), ENOUGH_PAST - 1)
        nu = self._config.pseudo_studies or (PLAIN if plain else PSEUDO_STUDIES)
        return learn_prior(names, past, kernel=self._config.kernel, pseudo_studies=nu)

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The next trial for a free device, or None when nothing is left to run.

        The number of trials given so far joins the seed, so that one seed serves a whole schedule.
        """
        standings = self.state
        return choose(standings, self._config.policy, seed=(*seed, standings.given), device=device)

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What is expected of one trial now."""
        standing = self.state.tenants[tenant]
        return Forecast(
            mean=float(standing.posterior.mean[arm]),
            std=float(standing.posterior.std[arm]),
            predicted_cost_seconds=float(standing.costs[arm]),
            cost_known=standing.costs_known,
            expected_improvement=float(standing.improvement()[arm]),
            best=standing.best,
        )

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """The policy's acquisition of each arm of a tenant; -inf where it may not run."""
        standings = self.state
        values = ACQUISITIONS[PUBLISHED_POLICIES[self._config.policy].acquisition](standings, tenant)
        return np.where(standings.left(tenant, device=device), values, -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """Infinite, since these policies ask for no price; -inf where nothing may run."""
        return math.inf if self.state.left(tenant, device=device).any() else -math.inf

    def make_state(self, fitted: list[tuple[int, Pull]]) -> Standings:
        """The standings before any trial, with the costs known or learnt by now."""
        costs, known = self._costs(fitted)
        tenants = [
            Standing(
                arms,
                prior=self._priors[arms.names],
                costs=cost,
                costs_known=known,
                noise_variance=self._config.noise_variance,
                cost_aware=self._config.cost_aware,
            )
            for arms, cost in zip(self.problem.studies, costs, strict=True)
        ]
        limits = Limits(
            self.problem.studies,
            charges=[tenant.charges() for tenant in tenants],
            quotas=self.problem.quotas,
            pulls=self.problem.pulls,
        )
        return Standings(tenants, config=self._config, limits=limits)

    def _costs(self, fitted: list[tuple[int, Pull]]) -> tuple[list[Array], bool]:
        """The cost of each arm of each study, and whether that rests on any measurement."""
        studies = self.problem.studies
        if self._known is not None:
            return [np.asarray(self._known[arms.study_id], dtype=np.float64) for arms in studies], True
        model = learn_costs(replace(self.problem, pulls=tuple(pull for _, pull in fitted), pending=()))
        return [model.predict(arms.study_id, arms.names) for arms in studies], model.known

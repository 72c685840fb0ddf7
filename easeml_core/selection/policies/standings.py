"""The state of every tenant after the trials so far: a function of the ordered observations, never stored.

A ``Standing`` is one tenant's posterior, best quality, confidence bound and finished arms. ``Standings`` are those of
all tenants, with the round robin's position, the freeze detection and each tenant's next arm. The scheduler feeds in
trials one by one. A trial changes one tenant (and those that share its quota or its candidates), so the next arms of
the other tenants, and their values, are cached between decisions.

An acquisition is a number for each arm of a tenant; the arm with the largest runs first. ``published.py`` chooses
the tenant, unless the policy compares all pairs. A ``Ranking`` holds the best two.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.limits import Limits
from easeml_core.selection.policies.acquisition import BetaSchedule, Freeze, candidate_set, expected_improvement, ucb
from easeml_core.selection.problem import SharedArms
from easeml_core.selection.surrogate.posterior import Posterior

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.limits import Mask
    from easeml_core.selection.problem import Arms
    from easeml_core.selection.surrogate.posterior import Array, Belief
    from easeml_core.settings.config import SelectionConfig

UNTRIED, NORMAL, WAITING = range(3)

MARGIN = 1e-4
"""epsilon of the earlier expected improvement per second: what an improvement must exceed to count."""


@dataclass(frozen=True, slots=True)
class Echo:
    """How a tenant's posterior looked right after one of its runs, at the arm of that run.

    Attributes:
        std: Posterior standard deviation of the arm.
        bound: Its upper confidence bound, with the beta of that run.
    """

    std: float
    bound: float


class Standing:
    """One tenant after its runs so far.

    Attributes:
        arms: The study.
        costs: c_k > 0 of each arm, known or predicted, shape ``(n_arms,)``.
        prices: The costs as the policy sees them: all 1 for a policy that ignores costs, shape ``(n_arms,)``.
        costs_known: Whether the costs rest on any measurement.
        repeats: Whether an arm may run again, as in the theorems; the scheduler runs every arm once.
        posterior: The belief after the runs.
        runs: t_i, finished trials, failed ones included.
        observations: Finished trials that have a quality.
        last: y^i, quality of the last observation; 0 before the first.
        best: b^i, best quality observed; 0 before the first.
        tightest: The smallest upper bound on the optimum that any run has shown so far.
        spent: Device seconds of the finished trials.
        run: Arms that have run and will not run again, shape ``(n_arms,)``.
        under_way: Arms suggested or running, shape ``(n_arms,)``.
        echoes: The last two runs that have a quality, the older one first; before the second run the older one is the
            prior's view of the first arm; empty before the first.
    """

    def __init__(
        self,
        arms: Arms,
        *,
        prior: Belief,
        costs: Array,
        costs_known: bool,
        noise_variance: float,
        cost_aware: bool = True,
        repeats: bool = False,
    ) -> None:
        self.arms, self.costs, self.costs_known = arms, np.asarray(costs, dtype=np.float64), costs_known
        self.prices = self.costs if cost_aware else np.ones(len(arms.names))
        self.repeats = repeats
        self.posterior = Posterior(prior, noise_variance=noise_variance)
        self.runs = self.observations = 0
        self.last = self.best = self.spent = 0.0
        self.tightest = math.inf
        self.run = np.zeros(len(arms.names), dtype=bool)
        self.under_way = np.zeros(len(arms.names), dtype=bool)
        self.echoes: tuple[Echo, ...] = ()
        self._bounds: tuple[int, Array] | None = None
        self._gains: tuple[int, Array] | None = None

    def free(self) -> Mask:
        """Arms that have neither run nor are under way, shape ``(n_arms,)``."""
        return ~(self.run | self.under_way)

    def charges(self) -> Array:
        """Return what a budget is charged in advance for each arm: 0 until a cost is measured."""
        return self.costs if self.costs_known else np.zeros_like(self.costs)

    def bounds(self, beta: BetaSchedule) -> Array:
        """B^i(k) for the tenant's next run, shape ``(n_arms,)``; computed once between two runs."""
        if self._bounds is None or self._bounds[0] != self.runs:
            posterior = self.posterior
            bounds = ucb(posterior.mean, posterior.std, beta=beta(self.runs + 1), costs=self.prices)
            self._bounds = (self.runs, bounds)
        return self._bounds[1]

    def optimum_bound(self, beta: BetaSchedule) -> float:
        """An upper bound on the tenant's best quality: the largest B^i(k) of what has not run, or what was seen.

        Run arms are no longer chosen, so the bounds of the others alone would say nothing about the best so far.
        """
        return max(self.best, float(np.max(self.bounds(beta), where=~self.run, initial=-math.inf)))

    def confidence(self, beta: BetaSchedule, *, from_best: bool = False) -> float:
        """The empirical confidence bound: how far the tenant may still be from its optimum.

            sigma~^i_s = min over s' <= s of U^i_{s'} - y^i_s

        with U^i_{s'} the bound on the optimum *before* run s'. It equals the paper's recurrence
        sigma~_s = min( B_s(a_s), y_{s-1} + sigma~_{s-1} ) - y_s while the arm run is the one with the largest bound.
        Before the first observation y is 0 and the bound is the present one.

        With ``from_best`` the best quality b^i_s is subtracted, which bounds what the *ease.ml* regret counts.
        """
        reached = self.best if from_best else self.last
        return (self.tightest if self.observations else self.optimum_bound(beta)) - reached

    def improvement(self) -> Array:
        """Expected improvement of each arm over the best observed, shape ``(n_arms,)``; computed once between runs."""
        if self._gains is None or self._gains[0] != self.runs:
            self._gains = (self.runs, expected_improvement(self.posterior.mean, self.posterior.std, best=self.best))
        return self._gains[1]

    def turn(self) -> int:
        """UNTRIED: no run given yet, comes first. WAITING: its first answer is under way, stands back. Else NORMAL."""
        if self.observations:
            return NORMAL
        if self.under_way.any():
            return WAITING
        return NORMAL if self.runs else UNTRIED

    def record(self, arm: int, quality: float | None, cost_seconds: float, *, beta: BetaSchedule) -> bool:
        """Take in a finished trial; say whether the best quality rose.

        A failed one costs its seconds and removes its arm; it teaches nothing about quality.
        """
        bound = self.optimum_bound(beta)
        self.run[arm], self.under_way[arm] = not self.repeats, False
        self.spent += cost_seconds
        if quality is not None:
            self.tightest = min(self.tightest, bound)
            self._observe(arm, quality, beta(self.runs + 1))
        self.runs += 1
        if quality is None:
            return False
        improved = quality > self.best
        self.observations += 1
        self.last, self.best = quality, max(self.best, quality)
        return improved

    def _observe(self, arm: int, quality: float, beta: float) -> None:
        """Update the posterior, and keep what it says of the arm before (at the first run) and after."""
        before = self.echoes[-1] if self.echoes else self._echo(arm, beta)
        self.posterior.observe(arm, quality)
        self.echoes = (before, self._echo(arm, beta))

    def _echo(self, arm: int, beta: float) -> Echo:
        std = math.sqrt(max(float(self.posterior.variance[arm]), 0.0))
        return Echo(std, float(self.posterior.mean[arm]) + math.sqrt(beta / float(self.prices[arm])) * std)


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


class Standings:
    """All tenants after the trials so far; a tenant is its index.

    Attributes:
        tenants: One standing for each study; policies settle ties in this order.
        config: Policy and its settings.
        limits: What the tenants may use.
        beta: n, K* and c* of all tenants together, with delta and multiplier.
        freeze: HYBRID's freeze detection.
        given: Trials finished or under way, over all tenants.
        turns: ``Standing.turn`` of each tenant, shape ``(n,)``.
        best: b^i, shape ``(n,)``.
        runs: Finished trials, shape ``(n,)``.
        under_way: Trials under way, shape ``(n,)``.
        shared: Which arms of which tenants are one trial.
    """

    def __init__(self, tenants: Sequence[Standing], *, config: SelectionConfig, limits: Limits | None = None) -> None:
        self.tenants, self.config = tuple(tenants), config
        self.limits = limits or Limits([t.arms for t in self.tenants], charges=[t.charges() for t in self.tenants])
        self.beta = BetaSchedule(
            tenants=max(1, len(self.tenants)),
            arms=max((len(t.arms.names) for t in self.tenants), default=1),
            max_cost=max((float(t.prices.max()) for t in self.tenants), default=1.0),
            delta=config.delta,
            multiplier=config.beta_multiplier,
        )
        self.freeze = Freeze(config.freeze_rounds if config.policy == "hybrid" else math.inf)
        self.given, self._last_recorded = 0, -1
        self._started: dict[tuple[int, int], None] = {}
        n = len(self.tenants)
        self.turns, self.runs = np.full(n, UNTRIED), np.zeros(n, dtype=np.int64)
        self.best, self.under_way = np.zeros(n), np.zeros(n, dtype=np.int64)
        self.shared = SharedArms([t.arms for t in self.tenants])
        self._neighbours = self._find_neighbours()
        self._confidence = np.full(n, math.nan)
        self._open = np.array([self._left_anywhere(i) for i in range(n)], dtype=bool)
        self._unfinished = np.array([self._has_unsettled(i) for i in range(n)], dtype=bool)
        self._rankings: dict[str, Ranking] = {}

    @property
    def last_served(self) -> int:
        """The tenant of the latest trial under way, else of the one that ended last; -1 before the first.

        So defined it is the same for a scheduler that saw every start and for one rebuilt from what is stored.
        """
        return next(reversed(self._started))[0] if self._started else self._last_recorded

    def left(self, tenant: int, *, device: str | None = None) -> Mask:
        """Arms of a tenant that may be suggested: neither run nor under way, and within all limits."""
        free, allowed = self.tenants[tenant].free(), self.limits.allowed(tenant, device=device)
        return free if allowed is None else free & allowed

    def _left_anywhere(self, tenant: int) -> bool:
        """Whether a tenant has an arm left, on whatever device."""
        free, allowed = self.tenants[tenant].free(), self.limits.allowed(tenant, anywhere=True)
        return bool((free if allowed is None else free & allowed).any())

    def eligible(self, *, device: str | None = None) -> NDArray[np.intp]:
        """Indices of the tenants that have something left for a device, of those the highest priority."""
        waiting = self._open
        if self.limits.narrows(device):
            waiting = np.array([o and self.left(i, device=device).any() for i, o in enumerate(waiting)], dtype=bool)
        return np.flatnonzero(self.limits.first_class(waiting))

    def candidate_set(self, among: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        """V: those of the given active tenants whose confidence bound is at least their average."""
        members = np.asarray(among, dtype=np.intp)
        confidence = self._confidence[members]
        if np.isnan(confidence).any():
            from_best = self.config.greedy_from_best
            for i in members[np.isnan(confidence)]:
                self._confidence[i] = self.tenants[i].confidence(self.beta, from_best=from_best)
            confidence = self._confidence[members]
        return members[candidate_set(confidence)]

    def ranking(self, acquisition: str, *, device: str | None = None) -> Ranking:
        """The two best arms of every tenant under an acquisition, kept up to date from trial to trial."""
        if self.limits.narrows(device):
            ranking = Ranking(len(self.tenants))
        else:
            ranking, device = self._rankings.setdefault(acquisition, Ranking(len(self.tenants))), None
        for tenant in ranking.stale:
            values = ACQUISITIONS[acquisition](self, tenant)
            ranking.put(tenant, values, self.left(tenant, device=device))
        ranking.stale.clear()
        return ranking

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in a trial under way: its arm is taken, also where it is shared; its outcome is not imagined.

        Its kind of device matters to learnt costs only, which the scheduler learns.
        """
        if (tenant, arm) in self._started:
            return
        self._started[tenant, arm] = None
        self.limits.start(tenant, arm)
        self.given += 1
        served = self.shared.of(tenant, arm)
        for i, k in served:
            self.tenants[i].under_way[k] = True
        self._refresh(*(i for i, _ in served))

    def record(
        self, tenant: int, arm: int, quality: float | None, cost_seconds: float, *, device: str | None = None
    ) -> None:
        """Take in a finished trial, started before or not: one round of the schedule.

        All tenants that share the candidate learn its quality; the tenant of the trial pays for it.
        """
        if self._started.pop((tenant, arm), 0) is not None:
            self.given += 1
        self._last_recorded = tenant
        self.limits.finish(tenant, arm, quality, cost_seconds)
        improved = self.tenants[tenant].record(arm, quality, cost_seconds, beta=self.beta)
        served = self.shared.of(tenant, arm)
        for i, k in served:
            if (i, k) != (tenant, arm) and not self.tenants[i].run[k]:
                improved |= self.tenants[i].record(k, quality, 0.0, beta=self.beta)
                self.limits.found(i, quality)
            self._confidence[i] = math.nan
        self._refresh(*(i for i, _ in served))
        if self.freeze.patience < math.inf:
            self.freeze = self.freeze.after(self._members(), improved=improved)

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a tenant that has one."""
        self.limits.set_seconds_left(tenant, seconds)
        self._refresh(tenant)

    def charge(self, tenant: int, seconds: float) -> None:
        """Take in what a tenant has used beside the costs of its trials, such as the starts of their processes."""
        self.limits.charge(tenant, seconds)
        self._refresh(tenant)

    def _refresh(self, *changed: int) -> None:
        """Bring up to date what is kept of the tenants that changed, and of those whom that concerns."""
        concerned = {i for tenant in changed for i in self._neighbours[tenant]}
        for i in concerned:
            standing = self.tenants[i]
            self.turns[i], self.best[i], self.runs[i] = standing.turn(), standing.best, standing.runs
            self.under_way[i] = np.count_nonzero(standing.under_way)
            self._open[i] = self._left_anywhere(i)
            self._unfinished[i] = self._has_unsettled(i)
        for ranking in self._rankings.values():
            ranking.stale.update(concerned)

    def _members(self) -> frozenset[int] | None:
        """V of this round; None before every active tenant has had its first run.

        Active here is who has an arm that has not finished: trials under way don't count, so that the detection is a
        function of the finished trials alone.
        """
        active = np.flatnonzero(self._unfinished)
        if not len(active) or not self.runs[active].all():
            return None
        return frozenset(self.candidate_set(active).tolist())

    def _has_unsettled(self, tenant: int) -> bool:
        settled, run = self.limits.settled(tenant), self.tenants[tenant].run
        return bool((~run if settled is None else ~run & settled).any())

    def _find_neighbours(self) -> tuple[tuple[int, ...], ...]:
        """For each tenant, whom a trial of it concerns: itself, those under its quota, those that share an arm."""
        return tuple(
            tuple({*self.limits.touched(tenant), *self.shared.partners(tenant)}) for tenant in range(len(self.tenants))
        )


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

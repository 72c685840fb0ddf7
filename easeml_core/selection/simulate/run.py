"""Run one policy on one draw of tenants: devices request trials, trials take their time, results are looked up.

Time is continuous and simulated. A policy has the same ``Scheduler`` interface as in the live service; that of a user's
function is ``RuleScheduler``. The clairvoyant is a scheduler that knows the table. It is greedy, not optimal: the
cheapest way to one given loss is a knapsack, whose solution for one loss is not the beginning of that for the next. On
published tables it spends up to twice what the exact knapsack of one loss does.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.policies.user_policy import Seen, checked_choice, policy_function
from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair
from easeml_core.selection.simulate.protocol import scene
from easeml_core.selection.suggestion import scheduler_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.policies.user_policy import UserPolicy
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.scheduler_interface import Scheduler
    from easeml_core.selection.simulate.protocol import Contestant, Protocol, Scene
    from easeml_core.selection.simulate.tables import Table
    from easeml_core.selection.surrogate.posterior import Array


class RuleScheduler:
    """A function as a scheduler of the simulator; see ``scheduler_interface.Scheduler`` for the methods.

    Args:
        problem: Studies without any trial.
        rule: Takes a ``Seen``; returns a tenant's index and one of its free arms.
        name: The policy's name, for errors.
        known_costs: Study id to the cost of each arm; None where costs are not known.
    """

    def __init__(
        self,
        problem: Problem,
        rule: UserPolicy,
        *,
        name: str,
        known_costs: Mapping[int, Array] | None,
    ) -> None:
        sizes = [len(arms.names) for arms in problem.studies]
        costs = known_costs or {}
        self._rule, self._name = rule, name
        self._quality = tuple(np.full(size, np.nan) for size in sizes)
        self._cost = tuple(
            np.asarray(costs.get(arms.study_id, np.ones(size)), dtype=np.float64)
            for arms, size in zip(problem.studies, sizes, strict=True)
        )
        self._free = tuple(np.ones(size, dtype=np.bool_) for size in sizes)
        self._names = tuple(tuple(arms.names) for arms in problem.studies)

    @property
    def needs_refit(self) -> bool:
        """Never: it is asked anew each time."""
        return False

    def refit(self) -> None:
        """Nothing: it keeps no model."""

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way."""
        self._free[tenant][arm] = False

    def record(
        self,
        tenant: int,
        arm: int,
        quality: float | None,
        cost_seconds: float,
        *,
        device: str | None = None,
        later: int = 0,
    ) -> None:
        """Take in a finished trial."""
        self._free[tenant][arm] = False
        if quality is not None:
            self._quality[tenant][arm] = quality

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """Return what the function chooses; None when every arm was started."""
        if not any(free.any() for free in self._free):
            return None
        chosen = self._rule(self.seen(seed))
        tenant, arm = checked_choice(chosen, self._free, policy=self._name)
        return Choice(Pair(tenant, arm, 0.0), None)

    def seen(self, seed: tuple[int, ...]) -> Seen:
        """Return copies of what is known, so that the function cannot change it."""
        parts = (tuple(array.copy() for array in arrays) for arrays in (self._quality, self._cost))
        quality, cost = parts
        return Seen(quality, cost, tuple(free.copy() for free in self._free), self._names, seed)

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """Return no expectation: the function states none."""
        return Forecast(0.0, 0.0, float(self._cost[tenant][arm]), False, 0.0, 0.0)

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """Return 0 for each free arm of a tenant; -inf where it may not run."""
        return np.where(self._free[tenant], 0.0, -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """Infinite, since it asks for no price; -inf where nothing is free."""
        return math.inf if self._free[tenant].any() else -math.inf

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Nothing: the simulator knows no deadline."""

    def charge(self, tenant: int, seconds: float) -> None:
        """Nothing: a simulated trial has no process."""


NOTHING = -np.inf


class ClairvoyantScheduler:
    """The pair with the largest true improvement per cost; see ``scheduler_interface.Scheduler`` for the methods.

        argmax over (i, k) of  ( f^i(k) - b^i )+ / c^i(k)

    Trials under way count as finished: their outcome is known. Ends as soon as every tenant has its best candidate.
    Ties go to the lowest tenant, then to the lowest arm.
    """

    def __init__(self, quality: Sequence[Array], cost: Sequence[Array]) -> None:
        """Start before any trial."""
        self._quality, self._cost = tuple(quality), tuple(cost)
        self._best = np.zeros(len(self._quality))
        self._arm = np.zeros(len(self._quality), dtype=np.intp)
        self._rate = np.full(len(self._quality), NOTHING)
        for tenant in range(len(self._quality)):
            self._rescore(tenant)

    @property
    def needs_refit(self) -> bool:
        """Never: it knows the truth."""
        return False

    def refit(self) -> None:
        """Nothing: it learns nothing."""

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way: it is as good as finished."""
        self._best[tenant] = max(self._best[tenant], self._quality[tenant][arm])
        self._rescore(tenant)

    def record(
        self,
        tenant: int,
        arm: int,
        quality: float | None,
        cost_seconds: float,
        *,
        device: str | None = None,
        later: int = 0,
    ) -> None:
        """Take in a finished trial, started before or not; their order changes nothing."""
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

    def charge(self, tenant: int, seconds: float) -> None:
        """Nothing: a simulated trial has no process."""

    def _pair(self, tenant: int) -> Pair:
        return Pair(tenant, int(self._arm[tenant]), float(self._rate[tenant]))

    def _rescore(self, tenant: int) -> None:
        """The best arm of a tenant, as long as one improves on what it has."""
        gains = self._quality[tenant] - self._best[tenant]
        rates = np.where(gains > 0, gains / self._cost[tenant], NOTHING)
        self._arm[tenant] = np.argmax(rates)
        self._rate[tenant] = rates[self._arm[tenant]]


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What happened in one repeat under one policy.

    The trials stand in the order of their end, those of one moment in the order of their devices. The last ones may end
    after the horizon: they were under way when the repeat ended.

    Attributes:
        tenant: Whose trial it was, an index, shape ``(n_trials,)``.
        arm: Which candidate, an arm of that tenant's study.
        start: When it started.
        end: When it ended.
        quality: What came of it.
        optimum: Best quality that each tenant can reach, shape ``(n_tenants,)``.
        weight: Weight of each tenant, same shape.
        total_cost: Cost of everything there is, > 0.
        devices: M.
        horizon: When the repeat ended; M horizon / total_cost is the protocol's ``until``.
        decision_seconds: Measured seconds of the scheduler for each trial: told, scored and asked.
    """

    tenant: NDArray[np.intp]
    arm: NDArray[np.intp]
    start: Array
    end: Array
    quality: Array
    optimum: Array
    weight: Array
    total_cost: float
    devices: int
    horizon: float
    decision_seconds: float

    def percent(self, moment: Array) -> Array:
        """Cost spent by a moment, wall time x M, in percent of the cost of everything."""
        return np.asarray(100.0 * self.devices * moment / self.total_cost)

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Trials that ended by the horizon; the tolerance is for sums of costs that must equal the total."""
        return np.asarray(self.end <= self.horizon * (1 + 1e-9))


@dataclass(slots=True)
class _Stage:
    """A scheduler under a stop-watch, and the log of what it did."""

    scheduler: Scheduler
    scene: Scene
    seed: tuple[int, ...]
    clock: Callable[[], float]
    seconds: float = 0.0
    log: list[tuple[float, int, int, int, float]] = field(default_factory=list)
    """End, device, tenant, arm and start of every trial."""

    def launch(self, now: float, device: int) -> tuple[float, int, int, int] | None:
        """Ask for a trial and start it; None when nothing is left."""
        began = self.clock()
        choice = self.scheduler.choose(seed=self.seed)
        if choice is not None:
            self.scheduler.start(choice.chosen.tenant, choice.chosen.arm)
        self.seconds += self.clock() - began
        if choice is None:
            return None
        tenant, arm = choice.chosen.tenant, choice.chosen.arm
        end = now + float(self.scene.cost[tenant][arm])
        self.log.append((end, device, tenant, arm, now))
        return end, device, tenant, arm

    def finish(self, tenant: int, arm: int) -> None:
        """Tell the scheduler what came of a trial."""
        quality, cost = float(self.scene.quality[tenant][arm]), float(self.scene.cost[tenant][arm])
        began = self.clock()
        self.scheduler.record(tenant, arm, quality, cost)
        self.seconds += self.clock() - began


def run_repeat(
    table: Table,
    protocol: Protocol,
    contestant: Contestant,
    repeat: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Course:
    """Run a policy on the tenants of one repeat, until the protocol's percentage of the cost or until nothing is left.

    Args:
        table: The truth.
        protocol: Draws, devices, costs, end.
        contestant: The policy.
        repeat: r >= 0.
        clock: Seconds, for the measured time of decisions; nothing else depends on it.
    """
    stands = scene(table, protocol, repeat)
    stage = _Stage(_scheduler(contestant, stands), stands, (protocol.seed, repeat), clock)
    horizon = protocol.until / 100 * stands.total_cost / protocol.devices
    drive = _stream if protocol.drive == "stream" else _rounds
    drive(stage, protocol.devices, horizon)
    return _course(stage, protocol.devices, horizon)


def _scheduler(contestant: Contestant, stands: Scene) -> Scheduler:
    if contestant.is_rule:
        rule = policy_function(contestant.name)
        return RuleScheduler(stands.problem, rule, name=contestant.name, known_costs=stands.known_costs)
    if contestant.config is None:
        return ClairvoyantScheduler(stands.quality, stands.cost)
    return scheduler_for(stands.problem, config=contestant.config, known_costs=stands.known_costs)


def _stream(stage: _Stage, devices: int, horizon: float) -> None:
    """A device that becomes free gets its next trial at once.

    All results of one moment are reported first; then the free devices request trials in their order. A device without
    a trial requests again after the next result.
    """
    now = 0.0
    free = list(range(devices))
    busy: list[tuple[float, int, int, int]] = []
    while now < horizon:
        while free and (launched := stage.launch(now, free[0])):
            heapq.heappop(free)
            heapq.heappush(busy, launched)
        if not busy:
            return
        now = busy[0][0]
        while busy and busy[0][0] == now:
            _, device, tenant, arm = heapq.heappop(busy)
            stage.finish(tenant, arm)
            heapq.heappush(free, device)


def _rounds(stage: _Stage, devices: int, horizon: float) -> None:
    """All devices get a trial at once, and the next ones when the slowest has ended."""
    now = 0.0
    while now < horizon:
        batch: list[tuple[float, int, int, int]] = []
        while len(batch) < devices and (launched := stage.launch(now, len(batch))):
            batch.append(launched)
        if not batch:
            return
        for _, _, tenant, arm in sorted(batch):
            stage.finish(tenant, arm)
        now = max(batch)[0]


def _course(stage: _Stage, devices: int, horizon: float) -> Course:
    """The log as arrays."""
    log = sorted(stage.log)
    tenant, arm = (np.array([entry[i] for entry in log], dtype=np.intp) for i in (2, 3))
    end, start = (np.array([entry[i] for entry in log], dtype=np.float64) for i in (0, 4))
    truth = stage.scene.quality
    return Course(
        tenant=tenant,
        arm=arm,
        start=start,
        end=end,
        quality=np.array([truth[i][k] for i, k in zip(tenant, arm, strict=True)], dtype=np.float64),
        optimum=np.array([quality.max() for quality in truth]),
        weight=np.array([arms.weight for arms in stage.scene.problem.studies]),
        total_cost=stage.scene.total_cost,
        devices=devices,
        horizon=horizon,
        decision_seconds=stage.seconds / max(1, len(log)),
    )

"""Where every tenant stands after the trials so far: rebuilt from the ordered observations, never stored.

A ``Standing`` is one tenant's: posterior, best quality, confidence bound, what is left to run. ``Standings`` are all
of them, with the round robin's position and the freeze detection. Whoever holds them feeds in trials one by one:
first the finished ones (``record``), then those under way (``start``). Nobody is chosen here: see
``tenant_policies.py``.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.greedy import Freeze, candidate_set
from easeml_core.selection.posterior import Posterior
from easeml_core.selection.ucb import BetaSchedule, ucb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.posterior import Array, Belief
    from easeml_core.selection.problem import Arms


class Standing:
    """One tenant after its runs so far.

    Attributes:
        arms: The study.
        costs: c_k > 0 of each arm, known or predicted, shape ``(n_arms,)``.
        costs_known: Whether the costs rest on any measurement.
        posterior: The belief after the runs.
        runs: t_i, finished trials, failed ones included.
        observations: Finished trials that have a quality.
        last: y^i, quality of the last observation; 0 before the first.
        best: b^i, best quality observed; 0 before the first.
        tightest: The smallest upper bound on the optimum that any run has shown so far.
        spent: Device seconds of the finished trials.
        run: Arms that have run, shape ``(n_arms,)``.
        under_way: Arms suggested or running, shape ``(n_arms,)``.
    """

    def __init__(self, arms: Arms, *, prior: Belief, costs: Array, costs_known: bool, noise_variance: float) -> None:
        self.arms, self.costs, self.costs_known = arms, costs, costs_known
        self.posterior = Posterior.of(prior, noise_variance=noise_variance)
        self.runs = self.observations = 0
        self.last = self.best = self.spent = 0.0
        self.tightest = math.inf
        self.run = np.zeros(len(arms.names), dtype=bool)
        self.under_way = np.zeros(len(arms.names), dtype=bool)

    def left(self) -> NDArray[np.bool_]:
        """Arms that may be suggested: neither run nor under way, and within the compute budget.

        Costs that nobody ever measured are not charged in advance: a budget stops such a study once it is used up.
        """
        free = ~(self.run | self.under_way)
        budget = self.arms.budget_seconds
        if budget is None:
            return free
        charges = self.costs if self.costs_known else np.zeros_like(self.costs)
        committed = self.spent + float(charges[self.under_way].sum())
        return free & (committed < budget) & (committed + charges <= budget)

    def bounds(self, beta: BetaSchedule) -> Array:
        """B^i(k) for the tenant's next run, shape ``(n_arms,)``."""
        return ucb(self.posterior.mean, self.posterior.std, beta=beta(self.runs + 1), costs=self.costs)

    def optimum_bound(self, beta: BetaSchedule) -> float:
        """An upper bound on the tenant's best quality: the largest B^i(k) of what has not run, or what was seen.

        Run arms are no longer chosen, so the bounds of the others alone would say nothing about the best so far.
        """
        open_bounds = self.bounds(beta)[~self.run]
        return max(self.best, float(open_bounds.max(initial=-math.inf)))

    def confidence(self, beta: BetaSchedule) -> float:
        """The empirical confidence bound: how far the tenant may still be from its optimum.

            sigma~^i_s = min over s' <= s of U^i_{s'} - y^i_s

        with U^i_{s'} the bound on the optimum *before* run s'. It equals the paper's recurrence
        sigma~_s = min( B_s(a_s), y_{s-1} + sigma~_{s-1} ) - y_s while the arm run is the one with the largest bound.
        Before the first observation y is 0 and the bound is the present one.
        """
        return (self.tightest if self.observations else self.optimum_bound(beta)) - self.last

    def record(self, arm: int, quality: float | None, cost_seconds: float, *, beta: BetaSchedule) -> bool:
        """Take in a finished trial; say whether the best quality rose.

        A failed one costs its seconds and removes its arm; it teaches nothing about quality.
        """
        bound = self.optimum_bound(beta)
        self.run[arm] = True
        self.runs += 1
        self.spent += cost_seconds
        if quality is None:
            return False
        improved = quality > self.best
        self.tightest = min(self.tightest, bound)
        self.posterior = self.posterior.observe(arm, quality)
        self.observations += 1
        self.last, self.best = quality, max(self.best, quality)
        return improved


class Standings:
    """All tenants after the trials so far.

    Attributes:
        tenants: One standing for each study; policies settle ties in this order.
        beta: n, K* and c* of all tenants together, with delta and multiplier.
        last_served: Index of the tenant of the latest trial; -1 before the first.
        given: Trials finished or under way, over all tenants.
        freeze: HYBRID's freeze detection.
    """

    def __init__(self, tenants: Sequence[Standing], *, config: SelectionConfig) -> None:
        self.tenants = tuple(tenants)
        self.beta = BetaSchedule(
            tenants=max(1, len(self.tenants)),
            arms=max((len(t.arms.names) for t in self.tenants), default=1),
            max_cost=max((float(t.costs.max()) for t in self.tenants), default=1.0),
            delta=config.delta,
            multiplier=config.beta_multiplier,
        )
        self.last_served, self.given = -1, 0
        self.freeze = Freeze(config.freeze_rounds if config.policy == "hybrid" else math.inf)
        self._confidence = np.full(len(self.tenants), math.nan)
        self._tried = np.zeros(len(self.tenants), dtype=bool)
        self._active = np.array([t.left().any() for t in self.tenants], dtype=bool)

    def active(self) -> list[int]:
        """Indices of the tenants that have something left to suggest."""
        indices: list[int] = np.flatnonzero(self._active).tolist()
        return indices

    def candidate_set(self, among: Sequence[int] | NDArray[np.intp]) -> list[int]:
        """V: those of the given active tenants whose confidence bound is at least their average."""
        members = np.asarray(among, dtype=np.intp)
        for i in members[np.isnan(self._confidence[members])]:
            self._confidence[i] = self.tenants[i].confidence(self.beta)
        chosen: list[int] = members[candidate_set(self._confidence[members])].tolist()
        return chosen

    def record(self, tenant: int, arm: int, quality: float | None, cost_seconds: float) -> None:
        """Take in a finished trial: one round of the schedule."""
        standing = self.tenants[tenant]
        improved = standing.record(arm, quality, cost_seconds, beta=self.beta)
        self._confidence[tenant], self._tried[tenant] = math.nan, True
        self._serve(tenant)
        if self.freeze.patience < math.inf:
            self.freeze = self.freeze.after(self._members(), improved=improved)

    def start(self, tenant: int, arm: int) -> None:
        """Take in a trial under way: its arm is taken, its outcome is not imagined."""
        self.tenants[tenant].under_way[arm] = True
        self._serve(tenant)

    def _serve(self, tenant: int) -> None:
        self.last_served, self.given = tenant, self.given + 1
        self._active[tenant] = self.tenants[tenant].left().any()

    def _members(self) -> frozenset[int] | None:
        """V of this round; None before every active tenant has had its first run."""
        active = np.flatnonzero(self._active)
        if not len(active) or not self._tried[active].all():
            return None
        return frozenset(self.candidate_set(active))

"""The scheduler of every published policy: the standings, the policies, and costs that are learnt on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.costs.learn import learn_costs
from easeml_core.selection.limits import Limits
from easeml_core.selection.policies.acquisition import ACQUISITIONS
from easeml_core.selection.policies.policies import PUBLISHED_POLICIES, choose
from easeml_core.selection.policies.standings import Standing, Standings
from easeml_core.selection.problem import Pull
from easeml_core.selection.scheduler import Choice, Forecast, next_refit
from easeml_core.selection.surrogate.posterior import Belief
from easeml_core.selection.surrogate.prior import MOST_TOGETHER, PSEUDO_STUDIES, learn_prior

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.surrogate.posterior import Array

PLAIN, ENOUGH_PAST = 0.01, 30
"""Pseudo-studies that leave the empirical covariance as the paper has it, and past studies that are always enough."""


class PublishedScheduler:
    """A published policy after the trials so far; see ``scheduler.Scheduler`` for the methods.

    A function of what it was told: one that is rebuilt from the same finished trials in the order of completion, and
    the trials under way in the order of their start, chooses the same. Where costs are learnt, they are learnt anew at
    fixed numbers of results (``next_refit``), and all standings are then replayed with the new costs: bounds of long
    ago would otherwise depend on when they were computed.
    """

    def __init__(
        self, problem: Problem, *, config: SelectionConfig, known_costs: Mapping[int, Array] | None = None
    ) -> None:
        """Start before any trial: the problem's own are fed in by ``scheduler_for``.

        Args:
            problem: Studies, history, quotas. Its finished trials are only counted: a quota leaves them out already.
            config: Policy and its settings.
            known_costs: Study id to the cost of each arm, shape ``(n_arms,)``; None when costs are to be learnt.
        """
        self._problem, self._config, self._known = problem, config, known_costs
        self._priors = self._learn_priors()
        self._pulls: list[Pull] = []
        self._started: dict[tuple[int, int], str | None] = {}
        self._seconds_left: dict[int, float] = {}
        self._fitted, self._is_stale = 0, False
        self._standings = self._stand()

    def _learn_priors(self) -> dict[tuple[str, ...], Belief]:
        """The prior of every list of candidates: learnt once over all names, or, of very many, list by list."""
        menus = dict.fromkeys(arms.names for arms in self._problem.studies)
        together = tuple(sorted(set().union(*menus)))
        if len(together) > MOST_TOGETHER:
            return {menu: self._prior(menu) for menu in menus}
        column, whole = {name: i for i, name in enumerate(together)}, self._prior(together)
        indices = {menu: [column[name] for name in menu] for menu in menus}
        return {menu: Belief(whole.mean[i], whole.cov[np.ix_(i, i)]) for menu, i in indices.items()}

    def _prior(self, names: tuple[str, ...]) -> Belief:
        """The paper's plain covariance where the past can carry it, a shrunk one where it would be singular."""
        past, config = self._problem.history, self._config
        plain = len(past) > min(len(names), ENOUGH_PAST - 1)
        nu = config.pseudo_studies or (PLAIN if plain else PSEUDO_STUDIES)
        return learn_prior(names, past, kernel=config.kernel, pseudo_studies=nu)

    @property
    def standings(self) -> Standings:
        """Where all tenants stand."""
        if self._is_stale:
            with one_thread():
                self._replay()
        return self._standings

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way, on a device of this kind."""
        self._started[tenant, arm] = device
        if not self._is_stale:
            self._standings.start(tenant, arm)

    def record(
        self, tenant: int, arm: int, quality: float | None, cost_seconds: float, *, device: str | None = None
    ) -> None:
        """Take in a finished trial, started before or not; quality None when it failed."""
        device = self._started.pop((tenant, arm), None) or device
        if self._known is None:
            study_id, order = self._problem.studies[tenant].study_id, len(self._pulls)
            self._pulls.append(Pull(study_id, arm, quality, cost_seconds, order=order, device=device))
            if len(self._pulls) >= next_refit(self._fitted):
                self._fitted, self._is_stale = len(self._pulls), True
        if not self._is_stale:
            self._standings.record(tenant, arm, quality, cost_seconds)

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The next trial for a free device, or None when nothing is left to run.

        The number of trials given so far joins the seed, so that one seed serves a whole schedule.
        """
        standings = self.standings
        return choose(standings, self._config.policy, seed=(*seed, standings.given), device=device)

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What is expected of one trial now."""
        standing = self.standings.tenants[tenant]
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
        standings = self.standings
        values = ACQUISITIONS[PUBLISHED_POLICIES[self._config.policy].acquisition](standings, tenant)
        return np.where(standings.left(tenant, device=device), values, -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """Infinite, since these policies ask for no price; -inf where nothing may run."""
        return math.inf if self.standings.left(tenant, device=device).any() else -math.inf

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a tenant that has one."""
        self._seconds_left[tenant] = seconds
        if not self._is_stale:
            self._standings.set_seconds_left(tenant, seconds)

    def _replay(self) -> None:
        """The standings with costs learnt anew."""
        self._standings, self._is_stale = self._stand(), False
        index = {arms.study_id: i for i, arms in enumerate(self._problem.studies)}
        for pull in self._pulls:
            self._standings.record(index[pull.study_id], pull.arm, pull.quality, pull.cost_seconds)
        for tenant, arm in self._started:
            self._standings.start(tenant, arm)
        for tenant, seconds in self._seconds_left.items():
            self._standings.set_seconds_left(tenant, seconds)

    def _stand(self) -> Standings:
        """The standings before any trial, with the costs known or learnt by now."""
        costs, known = self._costs()
        tenants = [
            Standing(
                arms,
                prior=self._priors[arms.names],
                costs=cost,
                costs_known=known,
                noise_variance=self._config.noise_variance,
                cost_aware=self._config.cost_aware,
            )
            for arms, cost in zip(self._problem.studies, costs, strict=True)
        ]
        limits = Limits(
            self._problem.studies,
            charges=[tenant.charges() for tenant in tenants],
            quotas=self._problem.quotas,
            pulls=self._problem.pulls,
        )
        return Standings(tenants, config=self._config, limits=limits)

    def _costs(self) -> tuple[list[Array], bool]:
        """The cost of each arm of each study, and whether that rests on any measurement."""
        studies = self._problem.studies
        if self._known is not None:
            return [np.asarray(self._known[arms.study_id], dtype=np.float64) for arms in studies], True
        pulls = tuple(self._pulls[: self._fitted])
        model = learn_costs(replace(self._problem, pulls=pulls, pending=()))
        return [model.predict(arms.study_id, arms.names) for arms in studies], model.known

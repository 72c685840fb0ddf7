"""The ``default`` policy: expected improvement per second over all tenants' candidates, the prior learnt from the past.

    argmax over tenants i and arms k left to run of  w_i EI_i(k) / c_i(k)

EI on the scale of quality under a logit-normal posterior (``selection/surrogate/logit_normal.py``,
``selection/surrogate/posterior.py``) whose prior is learnt from past tenants
(``selection/surrogate/prior.py``), c_i(k) known or predicted (``selection/costs/learn.py``), trials
under way believed to return their mean, and a guard against starvation (``default_choice.py``). Each part is a
setting of ``SelectionConfig``; what each is worth is measured in ``docs/selection.md``.

With fewer than ``ENOUGH_PAST`` past tenants the prior is learnt from the live ones as well, anew as results come in,
and a share of the compute goes to the cheapest trials for what they teach. From about ten past tenants on, live results
no longer improve the prior: what has run was chosen, and is a poorer sample than a past in which everything ran.

Source: Yu et al., AutoML from Service Provider's Perspective (AISTATS 2019), for the rule, MM-GP-EI; the rest goes
beyond it.

Where a user's policy chooses (``user_policy``), beliefs, costs, limits and priorities are the same. Where the function
gives no valid answer the default policy chooses, so that no fault of it stops other tenants.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve

from easeml_core.selection.costs.learn import StudyCosts
from easeml_core.selection.policies.default_choice import DefaultChoice
from easeml_core.selection.policies.user_policy import Seen, choice_of, policy_function
from easeml_core.selection.problem import Past, Pull, SharedArms
from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair, ReplayingScheduler
from easeml_core.selection.surrogate.logit_normal import logit
from easeml_core.selection.surrogate.prior import priors_of, quality_rows, transfer_prior

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.policies.user_policy import Asked
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.surrogate.posterior import Array, Belief
    from easeml_core.settings.config import SelectionConfig

ENOUGH_PAST = 10
MOST_LIVE = 100
"""As many live tenants, those with most results, are enough for a prior."""


class DefaultScheduler(ReplayingScheduler[DefaultChoice]):
    """The ``default`` policy after the trials so far; see ``scheduler_interface.Scheduler`` for the methods.

    Costs, and the prior where there is no past, depend on the results of all tenants.
    """

    def __init__(
        self, problem: Problem, *, config: SelectionConfig, known_costs: Mapping[int, Array] | None = None
    ) -> None:
        """Start before any trial: the problem's own are fed in by ``scheduler_for``."""
        self._config, self._known = config, known_costs
        past = sum(any(quality is not None for quality in past.qualities) for past in problem.history)
        self._is_cold = config.cold_start and past < ENOUGH_PAST
        self._priors: list[Belief] | None = None
        super().__init__(problem, refits=self._is_cold or known_costs is None)

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The next trial for a free device, or None when nothing is left to run; nothing here is random."""
        return self.state.choose(device)

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What is expected of one trial now."""
        return self.state.forecast(tenant, arm, device=device)

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """Weighted improvement per second of each arm of a tenant; -inf where it may not run."""
        return self.state.worth(tenant, device=device)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """The highest price of a second at which a trial of the tenant would still run."""
        return self.state.stops_above(tenant, device=device)

    def make_state(self, fitted: list[tuple[int, Pull]]) -> DefaultChoice:
        """The values of all tenants' candidates before any trial, with costs and priors learnt from results."""
        if self._priors is None or self._is_cold:
            live = self._live(fitted) if self._is_cold else []
            past = (*self.problem.history, *live)
            menus = dict.fromkeys(arms.names for arms in self.problem.studies)
            names = {name for results in past for name in results.names}.union(*menus)
            priors = priors_of(menus, names, lambda menu: self._learn_prior(menu, past))
            self._priors = [priors[arms.names] for arms in self.problem.studies]
        return DefaultChoice(
            self.problem,
            config=self._config,
            priors=self._priors,
            costs=StudyCosts(self.problem, known=self._known, fitted=[pull for _, pull in fitted]),
            learning=self._is_cold and self._config.cost_aware,
        )

    def _learn_prior(self, menu: tuple[str, ...], past: Sequence[Past]) -> Belief:
        """The prior of one list of candidates, from the past of these alone."""
        wanted = set(menu)
        rows = quality_rows(menu, [results for results in past if not wanted.isdisjoint(results.names)])
        latent = logit(rows) if self._config.link == "logit" else rows
        return transfer_prior(latent, self._config, has_live=self._is_cold)

    def _live(self, fitted: list[tuple[int, Pull]]) -> list[Past]:
        """Results of the live tenants up to the last refit point, of those with most of them."""
        found: dict[int, list[Pull]] = {}
        for tenant, pull in fitted:
            if pull.quality is not None:
                found.setdefault(tenant, []).append(pull)
        most = sorted(sorted(found), key=lambda tenant: -len(found[tenant]))[:MOST_LIVE]
        return [
            Past(
                study_id=tenant,
                names=tuple(self.problem.studies[tenant].names[pull.arm] for pull in found[tenant]),
                qualities=tuple(pull.quality for pull in found[tenant]),
                costs=(None,) * len(found[tenant]),
            )
            for tenant in most
        ]


class UserScheduler(DefaultScheduler):
    """The default policy, but for its choice, which a function makes; see ``scheduler_interface.Scheduler``.

    The same trials give the same ``Seen``, bit for bit, with the number of trials given so far at the end of the seed.
    The guard and the price of the default policy do not bind the function.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        config: SelectionConfig,
        known_costs: Mapping[int, Array] | None = None,
        ask: Asked | None = None,
    ) -> None:
        """Start before any trial."""
        super().__init__(problem, config=evolve(config, policy="default"), known_costs=known_costs)
        self._policy, self._is_cost_aware = config.policy, config.cost_aware
        self._ask: Asked = ask or partial(choice_of, policy_function(config.policy), policy=config.policy)
        self._names = tuple(tuple(arms.names) for arms in problem.studies)
        self._one_trial = SharedArms(problem.studies)
        self._observed = tuple(np.full(len(names), np.nan) for names in self._names)
        self._given: set[tuple[int, int]] = set()

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way, on a device of this kind."""
        super().start(tenant, arm, device=device)
        self._given.add((tenant, arm))

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
        """Take in a finished trial, started before or not, in its place before the ``later`` last ones."""
        super().record(tenant, arm, quality, cost_seconds, device=device, later=later)
        self._given.add((tenant, arm))
        if quality is not None:
            for i, k in self._one_trial.of(tenant, arm):
                self._observed[i][k] = quality

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The function's choice, or that of the default policy where it makes none; None when nothing may run."""
        free = self.state.free(device)
        if not any(mask.any() for mask in free):
            return None
        answer = self._ask(self._seen(free, seed, device))
        if isinstance(answer, str):
            choice = super().choose(seed=seed, device=device)
            return None if choice is None else choice._replace(instead_of=f"policy {self._policy} {answer}")
        return Choice(Pair(*answer, 0.0), None)

    def _seen(self, free: tuple[NDArray[np.bool_], ...], seed: tuple[int, ...], device: str | None) -> Seen:
        """Return copies of what is known, so that the function cannot change it."""
        costs = (np.array(self.state.costs(tenant, device)) for tenant in range(len(free)))
        return Seen(
            quality=tuple(quality.copy() for quality in self._observed),
            cost=tuple(cost if self._is_cost_aware else np.ones_like(cost) for cost in costs),
            free=free,
            candidates=self._names,
            seed=(*seed, len(self._given)),
        )

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """Return 0 for each arm of a tenant that may run, since the function states no worth; -inf for the others."""
        return np.where(self.state.left(tenant, device), 0.0, -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """Infinite, since the function asks for no price; -inf where nothing may run."""
        return math.inf if super().stops_above(tenant, device=device) > -math.inf else -math.inf

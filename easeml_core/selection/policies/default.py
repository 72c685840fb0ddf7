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

from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.costs.learn import StudyCosts
from easeml_core.selection.policies.default_choice import DefaultChoice
from easeml_core.selection.policies.user_policy import Seen, choice_of, policy_function
from easeml_core.selection.problem import Past, Pull, SharedArms
from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair, next_refit
from easeml_core.selection.surrogate.logit_normal import logit
from easeml_core.selection.surrogate.posterior import Belief
from easeml_core.selection.surrogate.prior import MOST_TOGETHER, quality_rows, transfer_prior

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.policies.user_policy import Asked
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.surrogate.posterior import Array

ENOUGH_PAST = 10
MOST_LIVE = 100
"""As many live tenants, those with most results, are enough for a prior."""


class DefaultScheduler:
    """The ``default`` policy after the trials so far; see ``scheduler_interface.Scheduler`` for the methods.

    Costs, and the prior where there is no past, depend on the results of all tenants. They are learnt again at fixed
    numbers of results (``next_refit``), and all trials are then replayed; in between a result changes its tenant only.
    So a scheduler that is rebuilt from the same trials is the same, bit for bit.
    """

    def __init__(
        self, problem: Problem, *, config: SelectionConfig, known_costs: Mapping[int, Array] | None = None
    ) -> None:
        """Start before any trial: the problem's own are fed in by ``scheduler_for``.

        Args:
            problem: Studies, history, quotas.
            config: Settings of the policy.
            known_costs: Study id to the cost of each arm, shape ``(n_arms,)``; None when costs are to be learnt.
        """
        self._problem, self._config = problem, config
        self._known = known_costs
        past = sum(any(quality is not None for quality in past.qualities) for past in problem.history)
        self._is_cold = config.cold_start and past < ENOUGH_PAST
        self._refits = self._is_cold or self._known is None
        self._priors: list[Belief] | None = None
        self._pulls: list[tuple[int, Pull]] = []
        self._started: dict[tuple[int, int], str | None] = {}
        self._seconds_left: dict[int, float] = {}
        self._charged: dict[int, float] = {}
        # What is learnt anew is learnt when it is first needed: with trials to replay, not before the first of them.
        self._fitted, self._is_stale = 0, self._refits
        if not self._is_stale:
            self._choice = self._before_any_trial()

    @property
    def choice(self) -> DefaultChoice:
        """Return the current values of all tenants' candidates."""
        self.refit()
        return self._choice

    @property
    def needs_refit(self) -> bool:
        """Whether results have come in that costs and priors must be learnt from anew."""
        return self._is_stale

    def refit(self) -> None:
        """Learn costs and priors anew and replay all trials, where results have come in that ask for it."""
        if self._is_stale:
            with one_thread():
                self._refit()

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way, on a device of this kind."""
        self._started[tenant, arm] = device
        if not self._is_stale:
            self._choice.start(tenant, arm, device=device)

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
        started_on = self._started.pop((tenant, arm), None)
        device = started_on if device is None else device
        if self._refits:
            study_id = self._problem.studies[tenant].study_id
            pull = Pull(study_id, arm, quality, cost_seconds, device=device)
            self._pulls.insert(len(self._pulls) - later, (tenant, pull))
            if len(self._pulls) >= next_refit(self._fitted):
                self._fitted, self._is_stale = len(self._pulls), True
            self._is_stale |= later > 0
        if not self._is_stale:
            self._choice.record(tenant, arm, quality, cost_seconds, device=device)

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The next trial for a free device, or None when nothing is left to run; nothing here is random."""
        return self.choice.choose(device)

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What is expected of one trial now."""
        return self.choice.forecast(tenant, arm, device=device)

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """Weighted improvement per second of each arm of a tenant; -inf where it may not run."""
        return self.choice.worth(tenant, device=device)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """The highest price of a second at which a trial of the tenant would still run."""
        return self.choice.stops_above(tenant, device=device)

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a tenant that has one."""
        self._seconds_left[tenant] = seconds
        if not self._is_stale:
            self._choice.set_seconds_left(tenant, seconds)

    def charge(self, tenant: int, seconds: float) -> None:
        """Take in what a tenant has used beside the costs of its trials, such as the starts of their processes."""
        self._charged[tenant] = self._charged.get(tenant, 0.0) + seconds
        if not self._is_stale:
            self._choice.charge(tenant, seconds)

    def _refit(self) -> None:
        """Learn anew from the results up to the last refit point, and replay all of them."""
        if self._is_cold:
            self._priors = None
        self._choice, self._is_stale = self._before_any_trial(), False
        for tenant, pull in self._pulls:
            self._choice.record(tenant, pull.arm, pull.quality, pull.cost_seconds, device=pull.device)
        for (tenant, arm), device in self._started.items():
            self._choice.start(tenant, arm, device=device)
        for tenant, seconds in self._charged.items():
            self._choice.charge(tenant, seconds)
        for tenant, seconds in self._seconds_left.items():
            self._choice.set_seconds_left(tenant, seconds)

    def _before_any_trial(self) -> DefaultChoice:
        if self._priors is None:
            self._priors = self._learn_priors((*self._problem.history, *(self._live() if self._is_cold else ())))
        fitted = [pull for _, pull in self._pulls[: self._fitted]]
        return DefaultChoice(
            self._problem,
            config=self._config,
            priors=self._priors,
            costs=StudyCosts(self._problem, known=self._known, fitted=fitted),
            learning=self._is_cold and self._config.cost_aware,
        )

    def _learn_priors(self, past: Sequence[Past]) -> list[Belief]:
        """The prior of each study: from one covariance over all names, or one for each list of candidates.

        Together, what a past study says of other candidates helps to fill its gaps. With very many names, such as
        tenants have that all call their candidates otherwise, one covariance would not fit into memory and says
        nothing, since hardly any two names have a past study in common.
        """
        menus = dict.fromkeys(arms.names for arms in self._problem.studies)
        names = {name for results in past for name in results.names}.union(*menus)
        if len(names) <= MOST_TOGETHER:
            together = tuple(sorted(names))
            column = {name: i for i, name in enumerate(together)}
            whole = transfer_prior(self._latent(together, past), self._config, has_live=self._is_cold)
            indices = {menu: [column[name] for name in menu] for menu in menus}
            priors = {menu: Belief(whole.mean[i], whole.cov[np.ix_(i, i)]) for menu, i in indices.items()}
        else:
            priors = {menu: self._learn_prior(menu, past) for menu in menus}
        return [priors[arms.names] for arms in self._problem.studies]

    def _learn_prior(self, menu: tuple[str, ...], past: Sequence[Past]) -> Belief:
        """The prior of one list of candidates, from the past of these alone."""
        wanted = set(menu)
        related = [results for results in past if not wanted.isdisjoint(results.names)]
        return transfer_prior(self._latent(menu, related), self._config, has_live=self._is_cold)

    def _live(self) -> list[Past]:
        """Results of the live tenants up to the last refit point, of those with most of them."""
        found: dict[int, list[Pull]] = {}
        for tenant, pull in self._pulls[: self._fitted]:
            if pull.quality is not None:
                found.setdefault(tenant, []).append(pull)
        most = sorted(sorted(found), key=lambda tenant: -len(found[tenant]))[:MOST_LIVE]
        return [
            Past(
                study_id=tenant,
                names=tuple(self._problem.studies[tenant].names[pull.arm] for pull in found[tenant]),
                qualities=tuple(pull.quality for pull in found[tenant]),
                costs=(None,) * len(found[tenant]),
            )
            for tenant in most
        ]

    def _latent(self, names: Sequence[str], past: Sequence[Past]) -> Array:
        """Latent qualities of past results, shape ``(n_past, n_names)``, NaN where unknown."""
        rows = quality_rows(names, past)
        return logit(rows) if self._config.link == "logit" else rows


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
        """Start before any trial.

        Args:
            problem: Studies, history, quotas.
            config: Settings; its policy is the function's name.
            known_costs: Study id to the cost of each arm, shape ``(n_arms,)``; None when costs are to be learnt.
            ask: Returns the choice, as ``choice_of`` does, or in a few words why there is none. It contains every fault
                of the function. None where the caller is to see its errors.

        Raises:
            NotFoundError: ``ask`` is None, and the policy is not installed.
        """
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
        free = self.choice.free(device)
        if not any(mask.any() for mask in free):
            return None
        answer = self._ask(self._seen(free, seed, device))
        if isinstance(answer, str):
            choice = super().choose(seed=seed, device=device)
            return None if choice is None else choice._replace(instead_of=f"policy {self._policy} {answer}")
        return Choice(Pair(*answer, 0.0), None)

    def _seen(self, free: tuple[NDArray[np.bool_], ...], seed: tuple[int, ...], device: str | None) -> Seen:
        """Return copies of what is known, so that the function cannot change it."""
        costs = (np.array(self.choice.costs(tenant, device)) for tenant in range(len(free)))
        return Seen(
            quality=tuple(quality.copy() for quality in self._observed),
            cost=tuple(cost if self._is_cost_aware else np.ones_like(cost) for cost in costs),
            free=free,
            candidates=self._names,
            seed=(*seed, len(self._given)),
        )

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """Return 0 for each arm of a tenant that may run, since the function states no worth; -inf for the others."""
        return np.where(self.choice.left(tenant, device), 0.0, -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """Infinite, since the function asks for no price; -inf where nothing may run."""
        return math.inf if super().stops_above(tenant, device=device) > -math.inf else -math.inf

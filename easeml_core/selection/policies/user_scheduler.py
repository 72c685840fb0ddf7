"""The scheduler that a user's policy chooses for.

It is the default policy but for the choice: beliefs, costs, limits and priorities are the same. Where the function
gives no valid answer the default policy chooses, so that no fault of it stops other tenants.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve

from easeml_core.selection.policies.default import DefaultScheduler
from easeml_core.selection.policies.user_policy import Seen, choice_of, policy_function
from easeml_core.selection.scheduler_interface import Choice, Pair
from easeml_core.selection.shared_arms import SharedArms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.policies.user_policy import Asked
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.surrogate.posterior import Array


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

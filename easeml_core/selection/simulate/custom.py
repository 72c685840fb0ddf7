"""A user's policy in a simulation: a function that chooses the next trial from what has been seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.policies.user_policy import Seen, checked_choice
from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.selection.policies.user_policy import UserPolicy
    from easeml_core.selection.problem import Problem
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
        """Return what the function chooses; None when every arm was started.

        Raises:
            InvalidInputError: It chose anything else than a free arm of a tenant.
        """
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

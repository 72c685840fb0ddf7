"""The interface of a scheduler, and what all schedulers do alike: they keep the trials, and learn anew from them.

A scheduler holds the state of all tenants after the trials so far. Its caller reports which trials start and end, and
requests the next one; the live service and the simulator use the same object:

    scheduler = scheduler_for(problem, config=config)  # in suggestion.py
    choice = scheduler.choose(device=None)
    scheduler.start(choice.chosen.tenant, choice.chosen.arm)
    ...
    scheduler.record(tenant, arm, quality, cost_seconds)

A scheduler is not stored: ``scheduler_for`` rebuilds the same state, bit for bit, from the same trials in the same
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.problem import Pull

if TYPE_CHECKING:
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.surrogate.posterior import Array


REFIT_AFTER = 25


class Pair(NamedTuple):
    """A tenant's index, one of its arms, and what trying it is worth to the policy."""

    tenant: int
    arm: int
    acquisition: float


class Choice(NamedTuple):
    """What runs next, what would have if it were not there, and why it if not for its acquisition.

    Attributes:
        chosen: The next trial.
        runner_up: The second best; None when nothing else is left.
        guarded: The tenant was owed the trial by the guard.
        learning: The trial is the cheapest there is, and there is hardly any past to learn from.
        instead_of: Why the default policy has chosen in place of a user's; empty where it has not. It tells nothing of
            any study.
    """

    chosen: Pair
    runner_up: Pair | None
    guarded: bool = False
    learning: bool = False
    instead_of: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a trial, on the scale of quality.

    Attributes:
        mean: Expected quality.
        std: Its standard deviation.
        predicted_cost_seconds: What it will take; 1 for all when nothing was ever measured.
        cost_known: Whether that rests on any measurement.
        expected_improvement: By how much it is expected to exceed the best quality so far, >= 0.
        best: Best quality observed, 0 before the first observation.
    """

    mean: float
    std: float
    predicted_cost_seconds: float
    cost_known: bool
    expected_improvement: float
    best: float


class Scheduler(Protocol):
    """All tenants after the trials so far; a tenant is its index in ``problem.studies``."""

    @property
    def needs_refit(self) -> bool:
        """Whether the next answer begins with ``refit``, which takes seconds where there are very many results."""

    def refit(self) -> None:
        """Learn anew what the results have made out of date, if anything; a question does the same where it must."""

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way, on a device of this kind."""

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
        """Take in a finished trial, started before or not; quality None when it failed.

        ``later``: how many of the trials taken in ended after it, >= 0; where there are any, all are replayed. Only a
        scheduler that learns costs can do that.
        """

    def choose(self, *, seed: tuple[int, ...] = (0,), device: str | None = None) -> Choice | None:
        """The next trial for a free device, or None when nothing is left to run.

        Args:
            seed: Whole numbers >= 0, for the random policies; the same seed and state give the same choice.
            device: Kind of the free device; None for the only kind there is.
        """

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What is expected of one trial now, on a device of this kind where it is not under way yet."""

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """What each arm of a tenant is worth to the policy now, shape ``(n_arms,)``; -inf where it may not run."""

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """The highest price of a second at which a trial of the tenant would still run, whatever the price is now.

        Infinite where the policy asks for no price, -inf where nothing of the tenant may run at any.
        """

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a tenant that has one."""

    def charge(self, tenant: int, seconds: float) -> None:
        """Take in what a tenant has used beside the costs of its trials, such as the starts of their processes."""


def next_refit(results: int) -> int:
    """The number of results at which costs, and a prior that lacks a past, are learnt anew after this many.

    After every eighth of what there is at first, after every 25 results then, after every fortieth of very many.

    Example:
        >>> [next_refit(results) for results in (0, 1, 16, 100, 1000, 20_000)]
        [1, 2, 18, 112, 1025, 20500]
    """
    return results + max(1, min(REFIT_AFTER, results // 8), results // 40)


class State(Protocol):
    """What a policy makes of the trials: made from what was learnt so far, then changed by each start and end."""

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way."""

    def record(
        self, tenant: int, arm: int, quality: float | None, cost_seconds: float, *, device: str | None = None
    ) -> None:
        """Take in a finished trial, started before or not."""

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """As of ``Scheduler``."""

    def charge(self, tenant: int, seconds: float) -> None:
        """As of ``Scheduler``."""


StateT = TypeVar("StateT", bound=State)


class ReplayingScheduler(Generic[StateT]):
    """What is reported to a scheduler, and the state of its policy, which is made anew where it must be.

    What is learnt is learnt again at fixed numbers of results (``next_refit``), and all trials are then replayed: what
    was computed in between would otherwise depend on when. So a scheduler that is rebuilt from the same finished trials
    in the order of their end, and those under way in the order of their start, is the same, bit for bit.

    For the methods see ``Scheduler``; a policy adds ``make_state`` and the questions.
    """

    def __init__(self, problem: Problem, *, refits: bool) -> None:
        """Start before any trial."""
        self.problem, self._refits = problem, refits
        self._pulls: list[tuple[int, Pull]] = []
        self._started: dict[tuple[int, int], str | None] = {}
        self._seconds_left: dict[int, float] = {}
        self._charged: dict[int, float] = {}
        # What is learnt anew is learnt when it is first needed: with trials to replay, not before the first of them.
        self._fitted, self._is_stale = 0, refits
        if not refits:
            self._state = self.make_state([])

    def make_state(self, fitted: list[tuple[int, Pull]]) -> StateT:
        """The state before any trial, with what is learnt from results: pairs of a tenant and its finished trial."""
        raise NotImplementedError

    @property
    def state(self) -> StateT:
        """The state after all trials."""
        self.refit()
        return self._state

    @property
    def needs_refit(self) -> bool:
        """Whether results have come in that must be learnt from anew."""
        return self._is_stale

    def refit(self) -> None:
        """Learn anew from the results up to the last refit point and replay all trials, where that must be."""
        if self._is_stale:
            with one_thread():
                self._replay()

    def _replay(self) -> None:
        self._state, self._is_stale = self.make_state(self._pulls[: self._fitted]), False
        for tenant, pull in self._pulls:
            self._state.record(tenant, pull.arm, pull.quality, pull.cost_seconds, device=pull.device)
        for (tenant, arm), device in self._started.items():
            self._state.start(tenant, arm, device=device)
        for tenant, seconds in self._charged.items():
            self._state.charge(tenant, seconds)
        for tenant, seconds in self._seconds_left.items():
            self._state.set_seconds_left(tenant, seconds)

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way, on a device of this kind."""
        self._started[tenant, arm] = device
        if not self._is_stale:
            self._state.start(tenant, arm, device=device)

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
            pull = Pull(self.problem.studies[tenant].study_id, arm, quality, cost_seconds, device=device)
            self._pulls.insert(len(self._pulls) - later, (tenant, pull))
            if len(self._pulls) >= next_refit(self._fitted):
                self._fitted, self._is_stale = len(self._pulls), True
            self._is_stale |= later > 0
        if not self._is_stale:
            self._state.record(tenant, arm, quality, cost_seconds, device=device)

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a tenant that has one."""
        self._seconds_left[tenant] = seconds
        if not self._is_stale:
            self._state.set_seconds_left(tenant, seconds)

    def charge(self, tenant: int, seconds: float) -> None:
        """Take in what a tenant has used beside the costs of its trials, such as the starts of their processes."""
        self._charged[tenant] = self._charged.get(tenant, 0.0) + seconds
        if not self._is_stale:
            self._state.charge(tenant, seconds)

"""Suggest the next trials of a problem, each with its reasons.

    >>> from easeml_core.settings.config import SelectionConfig
    >>> from easeml_core.selection.problem import Arms, Problem, Pull
    >>> digits = Arms(1, 1.0, ("knn", "forest"), study="digits")
    >>> wine = Arms(2, 1.0, ("knn", "forest"), study="wine")
    >>> problem = Problem((digits, wine), pulls=(Pull(1, 0, 0.98, 2.0), Pull(2, 0, 0.70, 1.0)))
    >>> [suggestion] = suggest(problem, count=1, config=SelectionConfig())
    >>> suggestion.study_id, suggestion.arm, suggestion.runner_up.study_id
    (2, 1, 1)

Everything is rebuilt from the observations in each call: the same problem gives the same answer, in any process, and a
batch is the same as single suggestions one after another with the earlier ones under way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError
from easeml_core.settings.limits import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.policies.user_policy import Asked
    from easeml_core.selection.problem import Arms, Problem
    from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair, Scheduler
    from easeml_core.selection.surrogate.posterior import Array
    from easeml_core.settings.config import SelectionConfig


RIVAL_WORDS = "; next best was "
"""A sentence names the runner-up after these words."""

OF_OTHER_TENANT = "a trial of another tenant"
"""In place of a runner-up, for who may not read the studies of its tenant."""


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The second best pair of a study and a candidate.

    Attributes:
        study_id: The study.
        arm: Number of its candidate, from 0.
        acquisition: Its worth to the policy.
    """

    study_id: int
    arm: int
    acquisition: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A trial worth running next, and why.

    Attributes:
        study_id: Whose trial it is.
        arm: Which candidate.
        mean: Posterior mean of its quality.
        std: Posterior standard deviation of its quality.
        predicted_cost_seconds: What it is expected to take; 1 for all when nothing was ever measured.
        expected_improvement: By how much it is expected to exceed the study's best, >= 0.
        best: The study's best quality so far, 0 before the first result.
        acquisition: Its worth to the policy: weighted EI per second, or the upper confidence bound.
        policy: The policy that chose it.
        guarded: Whether the guard chose the study, because it was served least.
        guard: The guard's share of the compute.
        learning: Whether it runs for what a cheap trial teaches, while there is hardly any past.
        runner_up: The second best; None when nothing else was left. Of the same study where the policy chooses the
            tenant first.
        sentence: The reason in one sentence.
        instead_of: Why the default policy has chosen in place of the user's policy that is set; empty where it has not.
    """

    study_id: int
    arm: int
    mean: float
    std: float
    predicted_cost_seconds: float
    expected_improvement: float
    best: float
    acquisition: float
    policy: str
    guarded: bool
    guard: float
    learning: bool
    runner_up: RunnerUp | None
    sentence: str
    instead_of: str = ""


def suggest(
    problem: Problem, *, count: int, config: SelectionConfig, round_seed: int = 0, device: str | None = None
) -> tuple[Suggestion, ...]:
    """The trials to run next, best first.

    Args:
        problem: Studies, finished trials, trials under way, the past.
        count: How many devices wait for a trial, >= 1.
        config: Policy and its settings.
        round_seed: Further seed of the random policies.
        device: Kind of the devices that wait; None for the only kind there is.

    Returns:
        At most ``count`` suggestions, all different; fewer, or none, when nothing more is left to run.

    Raises:
        InvalidInputError: If the count is below 1.
        NumericalError: If the prior is no covariance.
    """
    problem = replace(problem, studies=tuple(sorted(problem.studies, key=lambda arms: arms.study_id)))
    scheduler = scheduler_for(problem, config=config)
    return suggest_next(scheduler, problem.studies, count=count, config=config, round_seed=round_seed, device=device)


def scheduler_for(
    problem: Problem,
    *,
    config: SelectionConfig,
    known_costs: Mapping[int, Array] | None = None,
    ask: Asked | None = None,
) -> Scheduler:
    """Return the scheduler of a policy, after all the trials of the problem.

    Args:
        problem: Studies, finished trials, trials under way, the past.
        config: Policy and its settings.
        known_costs: Study id to the cost of each arm, shape ``(n_arms,)``; None when costs are to be learnt.
        ask: As of ``policies.default.UserScheduler``, where the policy is an installed one.

    Raises:
        NumericalError: If the prior is no covariance.
        NotFoundError: The policy is not installed, and ``ask`` is None.
    """
    from easeml_core.selection.blas_threads import one_thread
    from easeml_core.selection.policies.default import DefaultScheduler, UserScheduler
    from easeml_core.selection.policies.published import PublishedScheduler

    with one_thread():
        scheduler: Scheduler
        if config.policy.startswith(PLUGIN):
            scheduler = UserScheduler(problem, config=config, known_costs=known_costs, ask=ask)
        else:
            kind = DefaultScheduler if config.policy == "default" else PublishedScheduler
            scheduler = kind(problem, config=config, known_costs=known_costs)
    index = {arms.study_id: i for i, arms in enumerate(problem.studies)}
    for pull in problem.in_order():
        scheduler.record(index[pull.study_id], pull.arm, pull.quality, pull.cost_seconds, device=pull.device)
    for trial in problem.pending:
        scheduler.start(index[trial.study_id], trial.arm, device=trial.device)
    return scheduler


def suggest_next(
    scheduler: Scheduler,
    studies: Sequence[Arms],
    *,
    count: int,
    config: SelectionConfig,
    round_seed: int = 0,
    device: str | None = None,
) -> tuple[Suggestion, ...]:
    """As ``suggest``, of a scheduler that is there already; the suggested trials are under way in it afterwards."""
    if count < 1:
        message = f"count must be >= 1, got {count}; ask for as many trials as devices wait"
        raise InvalidInputError(message)
    place = {arms.study_id: tenant for tenant, arms in enumerate(studies)}
    suggestions: list[Suggestion] = []
    for _ in range(count):
        found = suggestion_of(scheduler, studies, config=config, round_seed=round_seed, device=device)
        if found is None:
            break
        suggestions.append(found)
        scheduler.start(place[found.study_id], found.arm, device=device)
    return tuple(suggestions)


def suggestion_of(
    scheduler: Scheduler,
    studies: Sequence[Arms],
    *,
    config: SelectionConfig,
    round_seed: int = 0,
    device: str | None = None,
) -> Suggestion | None:
    """The trial to run next, or None; nothing has changed in the scheduler afterwards."""
    seed = (config.seed % 2**64, round_seed % 2**64)
    choice = scheduler.choose(seed=seed, device=device)
    return None if choice is None else _explain(choice, scheduler, studies, config, device)


def _explain(
    choice: Choice, scheduler: Scheduler, studies: Sequence[Arms], config: SelectionConfig, device: str | None
) -> Suggestion:
    """The choice with its figures and its sentence."""
    chosen, second = choice.chosen, choice.runner_up
    forecast = scheduler.forecast(chosen.tenant, chosen.arm, device=device)
    policy = "default" if choice.instead_of else config.policy
    return Suggestion(
        study_id=studies[chosen.tenant].study_id,
        arm=chosen.arm,
        mean=forecast.mean,
        std=forecast.std,
        predicted_cost_seconds=forecast.predicted_cost_seconds,
        expected_improvement=forecast.expected_improvement,
        best=forecast.best,
        acquisition=chosen.acquisition,
        policy=policy,
        guarded=choice.guarded,
        guard=config.guard if policy == "default" else 0.0,
        learning=choice.learning,
        runner_up=_runner_up(second, studies) if second else None,
        sentence=_sentence(choice, forecast, scheduler, studies, device, policy),
        instead_of=choice.instead_of,
    )


def _runner_up(pair: Pair, studies: Sequence[Arms]) -> RunnerUp:
    arms = studies[pair.tenant]
    return RunnerUp(arms.study_id, pair.arm, pair.acquisition)


def _sentence(
    choice: Choice, forecast: Forecast, scheduler: Scheduler, studies: Sequence[Arms], device: str | None, policy: str
) -> str:
    """What is expected of the trial, at what price, why it was due, and what it was preferred to."""
    arms, arm = studies[choice.chosen.tenant], choice.chosen.arm
    if forecast.best > 0:
        promise = f"expected +{forecast.expected_improvement:.4f} quality"
    else:
        promise = f"no result yet, expected quality {forecast.mean:.4f}"
    known = forecast.cost_known
    price = f"for about {seconds_text(forecast.predicted_cost_seconds)}" if known else "at an unknown cost"
    why = ""
    if choice.instead_of:
        why = f"; {choice.instead_of}, so the default policy chose"
    elif choice.guarded:
        why = "; it was served least and is owed a trial"
    elif choice.learning:
        why = "; it is the cheapest trial there is, and teaches what the others may bring"
    if policy.startswith(PLUGIN):  # it says of no other trial what it is worth
        return f"{arms.label}: {promise} {price} of {arms.names[arm]}; policy {policy} chose it"
    rival = choice.runner_up
    ending = RIVAL_WORDS + _rival(rival, scheduler, studies, device) if rival else "; nothing else was left"
    return f"{arms.label}: {promise} {price} of {arms.names[arm]}{why}{ending}"


def _rival(pair: Pair, scheduler: Scheduler, studies: Sequence[Arms], device: str | None) -> str:
    arms = studies[pair.tenant]
    forecast = scheduler.forecast(pair.tenant, pair.arm, device=device)
    price = f" for {seconds_text(forecast.predicted_cost_seconds)}" if forecast.cost_known else ""
    return f"{arms.label}/{arms.names[pair.arm]} (+{forecast.expected_improvement:.4f}{price})"


def seconds_text(cost: float) -> str:
    """Seconds for people: one decimal, or two figures below 1."""
    return f"{cost:.1f} s" if cost >= 1 else f"{cost:.2g} s"

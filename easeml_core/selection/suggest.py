"""The scheduler's door: a problem in, the next trials out, each with its reasons.

    >>> from easeml_core.config import SelectionConfig
    >>> from easeml_core.selection.problem import Arms, Problem, Pull
    >>> digits = Arms(1, 1.0, ("knn", "forest"), study="digits")
    >>> wine = Arms(2, 1.0, ("knn", "forest"), study="wine")
    >>> problem = Problem((digits, wine), pulls=(Pull(1, 0, 0.98, 2.0), Pull(2, 0, 0.70, 1.0)))
    >>> [suggestion] = suggest(problem, count=1, config=SelectionConfig())
    >>> suggestion.sentence
    'wine: expected +0.0649 quality for about 1.0 s of forest; next best was digits/forest'

Everything is rebuilt from the observations in each call: the same problem gives the same answer, in any process, and a
batch is the same as single suggestions one after another with the earlier ones under way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError
from easeml_core.selection.costs import learn_costs
from easeml_core.selection.expected_improvement import expected_improvement
from easeml_core.selection.policies import choose
from easeml_core.selection.prior import learn_prior
from easeml_core.selection.standings import Standing, Standings

if TYPE_CHECKING:
    from easeml_core.config import SelectionConfig
    from easeml_core.selection.policies import Choice, Pair
    from easeml_core.selection.problem import Problem


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A trial worth running next, and why.

    Attributes:
        study_id: Whose trial it is.
        arm: Which candidate.
        mean: Posterior mean of its quality.
        std: Posterior standard deviation of its quality.
        predicted_cost_seconds: What the cost model expects; 1 for all when nothing was ever measured.
        acquisition: Its worth to the policy: weighted EI per second, or the upper confidence bound.
        policy: The policy that chose it.
        runner_up: ``study_id``, ``arm`` and ``acquisition`` of the second best; None when nothing else was left. Of
            the same study where the policy chooses the tenant first.
        sentence: The reason in one sentence.
    """

    study_id: int
    arm: int
    mean: float
    std: float
    predicted_cost_seconds: float
    acquisition: float
    policy: str
    runner_up: dict[str, Any] | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The suggestion as plain JSON."""
        return asdict(self)


def suggest(problem: Problem, *, count: int, config: SelectionConfig, round_seed: int = 0) -> tuple[Suggestion, ...]:
    """The trials to run next, best first.

    Args:
        problem: Studies, finished trials, trials under way, the past.
        count: How many devices wait for a trial, >= 1.
        config: Policy and its settings.
        round_seed: Further seed of the ``random`` policy.

    Returns:
        At most ``count`` suggestions, all different; fewer, or none, when nothing more is left to run.

    Raises:
        InvalidInputError: If the count is below 1.
        NumericalError: If the prior is no covariance.
    """
    if count < 1:
        message = f"count must be >= 1, got {count!r}; ask for one trial for each free device"
        raise InvalidInputError(message)
    standings = stand(problem, config)
    suggestions: list[Suggestion] = []
    while len(suggestions) < count:
        seed = (config.seed % 2**64, round_seed % 2**64, standings.given)
        choice = choose(standings, config.policy, seed=seed)
        if choice is None:
            break
        suggestions.append(_explain(choice, standings, config.policy))
        standings.start(choice.chosen.tenant, choice.chosen.arm)
    return tuple(suggestions)


def stand(problem: Problem, config: SelectionConfig) -> Standings:
    """Where the tenants of a problem stand, in the order of their study ids, by replay of its trials.

    Prior and costs are those learnt from all that is known now, also for rounds long past: so the standings are a
    function of the problem alone.
    """
    costs = learn_costs(problem)
    priors = {names: learn_prior(names, problem.history) for names in {arms.names for arms in problem.studies}}
    studies = sorted(problem.studies, key=lambda arms: arms.study_id)
    standings = Standings(
        [
            Standing(
                arms,
                prior=priors[arms.names],
                costs=costs.predict(arms.study_id, arms.names),
                costs_known=costs.known,
                noise_variance=config.noise_variance,
            )
            for arms in studies
        ],
        config=config,
    )
    index = {arms.study_id: i for i, arms in enumerate(studies)}
    for pull in problem.in_order():
        standings.record(index[pull.study_id], pull.arm, pull.quality, pull.cost_seconds)
    for trial in problem.pending:
        standings.start(index[trial.study_id], trial.arm)
    return standings


def _explain(choice: Choice, standings: Standings, policy: str) -> Suggestion:
    """The choice with its figures and its sentence."""
    chosen, second = choice.chosen, choice.runner_up
    standing = standings.tenants[chosen.tenant]
    return Suggestion(
        study_id=standing.arms.study_id,
        arm=chosen.arm,
        mean=float(standing.posterior.mean[chosen.arm]),
        std=float(standing.posterior.std[chosen.arm]),
        predicted_cost_seconds=float(standing.costs[chosen.arm]),
        acquisition=chosen.acquisition,
        policy=policy,
        runner_up=_plain(second, standings) if second else None,
        sentence=_sentence(choice, standings),
    )


def _plain(pair: Pair, standings: Standings) -> dict[str, Any]:
    study_id = standings.tenants[pair.tenant].arms.study_id
    return {"study_id": study_id, "arm": pair.arm, "acquisition": pair.acquisition}


def _sentence(choice: Choice, standings: Standings) -> str:
    """What is expected of the trial, at what price, and what it was preferred to."""
    standing, arm = standings.tenants[choice.chosen.tenant], choice.chosen.arm
    posterior = standing.posterior
    gain = expected_improvement(posterior.mean, posterior.std, best=standing.best)[arm]
    if standing.observations:
        promise = f"expected +{gain:.4f} quality"
    else:
        promise = f"no result yet, expected quality {posterior.mean[arm]:.4f}"
    price = f"for about {_seconds(float(standing.costs[arm]))}" if standing.costs_known else "at an unknown cost"
    rival = choice.runner_up
    ending = f"next best was {_name(rival, standings)}" if rival else "it was the last candidate of its study"
    return f"{standing.arms.label}: {promise} {price} of {standing.arms.names[arm]}; {ending}"


def _name(pair: Pair, standings: Standings) -> str:
    arms = standings.tenants[pair.tenant].arms
    return f"{arms.label}/{arms.names[pair.arm]}"


def _seconds(cost: float) -> str:
    """Seconds for people: one decimal, or two figures below 1."""
    return f"{cost:.1f} s" if cost >= 1 else f"{cost:.2g} s"

"""The backtest: the rule by which a replay of known results chooses a policy.

The replay is an ordinary simulation; this module selects its tenants and its draws, and evaluates its curves. A
policy's score in one repeat is the price of losses in percent of the cost of everything:

    s_r = ( prod over losses l of  percent_r(l) )^(1/n),    l in LOSSES

``default`` stays unless another policy's score is lower by more than the standard error of the difference, over the
same draws. Repeats share tenants, so more of them do not make the past any longer: the variance of a mean over
repeats has a term that stays.

    ln s_r(policy) - ln s_r(default) = d_r,    se^2 = (1/R + N/K) var(d)

with R repeats, N tenants served and K that are history. Source: Nadeau and Bengio, Inference for the Generalization
Error, Machine Learning 52 (2003), corrected resampled t-test, for the term N/K.

Calibration of the ``default`` policy: its posterior on past tenants that its prior has not seen.

Each past tenant in turn is treated as a new one: a prior is learnt from the others, the posterior takes some of the
tenant's results, and the rest are compared with its predictions. A policy that compares tenants by expected improvement
needs calibrated improvements, not only a good order of the candidates: otherwise it prefers tenants whose improvements
are overestimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve
from scipy.special import ndtri

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.selection.policies import acquisition
from easeml_core.selection.problem import Past
from easeml_core.selection.simulate.protocol import RIVALS, Contestant, Protocol, parse_contestants, scene
from easeml_core.selection.simulate.report import NEVER
from easeml_core.selection.simulate.tables import Table
from easeml_core.selection.surrogate import logit_normal
from easeml_core.selection.surrogate.posterior import LatentPosterior
from easeml_core.selection.surrogate.prior import DEGREES_OF_FREEDOM, quality_rows, transfer_prior

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.simulate.report import Curve
    from easeml_core.selection.surrogate.posterior import Array, Belief
    from easeml_core.settings.config import SelectionConfig

LOSSES = (0.05, 0.02, 0.01)
LEAST_TENANTS, LEAST_RESULTS = 8, 3
"""Fewer tenants with so many results do not tell one policy from another."""
MOST_SERVED = 10
REPEATS = 30
ERRORS = 1.0
"""By how many standard errors another policy must be better."""


def contestants_of(base: SelectionConfig) -> tuple[Contestant, ...]:
    """Return the policies that a backtest compares, with the other settings of ``base``.

    Without a price of compute: with a price, policies stop early, which the backtest does not compare.
    """
    return parse_contestants(RIVALS, base=evolve(base, beta_multiplier=1.0, price_per_second=0.0), candidates=())


def telling(table: Table) -> Table:
    """The tenants with at least LEAST_RESULTS results, and the candidates that any of them has."""
    known = ~np.isnan(table.quality)
    rows = known.sum(axis=1) >= LEAST_RESULTS
    columns = known[rows].any(axis=0)
    return Table(
        tuple(name for name, kept in zip(table.tenants, rows, strict=True) if kept),
        tuple(name for name, kept in zip(table.candidates, columns, strict=True) if kept),
        *(array[np.ix_(rows, columns)] for array in (table.quality, table.cost)),
    )


def protocol_of(
    n_tenants: int, *, cost_mode: str, served: int | None = None, repeats: int = REPEATS, seed: int = 0
) -> Protocol:
    """How the past is replayed: a third of the tenants are served, at most MOST_SERVED, all the others are history.

    Example:
        >>> [protocol_of(n, cost_mode="unit").served for n in (8, 24, 121)]
        [2, 8, 10]
    """
    served = max(1, min(MOST_SERVED, n_tenants // 3)) if served is None else served
    return Protocol(served=served, repeats=repeats, seed=seed, cost_mode=cost_mode, losses=LOSSES)


def log_scores(curves: Sequence[Curve]) -> Array:
    """The logarithm ln s_r of each repeat, shape ``(n_repeats,)``.

    A loss that was there before the first trial costs nothing under any policy, and is left out by counting as 1.
    """
    percents = np.array([[min(curve.percent_to(loss), NEVER) for loss in LOSSES] for curve in curves])
    return np.asarray(np.log(np.where(percents > 0, percents, 1.0)).mean(axis=1))


def past_of(table: Table) -> tuple[Past, ...]:
    """The rows of a table as past tenants, without what is not available."""
    known = ~np.isnan(table.quality)
    names = np.array(table.candidates, dtype=object)
    return tuple(
        Past(i, tuple(names[row]), *(tuple(a[i, row].tolist()) for a in (table.quality, table.cost)))
        for i, row in enumerate(known)
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A policy against ``default`` over the same draws.

    Attributes:
        ratio: Its price over that of ``default``, geometric mean; below 1 it is cheaper.
        low: The ratio less one standard error.
        high: The ratio and one standard error.
        better: Whether it is cheaper by more than ERRORS standard errors.
    """

    ratio: float
    low: float
    high: float
    better: bool


def compare(scores: Array, of_default: Array, protocol: Protocol, n_tenants: int) -> Comparison:
    """Compare a policy with ``default``; scores are those of ``log_scores``, of the same repeats.

    One repeat alone has no spread, and nothing is better by it.
    """
    difference = scores - of_default
    mean = float(difference.mean())
    spread = float(difference.var(ddof=1)) if len(difference) > 1 else math.inf
    others = n_tenants - protocol.served
    overlap = protocol.served / others if others else math.inf
    error = math.sqrt((1 / len(difference) + overlap) * spread) if spread > 0 else 0.0
    return Comparison(
        ratio=math.exp(mean),
        low=math.exp(mean - error) if error < math.inf else 0.0,
        high=math.exp(mean + error) if error < math.inf else math.inf,
        better=mean < -ERRORS * error,
    )


@dataclass(frozen=True, slots=True)
class Ruling:
    """What follows from a replay.

    Attributes:
        winner: Name of the policy to follow.
        scores: s of each policy, geometric mean over the repeats, in percent of the cost.
        comparisons: Of each other policy with ``default``.
    """

    winner: str
    scores: Mapping[str, float]
    comparisons: Mapping[str, Comparison]


def rule(curves: Mapping[str, Sequence[Curve]], protocol: Protocol, n_tenants: int) -> Ruling:
    """Choose a policy: of those that are better than ``default`` the cheapest, else ``default``."""
    logs = {name: log_scores(mine) for name, mine in curves.items()}
    reference, *others = logs
    comparisons = {name: compare(logs[name], logs[reference], protocol, n_tenants) for name in others}
    better = [name for name in others if comparisons[name].better]
    winner = min(better, key=lambda name: comparisons[name].ratio, default=reference)
    return Ruling(winner, {name: float(np.exp(mine.mean())) for name, mine in logs.items()}, comparisons)


@typed_record
class CostToLoss:
    """What a policy needs until the average loss is no more than a given one.

    Attributes:
        percent: Median share of the cost of everything, in percent; a repeat that never gets there counts as 100.
        p10: Its 10th percentile over the repeats.
        p90: Its 90th percentile.
        cost: The median, in the unit of the table's costs.
        reached: Share of the repeats that got there, in [0, 1].
    """

    percent: float
    p10: float
    p90: float
    cost: float
    reached: float


@typed_record
class AgainstDefault:
    """How many times as much a policy costs as ``default``; figures that are not finite are None."""

    ratio: float | None
    low: float | None
    high: float | None
    better: bool


@typed_record
class PolicyFigures:
    """Figures of one policy: the cost to each loss, its score, and the comparison; None of ``default`` itself."""

    to_loss: dict[str, CostToLoss]
    score: float
    against_default: AgainstDefault | None


def figures_of(name: str, curves: Sequence[Curve], ruling: Ruling, totals: Array) -> PolicyFigures:
    """Return the figures of one policy.

    Args:
        name: The policy.
        curves: Of its repeats.
        ruling: Of all policies.
        totals: Cost of everything in each repeat, shape ``(n_repeats,)``.
    """
    needed: dict[str, CostToLoss] = {}
    for loss in LOSSES:
        raw = np.array([curve.percent_to(loss) for curve in curves])
        percents = np.minimum(raw, NEVER)
        needed[f"{loss:g}"] = CostToLoss(
            percent=float(np.median(percents)),
            p10=float(np.quantile(percents, 0.1)),
            p90=float(np.quantile(percents, 0.9)),
            cost=float(np.median(percents / 100 * totals)),
            reached=float(np.isfinite(raw).mean()),
        )
    found = ruling.comparisons.get(name)
    against = None
    if found is not None:
        against = AgainstDefault(_finite(found.ratio), _finite(found.low), _finite(found.high), found.better)
    return PolicyFigures(needed, ruling.scores[name], against)


def _finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


def totals_of(table: Table, protocol: Protocol) -> Array:
    """Cost of everything in each repeat, shape ``(n_repeats,)``."""
    return np.array([scene(table, protocol, repeat).total_cost for repeat in range(protocol.repeats)])


OWN = (1, 2, 4)
FOLDS = 10
COVERAGE = 0.8


@dataclass(frozen=True, slots=True)
class Calibration:
    """How expectations compare with results, after some results of the tenant.

    Attributes:
        own: How many results of the tenant the posterior had seen.
        tenant_scale: Whether the tenant's scale was learnt along, see ``selection/surrogate/prior.py``.
        tenants: How many tenants were predicted.
        results: How many of their results.
        z_mean: Mean of the z-scores (result - mean) / std on the latent scale, noise included; 0 when calibrated.
        z_std: Their standard deviation; 1 when calibrated, above 1 when the posterior is too sure of itself.
        interval_coverage: Share of the results inside their central interval of probability ``COVERAGE``.
        predicted_improvement: Mean expected improvement over the best of the tenant's own results.
        realised_improvement: Mean of what the same candidates then improved it by.
        improvement_ratio: Predicted over realised improvement; 1 when calibrated, None when nothing was improved.
    """

    own: int
    tenant_scale: bool
    tenants: int
    results: int
    z_mean: float
    z_std: float
    interval_coverage: float
    predicted_improvement: float
    realised_improvement: float
    improvement_ratio: float | None


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What the posterior was tried on, and how it did.

    Attributes:
        tenants: Past tenants with any result.
        candidates: Names among them.
        folds: How many priors were learnt, each without the tenants of its fold; 0 with fewer than two tenants.
        coverage: Probability of the intervals.
        entries: With and without ``tenant_scale``, one for each number of own results that leaves any to predict.
    """

    tenants: int
    candidates: int
    folds: int
    coverage: float
    entries: tuple[Calibration, ...]


def calibration_report(
    history: Sequence[Past],
    config: SelectionConfig,
    *,
    own: Sequence[int] = OWN,
    folds: int = FOLDS,
    seed: int = 0,
) -> CalibrationReport:
    """The calibration of the posterior on tenants that were left out of its prior.

    Args:
        history: Past tenants; results that failed count as not there.
        config: Settings of the policy; ``tenant_scale`` is tried both ways, whatever it says.
        own: Numbers of the tenant's own results that the posterior sees first, >= 1. For all of them the same results
            of a tenant are predicted: those behind the largest number. Tenants that have none there are left out.
        folds: Parts into which the tenants are divided, >= 2; at most one for each tenant.
        seed: Of the division into folds, and of the order of each tenant's results.
    """
    if folds < 2 or not own or min(own) < 1:
        message = f"folds must be >= 2 and own hold numbers >= 1, got {folds} and {tuple(own)}; leave them out"
        raise InvalidInputError(message)
    names = sorted({name for past in history for name in past.names})
    qualities = quality_rows(names, history)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(qualities))
    orders = [rng.permutation(np.flatnonzero(~np.isnan(row))) for row in qualities]
    parts = [shuffled[i::folds] for i in range(min(folds, len(shuffled)))]
    parts = parts if len(parts) > 1 else []
    entries = []
    for scaled in (True, False):
        trial = _Trial(evolve(config, tenant_scale=scaled), qualities, orders, sorted(set(own)))
        for part in parts:
            trial.predict(part)
        entries += trial.entries()
    return CalibrationReport(
        tenants=len(qualities), candidates=len(names), folds=len(parts), coverage=COVERAGE, entries=tuple(entries)
    )


class _Trial:
    """The predictions under one configuration."""

    def __init__(
        self, config: SelectionConfig, qualities: Array, orders: list[NDArray[np.intp]], own: list[int]
    ) -> None:
        self._config, self._qualities, self._orders, self._own = config, qualities, orders, own
        self._latent = logit_normal.logit(qualities) if config.link == "logit" else qualities
        self._found: dict[int, list[tuple[Array, Array, Array]]] = {number: [] for number in own}

    def predict(self, part: NDArray[np.intp]) -> None:
        """Learn a prior without these tenants, and predict them."""
        prior = transfer_prior(np.delete(self._latent, part, axis=0), self._config)
        for tenant in part.tolist():
            if len(self._orders[tenant]) > self._own[-1]:
                self._predict_one(prior, tenant)

    def _predict_one(self, prior: Belief, tenant: int) -> None:
        posterior = LatentPosterior(
            prior,
            noise_variance=self._config.noise_variance,
            degrees_of_freedom=DEGREES_OF_FREEDOM if self._config.tenant_scale else math.inf,
        )
        order, row = self._orders[tenant], self._qualities[tenant]
        rest = order[self._own[-1] :]
        for seen, arm in enumerate(order[: self._own[-1]].tolist(), start=1):
            posterior.observe(arm, float(self._latent[tenant, arm]))
            if seen in self._found:
                best = float(row[order[:seen]].max())
                spread = np.sqrt(posterior.std[rest] ** 2 + self._config.noise_variance)
                scores = (self._latent[tenant, rest] - posterior.mean[rest]) / spread
                rule = logit_normal if self._config.link == "logit" else acquisition
                promised = rule.expected_improvement(posterior.mean[rest], posterior.std[rest], best=best)
                self._found[seen].append((scores, promised, np.maximum(row[rest] - best, 0.0)))

    def entries(self) -> list[Calibration]:
        """What was found, for each number of own results."""
        return [self._entry(number, found) for number, found in self._found.items() if found]

    def _entry(self, own: int, found: list[tuple[Array, Array, Array]]) -> Calibration:
        scores, promised, realised = (np.concatenate(parts) for parts in zip(*found, strict=True))
        reach = float(ndtri((1 + COVERAGE) / 2))
        expected, happened = float(promised.mean()), float(realised.mean())
        return Calibration(
            own=own,
            tenant_scale=self._config.tenant_scale,
            tenants=len(found),
            results=len(scores),
            z_mean=float(scores.mean()),
            z_std=float(scores.std()),
            interval_coverage=float((np.abs(scores) <= reach).mean()),
            predicted_improvement=expected,
            realised_improvement=happened,
            improvement_ratio=expected / happened if happened > 0 else None,
        )

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
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve

from easeml_core.encoding import typed_record
from easeml_core.selection.problem import Past
from easeml_core.selection.simulate.contestants import RIVALS, Contestant, parse_contestants
from easeml_core.selection.simulate.metrics import NEVER
from easeml_core.selection.simulate.protocol import Protocol, scene
from easeml_core.selection.simulate.tables import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.simulate.metrics import Curve
    from easeml_core.selection.surrogate.posterior import Array

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
    """Choose a policy: of those that are better than ``default`` the cheapest, else ``default``.

    Args:
        curves: Curves of all repeats by name of the policy; the first is the one that stays unless another is better.
        protocol: How they were drawn.
        n_tenants: Tenants of the table, served or not.
    """
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

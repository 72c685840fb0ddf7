"""The error of the cost model for unseen tenants: cross-validation that leaves whole tenants out.

The first decisions of a new tenant use the costs of other tenants. So each tenant in turn is predicted by a model of
the others, then again after some of its trials by ``TenantEffect.observe``, as the scheduler does between two fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.selection.costs.learn import Measured, fit_costs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from easeml_core.selection.costs.model import CostModel, TenantEffect
    from easeml_core.selection.surrogate.posterior import Array

OWN = (0, 1, 2, 5)
FOLDS = 10


@dataclass(frozen=True, slots=True)
class CostError:
    """The error of predictions made after some trials of the tenant.

    Attributes:
        own: How many trials of the tenant the model had seen.
        tenants: How many tenants were predicted.
        trials: How many of their trials.
        median_absolute_log10: Median of |log10(predicted / measured)|: half the predictions are off by less than
            10 to this power.
        rmse_log: Root mean square of log(predicted / measured), natural logarithm.
        r2: Share of the variance of log seconds, over all those trials, that the predictions explain; at most 1, and
            None where there is no variance.
        interval_coverage: Share of the trials inside their interval of probability ``CostReport.coverage``.
        right_order: Share of the pairs of one tenant's trials whose predictions are in the order of the measurements;
            None without pairs.
    """

    own: int
    tenants: int
    trials: int
    median_absolute_log10: float
    rmse_log: float
    r2: float | None
    interval_coverage: float
    right_order: float | None


@dataclass(frozen=True, slots=True)
class CostReport:
    """What the cost model was tried on, and how it did.

    Attributes:
        tenants: How many tenants were measured.
        candidates: How many candidates.
        trials: How many trials.
        folds: How many models were fitted, each without the tenants of its fold.
        coverage: Probability of the intervals.
        errors: One entry for each number of own trials; none when there are fewer than two tenants.
    """

    tenants: int
    candidates: int
    trials: int
    folds: int
    coverage: float
    errors: tuple[CostError, ...]


def cost_report(
    measured: Iterable[Measured | tuple[int, str, float]],
    *,
    own: Sequence[int] = OWN,
    folds: int = FOLDS,
    coverage: float = 0.8,
    seed: int = 0,
) -> CostReport:
    """The cost model's error on tenants that were left out of its fit.

    Args:
        measured: Finished trials that succeeded; tenants are their study ids.
        own: Numbers of the tenant's own trials that the model may see first, >= 0. For all of them the same trials of
            a tenant are predicted: those behind the largest number that leaves any.
        folds: Parts into which the tenants are divided, >= 2; at most one for each tenant.
        coverage: Probability of the intervals, in (0, 1).
        seed: Of the division into folds, and of the order of each tenant's trials.

    Raises:
        InvalidInputError: If an argument is out of its range.
    """
    _check(own, folds, coverage)
    trials = sorted((Measured(*trial) for trial in measured), key=lambda t: (t.study_id, t.name, t.seconds))
    groups = {study: list(mine) for study, mine in groupby(trials, key=lambda t: t.study_id)}
    rows = {trial.study_id: trial.rows for trial in trials if trial.rows is not None}
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.array(list(groups), dtype=np.int64)).tolist()
    parts = [shuffled[i::folds] for i in range(min(folds, len(shuffled)))]
    scores: dict[int, list[_Score]] = {number: [] for number in own}
    for part in parts if len(parts) > 1 else []:
        model = fit_costs([trial for trial in trials if trial.study_id not in set(part)], rows=rows)
        for study in part:
            order = [groups[study][i] for i in rng.permutation(len(groups[study]))]
            _score_tenant(model, order, sorted(own), coverage, scores)
    return CostReport(
        tenants=len(groups),
        candidates=len({trial.name for trial in trials}),
        trials=len(trials),
        folds=len(parts) if len(parts) > 1 else 0,
        coverage=coverage,
        errors=tuple(_summary(number, found) for number, found in scores.items() if found),
    )


def _check(own: Sequence[int], folds: int, coverage: float) -> None:
    for name, value, allowed, right in (
        ("own", own, "whole numbers >= 0, at least one", bool(own) and min(own) >= 0),
        ("folds", folds, ">= 2", folds >= 2),
        ("coverage", coverage, "> 0 and < 1", 0 < coverage < 1),
    ):
        if not right:
            message = f"{name} must be {allowed}, got {value!r}"
            raise InvalidInputError(message)


@dataclass(frozen=True, slots=True, eq=False)
class _Score:
    """One tenant's predicted trials: log(predicted / measured), measured logs, hits of the interval, orders."""

    misses: Array
    logs: Array
    inside: Array
    pairs: int
    right: float


def _score_tenant(
    model: CostModel, trials: Sequence[Measured], own: Sequence[int], coverage: float, scores: dict[int, list[_Score]]
) -> None:
    """Predict the last trials of a tenant after each number of its first ones."""
    possible = [number for number in own if number < len(trials)]
    effect, seen = model.effect(trials[0].study_id), 0
    for number in possible:
        for trial in trials[seen:number]:
            base, precision = model.base([trial.name], trial.device, trial.rows), model.precision([trial.name])
            effect = effect.observe(float(np.log(trial.seconds) - base[0]), float(precision[0]))
        seen = number
        scores[number].append(_score(model, trials[possible[-1] :], effect, coverage))


def _score(model: CostModel, trials: Sequence[Measured], effect: TenantEffect, coverage: float) -> _Score:
    logs, means, inside = np.log([trial.seconds for trial in trials]), np.empty(len(trials)), np.empty(len(trials))
    for device in {trial.device for trial in trials}:
        places = [place for place, trial in enumerate(trials) if trial.device == device]
        forecast = model.forecast(trials[0].study_id, [trials[i].name for i in places], device, effect=effect)
        low, high = forecast.interval(coverage)
        means[places] = forecast.log_mean
        inside[places] = (np.log(low) <= logs[places]) & (logs[places] <= np.log(high))
    first, second = np.triu_indices(len(trials), k=1)
    agreement = np.sign(logs[first] - logs[second]) * np.sign(means[first] - means[second])
    return _Score(means - logs, logs, inside, len(first), float(np.sum(0.5 + 0.5 * agreement)))


def _summary(own: int, scores: Sequence[_Score]) -> CostError:
    misses = np.concatenate([score.misses for score in scores])
    logs = np.concatenate([score.logs for score in scores])
    pairs = sum(score.pairs for score in scores)
    spread = float(np.sum((logs - logs.mean()) ** 2))
    return CostError(
        own=own,
        tenants=len(scores),
        trials=len(misses),
        median_absolute_log10=float(np.median(np.abs(misses)) / np.log(10)),
        rmse_log=float(np.sqrt(np.mean(misses**2))),
        r2=1 - float(np.sum(misses**2)) / spread if spread > 0 else None,
        interval_coverage=float(np.mean(np.concatenate([score.inside for score in scores]))),
        right_order=sum(score.right for score in scores) / pairs if pairs else None,
    )

"""What a trial will cost: learnt from finished trials, never assumed.

Training times spread over orders of magnitude and are products (a slow method on a large table on a slow device), so
the model is linear in the logarithm. A failed trial stopped before its end, so what it took is a lower bound of what a
successful one would take, and counts as no more. The model is in ``fit.py``.
``StudyCosts`` has what each trial costs in the eyes of a scheduler: known, learnt, or taken to be equal.

``cost_report`` is the error for unseen tenants, by cross-validation that leaves whole tenants out. The first decisions
of a new tenant use the costs of other tenants. So each tenant in turn is predicted by a model of the others, then again
after some of its trials by ``TenantEffect.observe``, as the scheduler does between two fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.selection.costs.fit import LEVEL, SLOPE_KEY, CostModel, CostTable, TenantEffect, fit_effects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.costs.fit import Components, Design, Key
    from easeml_core.selection.problem import Problem, Pull
    from easeml_core.selection.surrogate.posterior import Array


class Measured(NamedTuple):
    """What one finished trial took: seconds > 0; kind of device and rows trained on, where known."""

    study_id: int
    name: str
    seconds: float
    device: str | None = None
    rows: float | None = None


def fit_costs(
    measured: Iterable[Measured | tuple[int, str, float]],
    *,
    rows: Mapping[int, float] | None = None,
    like: CostModel | None = None,
) -> CostModel:
    """The cost model of measured trials.

    Example:
        >>> model = fit_costs([(1, "knn", 1.0), (1, "forest", 10.0), (2, "knn", 5.0)])
        >>> model.predict(2, ["knn", "forest"]).round(1).tolist()
        [3.9, 23.6]
    """
    trials = [trial if isinstance(trial, Measured) else Measured(*trial) for trial in measured]
    if not trials:
        return CostModel(rows=dict(rows or {}))
    ids, names, seconds, devices, sizes = zip(*trials, strict=True)
    studies, of_study = _indexed(ids)
    candidates, of_candidate = _indexed(names)
    kinds, of_kind = _indexed(devices, key=lambda kind: (kind is not None, kind))
    log_rows = np.log(np.array(sizes, dtype=np.float64))  # None becomes NaN
    table = CostTable(of_study, of_candidate, of_kind, np.log(np.array(seconds)), log_rows)
    fit = fit_effects(table, _variances(like, candidates) if like else None)
    keys = _keys(fit.design, candidates, kinds)
    latest = {study: size for study, size in zip(ids, sizes, strict=True) if size is not None}
    ridge = 1 / fit.components.tenant
    tenants = zip(studies, fit.tenant_sums.tolist(), fit.tenant_weights.tolist(), strict=True)
    return CostModel(
        known=True,
        effects=dict(zip(keys, fit.effects.tolist(), strict=True)),
        studies={study: TenantEffect(total, weight, ridge) for study, total, weight in tenants},
        rows=latest | dict(rows or {}),
        centre=fit.design.centre,
        several_devices=len(kinds) > 1,
        components=fit.components,
        noise=dict(zip(candidates, fit.noise.tolist(), strict=True)),
        covariance=fit.covariance,
        mean_row=fit.mean_row,
    )


def _indexed(values: Sequence[Any], key: Callable[[Any], Any] | None = None) -> tuple[list[Any], NDArray[np.intp]]:
    """The different values in order, and the place of each value among them."""
    different = sorted(set(values), key=key)
    places = {value: i for i, value in enumerate(different)}
    return different, np.array([places[value] for value in values], dtype=np.intp)


def _variances(like: CostModel, candidates: Sequence[str]) -> tuple[Components, Array]:
    return like.components, 1 / like.precision(candidates)


def _keys(design: Design, candidates: Sequence[str], kinds: Sequence[str | None]) -> list[Key]:
    """What each column of a design stands for."""
    keys: list[Key] = [LEVEL, *(("candidate", name) for name in candidates)]
    if len(kinds) > 1:
        keys += [("device", kind) for kind in kinds]
        keys += [("pair", candidates[k], kinds[d]) for k, d in design.cells.tolist()]
    return keys if design.slopes is None else [*keys, SLOPE_KEY]


def learn_costs(problem: Problem) -> CostModel:
    """The cost model of everything that a problem knows: its finished trials, and the past.

    Fitted to the trials that succeeded. A failed one joins them, in a second fit with the same variances, only where it
    took longer than the first fit expects: a crash after one second says nothing of the price of a result, a time-out
    after an hour says that the price is higher still. While nothing has succeeded, what failed trials took is all that
    is known, and is used as it is. Budgets are another matter: they are charged every second.

    Example:
        >>> from easeml_core.selection.problem import Arms, Problem, Pull
        >>> arms = Arms(1, 1.0, ("knn", "forest"))
        >>> result, crash = Pull(1, 0, 0.9, 20.0), Pull(1, 1, None, 1.2)
        >>> learn_costs(Problem((arms,), (result, crash))).predict(1, arms.names).round(3).tolist()
        [20.0, 20.0]
    """
    rows = {arms.study_id: float(arms.rows) for arms in problem.studies if arms.rows is not None}
    succeeded, failed = _measured(problem, rows)
    if not succeeded:
        return fit_costs(failed, rows=rows)
    first = fit_costs(succeeded, rows=rows)
    longer = [trial for trial in failed if trial.seconds > _expected(first, trial)]
    return fit_costs(succeeded + longer, rows=rows, like=first) if longer else first


def _expected(model: CostModel, trial: Measured) -> float:
    """Predicted seconds of a trial that was run."""
    base = model.base([trial.name], trial.device, trial.rows)
    return float(np.exp(base[0] + model.effect(trial.study_id).mean))


def _measured(problem: Problem, rows: Mapping[int, float]) -> tuple[list[Measured], list[Measured]]:
    """What trials took, now and in the past: those that succeeded, and those that failed."""
    names = {arms.study_id: arms.names for arms in problem.studies}
    succeeded: list[Measured] = []
    failed: list[Measured] = []
    for p in problem.pulls:
        trial = Measured(p.study_id, names[p.study_id][p.arm], p.cost_seconds, p.device, rows.get(p.study_id))
        (failed if p.quality is None else succeeded).append(trial)
    for past in problem.history:
        for name, quality, cost in zip(past.names, past.qualities, past.costs, strict=True):
            if cost is not None:
                (failed if quality is None else succeeded).append(Measured(past.study_id, name, cost))
    return succeeded, failed


class StudyCosts:
    """Seconds of each arm of each study on each kind of device; a study is its index.

    Learnt costs are a joint fit to the results up to some point; from there on, each result moves its own study's
    effect at once, and the others at the next fit.

    Attributes:
        known: Whether they rest on any measurement.
    """

    def __init__(
        self, problem: Problem, *, known: Mapping[int, Array] | None = None, fitted: Sequence[Pull] = ()
    ) -> None:
        """Fit, or take over what is known."""
        self._studies = problem.studies
        self._given = known
        self._cached: list[dict[str | None, Array]] = [{} for _ in problem.studies]
        self._in_fit = sum(pull.quality is not None for pull in fitted)
        self.known = True
        if known is None:
            self._model = learn_costs(replace(problem, pulls=tuple(fitted), pending=()))
            self.known = self._model.known
            self._effects = [self._model.effect(arms.study_id) for arms in problem.studies]
            # Studies with the same candidates share what does not depend on the study; a tuple of hundreds of names is
            # too slow a key for every decision.
            groups = {names: number for number, names in enumerate(dict.fromkeys(a.names for a in problem.studies))}
            self._group = [groups[arms.names] for arms in problem.studies]
            self._bases: dict[tuple[int, str | None, int | None], Array] = {}
            self._precisions = [self._model.precision(names).tolist() for names in groups]

    def of(self, study: int, device: str | None = None) -> Array:
        """Seconds of each arm, > 0, shape ``(n_arms,)``; not to be written to."""
        arms = self._studies[study]
        if self._given is not None:
            return self._given[arms.study_id]
        found = self._cached[study].get(device)
        if found is None:
            found = np.exp(self._base(study, device) + self._effects[study].mean)
            self._cached[study][device] = found
        return found

    def observe(self, study: int, arm: int, seconds: float, device: str | None = None) -> bool:
        """Take in a successful trial; whether the costs of its study have changed. The fit has counted its own."""
        if self._given is not None or not self.known:
            return False
        if self._in_fit:
            self._in_fit -= 1
            return False
        residual = math.log(seconds) - float(self._base(study, device)[arm])
        precision = self._precisions[self._group[study]][arm]
        self._effects[study] = self._effects[study].observe(residual, precision)
        self._cached[study].clear()
        return True

    def _base(self, study: int, device: str | None) -> Array:
        arms = self._studies[study]
        key = (self._group[study], device, arms.rows)
        found = self._bases.get(key)
        if found is None:
            plain = self._bases.get((self._group[study], device, None))
            if plain is None:
                plain = self._bases[self._group[study], device, None] = self._model.base(arms.names, device)
            found = self._bases[key] = plain + self._model.rows_effect(arms.rows)
        return found


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

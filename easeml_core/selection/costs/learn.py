"""What a trial will cost: learnt from finished trials, never assumed.

Training times spread over orders of magnitude and are products (a slow method on a large table on a slow device), so
the model is linear in the logarithm. A failed trial stopped before its end, so what it took is a lower bound of what a
successful one would take, and counts as no more. The model is in ``model.py``, the least squares in
``fit.py``, the error on tenants that it has not seen in ``report.py``.

What each trial costs in the eyes of a scheduler: known, learnt, or taken to be equal.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.selection.costs.fit import CostTable, fit_effects
from easeml_core.selection.costs.model import LEVEL, SLOPE_KEY, CostModel, TenantEffect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.costs.fit import Components, Design
    from easeml_core.selection.costs.model import Key
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

    Args:
        measured: What each finished trial took, in any order.
        rows: Rows of studies for predictions, over those of their measured trials.
        like: A model whose variances are kept instead of estimated anew.

    Returns:
        The fitted model; the one of equal costs when nothing was measured.

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
        """Fit, or take over what is known.

        Args:
            problem: Studies and history.
            known: Study id to the cost of each arm, shape ``(n_arms,)``; None when they are to be learnt.
            fitted: The results to fit to; ``observe`` receives them first, in the same order.
        """
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

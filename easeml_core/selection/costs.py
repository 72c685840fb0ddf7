"""What a trial will cost: learnt from finished trials, never assumed.

Training times spread over orders of magnitude and are products (a slow method on a large table), so the model is
linear in the logarithm, with one effect for the candidate and one for the study. A failed trial stopped before its
end, so what it took is a lower bound of what a successful one would take, and counts as no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.posterior import solve_positive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.posterior import Array
    from easeml_core.selection.problem import Problem

    Measured = tuple[int, str, float]

RIDGE = 1 / 16
"""Residual variance over effect variance: effects of e^2, residuals of e^0.5, both one standard deviation."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """A log-linear ridge regression on candidate and study.

        log c(i, k) = m + candidate_k + study_i,   minimising  sum (log c - fit)^2 + RIDGE (sum of squared effects)

    The level m is not penalised, so costs in another unit give the same predictions in that unit. Whatever was never
    seen has effect 0. Without any data all costs are equal (1 second) and ``known`` is false.

    Attributes:
        known: Whether there was any data.
        level: m.
        candidates: Effect of each candidate seen, by name.
        studies: Effect of each study seen, by id.
    """

    known: bool = False
    level: float = 0.0
    candidates: Mapping[str, float] = field(default_factory=dict)
    studies: Mapping[int, float] = field(default_factory=dict)

    def predict(self, study_id: int, names: Sequence[str]) -> Array:
        """Predicted seconds of each named candidate in a study, shape ``(n_arms,)``, > 0: the median, exp(fit)."""
        study = self.level + self.studies.get(study_id, 0.0)
        return np.exp([study + self.candidates.get(name, 0.0) for name in names])


def fit_costs(measured: Iterable[Measured]) -> CostModel:
    """The cost model of measured trials.

    Args:
        measured: (study id, candidate name, seconds > 0) of each finished trial, in any order.

    Returns:
        The fitted model; the one of equal costs when nothing was measured.

    Example:
        >>> model = fit_costs([(1, "knn", 1.0), (1, "forest", 10.0), (2, "knn", 5.0)])
        >>> model.predict(2, ["knn", "forest"]).round().tolist()
        [5.0, 40.0]
    """
    rows = list(measured)
    if not rows:
        return CostModel()
    names = sorted({name for _, name, _ in rows})
    studies = sorted({study for study, _, _ in rows})
    name_column = {name: 1 + i for i, name in enumerate(names)}
    study_column = {study: 1 + len(names) + i for i, study in enumerate(studies)}
    columns = np.array([(0, name_column[name], study_column[study]) for study, name, _ in rows], dtype=np.intp)
    logs = np.array([math.log(seconds) for _, _, seconds in rows])
    effects = _ridge(columns, logs, 1 + len(names) + len(studies)).tolist()
    return CostModel(
        known=True,
        level=effects[0],
        candidates={name: effects[i] for name, i in name_column.items()},
        studies={study: effects[i] for study, i in study_column.items()},
    )


def _ridge(columns: NDArray[np.intp], values: Array, size: int) -> Array:
    """Ridge coefficients of a design whose row r is 1 at ``columns[r]`` and 0 elsewhere; column 0 is not penalised."""
    normal = np.diag(np.r_[0.0, np.full(size - 1, RIDGE)])
    right = np.zeros(size)
    np.add.at(normal, (columns[:, :, None], columns[:, None, :]), 1.0)
    np.add.at(right, columns, values[:, None])
    return solve_positive(normal, right)


def learn_costs(problem: Problem) -> CostModel:
    """The cost model of everything that a problem knows: its finished trials, and the past.

    Fitted to the trials that succeeded. A failed one joins them, in one second fit, only where it took longer than the
    first fit expects: a crash after one second says nothing of the price of a result, a time-out after an hour says
    that the price is higher still. While nothing has succeeded, what failed trials took is all that is known, and is
    used as it is. Budgets are another matter: they are charged every second, see ``Standing.record``.

    Example:
        >>> from easeml_core.selection.problem import Arms, Problem, Pull
        >>> arms = Arms(1, 1.0, ("knn", "forest"))
        >>> result, crash = Pull(1, 0, 0.9, 20.0), Pull(1, 1, None, 1.2)
        >>> learn_costs(Problem((arms,), (result, crash))).predict(1, arms.names).round(3).tolist()
        [20.0, 20.0]
    """
    succeeded, failed = _measured(problem)
    if not succeeded:
        return fit_costs(failed)
    first = fit_costs(succeeded)
    longer = [(study, name, cost) for study, name, cost in failed if cost > first.predict(study, [name])[0]]
    return fit_costs(succeeded + longer) if longer else first


def _measured(problem: Problem) -> tuple[list[Measured], list[Measured]]:
    """What trials took, now and in the past: those that succeeded, and those that failed."""
    names = {arms.study_id: arms.names for arms in problem.studies}
    trials = [(p.quality, (p.study_id, names[p.study_id][p.arm], p.cost_seconds)) for p in problem.pulls]
    trials += [
        (quality, (past.study_id, name, cost))
        for past in problem.history
        for name, quality, cost in zip(past.names, past.qualities, past.costs, strict=True)
        if cost is not None
    ]
    succeeded = [measured for quality, measured in trials if quality is not None]
    return succeeded, [measured for quality, measured in trials if quality is None]

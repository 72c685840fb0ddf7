"""The least squares behind the cost model: all effects at once, and how much each kind of effect varies.

Arrays of indices in, arrays of effects out; names, devices and studies are the business of ``learn.py``. The tenants'
effects form a diagonal block, so they are eliminated first: the equations that are solved have one unknown for each
candidate and each device, however many tenants there are.

Source: Henderson's mixed-model equations and the effective number of parameters of MacKay, Bayesian interpolation,
Neural Computation 4(3), 1992. Letters: n trials, p global effects (level, candidates, devices, their interactions,
slope).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

from easeml_core.selection.surrogate.posterior import solve_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.selection.surrogate.posterior import Array

    Index = NDArray[np.intp]

SLOPE = 0.75
"""Prior mean of the slope on log rows: between a fixed time (0) and one proportional to the rows (1)."""

SLOPE_VARIANCE = 1 / 16

STRENGTH = 4.0
"""How many measured effects the prior of a variance counts for, and the common residual of a candidate's own one."""

TOLERANCE, MOST_STEPS = 0.02, 25


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of log seconds, all > 0: of the effects, and of what no effect explains."""

    candidate: float
    device: float
    interaction: float
    tenant: float
    residual: float


PRIOR = Components(candidate=4.0, device=0.5, interaction=0.25, tenant=1.0, residual=0.5)
"""What is thought before any data: candidates differ by e^2, studies by e, and a prediction is off by a factor of 2."""


@dataclass(frozen=True, slots=True, eq=False)
class CostTable:
    """Finished trials as arrays of one length n >= 1.

    Attributes:
        tenants: Index of each trial's tenant, in 0..n_tenants-1.
        candidates: Index of its candidate.
        devices: Index of its kind of device.
        logs: Natural logarithm of its seconds.
        log_rows: Natural logarithm of the rows that it was trained on; NaN where unknown.
    """

    tenants: Index
    candidates: Index
    devices: Index
    logs: Array
    log_rows: Array


@dataclass(frozen=True, slots=True, eq=False)
class CostFit:
    """The effects at the variances found.

    Attributes:
        components: The variances.
        noise: Variance of each candidate's noise, shape ``(n_candidates,)``.
        effects: The global effects, shape ``(p,)``.
        covariance: Their posterior covariance, shape ``(p, p)``.
        mean_row: Precision-weighted mean of the trials' rows of the design, shape ``(p,)``.
        tenant_sums: For each tenant the precision-weighted sum of its residuals from the global effects.
        tenant_weights: For each tenant the sum of those precisions.
        design: What each column means.
    """

    components: Components
    noise: Array
    effects: Array
    covariance: Array
    mean_row: Array
    tenant_sums: Array
    tenant_weights: Array
    design: Design


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """The columns of the global effects, and where each trial has its ones.

    A *cell* is a pair of candidate and device that was seen. Columns are, in this order: the level; the candidates;
    with two kinds of devices or more also the devices and the cells (interactions); with known rows the slope.

    Attributes:
        cells: Candidate and device of each cell, shape ``(n_cells, 2)``.
        columns: Columns in which the trials of a cell are 1, shape ``(n_cells, 2)`` or ``(n_cells, 4)``.
        cell: The cell of each trial, shape ``(n,)``.
        block: Kind of each column, shape ``(p,)``: 0 level, 1 candidate, 2 device, 3 interaction, 4 slope.
        owner: Candidate that a column belongs to, -1 for none, shape ``(p,)``.
        centre: Mean log rows; 0 when no rows are known.
        slopes: Log rows less their mean, 0 where unknown, shape ``(n,)``; None when no rows are known.
    """

    cells: Index
    columns: Index
    cell: Index
    block: Index
    owner: Index
    centre: float
    slopes: Array | None


def design_of(table: CostTable) -> Design:
    """The design of the trials."""
    n_candidates, n_devices = int(table.candidates.max()) + 1, int(table.devices.max()) + 1
    codes, cell = np.unique(table.candidates * n_devices + table.devices, return_inverse=True)
    cells = np.column_stack(np.divmod(codes, n_devices))
    columns = [np.zeros(len(cells), dtype=np.intp), 1 + cells[:, 0]]
    blocks, owners = [0] + [1] * n_candidates, [-1, *range(n_candidates)]
    if n_devices > 1:
        columns += [1 + n_candidates + cells[:, 1], 1 + n_candidates + n_devices + np.arange(len(cells))]
        blocks += [2] * n_devices + [3] * len(cells)
        owners += [-1] * n_devices + cells[:, 0].tolist()
    known = np.isfinite(table.log_rows)
    if known.any():
        blocks, owners = [*blocks, 4], [*owners, -1]
    centre = float(table.log_rows[known].mean()) if known.any() else 0.0
    slopes = np.where(known, table.log_rows - centre, 0.0) if known.any() else None
    block, owner = np.array(blocks, dtype=np.intp), np.array(owners, dtype=np.intp)
    return Design(cells, np.column_stack(columns), cell.reshape(-1), block, owner, centre, slopes)


def fit_effects(table: CostTable, like: tuple[Components, Array] | None = None) -> CostFit:
    """Effects by penalised least squares, at variances found by fixed-point steps or given.

        minimise  sum_r (log c_r - fit_r)^2 / sigma_k(r)^2  +  sum over effects of effect^2 / variance of its kind

    With gamma effects of a kind determined by the data (their number less the trace of their covariance over their
    variance), the next variance is (STRENGTH * prior + sum of their squares) / (STRENGTH + gamma), which rests where
    EM for REML with a scaled inverse chi-squared prior does, after fewer steps. The variance of a candidate's noise is
    shrunk to the common one in the same way.

    Args:
        table: At least one trial.
        like: Variances to be kept: the components, and the noise of each candidate, shape ``(n_candidates,)``.
    """
    solver = _Solver(table, design_of(table))
    if like is not None:
        return solver.solve(*like)
    fit = solver.solve(PRIOR, np.full(int(table.candidates.max()) + 1, PRIOR.residual))
    for _ in range(MOST_STEPS):
        components, noise = solver.variances(fit)
        if np.abs(np.log(astuple(components)) - np.log(astuple(fit.components))).max() < TOLERANCE:
            break
        fit = solver.solve(components, noise)
    return fit


class _Solver:
    """The equations of one table for any variances; what does not depend on these is computed once."""

    def __init__(self, table: CostTable, design: Design) -> None:
        self.table, self.design = table, design
        self.size, self.n_tenants = len(design.block), int(table.tenants.max()) + 1
        columns = design.columns[design.cell]
        self._places = [table.tenants * self.size + column for column in columns.T[1:]]
        self._logs = table.logs if design.slopes is None else table.logs - SLOPE * design.slopes
        self._trials = np.bincount(table.candidates).astype(np.float64)
        # Centred: a level far from 0 would cost the small effects their last digits.
        self._centre = float(self._logs.mean())
        self._logs = self._logs - self._centre

    def solve(self, components: Components, noise: Array) -> CostFit:
        """The effects at these variances, by elimination of the tenants (Schur complement)."""
        weights = (1 / noise)[self.table.candidates]
        totals, tenant_right = self._sum(weights), self._sum(weights * self._logs)
        cross = self._cross(weights, totals)
        normal, right = self._normal(weights)
        diagonal = totals + 1 / components.tenant
        scaled = cross / np.sqrt(diagonal)[:, None]
        self._shares = cross / diagonal[:, None]
        precision = np.array([0.0, *(1 / v for v in astuple(components)[:3]), 1 / SLOPE_VARIANCE])[self.design.block]
        covariance = _inverse(normal + np.diag(precision) - scaled.T @ scaled)
        effects = covariance @ (right - cross.T @ (tenant_right / diagonal))
        sums = tenant_right - cross @ effects
        effects[0] += self._centre
        effects[self.design.block == 4] += SLOPE
        mean_row = normal[0] / normal[0, 0]
        return CostFit(components, noise, effects, covariance, mean_row, sums, totals, self.design)

    def variances(self, fit: CostFit) -> tuple[Components, Array]:
        """The next variances."""
        block, old = self.design.block, np.array(astuple(fit.components))
        determined = np.where(block % 4 == 0, 1.0, 0.0)  # level and slope
        squares, gammas = np.zeros(4), np.zeros(4)
        for kind in (1, 2, 3):
            mine = block == kind
            determined[mine] = 1 - np.diagonal(fit.covariance)[mine] / old[kind - 1]
            squares[kind - 1], gammas[kind - 1] = np.sum(fit.effects[mine] ** 2), determined[mine].sum()
        tenants, squares[3], gammas[3] = self._tenants(fit)
        # A trial's leverage: what its candidate's own effects take up, and its share of what all the others do.
        owned = self.design.owner >= 0
        own = np.bincount(self.design.owner[owned], determined[owned], len(self._trials))
        share = (determined.sum() + gammas[3] - own.sum()) / self._trials.sum()
        free = np.maximum(self._trials * (1 - share) - own, 0.0)
        misses = np.bincount(self.table.candidates, (self.table.logs - self._fitted(fit, tenants)) ** 2)
        prior = np.array(astuple(PRIOR))
        new = ((STRENGTH * prior[:4] + squares) / (STRENGTH + np.maximum(gammas, 0.0))).tolist()
        common = (STRENGTH * prior[4] + misses.sum()) / (STRENGTH + free.sum())
        components = Components(new[0], new[1], new[2], new[3], float(common))
        return components, (STRENGTH * common + misses) / (STRENGTH + free)

    def _tenants(self, fit: CostFit) -> tuple[Array, float, float]:
        """Effects of the tenants, the sum of their squares, and how many of them the data determine."""
        diagonal = fit.tenant_weights + 1 / fit.components.tenant
        effects = fit.tenant_sums / diagonal
        trace = float(np.sum(1 / diagonal) + np.sum(fit.covariance * (self._shares.T @ self._shares)))
        return effects, float(effects @ effects), self.n_tenants - trace / fit.components.tenant

    def _fitted(self, fit: CostFit, tenants: Array) -> Array:
        cells = fit.effects[self.design.columns].sum(axis=1)
        fitted: Array = cells[self.design.cell] + tenants[self.table.tenants]
        return fitted if self.design.slopes is None else fitted + fit.effects[-1] * self.design.slopes

    def _sum(self, values: Array) -> Array:
        return np.bincount(self.table.tenants, values, self.n_tenants).astype(np.float64)

    def _cross(self, weights: Array, totals: Array) -> Array:
        """Weighted count of each tenant's trials in each column, shape ``(n_tenants, p)``."""
        cross: Array = np.zeros(self.n_tenants * self.size)
        for places in self._places:
            cross += np.bincount(places, weights, len(cross))
        table = cross.reshape(self.n_tenants, self.size)
        table[:, 0] = totals
        if self.design.slopes is not None:
            table[:, -1] = self._sum(weights * self.design.slopes)
        return table

    def _normal(self, weights: Array) -> tuple[Array, Array]:
        """Left and right side of the equations of the global effects, before the elimination."""
        columns, cell, slopes = self.design.columns, self.design.cell, self.design.slopes
        normal, right = np.zeros((self.size, self.size)), np.zeros(self.size)
        counts = np.bincount(cell, weights)
        np.add.at(normal, (columns[:, :, None], columns[:, None, :]), counts[:, None, None])
        np.add.at(right, columns, np.bincount(cell, weights * self._logs)[:, None])
        if slopes is not None:
            np.add.at(normal[-1], columns, np.bincount(cell, weights * slopes)[:, None])
            normal[:, -1] = normal[-1]
            normal[-1, -1], right[-1] = np.sum(weights * slopes**2), np.sum(weights * slopes * self._logs)
        return normal, right


def _inverse(matrix: Array) -> Array:
    """Inverse of a symmetric positive definite matrix, from its Cholesky factor.

    Numerics: three times as fast as solving for the unit matrix, which is left to the rare matrix that rounding has
    made indefinite.
    """
    factor, failed = dpotrf(matrix, lower=True)
    if failed:
        return solve_positive(matrix, np.eye(len(matrix)))
    lower = np.tril(dpotri(factor, lower=True)[0])
    return np.asarray(lower + np.tril(lower, -1).T, dtype=np.float64)

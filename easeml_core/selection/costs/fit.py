"""The cost model: its least squares, and what it then says.

The least squares find all effects at once, and how much each kind of effect varies; what is assumed before any result
is ``PRIOR``. Arrays of indices in, arrays of effects out; names, devices and studies are the business of ``learn.py``.
The tenants' effects form a diagonal block, so they are eliminated first: the equations that are solved have one unknown
for each candidate and each device, however many tenants there are.

Source: Henderson's mixed-model equations and the effective number of parameters of MacKay, Bayesian interpolation,
Neural Computation 4(3), 1992. Letters: n trials, p global effects (level, candidates, devices, their interactions,
slope).

A fitted model says predicted seconds, how sure they are, and one tenant's effect as its trials end.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.special import ndtri

from easeml_core.selection.surrogate.posterior import solve_positive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


Key: TypeAlias = tuple[str | None, ...]
LEVEL: Key = ("level",)
SLOPE_KEY: Key = ("slope",)


@dataclass(frozen=True, slots=True)
class TenantEffect:
    """How much slower than the average a study is, from its own trials, the other effects being given.

        mean = sum_r w_r e_r / (sum_r w_r + ridge),   variance = 1 / (sum_r w_r + ridge)

    with e_r = log c_r - ``CostModel.base`` of trial r, w_r = ``CostModel.precision`` of its candidate, and ridge one
    over the variance of the tenants' effects. In least squares over all effects the derivative in this study's effect
    is zero exactly there: with the other effects of the joint fit it is the joint fit's own value. So one more trial
    costs one addition, until the next joint fit moves the others too.

    Attributes:
        sum: Sum of w_r e_r.
        weight: Sum of w_r, >= 0.
        ridge: > 0.

    Example:
        >>> TenantEffect(ridge=1.0).observe(math.log(8), precision=3.0).mean / math.log(8)
        0.75
    """

    sum: float = 0.0
    weight: float = 0.0
    ridge: float = 1 / PRIOR.tenant

    @property
    def mean(self) -> float:
        """The effect on log seconds."""
        return self.sum / (self.weight + self.ridge)

    @property
    def variance(self) -> float:
        """Its variance."""
        return 1 / (self.weight + self.ridge)

    def observe(self, residual: float, precision: float) -> TenantEffect:
        """The effect after one more trial, with e_r and w_r."""
        return TenantEffect(self.sum + precision * residual, self.weight + precision, self.ridge)


@dataclass(frozen=True, slots=True, eq=False)
class CostForecast:
    """What trials will take: a Gaussian over log seconds.

    Attributes:
        log_mean: Shape ``(n_arms,)``.
        log_std: Shape ``(n_arms,)``, > 0.
    """

    log_mean: Array
    log_std: Array

    @property
    def median(self) -> Array:
        """Seconds that are as likely exceeded as not, shape ``(n_arms,)``."""
        return np.exp(self.log_mean)

    def interval(self, coverage: float = 0.8) -> tuple[Array, Array]:
        """Seconds between which a trial ends with this probability in (0, 1), each of shape ``(n_arms,)``."""
        reach = float(ndtri((1 + coverage) / 2)) * self.log_std
        return np.exp(self.log_mean - reach), np.exp(self.log_mean + reach)


@dataclass(frozen=True, slots=True)
class CostModel:
    """A log-linear model with random effects.

        log c(i, k, d) = m + candidate_k + device_d + pair_kd + s (log rows_i - centre) + tenant_i + noise_k

    The level m is free, so costs in another unit give the same predictions in that unit; every other effect is shrunk,
    to 0, or to ``SLOPE`` for s, by variances that are estimated with them. The noise has a variance for each
    candidate: some take the same share of any study's time, others, such as kernel machines, do not, and what these
    took says little of the study. Whatever was never seen has effect 0 and the variance of its kind. Unknown rows count
    as the average. Without any data all costs are equal (1 second) and ``known`` is false.

    Attributes:
        known: Whether there was any data.
        effects: All but the studies' effects, in the order of the columns of ``covariance``: ``("level",)``,
            ``("candidate", name)``; with two kinds of device also ``("device", kind)`` and ``("pair", name, kind)``;
            with known rows ``("slope",)``.
        studies: Effect of each study seen, by id.
        rows: Latest rows of each study, by id, where known.
        centre: The average of log rows.
        several_devices: Whether trials on two kinds of device, or more, were seen.
        components: Variance of each kind of effect, and the common variance of the noise.
        noise: Variance of the noise, by candidate seen.
        covariance: Posterior covariance of ``effects``, shape ``(p, p)``; None without data.
        mean_row: Mean of the trials' rows of the design, weighted by precision, shape ``(p,)``; None without data.
    """

    known: bool = False
    effects: Mapping[Key, float] = field(default_factory=dict)
    studies: Mapping[int, TenantEffect] = field(default_factory=dict)
    rows: Mapping[int, float] = field(default_factory=dict)
    centre: float = 0.0
    several_devices: bool = False
    components: Components = PRIOR
    noise: Mapping[str, float] = field(default_factory=dict)
    covariance: Array | None = field(default=None, compare=False, repr=False)
    mean_row: Array | None = field(default=None, compare=False, repr=False)

    def predict(self, study_id: int, names: Sequence[str], device: str | None = None) -> Array:
        """Predicted seconds of each named candidate in a study, shape ``(n_arms,)``, > 0: the median, exp(fit)."""
        return np.exp(self.base(names, device, self.rows.get(study_id)) + self.effect(study_id).mean)

    def base(self, names: Sequence[str], device: str | None = None, rows: float | None = None) -> Array:
        """Log seconds of each named candidate for an average tenant, shape ``(n_arms,)``: all but the study's effect.

        The same for all studies with the same candidates, device and rows, so worth keeping; the prediction is
        ``exp(base + effect.mean)``.
        """
        effects = self.effects
        common = effects.get(LEVEL, 0.0) + effects.get(("device", device), 0.0)
        common += self.rows_effect(rows)
        base = np.array([effects.get(("candidate", name), 0.0) for name in names]) + common
        if self.several_devices:
            base += [effects.get(("pair", name, device), 0.0) for name in names]
        return base

    def rows_effect(self, rows: float | None) -> float:
        """What rows that differ from the average add to all log seconds."""
        return self.effects.get(SLOPE_KEY, 0.0) * self._rows_offset(rows)

    def precision(self, names: Sequence[str]) -> Array:
        """One over the variance of the noise of each named candidate, shape ``(n_arms,)``, > 0."""
        return 1 / np.array([self.noise.get(name, self.components.residual) for name in names])

    def effect(self, study_id: int) -> TenantEffect:
        """The study's effect from its trials in the fit; that of a new study when there are none."""
        return self.studies.get(study_id) or TenantEffect(ridge=1 / self.components.tenant)

    def forecast(
        self, study_id: int, names: Sequence[str], device: str | None = None, *, effect: TenantEffect | None = None
    ) -> CostForecast:
        """What the named candidates will take in a study, and how sure that is.

            variance = (x - h a)^T C (x - h a) + effect.variance + noise_k,   h = weight / (weight + ridge)

        with C the covariance of the global effects, x the candidate's row of the design and a the mean row of the
        study's own trials: what x has in common with them, the study's own trials have told. The mean over all trials
        stands in for a (exact where all studies ran the same candidates), so that sum and weight are all that has to
        be kept of a study.
        """
        effect = effect or self.effect(study_id)
        rows = self.rows.get(study_id)
        share = effect.weight / (effect.weight + effect.ridge)
        variance = self._base_variance(names, device, rows, share) + effect.variance + 1 / self.precision(names)
        return CostForecast(self.base(names, device, rows) + effect.mean, np.sqrt(variance))

    def _rows_offset(self, rows: float | None) -> float:
        return 0.0 if rows is None else math.log(rows) - self.centre

    def _base_variance(self, names: Sequence[str], device: str | None, rows: float | None, share: float) -> Array:
        """Variance of the global effects that a study's own trials leave open, shape ``(n_arms,)``."""
        if self.covariance is None or self.mean_row is None:
            return np.full(len(names), self.components.candidate)
        columns = {key: column for column, key in enumerate(self.effects)}
        design, unseen = np.zeros((len(names), len(columns))), np.zeros(len(names))
        design[:, 0] = 1.0
        if SLOPE_KEY in columns:
            design[:, -1] = self._rows_offset(rows)
        for arm, name in enumerate(names):
            for key, variance in self._random_effects(name, device):
                if key in columns:
                    design[arm, columns[key]] = 1.0
                else:
                    unseen[arm] += variance
        contrast = design - share * self.mean_row
        left_over: Array = unseen + np.sum((contrast @ self.covariance) * contrast, axis=1)
        return left_over

    def _random_effects(self, name: str, device: str | None) -> list[tuple[Key, float]]:
        """The effects of a candidate on a device, and the variance of their kinds."""
        parts = self.components
        if not self.several_devices:
            return [(("candidate", name), parts.candidate)]
        return [
            (("candidate", name), parts.candidate),
            (("device", device), parts.device),
            (("pair", name, device), parts.interaction),
        ]

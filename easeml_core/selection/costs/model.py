"""What a fitted cost model says: predicted seconds, how sure they are, and one tenant's effect as its trials end.

How it is fitted is in ``learn.py`` and ``fit.py``; the latter has what is assumed before any result (``PRIOR``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.special import ndtri

from easeml_core.selection.costs.fit import PRIOR, Components

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.surrogate.posterior import Array

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
    to 0, or to ``cost_fit.SLOPE`` for s, by variances that are estimated with them. The noise has a variance for each
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

        Args:
            study_id: The study.
            names: Its candidates.
            device: The kind of device.
            effect: The study's effect now, where it has had trials since the fit.
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

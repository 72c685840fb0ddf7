"""Calibration of the ``default`` policy: its posterior on past tenants that its prior has not seen.

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
from easeml_core.selection.policies import expected_improvement as plain
from easeml_core.selection.surrogate import logit_normal
from easeml_core.selection.surrogate.latent_posterior import LatentPosterior
from easeml_core.selection.surrogate.prior import quality_rows
from easeml_core.selection.surrogate.transfer_prior import DEGREES_OF_FREEDOM, transfer_prior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.problem import Past
    from easeml_core.selection.surrogate.posterior import Array, Belief

OWN = (1, 2, 4)
FOLDS = 10
COVERAGE = 0.8


@dataclass(frozen=True, slots=True)
class Calibration:
    """How expectations compare with results, after some results of the tenant.

    Attributes:
        own: How many results of the tenant the posterior had seen.
        tenant_scale: Whether the tenant's scale was learnt along, see ``selection/surrogate/transfer_prior.py``.
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

    Raises:
        InvalidInputError: If an argument is out of its range.
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
                rule = logit_normal if self._config.link == "logit" else plain
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

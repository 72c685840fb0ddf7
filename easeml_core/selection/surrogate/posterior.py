"""What is believed about the qualities of a study's candidates: a Gaussian process over finitely many arms.

The posterior is updated by one observation at a time, in O(K t); tests compare it with the closed form. Where the prior
comes from is in ``prior.py``.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), Algorithm 2.1; Li et al., Ease.ml,
PVLDB 11(5), 2018, section 3. Letters: K arms, t observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from easeml_core.errors import InvalidInputError, NumericalError, ShapeError

Array: TypeAlias = NDArray[np.float64]

JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """A Gaussian over the qualities of the arms.

    Attributes:
        mean: Shape ``(n_arms,)``.
        cov: Shape ``(n_arms, n_arms)``, symmetric, positive semi-definite.

    Raises:
        ShapeError: If the two do not fit.
        InvalidInputError: If a number is not finite.
    """

    mean: Array
    cov: Array

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.cov.shape != (len(self.mean), len(self.mean)):
            name = "cov"
            raise ShapeError(name, self.cov.shape, f"(n_arms, n_arms) for a mean of shape {self.mean.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.cov).all()):
            message = "mean and covariance of a belief must be finite; check the qualities that it was learnt from"
            raise InvalidInputError(message)

    @property
    def std(self) -> Array:
        """Standard deviation of each arm, shape ``(n_arms,)``; tiny negative variances count as 0."""
        return np.sqrt(np.maximum(np.diagonal(self.cov), 0.0))


def solve_positive(matrix: Array, right: Array) -> Array:
    """Solve ``matrix @ x = right`` for a symmetric positive definite matrix.

    Numerics: rounding can make a covariance of nearly equal arms indefinite; then growing multiples of the mean
    diagonal (``JITTERS``) are added until the Cholesky factor exists.

    Raises:
        NumericalError: If no jitter helped.
    """
    if not len(matrix):
        return np.zeros_like(right)
    scale = float(np.mean(np.diagonal(matrix)))
    for jitter in JITTERS:
        try:
            factor = cho_factor(matrix + jitter * scale * np.eye(len(matrix)), lower=True)
        except (np.linalg.LinAlgError, ValueError):
            continue
        return np.asarray(cho_solve(factor, right), dtype=np.float64)
    message = (
        f"a covariance of {len(matrix)} observations is not positive definite after a jitter of {JITTERS[-1]:g}; "
        "raise noise_variance, or check the qualities that the prior was learnt from"
    )
    raise NumericalError(message)


class Posterior:
    """The posterior, one observation at a time, in place.

    With Cov the covariance before an observation y at arm a, k = Cov(., a) and d = k(a) + sigma^2:

        mean <- mean + k (y - mean(a)) / d
        Cov  <- Cov - k k^T / d

    Only the vectors k / sqrt(d) are kept: Cov = Sigma - C C^T, so one update costs O(K t) and the prior's covariance
    is shared by all tenants that have the same candidates. They stand as rows of one array whose length doubles when
    it is full, so that an update copies nothing.

    Attributes:
        prior: The belief before any observation.
        noise_variance: sigma^2 > 0.
        mean: Shape ``(n_arms,)``; a new array after each observation, so that a kept one stays as it is.
        variance: Shape ``(n_arms,)``, likewise.
        count: t, observations so far.
    """

    __slots__ = ("_rows", "count", "mean", "noise_variance", "prior", "variance")

    def __init__(self, prior: Belief, *, noise_variance: float) -> None:
        self.prior, self.noise_variance = prior, noise_variance
        self.mean: Array = prior.mean
        self.variance: Array = np.diagonal(prior.cov)
        self.count = 0
        self._rows: Array = np.empty((0, len(prior.mean)))

    @property
    def std(self) -> Array:
        """Standard deviation of each arm, shape ``(n_arms,)``; tiny negative variances count as 0."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    @property
    def columns(self) -> Array:
        """C, shape ``(n_arms, n_obs)``: the prior covariance minus C C^T is the present one."""
        return self._rows[: self.count].T

    def observe(self, arm: int, value: float) -> None:
        """Take in one more observation.

        Raises:
            NumericalError: If the predictive variance d is not positive: the prior is no covariance.
        """
        seen = self._rows[: self.count]
        column = self.prior.cov[arm] - seen[:, arm] @ seen
        predictive = float(column[arm]) + self.noise_variance
        if not predictive > 0:
            message = (
                f"arm {arm} has predictive variance {predictive:g} after {self.count} observations, "
                "it must be > 0; raise noise_variance, or check the qualities that the prior was learnt from"
            )
            raise NumericalError(message)
        if self.count == len(self._rows):
            self._grow()
        row = np.divide(column, math.sqrt(predictive), out=self._rows[self.count])
        self.mean = self.mean + column * ((value - float(self.mean[arm])) / predictive)
        self.variance = self.variance - row * row
        self.count += 1

    def _grow(self) -> None:
        """Double the room for observations."""
        rows = np.empty((max(8, 2 * self.count), len(self.mean)))
        rows[: self.count] = self._rows
        self._rows = rows

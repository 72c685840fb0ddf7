"""What is believed about the qualities of a study's candidates: a Gaussian process over finitely many arms.

The posterior is updated by one observation at a time, in O(K t); tests compare it with the closed form. Where the prior
comes from is in ``prior.py``.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), Algorithm 2.1; Li et al., Ease.ml,
PVLDB 11(5), 2018, section 3. Letters: K arms, t observations.

``LatentPosterior`` is one tenant's on the latent scale, kept up to date in place: the inner loop of the ``default``
policy. It is the same Gaussian process with three additions: trials under way count as if they had returned
their mean (kriging believer: they narrow the variance and leave the mean), the tenant's own scale is learnt along, and
an observation that was believed before costs one multiplication. A test holds it to the closed form.

Sources: Ginsbourger, Le Riche and Carraro (2010) for the kriging believer; Rasmussen and Williams (2006), Algorithm
2.1.
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


CAPACITY = 8
LEAST_VARIANCE = 1e-10
_LEAST_VARIANCE = np.array(LEAST_VARIANCE)
"""As an array without dimensions, which an operation takes faster than a number."""


class LatentPosterior:
    """What is believed of one tenant's candidates after its observations, and under its trials under way.

    With Cov the covariance before an observation z at arm a and d = Cov(a, a) + sigma^2, the update is

        c = Cov(., a) / sqrt(d),   e = (z - mean(a)) / sqrt(d),   mean <- mean + c e,   variance <- variance - c^2

    Attributes:
        mean: Shape ``(n_arms,)``; trials under way do not move it.
        variance: After the observations, before scaling, shape ``(n_arms,)``.
        believed: The variance once the trials under way have told their result, same shape.
        observations: t, how many.
    """

    __slots__ = (
        "_columns",
        "_degrees",
        "_noise",
        "_prior",
        "_roots",
        "_squares",
        "_under_way",
        "believed",
        "mean",
        "observations",
        "variance",
    )

    def __init__(self, prior: Belief, *, noise_variance: float, degrees_of_freedom: float = math.inf) -> None:
        """Start from the prior."""
        self._prior, self._noise, self._degrees = prior, noise_variance, degrees_of_freedom
        self.mean = prior.mean.copy()
        self.variance = np.diagonal(prior.cov).copy()
        self.believed = self.variance
        self.observations = 0
        self._squares = 0.0
        self._columns = np.empty((CAPACITY, len(prior.mean)))
        self._roots: list[float] = []
        self._under_way: list[int] = []

    @property
    def scale(self) -> float:
        """The tenant's scale s, from how surprising its t observations were: s^2 = (nu + sum e^2) / (nu + t)."""
        if self._degrees == math.inf:
            return 1.0
        return math.sqrt((self._degrees + self._squares) / (self._degrees + self.observations))

    @property
    def std(self) -> Array:
        """Scaled standard deviation under the trials under way, shape ``(n_arms,)``, > 0."""
        variance: Array = np.maximum(self.believed, _LEAST_VARIANCE)
        np.sqrt(variance, variance)
        variance *= self.scale
        return variance

    @property
    def under_way(self) -> int:
        """How many trials are believed to be under way."""
        return len(self._under_way)

    @property
    def promised(self) -> float:
        """The largest mean among the trials under way; minus infinity when there are none."""
        return max((float(self.mean[arm]) for arm in self._under_way), default=-math.inf)

    def believe(self, arm: int) -> None:
        """Take in that a trial is under way."""
        column, _ = self._column(self.observations + len(self._under_way), arm)
        self._under_way.append(arm)
        self.believed = self.believed - column * column

    def forget(self, arm: int) -> None:
        """Take back a trial that was under way and told nothing."""
        if arm in self._under_way:
            self._under_way.remove(arm)
            self._believe_again()

    def observe(self, arm: int, value: float) -> None:
        """Take in a finished trial."""
        expected = bool(self._under_way) and self._under_way[0] == arm
        place = self.observations
        column, root = (self._columns[place], self._roots[place]) if expected else self._column(place, arm)
        surprise = (value - self.mean.item(arm)) / root
        self.mean += column * surprise
        self._squares += surprise * surprise
        self.observations += 1
        if expected:  # its column is in place, and so are those of the trials that started later
            del self._under_way[0]
            if self._under_way:
                self.variance = self.variance - column * column
            else:  # believing in it has computed this
                self.variance = self.believed
            return
        self.variance = self.variance - column * column
        if arm in self._under_way:
            self._under_way.remove(arm)
        self._believe_again()

    def _believe_again(self) -> None:
        started, self._under_way = self._under_way, []
        self.believed = self.variance
        for arm in started:
            self.believe(arm)

    def _column(self, place: int, arm: int) -> tuple[Array, float]:
        """The c and sqrt(d) of an observation at an arm after ``place`` others, and keep both at that place."""
        before = self._columns[:place]
        column: Array = self._prior.cov[arm] - before[:, arm] @ before
        predictive = column.item(arm) + self._noise
        if not predictive > 0:
            message = (
                f"arm {arm} has predictive variance {predictive:g} after {place} observations, it must be > 0; "
                "raise noise_variance, or check the qualities that the prior was learnt from"
            )
            raise NumericalError(message)
        if place == len(self._columns):
            self._columns = np.concatenate([self._columns, np.empty_like(self._columns)])
        root = math.sqrt(predictive)
        np.divide(column, root, self._columns[place])
        del self._roots[place:]
        self._roots.append(root)
        return self._columns[place], root

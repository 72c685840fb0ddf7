"""The prior of a study's candidates before any of them has run: learnt from past studies, with shrinkage.

Every past study is one row of qualities, one column for each candidate, NaN where it has no result. Two kernels:

* ``empirical``: mean and covariance of the rows (Ease.ml's ideal: how candidates vary together over data sets).
* ``squared-exponential``: Ease.ml's kernel on quality vectors, length and scale by maximum marginal likelihood.

Both lean on an *exchangeable* prior: all candidates alike, one mean, one variance, one correlation. It is the answer
when there is no past, it is the prior of a candidate without results, and it counts as much as ``PSEUDO_STUDIES`` past
studies in the covariance: with three past studies it carries five sixths of the weight, nu / (n - 1 + nu), with a
hundred one eleventh. Its own three numbers are learnt from the past in the same way, starting from ``UNINFORMED``.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 3, for both kernels. The shrinkage is the posterior mean under
an inverse-Wishart prior with nu + K + 1 degrees of freedom, whose mean is the exchangeable covariance (K candidates).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import ConfigError
from easeml_core.selection.surrogate.posterior import Belief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.problem import Past
    from easeml_core.selection.surrogate.posterior import Array

KERNELS = ("empirical", "squared-exponential")
MOST_TOGETHER = 400
"""Names up to which one covariance is learnt over all of them; its fit takes the cube of their number."""

PSEUDO_STUDIES = 10.0
PSEUDO_STUDIES_MEAN = 1.0
JITTER = 1e-6
EM_STEPS = 5


@dataclass(frozen=True, slots=True)
class Exchangeable:
    """All candidates alike: cov = v ( rho 1 1^T + (1 - rho) I ).

    The shared part rho v is how much studies differ in difficulty, the rest how much candidates differ in one study.

    Attributes:
        mean: Common mean quality.
        variance: v > 0, common variance.
        correlation: rho, in [0, 1).
    """

    mean: float
    variance: float
    correlation: float

    def belief(self, n_arms: int) -> Belief:
        """The prior of ``n_arms`` candidates of which nothing is known."""
        shared = self.correlation * np.ones((n_arms, n_arms)) + (1 - self.correlation) * np.eye(n_arms)
        return Belief(np.full(n_arms, self.mean), self.variance * shared)


UNINFORMED = Exchangeable(mean=0.75, variance=0.04, correlation=0.7)
"""Without any past: typical of published tables of classifier accuracies over many data sets."""


def learn_prior(
    names: Sequence[str],
    history: Sequence[Past],
    *,
    kernel: str = "empirical",
    pseudo_studies: float = PSEUDO_STUDIES,
) -> Belief:
    """The prior of a study over its candidates.

    Args:
        names: K candidate names; a name is the identity of a candidate between studies.
        history: Past studies, in any order; a result that failed counts as not there.
        kernel: One of KERNELS.
        pseudo_studies: nu > 0, how many past studies the exchangeable covariance counts as; near 0 the covariance is
            the plain empirical one of the paper.

    Returns:
        mean of shape ``(K,)`` and covariance of shape ``(K, K)``, positive definite.

    Raises:
        ConfigError: If the kernel is unknown, or nu is not positive.

    Example:
        >>> learn_prior(["knn", "forest"], []).mean.tolist()
        [0.75, 0.75]
    """
    if kernel not in KERNELS:
        field = "kernel"
        raise ConfigError(field, kernel, "one of " + ", ".join(KERNELS))
    if not 0 < pseudo_studies < np.inf:
        field = "pseudo_studies"
        raise ConfigError(field, pseudo_studies, "> 0 and finite")
    every_name = sorted({name for past in history for name in past.names})
    target = fit_exchangeable(quality_rows(every_name, history))
    rows = quality_rows(names, history)
    learn = empirical if kernel == "empirical" else squared_exponential
    return learn(rows, target, pseudo_studies=pseudo_studies)


def quality_rows(names: Sequence[str], history: Sequence[Past]) -> Array:
    """Qualities of the named candidates, shape ``(n_past, n_names)``, NaN where unknown; empty rows are dropped."""
    column = {name: i for i, name in enumerate(names)}
    rows = np.full((len(history), len(names)), np.nan)
    for row, past in zip(rows, history, strict=True):
        for name, quality in zip(past.names, past.qualities, strict=True):
            if name in column and quality is not None:
                row[column[name]] = quality
    return np.asarray(rows[~np.isnan(rows).all(axis=1)])


def fit_exchangeable(rows: Array, start: Exchangeable = UNINFORMED) -> Exchangeable:
    """Common mean, variance and correlation of past rows, each shrunk to those of a start.

    The variance is the mean square of a deviation from the common mean, the covariance the mean product of two
    deviations in one row; every row counts once, and the start counts as PSEUDO_STUDIES_MEAN rows.

    Args:
        rows: Shape ``(n_past, n_names)``, NaN where unknown, no row empty.
        start: What is believed without any row.
    """
    weight = PSEUDO_STUDIES_MEAN
    if not len(rows):
        return start
    mean = (np.nanmean(rows, axis=1).sum() + weight * start.mean) / (len(rows) + weight)
    deviations = np.nan_to_num(rows - mean)
    counts = (~np.isnan(rows)).sum(axis=1)
    squares = (deviations**2).sum(axis=1)
    variance = ((squares / counts).sum() + weight * start.variance) / (len(rows) + weight)
    paired = counts > 1
    products = (deviations.sum(axis=1) ** 2 - squares)[paired] / (counts * (counts - 1))[paired]
    covariance = (products.sum() + weight * start.correlation * start.variance) / (paired.sum() + weight)
    return Exchangeable(float(mean), float(variance), float(np.clip(covariance / variance, 0.0, 0.99)))


def empirical(rows: Array, target: Exchangeable, *, pseudo_studies: float = PSEUDO_STUDIES) -> Belief:
    """Mean and covariance of past rows, shrunk to the exchangeable prior.

        mean = ( sum of rows + kappa m_0 ) / (n + kappa)
        cov  = ( S + nu T ) / (n - 1 + nu) + jitter I

    with S the scatter of the rows about their average, T and m_0 the exchangeable covariance and mean, and kappa =
    PSEUDO_STUDIES_MEAN. Without rows the answer is the exchangeable prior itself.

    Missing results are filled in by EM steps: the conditional mean given the row's other results, and the conditional
    covariance added to S, so that gaps neither bias the mean nor make anything look certain. The sum of positive
    semi-definite matrices is one, whatever is missing.

    Args:
        rows: Shape ``(n_past, n_arms)``, NaN where unknown.
        target: The exchangeable prior.
        pseudo_studies: nu > 0.
    """
    belief = target.belief(rows.shape[1])
    for _ in range(EM_STEPS if np.isnan(rows).any() else min(len(rows), 1)):
        filled, doubt = fill_in(rows, belief)
        belief = _shrunk_moments(filled, doubt, target, pseudo_studies)
    return _with_jitter(belief)


def _shrunk_moments(filled: Array, doubt: Array, target: Exchangeable, pseudo_studies: float) -> Belief:
    """The M-step: moments of complete rows, with the doubt about what was filled in, shrunk to the target."""
    n, n_arms = filled.shape
    centred = filled - filled.mean(axis=0)
    scatter = centred.T @ centred + doubt + pseudo_studies * target.belief(n_arms).cov
    mean = (filled.sum(axis=0) + PSEUDO_STUDIES_MEAN * target.mean) / (n + PSEUDO_STUDIES_MEAN)
    return Belief(mean, scatter / (n - 1 + pseudo_studies))


def fill_in(rows: Array, belief: Belief) -> tuple[Array, Array]:
    """Take the E-step: every gap by its conditional mean, and the sum of the conditional covariances of all rows.

    With o what is known of row r, the conditional covariance C - C[:, o] C[o, o]^-1 C[o, :] is 0 wherever something is
    known, so all rows are summed by one product of matrices.
    """
    filled = rows.copy()
    across, gains = [], []
    for row in filled:
        known = np.flatnonzero(~np.isnan(row))
        if len(known) == len(row):
            continue
        part = belief.cov[known]
        gain = np.linalg.solve(part[:, known], part)
        expected = belief.mean + (row[known] - belief.mean[known]) @ gain
        expected[known] = row[known]
        row[:] = expected
        across.append(part)
        gains.append(gain)
    if not gains:
        return filled, np.zeros_like(belief.cov)
    doubt = len(gains) * belief.cov - np.concatenate(across).T @ np.concatenate(gains)
    return filled, (doubt + doubt.T) / 2


def squared_exponential(
    rows: Array,
    target: Exchangeable,
    *,
    pseudo_studies: float = PSEUDO_STUDIES,
    noise_variance: float = 1e-4,
    mean: Array | None = None,
) -> Belief:
    """Ease.ml's kernel: candidates with like results in the past are alike.

        Sigma(k, l) = s exp( -|q_k - q_l|^2 / (2 l^2) ),  q_k = qualities of candidate k in all past studies

    Scale s and length l maximise the marginal likelihood of the past rows, over a grid. Mean and shrinkage are those
    of the empirical prior; gaps are filled in as there.

    Args:
        rows: Shape ``(n_past, n_arms)``, NaN where unknown.
        target: The exchangeable prior.
        pseudo_studies: nu > 0.
        noise_variance: sigma^2 > 0 of a past quality.
        mean: That of the empirical prior of the same rows, where it is known already, shape ``(n_arms,)``.
    """
    if mean is None:
        mean = empirical(rows, target, pseudo_studies=pseudo_studies).mean
    exchangeable = target.belief(rows.shape[1])
    if not len(rows):
        return _with_jitter(exchangeable)
    filled, _ = fill_in(rows, Belief(mean, exchangeable.cov))
    kernel = _likeliest_kernel(_squared_distances(filled.T), filled - mean, noise_variance)
    weight = len(rows) / (len(rows) + pseudo_studies)
    return _with_jitter(Belief(mean, weight * kernel + (1 - weight) * exchangeable.cov))


def _squared_distances(points: Array) -> Array:
    """Squared distances between the rows of a matrix, shape ``(n_points, n_points)``.

    Numerics: row by row, since all differences at once take n_points times the memory of the points.
    """
    distances = np.empty((len(points), len(points)))
    for row, point in zip(distances, points, strict=True):
        ((points - point) ** 2).sum(axis=-1, out=row)
    return distances


def _likeliest_kernel(distances: Array, residuals: Array, noise_variance: float) -> Array:
    """The squared-exponential kernel under which the rows of residuals are likeliest.

        2 ln L(s, l) = - sum over rows r, eigenpairs (lambda, v) of K_l:  (v^T r)^2 / w + ln w,  w = s lambda + sigma^2

    One eigendecomposition for each length serves all scales. Lengths are multiples of the median distance, scales of
    the variance of the residuals, so the unit of the values does not matter.
    """
    spread = max(float(np.mean(residuals**2)), np.finfo(float).tiny)
    typical = np.median(distances[distances > 0]) if (distances > 0).any() else 1.0
    best, chosen = -np.inf, np.zeros_like(distances)
    for length_squared in typical * np.geomspace(0.01, 100, 17):
        kernel = np.exp(-distances / (2 * length_squared))
        values, vectors = np.linalg.eigh(kernel)
        powers = ((residuals @ vectors) ** 2).sum(axis=0)
        for scale in spread * np.geomspace(1e-3, 10, 17):
            widths = scale * np.maximum(values, 0.0) + noise_variance
            likelihood = -float(np.sum(powers / widths + len(residuals) * np.log(widths)))
            if likelihood > best:
                best, chosen = likelihood, scale * kernel
    return chosen


def _with_jitter(belief: Belief) -> Belief:
    """A covariance learnt from fewer rows than arms is singular without it."""
    return Belief(belief.mean, belief.cov + JITTER * np.eye(len(belief.mean)))

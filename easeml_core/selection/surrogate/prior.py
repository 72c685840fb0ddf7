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

The prior of the ``default`` policy (``transfer_prior``) is learnt on the logit scale, and adds three things.

*Half and half.* The covariance is a blend of the empirical one, which knows but is noisy, and of the
squared-exponential kernel on quality vectors, which is smooth but only knows how similar two candidates are.

*A scale for each tenant.* On some tasks all candidates do alike, on others they differ wildly, so the pooled results
have a narrow middle and long tails: a Gaussian with their covariance expects far too much of the untried candidates of
an ordinary tenant (on published tables, two to six times the improvement that then happens). So a tenant's results are
a Gaussian *with a separate scale*,

    x_i ~ N( mu, s_i^2 Sigma ),   1 / s_i^2 ~ Gamma(nu / 2, nu / 2)

which makes x_i multivariate t with nu degrees of freedom. Past rows are weighted by the expected 1 / s_i^2 when mean
and covariance are learnt; how easy a tenant is as a whole, which Sigma covers too, is left out of its weight. A served
tenant's own scale is learnt with its posterior (``LatentPosterior.scale``). The posterior after t results is a t with
nu + t degrees of freedom; expected improvement takes it for the normal of the same scale, whose tails are thinner: on
draws from this model a nominal interval of .8 holds .71 of the next results after one result, .77 after four.

*As much shrinkage as the past supports.* How many past studies the exchangeable covariance counts as is learnt from
them, up to ``LOGIT_PSEUDO_STUDIES``: where some candidates are near copies of each other, or one has results that no
other has, "all candidates alike" is wrong, and an untried copy of what has run would seem to promise a large
improvement.

Sources: Lange, Little and Taylor, Robust statistical modeling using the t distribution, JASA 84 (1989), for the
weights; the marginal likelihood is the ratio of the normalising constants of two inverse Wishart distributions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import multigammaln

from easeml_core.errors import ConfigError
from easeml_core.selection.surrogate.posterior import Belief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence, Set

    from easeml_core.selection.problem import Past
    from easeml_core.selection.surrogate.posterior import Array
    from easeml_core.settings.config import SelectionConfig

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


def priors_of(
    menus: Iterable[tuple[str, ...]], names: Set[str], learn: Callable[[tuple[str, ...]], Belief]
) -> dict[tuple[str, ...], Belief]:
    """The prior of each list of candidates: from one covariance over all names, or one for each list.

    Together, what a past study says of other candidates helps to fill its gaps. With very many names, such as tenants
    have that all call their candidates otherwise, one covariance would not fit into memory and says nothing, since
    hardly any two names have a past study in common.
    """
    if len(names) > MOST_TOGETHER:
        return {menu: learn(menu) for menu in menus}
    together = tuple(sorted(names))
    column, whole = {name: i for i, name in enumerate(together)}, learn(together)
    indices = {menu: [column[name] for name in menu] for menu in menus}
    return {menu: Belief(whole.mean[i], whole.cov[np.ix_(i, i)]) for menu, i in indices.items()}


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


UNINFORMED_LOGIT = Exchangeable(mean=1.3, variance=1.5, correlation=0.75)
"""``prior.UNINFORMED`` on the logit scale: qualities around .79, most of them between .5 and .93."""

DEGREES_OF_FREEDOM = 2.0
"""nu: with 2, scales of different tenants differ by a factor of three or so, as in published tables."""

EFFECTIVE_RESULTS = 4.0
"""A row counts as at most so many independent results about its scale: results of one tenant are correlated."""

MOST_SMOOTH = 400
"""With more candidates the empirical covariance stands alone: the kernel's fit takes the cube of their number."""

LOGIT_PSEUDO_STUDIES = 5.0
"""What the exchangeable covariance counts as with fewer than ``TELLING`` past studies, and at most."""

FEWER_PSEUDO_STUDIES = (0.1, 0.2, 0.5, 1.0, 2.0)
TELLING = 10
"""With fewer past studies the marginal likelihood says little about the shrinkage."""

SCALE_STEPS = 15
PSEUDO_RESULTS = 4.0


def transfer_prior(rows: Array, config: SelectionConfig, *, has_live: bool = False) -> Belief:
    """The prior over all candidates, from past tenants' latent qualities.

    Args:
        rows: Latent qualities (logits under the link ``logit``), shape ``(n_past, n_names)``, NaN where unknown, no
            row empty.
        config: ``link``, ``blend``, ``tenant_scale`` and ``pseudo_studies``.
        has_live: Whether results of live tenants are among the rows. The shrinkage is not learnt from these: what has
            run was chosen.
    """
    start = UNINFORMED_LOGIT if config.link == "logit" else UNINFORMED
    if config.tenant_scale and len(rows) > 2:
        rows = _equal_scales(rows, start)
    target = fit_exchangeable(rows, start)
    if config.pseudo_studies is not None:
        nu = config.pseudo_studies
    else:
        nu = LOGIT_PSEUDO_STUDIES if has_live else likeliest_shrinkage(rows, target)
    learnt = empirical(rows, target, pseudo_studies=nu)
    if config.blend == 0 or len(rows) < 2 or rows.shape[1] > MOST_SMOOTH:
        return learnt
    smooth = squared_exponential(rows, target, pseudo_studies=nu, mean=learnt.mean)
    return Belief(learnt.mean, (1 - config.blend) * learnt.cov + config.blend * smooth.cov)


def likeliest_shrinkage(rows: Array, target: Exchangeable) -> float:
    """Return nu: LOGIT_PSEUDO_STUDIES, or the one of FEWER_PSEUDO_STUDIES under which the past is likelier.

        2 ln p(nu) = d ln|nu T| - (d + m) ln|nu T + S| + 2 ln Gamma_K((d + m) / 2) - 2 ln Gamma_K(d / 2) + constant

    the marginal likelihood of m = n - 1 deviations with scatter S under a covariance that is inverse Wishart with
    d = nu + K + 1 degrees of freedom and mean T, the prior of ``prior.empirical``.

    Args:
        rows: Shape ``(n_past, n_arms)``, NaN where unknown; a gap counts as its expectation under the target.
        target: The exchangeable prior, with covariance T.

    Returns:
        > 0. LOGIT_PSEUDO_STUDIES with fewer than TELLING rows or more than MOST_SMOOTH arms.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> copies = np.repeat(rng.normal(size=(12, 2)), 3, axis=1) + 0.01 * rng.normal(size=(12, 6))
        >>> likeliest_shrinkage(copies, Exchangeable(0.0, 1.0, 0.2))
        0.1
        >>> likeliest_shrinkage(rng.normal(size=(12, 6)), Exchangeable(0.0, 1.0, 0.0))
        5.0
    """
    n_past, n_arms = rows.shape
    if n_past < TELLING or n_arms > MOST_SMOOTH:
        return LOGIT_PSEUDO_STUDIES
    alike = target.belief(n_arms)
    centre = np.nanmean(np.vstack([rows, alike.mean]), axis=0)
    filled, _ = fill_in(rows, Belief(centre, alike.cov))
    deviations = filled - filled.mean(axis=0)
    scatter = deviations.T @ deviations
    found = (LOGIT_PSEUDO_STUDIES, *FEWER_PSEUDO_STUDIES)  # the first of equal ones is taken
    return max(found, key=lambda nu: _log_evidence(nu, alike.cov, scatter, n_past - 1))


def _log_evidence(nu: float, target: Array, scatter: Array, deviations: int) -> float:
    """Twice the logarithm of the marginal likelihood in ``likeliest_shrinkage``, up to a constant."""
    arms = len(target)
    before = nu + arms + 1
    after = before + deviations
    gammas = multigammaln(after / 2, arms) - multigammaln(before / 2, arms)
    return float(
        before * np.linalg.slogdet(nu * target)[1] - after * np.linalg.slogdet(nu * target + scatter)[1] + 2 * gammas
    )


def _equal_scales(rows: Array, start: Exchangeable) -> Array:
    """The rows with their deviations from the weighted mean multiplied by the root of their weight."""
    weights = row_weights(rows, typical=start.variance * (1 - start.correlation))
    seen = ~np.isnan(rows)
    total = weights @ seen
    mean = np.where(total > 0, weights @ np.nan_to_num(rows) / np.where(total > 0, total, 1.0), start.mean)
    return np.asarray(mean + (rows - mean) * np.sqrt(weights)[:, None])


def row_weights(rows: Array, *, typical: float) -> Array:
    """Expected 1 / s_i^2 of each row, mean 1, by EM.

        u_i = (nu + p_i) / (nu + p_i v_i / v)

    with v_i the variance of row i about the weighted column means and its own offset, p_i its results as far as they
    are independent, and v the weighted mean of the v_i, for which ``typical`` stands in while little is known.
    Residuals of a full covariance would not do: with more candidates than rows it fits every row as well as any other.

    Args:
        rows: Shape ``(n_rows, n_names)``, NaN where unknown, no row empty.
        typical: > 0, expected v.

    Returns:
        Shape ``(n_rows,)``, > 0: small for a tenant whose candidates differ much.

    Example:
        >>> calm, wild = [0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 4.0, 0.2, -4.0, 0.4]
        >>> row_weights(np.array([calm, calm, wild]), typical=0.1).round(3).tolist()
        [1.499, 1.499, 0.003]
    """
    seen = ~np.isnan(rows)
    values, counts = np.nan_to_num(rows), seen.sum(axis=1)
    independent = np.minimum(counts - 1, EFFECTIVE_RESULTS)
    weights = np.ones(len(rows))
    for _ in range(SCALE_STEPS):
        total = weights @ seen
        means = weights @ values / np.where(total > 0, total, 1.0)
        residuals = np.where(seen, values - means, 0.0)
        residuals = np.where(seen, residuals - (residuals.sum(axis=1) / counts)[:, None], 0.0)
        variances = (residuals**2).sum(axis=1) / np.maximum(counts - 1, 1)
        pooled = ((weights * variances) @ independent + PSEUDO_RESULTS * typical) / (independent.sum() + PSEUDO_RESULTS)
        weights = (DEGREES_OF_FREEDOM + independent) / (DEGREES_OF_FREEDOM + independent * variances / pooled)
        weights /= weights.mean()
    return weights

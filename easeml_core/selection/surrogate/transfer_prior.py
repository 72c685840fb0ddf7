"""The prior of the ``default`` policy for a new tenant, learnt from past tenants on the logit scale.

Three things are added to the priors of ``prior.py``.

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
them, up to ``PSEUDO_STUDIES``: where some candidates are near copies of each other, or one has results that no other
has, "all candidates alike" is wrong, and an untried copy of what has run would seem to promise a large improvement.

Sources: Lange, Little and Taylor, Robust statistical modeling using the t distribution, JASA 84 (1989), for the
weights; the marginal likelihood is the ratio of the normalising constants of two inverse Wishart distributions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import multigammaln

from easeml_core.selection.surrogate.posterior import Belief
from easeml_core.selection.surrogate.prior import (
    UNINFORMED,
    Exchangeable,
    empirical,
    fill_in,
    fit_exchangeable,
    squared_exponential,
)

if TYPE_CHECKING:
    from easeml_core.config import SelectionConfig
    from easeml_core.selection.surrogate.posterior import Array

UNINFORMED_LOGIT = Exchangeable(mean=1.3, variance=1.5, correlation=0.75)
"""``prior.UNINFORMED`` on the logit scale: qualities around .79, most of them between .5 and .93."""

DEGREES_OF_FREEDOM = 2.0
"""nu: with 2, scales of different tenants differ by a factor of three or so, as in published tables."""

EFFECTIVE_RESULTS = 4.0
"""A row counts as at most so many independent results about its scale: results of one tenant are correlated."""

MOST_SMOOTH = 400
"""With more candidates the empirical covariance stands alone: the kernel's fit takes the cube of their number."""

PSEUDO_STUDIES = 5.0
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

    Returns:
        Mean and covariance over the names; the exchangeable prior where nothing is known.
    """
    start = UNINFORMED_LOGIT if config.link == "logit" else UNINFORMED
    if config.tenant_scale and len(rows) > 2:
        rows = _equal_scales(rows, start)
    target = fit_exchangeable(rows, start)
    if config.pseudo_studies is not None:
        nu = config.pseudo_studies
    else:
        nu = PSEUDO_STUDIES if has_live else likeliest_shrinkage(rows, target)
    learnt = empirical(rows, target, pseudo_studies=nu)
    if config.blend == 0 or len(rows) < 2 or rows.shape[1] > MOST_SMOOTH:
        return learnt
    smooth = squared_exponential(rows, target, pseudo_studies=nu, mean=learnt.mean)
    return Belief(learnt.mean, (1 - config.blend) * learnt.cov + config.blend * smooth.cov)


def likeliest_shrinkage(rows: Array, target: Exchangeable) -> float:
    """Return nu: PSEUDO_STUDIES, or the one of FEWER_PSEUDO_STUDIES under which the past is likelier.

        2 ln p(nu) = d ln|nu T| - (d + m) ln|nu T + S| + 2 ln Gamma_K((d + m) / 2) - 2 ln Gamma_K(d / 2) + constant

    the marginal likelihood of m = n - 1 deviations with scatter S under a covariance that is inverse Wishart with
    d = nu + K + 1 degrees of freedom and mean T, the prior of ``prior.empirical``.

    Args:
        rows: Shape ``(n_past, n_arms)``, NaN where unknown; a gap counts as its expectation under the target.
        target: The exchangeable prior, with covariance T.

    Returns:
        > 0. PSEUDO_STUDIES with fewer than TELLING rows or more than MOST_SMOOTH arms.

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
        return PSEUDO_STUDIES
    alike = target.belief(n_arms)
    centre = np.nanmean(np.vstack([rows, alike.mean]), axis=0)
    filled, _ = fill_in(rows, Belief(centre, alike.cov))
    deviations = filled - filled.mean(axis=0)
    scatter = deviations.T @ deviations
    found = (PSEUDO_STUDIES, *FEWER_PSEUDO_STUDIES)  # the first of equal ones is taken
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

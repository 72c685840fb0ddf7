"""The posterior in closed form: what every incremental posterior of the product is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import ShapeError
from easeml_core.selection.surrogate.posterior import Belief, solve_positive

if TYPE_CHECKING:
    from collections.abc import Sequence


def closed_form(prior: Belief, arms: Sequence[int], values: Sequence[float], *, noise_variance: float) -> Belief:
    """The posterior given observations y at arms a_1..a_t (an arm may repeat).

        mean(k)   = mu_0(k) + Sigma_t(k)^T (Sigma_t + sigma^2 I)^{-1} (y - mu_0(a))
        cov(k, l) = Sigma(k, l) - Sigma_t(k)^T (Sigma_t + sigma^2 I)^{-1} Sigma_t(l)

    with Sigma_t = Sigma[a, a], shape (t, t), and Sigma_t(k) = Sigma[a, k], shape (t,).

    The prior mean is subtracted from the observations; with the zero-mean form, one observation would pull every
    unseen arm towards quality 0.

    Args:
        prior: N(mu_0, Sigma) over K arms.
        arms: t arms in 0..K-1.
        values: t observed qualities.
        noise_variance: sigma^2 > 0.

    Returns:
        The belief after the observations; the prior when there are none.

    Raises:
        ShapeError: If there are not as many values as arms.
        NumericalError: If the matrix is not positive definite even after the largest jitter.

    Example:
        >>> prior = Belief(np.array([0.5, 0.5]), np.array([[0.04, 0.02], [0.02, 0.04]]))
        >>> closed_form(prior, [0], [0.9], noise_variance=0.01).mean.round(3).tolist()
        [0.82, 0.66]
    """
    index, observed = np.asarray(arms, dtype=np.intp), np.asarray(values, dtype=np.float64)
    if index.shape != observed.shape:
        name = "values"
        raise ShapeError(name, observed.shape, f"{index.shape}, one for each arm")
    gram = prior.cov[np.ix_(index, index)] + noise_variance * np.eye(len(index))
    cross = prior.cov[index]
    solved = solve_positive(gram, np.column_stack([observed - prior.mean[index], cross]))
    return Belief(prior.mean + cross.T @ solved[:, 0], prior.cov - cross.T @ solved[:, 1:])

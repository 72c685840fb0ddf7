"""The prior: what it says without a past, with little, with much, and with gaps."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.spatial.distance import cdist

from easeml_core.errors import ConfigError
from easeml_core.selection.problem import Past
from easeml_core.selection.surrogate.prior import (
    JITTER,
    KERNELS,
    PSEUDO_STUDIES,
    PSEUDO_STUDIES_MEAN,
    UNINFORMED,
    Exchangeable,
    _squared_distances,
    empirical,
    fit_exchangeable,
    learn_prior,
    quality_rows,
    squared_exponential,
)

NAMES = ("a", "b", "c")
TARGET = Exchangeable(mean=0.6, variance=0.05, correlation=0.5)


def past(*qualities, names=NAMES):
    return Past(1, names, tuple(float(q) for q in qualities), (None,) * len(qualities))


def rows_of(n, arms=4, *, gaps=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.clip(rng.normal(0.7, 0.1, (n, 1)) + rng.normal(0, 0.05, (n, arms)), 0, 1)
    rows[:, 1:][rng.uniform(size=(n, arms - 1)) < gaps] = np.nan
    return rows


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_a_past_all_candidates_are_alike(kernel):
    prior = learn_prior(NAMES, [], kernel=kernel)
    assert prior.mean.tolist() == [UNINFORMED.mean] * 3
    off = prior.cov[~np.eye(3, dtype=bool)]
    np.testing.assert_allclose(off, UNINFORMED.correlation * UNINFORMED.variance, rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(prior.cov), UNINFORMED.variance + JITTER, rtol=1e-12)


def test_empirical_moments_by_hand():
    """Rows (.5, .7) and (.7, .9): average (.6, .8), scatter .02 everywhere; shrunk by 1 and by 10 studies."""
    prior = empirical(np.array([[0.5, 0.7], [0.7, 0.9]]), TARGET)
    np.testing.assert_allclose(prior.mean, [(1.2 + 0.6) / 3, (1.6 + 0.6) / 3], rtol=1e-12)
    expected = (0.02 + 10 * np.array([[0.05, 0.025], [0.025, 0.05]])) / 11
    np.testing.assert_allclose(prior.cov, expected + JITTER * np.eye(2), rtol=1e-12)
    assert (PSEUDO_STUDIES, PSEUDO_STUDIES_MEAN) == (10, 1)


def test_much_past_approaches_the_empirical_moments():
    rows = rows_of(4000)
    prior = empirical(rows, TARGET)
    np.testing.assert_allclose(prior.mean, rows.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(prior.cov, np.cov(rows.T), atol=3e-4)


def test_few_studies_lean_on_the_exchangeable_prior():
    few = empirical(rows_of(3), TARGET).cov
    exchangeable = TARGET.belief(4).cov
    assert np.abs(few - exchangeable).max() < np.abs(np.cov(rows_of(3).T) - exchangeable).max() / 4


def test_no_shrinkage_gives_the_papers_covariance():
    rows = rows_of(12)
    np.testing.assert_allclose(empirical(rows, TARGET, pseudo_studies=1e-9).cov, np.cov(rows.T), atol=2 * JITTER)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_unseen_candidate_gets_the_exchangeable_mean(kernel):
    history = [past(0.9, 0.8, names=("a", "b")) for _ in range(20)]
    prior = learn_prior(("a", "b", "new"), history, kernel=kernel)
    assert prior.mean[0] > prior.mean[2] > prior.mean[1]
    assert prior.mean[2] == pytest.approx(0.85, abs=0.02)
    assert prior.cov[2, 2] > 0


def test_unseen_candidates_are_alike_and_uncertain():
    prior = learn_prior(("a", "new", "newer"), [past(*row) for row in rows_of(30, 3)])
    assert prior.mean[1] == prior.mean[2] != prior.mean[0]
    np.testing.assert_allclose(prior.cov[0, 1], prior.cov[0, 2])


def test_a_past_without_any_of_our_candidates_still_tells_how_hard_studies_are():
    history = [past(0.3, 0.3, 0.3)] * 50
    prior = learn_prior(("new",), history)
    assert prior.mean[0] == pytest.approx((50 * 0.3 + 0.75) / 51)


def test_gaps_do_not_bias_the_mean():
    """Candidate b ran on the easy studies only: its column's average is 0.8, that of all studies lies near 0.6."""
    easy, hard = [[0.9, 0.8]] * 20, [[0.5, np.nan]] * 20
    prior = empirical(np.array(easy + hard), TARGET)
    assert prior.mean[1] < 0.7


def test_gaps_make_nothing_look_certain():
    full, gappy = rows_of(30), rows_of(30)
    gappy[5:, 3] = np.nan
    assert empirical(gappy, TARGET).std[3] > empirical(full, TARGET).std[3]


@settings(deadline=None, max_examples=examples(40))
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 15), st.floats(0, 0.9), st.sampled_from([empirical, squared_exponential])
)
def test_every_prior_is_a_covariance(seed, n, gaps, kernel):
    """Symmetric and positive definite, whatever is missing; finite means inside the range of qualities."""
    prior = kernel(rows_of(n, gaps=gaps, seed=seed), TARGET)
    np.testing.assert_allclose(prior.cov, prior.cov.T, atol=1e-15)
    assert np.linalg.eigvalsh(prior.cov).min() > JITTER / 2
    assert ((prior.mean > 0) & (prior.mean < 1)).all()


def test_exchangeable_numbers_are_recovered():
    """2000 studies of known mean, variance and correlation; standard errors are below 0.005, 0.002, 0.01."""
    rng, truth = np.random.default_rng(5), Exchangeable(mean=0.6, variance=0.03, correlation=0.4)
    rows = rng.multivariate_normal(truth.belief(6).mean, truth.belief(6).cov, size=2000)
    rows[rng.uniform(size=rows.shape) < 0.3] = np.nan
    found = fit_exchangeable(rows[~np.isnan(rows).all(axis=1)])
    assert found.mean == pytest.approx(0.6, abs=0.02)
    assert found.variance == pytest.approx(0.03, abs=0.005)
    assert found.correlation == pytest.approx(0.4, abs=0.06)


def test_exchangeable_by_hand():
    """One row (.65, .95): mean (.8 + .75) / 2 = .775, deviations -.125 and .175; the start is (.75, .04, .7)."""
    found = fit_exchangeable(np.array([[0.65, 0.95]]))
    variance = ((0.125**2 + 0.175**2) / 2 + 0.04) / 2
    assert found.mean == pytest.approx(0.775)
    assert found.variance == pytest.approx(variance)
    assert found.correlation == pytest.approx((-0.125 * 0.175 + 0.7 * 0.04) / 2 / variance)


def test_squared_exponential_ties_candidates_with_like_results():
    rng = np.random.default_rng(2)
    shared = rng.uniform(0.3, 0.9, 40)
    rows = np.column_stack([shared, shared + 0.01 * rng.normal(size=40), rng.uniform(0.3, 0.9, 40)])
    cov = squared_exponential(rows, TARGET).cov
    assert cov[0, 1] > cov[0, 2]
    assert cov[0, 1] > 0.8 * cov[0, 0]


def test_table_of_past_results():
    history = [past(0.5, 0.6, names=("c", "a")), past(0.7, names=("elsewhere",))]
    history.append(Past(3, ("b",), (None,), (2.0,)))
    np.testing.assert_array_equal(quality_rows(NAMES, history), [[0.6, np.nan, 0.5]])


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="kernel must be one of empirical, squared-exponential, got 'linear'"):
        learn_prior(NAMES, [], kernel="linear")
    with pytest.raises(ConfigError, match="pseudo_studies must be > 0"):
        learn_prior(NAMES, [], pseudo_studies=0.0)


def test_many_candidates_fit_into_memory():
    """All differences of 400 candidates over 100 studies are 128 megabytes, their distances 1.3."""
    points = np.random.default_rng(0).random((100, 400)).T
    tracemalloc.start()
    distances = _squared_distances(points)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6
    assert distances == pytest.approx(cdist(points, points, "sqeuclidean"))

"""The prior of the ``default`` policy: weights of past tenants, its switches, and that it is always a covariance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.optimize import brentq
from scipy.stats import multivariate_t

from easeml_core.selection.surrogate.prior import (
    DEGREES_OF_FREEDOM,
    EFFECTIVE_RESULTS,
    FEWER_PSEUDO_STUDIES,
    JITTER,
    LOGIT_PSEUDO_STUDIES,
    PSEUDO_RESULTS,
    TELLING,
    UNINFORMED,
    UNINFORMED_LOGIT,
    Exchangeable,
    empirical,
    fit_exchangeable,
    likeliest_shrinkage,
    row_weights,
    squared_exponential,
    transfer_prior,
)
from easeml_core.settings.config import SelectionConfig


def config_of(**settings_):
    return SelectionConfig(**settings_)


def rows_of(n, arms=5, *, gaps=0.0, seed=0, wild=1.0):
    """Logits of tenants with separate offsets and scales; every row keeps its first result."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.normal(0, wild, (n, 1)))
    rows = rng.normal(1, 1, (n, 1)) + scales * rng.normal(0, 0.5, (n, arms))
    rows[:, 1:][rng.uniform(size=(n, arms - 1)) < gaps] = np.nan
    return rows


# Weights


@pytest.mark.parametrize("typical", [0.1, 2.0, 50.0])
def test_row_weights_by_hand(typical):
    """Rows +-(1, -1) and +-(3, -3): column means and offsets are 0 whatever the weights, the variances 2 and 18.

    Each row has one independent result, so with weights w and 2 - w of the pairs
    v = (2 w 2 + 2 (2 - w) 18 + 4 typical) / (4 + 4), and w / (2 - w) = (2 + 18 / v) / (2 + 2 / v).
    """
    assert (DEGREES_OF_FREEDOM, PSEUDO_RESULTS) == (2, 4)

    def imbalance(w):
        v = (4 * w + 36 * (2 - w) + 4 * typical) / 8
        return w * (2 + 2 / v) - (2 - w) * (2 + 18 / v)

    calm = brentq(imbalance, 0, 2, xtol=1e-12)
    found = row_weights(np.array([[1.0, -1], [-1, 1], [3, -3], [-3, 3]]), typical=typical)
    np.testing.assert_allclose(found, [calm, calm, 2 - calm, 2 - calm], rtol=1e-6)


def test_a_row_counts_as_at_most_so_many_results():
    """Ten columns instead of two: 4 independent results, so u = (2 + 4) / (2 + 4 v_i / v)."""
    assert EFFECTIVE_RESULTS == 4
    one, three = np.tile([1.0, -1.0], 5), np.tile([3.0, -3.0], 5)
    small, large, typical = 10 / 9, 90 / 9, 1.0

    def imbalance(w):
        v = (8 * w * small + 8 * (2 - w) * large + 4 * typical) / 20
        return w * (2 + 4 * small / v) - (2 - w) * (2 + 4 * large / v)

    calm = brentq(imbalance, 0, 2, xtol=1e-12)
    found = row_weights(np.array([one, -one, three, -three]), typical=typical)
    np.testing.assert_allclose(found, [calm, calm, 2 - calm, 2 - calm], rtol=1e-4)


def test_a_calmer_tenant_weighs_more():
    rng = np.random.default_rng(0)
    rows = np.geomspace(0.1, 10, 7)[:, None] * rng.permuted(np.tile(np.linspace(-1, 1, 9), (7, 1)), axis=1)
    weights = row_weights(rows, typical=1.0)
    assert (np.diff(weights) < 0).all()
    assert weights.mean() == pytest.approx(1)
    assert weights[0] > 10 * weights[-1]


@pytest.mark.parametrize("row", [[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [2.0, np.nan, np.nan]])
def test_equal_rows_weigh_alike(row):
    np.testing.assert_allclose(row_weights(np.array([row] * 4), typical=0.3), 1.0, rtol=1e-12)


def test_an_offset_is_no_sign_of_a_wild_tenant():
    """A hard task shifts all results; only how they differ within the row counts."""
    rows = rows_of(8, 6, wild=0.0)
    shifted = rows + np.arange(8)[:, None]
    assert np.abs(row_weights(shifted, typical=0.3) - row_weights(rows, typical=0.3)).max() < 1e-9


def test_one_result_says_nothing_of_the_scale():
    """Its weight is that of (nu + 0) / (nu + 0) = 1 before all are divided by their mean."""
    rows = np.array([[0.0, 1.0, 0.1], [0.0, -1.0, 0.1], [500.0, np.nan, np.nan], [np.nan, np.nan, -7.0]])
    weights = row_weights(rows, typical=0.3)
    assert weights[2] == pytest.approx(weights[3], rel=1e-12)


@settings(deadline=None, max_examples=examples(150))
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6), st.floats(0, 0.95))
def test_weights_are_positive_with_mean_one(seed, n, arms, gaps):
    weights = row_weights(rows_of(n, arms, gaps=gaps, seed=seed, wild=2.0), typical=0.3)
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1, rel=1e-9)


# The prior


@pytest.mark.parametrize(("link", "start"), [("logit", UNINFORMED_LOGIT), ("identity", UNINFORMED)])
def test_without_a_past_all_candidates_are_alike(link, start):
    prior = transfer_prior(np.empty((0, 4)), config_of(link=link))
    np.testing.assert_array_equal(prior.mean, np.full(4, start.mean))
    np.testing.assert_allclose(prior.cov, start.belief(4).cov + JITTER * np.eye(4), rtol=1e-12)


@settings(deadline=None, max_examples=examples(100))
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 6),
    st.floats(0, 0.95),
    st.sampled_from(("logit", "identity")),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from((None, 1e-3, 5.0, 100.0)),
)
def test_it_is_always_a_covariance(seed, n, arms, gaps, link, blend, scale, nu):
    """Whatever is missing, columns without any result too: finite, symmetric, positive definite."""
    rows = rows_of(n, arms, gaps=gaps, seed=seed, wild=2.0)
    prior = transfer_prior(rows, config_of(link=link, blend=blend, tenant_scale=scale, pseudo_studies=nu))
    assert np.isfinite(prior.mean).all()
    assert np.isfinite(prior.cov).all()
    np.testing.assert_allclose(prior.cov, prior.cov.T, rtol=1e-12, atol=1e-12)
    assert np.linalg.eigvalsh(prior.cov).min() > JITTER / 2


def test_a_column_without_results_gets_the_common_mean():
    rows = rows_of(30)
    rows[:, 2] = np.nan
    prior = transfer_prior(rows, config_of())
    others = np.delete(prior.mean, 2)
    assert others.min() < prior.mean[2] < others.max()
    assert prior.cov[2, 2] > 0.5 * np.delete(np.diagonal(prior.cov), 2).mean()


def test_blend_goes_from_one_covariance_to_the_other():
    rows = rows_of(20)
    raw, half, smooth = (transfer_prior(rows, config_of(blend=b, tenant_scale=False)) for b in (0.0, 0.5, 1.0))
    target = fit_exchangeable(rows, UNINFORMED_LOGIT)
    np.testing.assert_allclose(raw.cov, empirical(rows, target, pseudo_studies=LOGIT_PSEUDO_STUDIES).cov, rtol=1e-12)
    expected = squared_exponential(rows, target, pseudo_studies=LOGIT_PSEUDO_STUDIES).cov
    np.testing.assert_allclose(smooth.cov, expected, rtol=1e-12)
    np.testing.assert_allclose(half.cov, (raw.cov + smooth.cov) / 2, rtol=1e-12)
    assert np.abs(raw.cov - smooth.cov).max() > 0.05
    for prior in (half, smooth):
        np.testing.assert_array_equal(prior.mean, raw.mean)


def test_pseudo_studies_count_as_rows():
    rows = rows_of(12)
    few, default, many = (transfer_prior(rows, config_of(pseudo_studies=nu, blend=0.0)).cov for nu in (1e-3, None, 1e6))
    same = transfer_prior(rows, config_of(pseudo_studies=LOGIT_PSEUDO_STUDIES, blend=0.0)).cov
    np.testing.assert_array_equal(default, same)
    off = ~np.eye(5, dtype=bool)
    assert np.ptp(many[off]) < 1e-3 < np.ptp(default[off]) < np.ptp(few[off])


def test_a_wild_tenant_shapes_the_covariance_less():
    """One row in ten has results that differ twenty times as much; without the scales it is most of the covariance."""
    calm = rows_of(30, wild=0.0)
    wild = calm.copy()
    wild[::10] = 1 + 20 * (wild[::10] - wild[::10].mean(axis=1, keepdims=True))
    with_, without, ideal = (
        np.diagonal(transfer_prior(rows, config_of(tenant_scale=scale)).cov).mean()
        for rows, scale in ((wild, True), (wild, False), (calm, False))
    )
    assert without > 3 * ideal
    assert with_ < 1.5 * ideal


def test_deviations_are_multiplied_by_the_root_of_the_weight():
    """So the covariance weighs the rows: it is that of x_i sqrt(u_i), u_i the expected 1 / s_i^2."""
    rows = rows_of(20, gaps=0.2)
    weights = row_weights(rows, typical=UNINFORMED_LOGIT.variance * (1 - UNINFORMED_LOGIT.correlation))
    seen = ~np.isnan(rows)
    mean = (weights[:, None] * np.where(seen, rows, 0)).sum(axis=0) / (weights[:, None] * seen).sum(axis=0)
    scaled = mean + np.sqrt(weights)[:, None] * (rows - mean)
    with_, by_hand = transfer_prior(rows, config_of()), transfer_prior(scaled, config_of(tenant_scale=False))
    np.testing.assert_allclose(with_.cov, by_hand.cov, rtol=1e-9)
    np.testing.assert_allclose(with_.mean, by_hand.mean, rtol=1e-9)


def test_with_two_rows_there_are_no_scales_to_tell():
    rows = rows_of(2, wild=2.0)
    on, off = (transfer_prior(rows, config_of(tenant_scale=scale)) for scale in (True, False))
    np.testing.assert_array_equal(on.cov, off.cov)


def test_much_past_of_one_scale_is_recovered():
    """2000 rows from N(mean, cov): standard errors are below .04 of a variance of 1."""
    rng = np.random.default_rng(4)
    factor = rng.normal(size=(4, 4)) / 2
    mean, cov = np.array([0.5, 1.0, 1.5, 2.0]), factor @ factor.T + 0.2 * np.eye(4)
    rows = rng.multivariate_normal(mean, cov, size=2000)
    prior = transfer_prior(rows, config_of(tenant_scale=False, blend=0.0))
    np.testing.assert_allclose(prior.mean, mean, atol=0.15)
    np.testing.assert_allclose(prior.cov, cov, atol=0.2)


# How much shrinkage


@pytest.mark.parametrize("variance", [0.002, 0.3, 1.0, 60.0])
def test_the_shrinkage_is_the_likeliest_one(variance):
    """With one arm the deviations are multivariate t with d = nu + 2 degrees of freedom and scale nu T / d."""
    rows = np.random.default_rng(7).normal(0, np.sqrt(variance), (15, 1))
    size = np.sqrt(((rows - rows.mean()) ** 2).sum() / 14)

    def likelihood(nu):
        return multivariate_t(shape=nu / (nu + 2) * np.eye(14), df=nu + 2).logpdf(np.full(14, size))

    likeliest = max((*FEWER_PSEUDO_STUDIES, LOGIT_PSEUDO_STUDIES), key=likelihood)
    assert likeliest_shrinkage(rows, Exchangeable(0.0, 1.0, 0.0)) == likeliest


def copies(n):
    """Six arms that are near copies of two: nothing like "all candidates alike"."""
    rng = np.random.default_rng(0)
    return np.repeat(rng.normal(1, 1, (n, 2)), 3, axis=1) + rng.normal(0, 0.01, (n, 6))


def test_little_shrinkage_where_candidates_are_copies():
    rows, target = copies(TELLING), Exchangeable(1.0, 1.0, 0.2)
    gap = rows.copy()
    gap[3, 2] = np.nan
    assert likeliest_shrinkage(rows, target) == likeliest_shrinkage(gap, target) == min(FEWER_PSEUDO_STUDIES)
    assert likeliest_shrinkage(rows[1:], target) == LOGIT_PSEUDO_STUDIES  # too few to tell


@pytest.mark.parametrize(
    ("settings_", "has_live", "nu"), [({}, False, 0.1), ({}, True, 5), ({"pseudo_studies": 2}, False, 2)]
)
def test_the_shrinkage_is_learnt_from_the_past_alone(settings_, has_live, nu):
    config, rows = config_of(tenant_scale=False, blend=0.0, **settings_), copies(TELLING)
    found = transfer_prior(rows, config, has_live=has_live)
    expected = empirical(rows, fit_exchangeable(rows, UNINFORMED_LOGIT), pseudo_studies=nu)
    np.testing.assert_array_equal(found.cov, expected.cov)

"""The two forms of the posterior against each other, against conditioning by hand, and at the edge of rounding."""

from __future__ import annotations

import numpy as np
import pytest
from closed_form import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import InvalidInputError, NumericalError, ShapeError
from easeml_core.selection.surrogate.posterior import Belief, Posterior, solve_positive

NOISE = 1e-4


def random_belief(seed, arms=5):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(arms, arms))
    return Belief(rng.uniform(0.3, 0.9, arms), 0.02 * factor @ factor.T)


def incremental(prior, arms, values, noise=NOISE):
    posterior = Posterior(prior, noise_variance=noise)
    for arm, value in zip(arms, values, strict=True):
        posterior.observe(arm, value)
    return posterior


observations = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=12)
seeds = st.integers(0, 2**32 - 1)


def test_two_arms_by_hand():
    """cov(f2, f1) / (var f1 + noise) = 0.02 / 0.05 = 0.4: mean 0.5 + 0.4 * 0.4, variance 0.04 - 0.02^2 / 0.05."""
    prior = Belief(np.array([0.5, 0.5]), np.array([[0.04, 0.02], [0.02, 0.04]]))
    posterior = closed_form(prior, [0], [0.9], noise_variance=0.01)
    np.testing.assert_allclose(posterior.mean, [0.82, 0.66], rtol=1e-12)
    np.testing.assert_allclose(posterior.cov, [[0.008, 0.004], [0.004, 0.032]], rtol=1e-12)


def test_an_unseen_independent_arm_keeps_its_prior():
    """With the zero-mean form it would fall towards 0."""
    prior = Belief(np.array([0.7, 0.7]), 0.04 * np.eye(2))
    assert closed_form(prior, [0], [0.2], noise_variance=NOISE).mean[1] == 0.7
    assert incremental(prior, [0], [0.2]).mean[1] == 0.7


def test_no_observation_leaves_the_prior():
    prior = random_belief(0)
    for posterior in (closed_form(prior, [], [], noise_variance=NOISE), incremental(prior, [], [])):
        np.testing.assert_array_equal(posterior.mean, prior.mean)
        np.testing.assert_allclose(posterior.std, np.sqrt(np.diagonal(prior.cov)))


@settings(deadline=None, max_examples=examples(60))
@given(seeds, observations)
def test_rank_one_equals_closed_form(seed, seen):
    prior, arms, values = random_belief(seed), [a for a, _ in seen], [v for _, v in seen]
    exact = closed_form(prior, arms, values, noise_variance=NOISE)
    steps = incremental(prior, arms, values)
    np.testing.assert_allclose(steps.mean, exact.mean, atol=1e-8)
    np.testing.assert_allclose(steps.variance, np.diagonal(exact.cov), atol=1e-10)


@settings(deadline=None, max_examples=examples(60))
@given(seeds, observations, st.randoms(use_true_random=False))
def test_order_of_observations_does_not_matter(seed, seen, shuffler):
    prior, other = random_belief(seed), list(seen)
    shuffler.shuffle(other)
    one, two = (incremental(prior, [a for a, _ in s], [v for _, v in s]) for s in (seen, other))
    np.testing.assert_allclose(one.mean, two.mean, atol=1e-8)
    np.testing.assert_allclose(one.variance, two.variance, atol=1e-10)


@settings(deadline=None, max_examples=examples(60))
@given(seeds, observations)
def test_variance_never_exceeds_the_one_before(seed, seen):
    posterior = Posterior(random_belief(seed), noise_variance=NOISE)
    for arm, value in seen:
        before = posterior.variance
        posterior.observe(arm, value)
        assert (posterior.variance <= before + 1e-15).all()
        assert (posterior.std >= 0).all()


def test_what_was_read_before_an_observation_stays():
    """Neither the prior, which tenants share, nor a mean or variance that a caller kept is written to."""
    prior = random_belief(1)
    posterior = Posterior(prior, noise_variance=NOISE)
    kept = [posterior.mean, posterior.variance, prior.mean, prior.cov]
    copies = [a.copy() for a in kept]
    for arm in (2, 0, 2):
        posterior.observe(arm, 0.9)
    for now, then in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_covariance_is_the_prior_less_the_columns():
    """Also after the room for them was doubled twice: 8, 16, 32."""
    prior, rng = random_belief(2, arms=20), np.random.default_rng(2)
    arms, values = rng.permutation(20), rng.uniform(0, 1, 20)
    posterior = incremental(prior, arms, values)
    assert (posterior.count, posterior.columns.shape) == (20, (20, 20))
    exact = closed_form(prior, arms, values, noise_variance=NOISE)
    np.testing.assert_allclose(prior.cov - posterior.columns @ posterior.columns.T, exact.cov, atol=1e-10)


def test_a_thousand_updates_do_not_drift():
    rng, prior = np.random.default_rng(3), random_belief(3)
    arms, values = rng.integers(0, 5, 1000), rng.uniform(0, 1, 1000)
    exact = closed_form(prior, arms, values, noise_variance=NOISE)
    np.testing.assert_allclose(incremental(prior, arms, values).mean, exact.mean, atol=1e-7)


def test_identical_arms_are_no_trouble():
    """A covariance of rank one: the Cholesky factor exists thanks to noise, and thanks to jitter without any."""
    prior = Belief(np.full(3, 0.5), np.full((3, 3), 0.04))
    np.testing.assert_allclose(closed_form(prior, [0, 1], [0.6, 0.6], noise_variance=NOISE).mean, 0.6, atol=1e-3)
    np.testing.assert_allclose(closed_form(prior, [0, 1], [0.6, 0.6], noise_variance=0.0).mean, 0.6, atol=1e-3)


def test_what_is_no_covariance_is_said_so():
    wrong = Belief(np.zeros(2), np.array([[0.01, 0.05], [0.05, 0.01]]))
    with pytest.raises(NumericalError, match=r"of 2 observations is not positive definite after a jitter of 0\.0001"):
        closed_form(wrong, [0, 1], [0.1, 0.2], noise_variance=NOISE)
    with pytest.raises(NumericalError, match=r"arm 1 has predictive variance -.* raise noise_variance"):
        incremental(wrong, [0, 1], [0.1, 0.2])


def test_solving_nothing():
    assert solve_positive(np.empty((0, 0)), np.empty((0, 2))).shape == (0, 2)


def test_beliefs_are_checked():
    with pytest.raises(ShapeError, match=r"cov must have shape \(n_arms, n_arms\) for a mean of shape \(2,\)"):
        Belief(np.zeros(2), np.eye(3))
    with pytest.raises(InvalidInputError, match="must be finite"):
        Belief(np.array([np.nan]), np.eye(1))
    with pytest.raises(ShapeError, match="values must have shape"):
        closed_form(random_belief(0), [0, 1], [0.5], noise_variance=NOISE)

"""The in-place posterior of the ``default`` policy against the closed form, in any order of what can happen to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from closed_form import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import NumericalError
from easeml_core.selection.surrogate.posterior import CAPACITY, Belief, LatentPosterior

ARMS, NOISE = 12, 0.01


def prior_of(seed, arms=ARMS):
    factor = np.random.default_rng(seed).normal(size=(arms, arms)) / math.sqrt(arms)
    return Belief(np.linspace(-1, 2, arms), factor @ factor.T + 0.1 * np.eye(arms))


def posterior_of(prior, **keywords):
    return LatentPosterior(prior, noise_variance=NOISE, **keywords)


steps = st.lists(
    st.tuples(st.sampled_from(("believe", "observe", "observe", "forget")), st.integers(0, ARMS - 1), st.floats(-4, 4)),
    max_size=30,
)


def play(posterior, moves):
    """Do what is possible of the moves; the observations and the trials under way that remain."""
    seen, under_way = [], []
    for what, arm, value in moves:
        if what == "believe" and arm not in under_way and arm not in [a for a, _ in seen]:
            posterior.believe(arm)
            under_way.append(arm)
        elif what == "observe":  # of a trial under way, in any order, or of one that was never announced
            if under_way and arm % 3:
                arm = under_way[arm % len(under_way)]
            posterior.observe(arm, value)
            seen.append((arm, value))
            under_way = [a for a in under_way if a != arm]
        elif what == "forget":
            posterior.forget(arm)
            under_way = [a for a in under_way if a != arm]
    return seen, under_way


def rebuilt(prior, seen, under_way, **keywords):
    posterior = posterior_of(prior, **keywords)
    for arm, value in seen:
        posterior.observe(arm, value)
    for arm in under_way:
        posterior.believe(arm)
    return posterior


@settings(deadline=None, max_examples=examples(150))
@given(st.integers(0, 2**32 - 1), steps)
def test_it_is_the_closed_form(seed, moves):
    """Mean and variance after the observations; believed is the variance once the trials under way are done."""
    prior = prior_of(seed)
    posterior = posterior_of(prior)
    seen, under_way = play(posterior, moves)
    arms, values = [a for a, _ in seen], [v for _, v in seen]
    truth = closed_form(prior, arms, values, noise_variance=NOISE)
    np.testing.assert_allclose(posterior.mean, truth.mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(posterior.variance, np.diagonal(truth.cov), rtol=0, atol=1e-9)
    believed = closed_form(prior, [*arms, *under_way], [*values, *truth.mean[under_way]], noise_variance=NOISE)
    np.testing.assert_allclose(posterior.believed, np.diagonal(believed.cov), rtol=0, atol=1e-9)
    np.testing.assert_allclose(believed.mean, truth.mean, rtol=0, atol=1e-8)  # fantasies at the mean do not move it
    assert (posterior.observations, posterior.under_way) == (len(seen), len(under_way))
    assert posterior.promised == max(posterior.mean[under_way], default=-math.inf)


@settings(deadline=None, max_examples=examples(150))
@given(st.integers(0, 2**32 - 1), steps)
def test_a_rebuilt_one_is_the_same_bit_for_bit(seed, moves):
    prior = prior_of(seed)
    posterior = posterior_of(prior, degrees_of_freedom=2.0)
    same = rebuilt(prior, *play(posterior, moves), degrees_of_freedom=2.0)
    for name in ("mean", "variance", "believed", "std", "scale", "observations", "under_way", "promised"):
        np.testing.assert_array_equal(getattr(posterior, name), getattr(same, name), err_msg=name)


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(0, 2**32 - 1), steps, st.integers(0, ARMS - 1), st.floats(-4, 4))
def test_the_next_observation_is_the_same_bit_for_bit(seed, moves, arm, value):
    """Also what is hidden, the kept columns, is that of a rebuilt one."""
    prior = prior_of(seed)
    posterior = posterior_of(prior)
    same = rebuilt(prior, *play(posterior, moves))
    for one in (posterior, same):
        one.observe(arm, value)
    np.testing.assert_array_equal(posterior.mean, same.mean)
    np.testing.assert_array_equal(posterior.believed, same.believed)


def test_the_scale_by_hand():
    """Prior variance 3, noise 1, so d = 4: a result 6 above the mean has e = 3; s^2 = (2 + 9) / (2 + 1)."""
    prior = Belief(np.array([1.0, 1.0]), np.array([[3.0, 0.0], [0.0, 3.0]]))
    posterior = LatentPosterior(prior, noise_variance=1.0, degrees_of_freedom=2.0)
    assert posterior.scale == 1.0
    posterior.observe(0, 7.0)
    assert posterior.scale == pytest.approx(math.sqrt(11 / 3))
    assert posterior.std[1] == pytest.approx(math.sqrt(11 / 3 * 3))
    posterior.observe(1, 1.0)
    assert posterior.scale == pytest.approx(math.sqrt(11 / 4))
    assert posterior.std[0] == pytest.approx(math.sqrt(11 / 4 * 0.75))


def test_the_scale_is_of_the_whole_likelihood():
    """Sum of e^2 is (z - mu)^T (Sigma + noise)^-1 (z - mu), whatever the order."""
    prior, rng = prior_of(3), np.random.default_rng(3)
    arms, values = [4, 1, 9, 4], rng.normal(size=4)
    posterior = rebuilt(prior, list(zip(arms, values, strict=True)), [], degrees_of_freedom=5.0)
    residual = values - prior.mean[arms]
    squares = residual @ np.linalg.solve(prior.cov[np.ix_(arms, arms)] + NOISE * np.eye(4), residual)
    assert posterior.scale == pytest.approx(math.sqrt((5 + squares) / (5 + 4)), rel=1e-9)


def test_without_degrees_of_freedom_there_is_no_scale():
    posterior = rebuilt(prior_of(0), [(0, 40.0), (1, -40.0)], [])
    assert posterior.scale == 1.0
    np.testing.assert_array_equal(posterior.std, np.sqrt(posterior.variance))


def test_what_is_under_way_does_not_change_the_scale():
    posterior = rebuilt(prior_of(0), [(0, 9.0)], [], degrees_of_freedom=2.0)
    before = posterior.scale
    posterior.believe(1)
    assert posterior.scale == before > 1


def test_the_prior_is_shared_and_left_alone():
    prior = prior_of(0)
    mean, cov = prior.mean.copy(), prior.cov.copy()
    one = posterior_of(prior)
    for arm in range(ARMS):  # more than the room for CAPACITY observations
        one.believe(arm)
        one.observe(arm, 1.0)
    assert CAPACITY < ARMS
    np.testing.assert_array_equal(prior.mean, mean)
    np.testing.assert_array_equal(prior.cov, cov)
    np.testing.assert_array_equal(posterior_of(prior).mean, mean)


def test_std_is_positive_where_nothing_is_left_to_know():
    certain = Belief(np.zeros(2), np.zeros((2, 2)))
    assert (posterior_of(certain).std > 0).all()


def test_forgetting_what_never_started_changes_nothing():
    posterior = rebuilt(prior_of(0), [(0, 1.0)], [1])
    before = posterior.believed.copy()
    posterior.forget(5)
    np.testing.assert_array_equal(posterior.believed, before)


def test_what_is_no_covariance_is_refused():
    broken = Belief(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))
    posterior = posterior_of(broken)
    posterior.observe(0, 1.0)
    with pytest.raises(NumericalError, match=r"arm 1 has predictive variance -2\.95.* after 1 observations, it"):
        posterior.observe(1, 1.0)

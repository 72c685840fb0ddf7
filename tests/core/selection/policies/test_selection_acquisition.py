"""Upper confidence bounds and expected improvement against closed forms, an integral, and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from easeml_core.errors import InvalidInputError
from easeml_core.selection.policies.acquisition import (
    BetaSchedule,
    beta_multi_tenant,
    beta_of_theorem,
    expected_improvement,
    tau,
    ucb,
)


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def test_betas_by_hand():
    """With delta = 0.5, K = 8, t = 3: 2 ln(24 pi^2); with one tenant times c*; with n = 5 tenants 2 c* ln(120 pi^2)."""
    assert beta_of_theorem(arms=8, run=3, delta=0.5) == pytest.approx(2 * math.log(24 * math.pi**2))
    for tenants in (1, 5):
        beta = beta_multi_tenant(tenants=tenants, arms=8, run=3, delta=0.5, max_cost=7.0)
        assert beta == pytest.approx(14 * math.log(24 * tenants * math.pi**2))


def test_union_bound_spends_delta_once():
    """Two-sided Gaussian tail exp(-beta / 2) for each of K arms and every t: the sum over t is delta."""
    spent = sum(8 * math.exp(-beta_of_theorem(arms=8, run=t, delta=0.1) / 2) for t in range(1, 200_000))
    assert spent == pytest.approx(0.1, rel=1e-4)


def test_beta_schedule_multiplies():
    schedule = BetaSchedule(tenants=3, arms=5, max_cost=2.0, delta=0.1, multiplier=0.05)
    assert schedule(4) == 0.05 * beta_multi_tenant(tenants=3, arms=5, run=4, delta=0.1, max_cost=2.0)


@pytest.mark.parametrize(
    "change", [{"tenants": 0}, {"arms": 0}, {"run": 0}, {"delta": 0.0}, {"delta": 1.0}, {"max_cost": 0.0}]
)
def test_betas_check_their_ranges(change):
    arguments = {"tenants": 2, "arms": 3, "run": 1, "delta": 0.1, "max_cost": 1.0} | change
    with pytest.raises(InvalidInputError, match="beta needs"):
        beta_multi_tenant(**arguments)


def test_ucb_by_hand():
    """0.5 + sqrt(8 / 2) * 0.1 = 0.7; the arm that costs four times as much gets half the bonus."""
    bounds = ucb(np.array([0.5, 0.5]), np.array([0.1, 0.1]), beta=8.0, costs=np.array([2.0, 8.0]))
    np.testing.assert_allclose(bounds, [0.7, 0.6])


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(1e-3, 1), st.floats(0, 100), st.floats(0.01, 10), st.floats(1e-3, 1e3))
def test_ucb_grows_with_beta(mean, std, beta, more, cost):
    small, large = (ucb(np.array([mean]), np.array([std]), beta=b, costs=cost)[0] for b in (beta, beta + more))
    assert large > small >= mean


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), st.floats(1e-3, 1e3))
def test_only_cost_ratios_matter_to_ucb(costs, factor):
    mean, std, c = np.array([0.5, 0.6, 0.7]), np.array([0.3, 0.2, 0.1]), np.array(costs)
    one, two = (
        ucb(mean, std, costs=k * c, beta=beta_multi_tenant(tenants=1, arms=3, run=2, delta=0.1, max_cost=k * c.max()))
        for k in (1.0, factor)
    )
    np.testing.assert_allclose(one, two, rtol=1e-9)


def test_tau_by_hand():
    """tau(0) = phi(0) = 0.39894228; tau(1) = Phi(1) + phi(1) = 0.84134475 + 0.24197072; tau(u) - tau(-u) = u."""
    assert float(tau(0.0)) == pytest.approx(0.3989422804014327, rel=1e-15)
    assert float(tau(1.0)) == pytest.approx(1.0833154705876864, rel=1e-14)
    assert float(tau(-1.0)) == pytest.approx(0.0833154705876864, rel=1e-13)
    assert float(tau(40.0)) == 40.0


@pytest.mark.parametrize("u", [-2.0, -8.0, -15.0, -30.0])
def test_tau_in_the_far_tail(u):
    """The integral of Phi up to u; the plain sum has no correct digit left at -15 and is 0 or negative at -30."""
    tail, _ = quad(lambda x: math.exp(u * x - x * x / 2) * x, 0, math.inf, epsabs=0, epsrel=1e-12)
    assert float(tau(u)) == pytest.approx(density(u) * tail, rel=1e-9)


def test_tau_far_below_is_zero_and_never_negative():
    values = tau(np.linspace(-60, 5, 4001))
    assert (values >= 0).all()
    assert (np.diff(values) >= 0).all()
    assert values[0] == 0


@pytest.mark.parametrize(
    ("mean", "std", "best"), [(0.7, 0.1, 0.8), (0.7, 0.2, 0.0), (0.9, 0.01, 0.85), (0.2, 0.1, 0.9)]
)
def test_expected_improvement_is_the_integral(mean, std, best):
    integral, _ = quad(
        lambda z: (mean + std * z - best) * density(z), (best - mean) / std, math.inf, epsabs=0, epsrel=1e-11
    )
    ei = expected_improvement(np.array([mean]), np.array([std]), best=best)[0]
    assert ei == pytest.approx(integral, rel=1e-9)


def test_expected_improvement_golden():
    """Mean 0, variance 1, best 0.5: phi(.5) - .5 Phi(-.5) = 0.35207 - 0.15427 = 0.19780."""
    assert expected_improvement(np.zeros(1), np.ones(1), best=0.5)[0] == pytest.approx(0.19780, abs=5e-6)


def test_expected_improvement_without_doubt():
    np.testing.assert_allclose(
        expected_improvement(np.array([0.9, 0.7]), np.zeros(2), best=0.8), [0.1, 0.0], atol=1e-12
    )

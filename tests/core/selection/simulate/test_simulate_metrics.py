"""Loss, price, regret, first models, shares: by hand, and against the definitions written out."""

from __future__ import annotations

import numpy as np
import pytest

from easeml_core.selection.simulate.report import (
    Curve,
    compute_shares,
    drops,
    first_models,
    loss_curve,
    mean_curve,
    regret,
)
from easeml_core.selection.simulate.run import Course


def course_of(*trials, optimum, total_cost, devices=1, until=100.0, weight=None):
    """A course of (tenant, start, end, quality)."""
    tenant, start, end, quality = (np.array(column) for column in zip(*trials, strict=True))
    return Course(
        tenant=tenant.astype(int),
        arm=np.zeros(len(trials), dtype=int),
        start=start.astype(float),
        end=end.astype(float),
        quality=quality.astype(float),
        optimum=np.array(optimum),
        weight=np.ones(len(optimum)) if weight is None else np.array(weight),
        total_cost=total_cost,
        devices=devices,
        horizon=until / 100 * total_cost / devices,
        decision_seconds=0.0,
    )


@pytest.fixture
def alone():
    """One device: tenant 0 gets 0.5 for 3, tenant 1 its best 0.8 for 2, tenant 0 its best 0.9 for 1, and a bad one."""
    trials = [(0, 0, 3, 0.5), (1, 3, 5, 0.8), (0, 5, 6, 0.9), (1, 6, 10, 0.1)]
    return lambda until=100.0: course_of(*trials, optimum=[0.9, 0.8], total_cost=10.0, until=until)


def test_loss_by_hand(alone):
    """Losses 0.9 and 0.8, then 0.4 and 0.8, then 0.4 and 0, then 0 and 0; the last trial changes nothing."""
    curve = loss_curve(alone())
    np.testing.assert_allclose(curve.percent, [0, 30, 50, 60, 100])
    np.testing.assert_allclose(curve.loss, [0.85, 0.6, 0.2, 0, 0], atol=1e-15)
    np.testing.assert_allclose(drops(alone()), [0.5, 0.8, 0.4, 0])
    prices = [curve.percent_to(loss) for loss in (0.9, 0.85, 0.6, 0.59, 0.2, 0.1, 0.0)]
    np.testing.assert_allclose(prices, [0, 0, 30, 50, 50, 60, 60])
    np.testing.assert_allclose(curve.at(np.array([0, 29.9, 30, 55, 100])), [0.85, 0.85, 0.6, 0.2, 0], atol=1e-15)


def test_what_ends_after_the_horizon_does_not_count(alone):
    curve = loss_curve(alone(until=55))
    np.testing.assert_allclose(curve.percent, [0, 30, 50])
    assert curve.percent_to(0.1) == np.inf


def test_regret_by_hand(alone):
    """sum C_t loss_t: tenant 0: 3 x 0.4 + 2 x 0.4 = 2.0, then 0; tenant 1: 3 x 0.8 = 2.4, then 0.

    To 55 % of the cost, 5.5: tenant 0 keeps 0.4 for another 0.5.
    """
    np.testing.assert_allclose(regret(alone()), [2.0, 2.4])
    np.testing.assert_allclose(regret(alone(until=55)), [2.2, 2.4])
    np.testing.assert_allclose(regret(alone(until=10)), [0.9, 0.8])


def test_regret_on_two_devices_by_hand():
    """Intervals (0, 2] and (2, 3], each x 2 devices. Tenant 1 has its best at 2: 0. Tenant 0: 0.9 x 2 x 2, then 0: two
    results of one moment count as one.
    """
    course = course_of(*[(1, 0, 2, 0.8), (0, 0, 3, 0.5), (0, 2, 3, 0.9)], optimum=[0.9, 0.8], total_cost=6.0, devices=2)
    np.testing.assert_allclose(regret(course), [3.6, 0.0], atol=1e-12)
    np.testing.assert_allclose(first_models(course), [100, 400 / 6])


@pytest.mark.parametrize("seed", range(5))
def test_regret_is_the_sum_that_defines_it(seed):
    """Spec 1.2 written out: in round t of cost C_t every tenant pays its loss after the round."""
    rng = np.random.default_rng(seed)
    quality, tenants, costs = rng.uniform(size=40), rng.integers(4, size=40), rng.uniform(size=40)
    optimum = np.array([max(quality[tenants == i], default=0.5) for i in range(4)])
    best, expected = np.zeros(4), np.zeros(4)
    for tenant, cost, value in zip(tenants, costs, quality, strict=True):
        best[tenant] = max(best[tenant], value)
        expected += cost * (optimum - best)
    end = np.cumsum(costs)
    trials = zip(tenants, end - costs, end, quality, strict=True)
    np.testing.assert_allclose(regret(course_of(*trials, optimum=optimum, total_cost=end[-1])), expected, atol=1e-12)


def test_first_models_by_hand(alone):
    np.testing.assert_allclose(first_models(alone()), [30, 50])
    assert first_models(alone(until=40)).tolist() == [30, np.inf]


def test_shares_by_hand(alone):
    """At 40 %: tenant 0 has used 3 of 4, tenant 1 so far 1 of 4; twice that of what is due to one of two."""
    np.testing.assert_allclose(compute_shares(alone(), 40), [1.5, 0.5])
    np.testing.assert_allclose(compute_shares(alone(), 100), [0.8, 1.2])
    weighted = course_of((0, 0, 1, 0.5), (1, 1, 2, 0.5), optimum=[0.5, 0.5], total_cost=2.0, weight=[3.0, 1.0])
    np.testing.assert_allclose(compute_shares(weighted, 100), [0.5 / 0.75, 0.5 / 0.25])
    assert np.isnan(compute_shares(alone(), 0)).all()


def test_the_mean_curve_is_exact():
    one = Curve(np.array([0.0, 10.0, 30.0]), np.array([0.8, 0.4, 0.0]))
    two = Curve(np.array([0.0, 10.0, 20.0]), np.array([0.6, 0.5, 0.1]))
    together = mean_curve([one, two])
    grid = np.array([0.0, 5, 10, 15, 20, 25, 30, 99])
    np.testing.assert_allclose(together.at(grid), (one.at(grid) + two.at(grid)) / 2, atol=1e-15)
    assert together.percent_to(0.45) == 10.0


def test_sums_of_decimals_still_reach_their_loss():
    """0.3 - 0.1 - 0.1 - 0.1 is 2.8e-17 in binary, and means 0."""
    trials = [(i, i, i + 1, 0.1) for i in range(3)]
    curve = loss_curve(course_of(*trials, optimum=[0.1, 0.1, 0.1], total_cost=3.0))
    assert curve.percent_to(0.0) == 100.0
    assert curve.loss.min() >= 0


def test_no_trial_at_all():
    empty = course_of((0, 0, 9, 0.5), optimum=[0.5], total_cost=9.0, until=10)
    assert loss_curve(empty).loss.tolist() == [0.5]
    assert first_models(empty).tolist() == [np.inf]
    np.testing.assert_allclose(regret(empty), [0.45])

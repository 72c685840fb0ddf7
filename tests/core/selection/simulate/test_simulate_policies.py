"""Policies on tables: invariances, and the orderings published for real data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.selection.simulate.report import loss_curve, mean_curve
from easeml_core.selection.simulate.tables import Table
from easeml_core.settings.config import POLICIES

RUNNABLE = tuple(policy for policy in POLICIES if policy != "order")
fixtures_are_factories = settings(
    deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def schedule(course):
    return list(zip(course.tenant.tolist(), course.arm.tolist(), strict=True))


@fixtures_are_factories
@given(st.integers(0, 2**32 - 1), st.sampled_from(RUNNABLE), st.floats(0, 0.6), st.booleans())
def test_curves_never_rise_and_end_at_zero(play, make_table, seed, policy, gaps, cost_aware):
    course = play(make_table(gaps=gaps, seed=seed), f"{policy}:cost_aware={str(cost_aware).lower()}", served=4)
    curve = loss_curve(course)
    assert (np.diff(curve.loss) <= 0).all()
    assert (np.diff(curve.percent) > 0).all()
    assert curve.loss[0] == pytest.approx(course.optimum.mean())
    assert curve.loss[-1] == pytest.approx(0, abs=1e-12)
    assert curve.percent[-1] == pytest.approx(100)


@pytest.mark.parametrize("policy", RUNNABLE)
def test_same_seed_same_schedule(play, make_table, policy):
    one, two = (schedule(play(make_table(seed=1), policy, served=5, devices=3)) for _ in range(2))
    assert one == two


def test_another_seed_another_random_schedule(play, make_table):
    """The draw stays the same: all are served, in the order of their rows."""
    found = set()
    for seed in range(5):
        course = play(make_table(tenants=4), "random", served=4, seed=seed)
        rows = np.argsort(np.random.default_rng([seed, 0]).permutation(4))
        found.add(tuple(np.argsort(rows)[course.tenant].tolist()))
    assert len(found) == 5


@fixtures_are_factories
@given(st.integers(0, 2**32 - 1), st.sampled_from(RUNNABLE), st.integers(-13, 13))
def test_scaling_all_costs_changes_no_decision(play, make_table, seed, policy, exponent):
    """By powers of two, so that sums of costs round alike: a tie of two sums is then one in any unit."""
    table = make_table(seed=seed)
    scaled = Table(table.tenants, table.candidates, table.quality, 2.0**exponent * table.cost)
    assert schedule(play(table, policy, served=4)) == schedule(play(scaled, policy, served=4))


def test_greedy_is_hybrid_with_endless_patience(play, make_table):
    for seed in range(5):
        table = make_table(seed=seed, candidates=8)
        patient = play(table, "hybrid@0.01:freeze_rounds=1000000", served=5)
        assert schedule(patient) == schedule(play(table, "greedy@0.01", served=5))


@pytest.mark.parametrize("policy", RUNNABLE)
def test_stops_at_the_percentage_asked_for(play, make_table, policy):
    """What ends by 30 percent counts; at most one trial, the one under way, ends later."""
    course = play(make_table(), policy, served=4, until=30)
    ends = course.percent(course.end)
    assert course.finished.tolist() == [True] * (len(ends) - 1) + [bool(ends[-1] <= 30)]
    whole = play(make_table(), policy, served=4)
    assert schedule(whole)[: len(ends)] == schedule(course)


def test_a_fixed_order_is_kept_for_every_tenant(play, make_table, tmp_path):
    (tmp_path / "order.txt").write_text("c3\nc1\nc0\n")
    course = play(make_table(), f"order:{tmp_path / 'order.txt'}", served=3)
    for tenant in range(3):
        assert course.arm[course.tenant == tenant].tolist()[:3] == [3, 1, 0]
    assert course.tenant.tolist()[:6] == [0, 1, 2, 0, 1, 2]


def test_more_devices_take_less_time_and_a_stream_less_than_rounds(play, make_table):
    """Seconds until everything is done, 8 tenants x 12 candidates: work conserving, at most total / M + longest."""
    table = make_table(candidates=12, seed=3)
    longest = table.cost.max()
    for policy in ("default", "hybrid", "roundrobin"):
        course = play(table, policy, served=8, history=0, devices=4, until=100)
        assert course.end.max() <= course.total_cost / 4 + longest
    stream, rounds = (
        loss_curve(play(table, "roundrobin", served=8, history=0, devices=4, drive=drive)).percent_to(0.1)
        for drive in ("stream", "rounds")
    )
    assert stream < rounds


def percent_to_reach(play, published, policy, *, repeats, loss=0.01, first=0):
    """Percent of the total cost at which the mean curve over draws of DEEPLEARNING reaches a loss.

    Ten tenants are served, twelve are the past; the prior is the plain empirical one, as in the published figures.
    """
    table, settings_ = published("deeplearning"), {"pseudo_studies": 0.01}
    curves = [loss_curve(play(table, policy, repeat=first + r, settings=settings_)) for r in range(repeats)]
    return mean_curve(curves).percent_to(loss)


ORDERS = {
    "MOSTCITED": "AlexNet VGG-16 GoogLeNet ResNet-50 ResNet-18 BN-AlexNet NIN SqueezeNet",
    "MOSTRECENT": "SqueezeNet BN-AlexNet ResNet-50 ResNet-18 VGG-16 GoogLeNet NIN AlexNet",
}
COLUMNS = ["NIN", "GoogLeNet", "ResNet-50", "AlexNet", "BN-AlexNet", "ResNet-18", "VGG-16", "SqueezeNet"]


def test_order_of_policies_on_deeplearning(play, published, tmp_path):
    """Cost-aware HYBRID and ROUNDROBIN reach loss 0.01 long before RANDOM, and that before both fixed orders.

    This is the published ordering, whose headline is up to 9.8 times less than a fixed order. Draws are fixed.
    """
    names = ("hybrid", "roundrobin", "default", "random")
    needed = {policy: percent_to_reach(play, published, policy, repeats=10) for policy in names}
    assert max(needed["hybrid"], needed["roundrobin"], needed["default"]) < 0.7 * needed["random"], needed
    for habit, order in ORDERS.items():
        file = tmp_path / habit
        file.write_text("\n".join(f"c{COLUMNS.index(name)}" for name in order.split()))
        needed[habit] = percent_to_reach(play, published, f"order:{file}", repeats=10)
    habits = min(needed["MOSTCITED"], needed["MOSTRECENT"])
    assert max(needed["random"], 5 * needed["hybrid"]) < habits, needed


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("policy", "low", "high"), [("hybrid", 3.9, 5.1), ("roundrobin", 3.9, 4.9), ("random", 10.3, 18.0)]
)
def test_published_percentages_on_deeplearning(play, published, policy, low, high):
    """Percent of the total cost to loss 0.01 in batches of 50 repeats: the range of two independent reconstructions.

    A batch of ours may stick out by 15 %, since their draws are others.
    """
    needed = [percent_to_reach(play, published, policy, repeats=50, first=first) for first in (0, 100, 200)]
    assert 0.85 * low < min(needed) <= max(needed) < 1.15 * high, needed


@pytest.mark.nightly
def test_knowing_costs_is_most_of_the_gain(play, published):
    """Without them HYBRID needs ten times as much (50 to 68 % in the reconstructions)."""
    blind = percent_to_reach(play, published, "hybrid:cost_aware=false", repeats=50)
    assert blind > 8 * percent_to_reach(play, published, "hybrid", repeats=50)

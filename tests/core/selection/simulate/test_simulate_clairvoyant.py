"""The clairvoyant: its rule by hand, and the published figures."""

from __future__ import annotations

import numpy as np
import pytest

from easeml_core.selection.scheduler_interface import Forecast
from easeml_core.selection.simulate.report import loss_curve, percent_to_loss
from easeml_core.selection.simulate.run import ClairvoyantScheduler


def test_its_rule_by_hand():
    """Rates 0.6/1 and 0.9/3 for tenant 0, 0.5/1 for tenant 1; after the first 0.3/3 is left for tenant 0."""
    scheduler = ClairvoyantScheduler([np.array([0.6, 0.9]), np.array([0.5])], [np.array([1.0, 3.0]), np.array([1.0])])
    choice = scheduler.choose()
    assert (choice.chosen.tenant, choice.chosen.arm, choice.chosen.acquisition) == (0, 0, 0.6)
    assert (choice.runner_up.tenant, choice.runner_up.arm) == (1, 0)
    scheduler.start(0, 0)  # as good as finished
    assert scheduler.choose().chosen.tenant == 1
    scheduler.record(1, 0, 0.5, 1.0)
    choice = scheduler.choose()
    assert (choice.chosen.tenant, choice.chosen.arm, choice.runner_up) == (0, 1, None)
    assert choice.chosen.acquisition == pytest.approx(0.1)
    assert scheduler.forecast(0, 1) == Forecast(0.9, 0.0, 3.0, True, pytest.approx(0.3), 0.6)
    scheduler.record(0, 1, 0.9, 3.0)
    assert scheduler.choose() is None


def test_ties_go_to_the_lowest_tenant_and_arm():
    scheduler = ClairvoyantScheduler([np.array([0.5, 0.5])] * 2, [np.ones(2)] * 2)
    choice = scheduler.choose()
    assert (choice.chosen.tenant, choice.chosen.arm, choice.runner_up.tenant) == (0, 0, 1)


def test_it_ends_when_everybody_has_the_best(play, make_table):
    course = play(make_table(gaps=0.3), "clairvoyant", served=8, devices=3)
    assert loss_curve(course).loss[-1] == pytest.approx(0, abs=1e-12)
    assert len(course.tenant) < 8 * 5


@pytest.mark.parametrize(
    ("name", "protocol", "at_02", "at_01"),
    [
        ("deeplearning", {}, (0.29, 0.85), (1.0, 1.45)),
        ("179", {"cost_mode": "unit"}, (0.56, 0.575), (0.56, 0.575)),
        ("179u01", {}, (0.04, 0.085), (0.09, 0.16)),
        ("tabzilla18", {}, (0.004, 0.011), (0.02, 0.05)),
        ("tabzilla35", {}, (0.003, 0.0075), (0.016, 0.032)),
    ],
)
def test_published_figures(play, published, name, protocol, at_02, at_01):
    """Percent to loss 0.02 and 0.01, medians of 30 repeats: .29/1.04, .56/.56, .052/.104, .007/.026, .0065/.025.

    Other draws give other medians: the ranges are those of eight batches, a little widened; draws are fixed here, so
    nothing is random. At 0.02 on DEEPLEARNING a repeat costs either about 0.3 or about 0.9, and the median of a batch
    lies anywhere between.
    """
    table = published(name)
    curves = [loss_curve(play(table, "clairvoyant", repeat=r, **protocol)) for r in range(30)]
    found = percent_to_loss(curves, (0.02, 0.01))
    assert at_02[0] <= found["0.02"].median <= at_02[1], found
    assert at_01[0] <= found["0.01"].median <= at_01[1], found

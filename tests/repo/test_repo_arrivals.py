"""benchmarks/at_scale/arrivals.py: without changes it is `easeml simulate`; with them nothing is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import inf

import arrivals
import numpy as np
import pytest

from easeml_core.selection.simulate.protocol import Protocol, parse_contestants
from easeml_core.selection.simulate.run import run_repeat
from easeml_core.selection.simulate.tables import Synthetic, Table
from easeml_core.settings.config import SelectionConfig

DRAWN = Synthetic(correlation_length=0.5, model_weight=1.0, tenants=12, candidates=7).table(seed=3)
SMALL = Table(DRAWN.tenants, DRAWN.candidates, DRAWN.quality, 1 + np.arange(84.0).reshape(12, 7) % 11)
"""Whole seconds, so that trials end at the same moment."""

STILL = arrivals.Setting(3, 200.0, inf, inf, inf, inf)


@pytest.mark.parametrize("policy", ["default", "hybrid", "roundrobin", "clairvoyant"])
def test_where_nobody_comes_or_goes_it_is_the_simulation_of_the_command(policy):
    protocol = Protocol(served=12, history=0, devices=3)
    order, _ = protocol.draw(12, 0)
    drawn = Table(tuple(SMALL.tenants[row] for row in order), SMALL.candidates, SMALL.quality[order], SMALL.cost[order])
    (contestant,) = parse_contestants([policy], base=SelectionConfig(), candidates=SMALL.candidates)
    course = run_repeat(SMALL, protocol, contestant, 0)
    fleet = arrivals.Fleet(drawn, contestant, STILL, np.random.default_rng(0))
    assert fleet.run().changes == 0
    assert fleet.results == list(zip(course.tenant.tolist(), course.arm.tolist(), strict=True))


def test_every_candidate_is_finished_once_however_many_devices_fall_away():
    (contestant,) = parse_contestants(["default"], base=SelectionConfig(), candidates=SMALL.candidates)
    setting = replace(STILL, until=400.0, tenant_stays=20.0, tenant_away=20.0, device_stays=5.0, device_away=1.0)
    fleet = arrivals.Fleet(SMALL, contestant, setting, np.random.default_rng(1))
    met = fleet.run()
    assert met.lost > 10
    assert met.changes > 100
    assert met.up < 0.95
    assert Counter(fleet.results) == dict.fromkeys(np.ndindex(12, 7), 1)
    assert fleet.best.tolist() == fleet.optimum.tolist()

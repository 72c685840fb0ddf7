"""What a scheduler keeps of trials under way is what one that is rebuilt now would keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_up_installation import make_world

from easeml_core.config import SelectionConfig
from easeml_core.selection.problem import Pending, Pull
from easeml_core.selection.suggestion import scheduler_for


def test_trials_under_way_are_charged_with_the_costs_that_are_predicted_now() -> None:
    """Between two refits each result moves the predictions of its study; the guard must not keep older ones."""
    world = make_world(tenants=6, candidates=30, observations=8)
    before = world.problem()
    config = SelectionConfig()
    lasting = scheduler_for(before, config=config)
    started = [(i, k) for i in range(6) for k in range(30) if (i, k) not in set(world.runs)]
    started = [pair for n, pair in enumerate(started) if n % 5 == 0]
    for pair in started:
        lasting.start(*pair)
    lasting.choose()
    (tenant, arm), *others = started
    quality, cost = float(world.qualities[tenant, arm]), 50 * float(world.costs[tenant, arm])
    lasting.record(tenant, arm, quality, cost)
    ended = Pull(tenant, arm, quality, cost, order=1e9)
    pending = tuple(Pending(i, k) for i, k in others)
    rebuilt = scheduler_for(replace(before, pulls=(*before.pulls, ended), pending=pending), config=config)
    kept, expected = (s.choice._guard._committed for s in (lasting, rebuilt))
    np.testing.assert_array_equal(kept, expected)
    assert lasting.choose() == rebuilt.choose()

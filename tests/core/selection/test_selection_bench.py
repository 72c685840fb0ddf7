"""The made-up installation: valid, of the size that was asked for, and the same each time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.selection.bench import make_world


def test_it_has_the_size_that_was_asked_for():
    world = make_world(tenants=7, candidates=5, observations=3)
    assert (world.qualities.shape, world.costs.shape, len(world.names), len(world.rows)) == ((7, 5), (7, 5), 5, 7)
    assert Counter(i for i, _ in world.runs) == dict.fromkeys(range(7), 3)
    assert len(set(world.runs)) == 21
    assert ((world.qualities > 0) & (world.qualities < 1)).all()
    assert (world.costs > 0).all()


def test_a_scheduler_is_told_what_has_run_and_nothing_else():
    world = make_world(tenants=7, candidates=5, observations=3)
    problem = world.problem()
    assert [(p.study_id, p.arm) for p in problem.in_order()] == list(world.runs)
    assert [(p.quality, p.cost_seconds) for p in problem.pulls] == [
        (world.qualities[place], world.costs[place]) for place in world.runs
    ]
    assert [(a.names, a.rows) for a in problem.studies] == [(world.names, rows) for rows in world.rows]


def test_it_is_the_same_for_the_same_seed():
    one, same, other = (make_world(tenants=4, candidates=5, observations=2, seed=s) for s in (1, 1, 2))
    assert (one.runs, one.rows) == (same.runs, same.rows)
    np.testing.assert_array_equal(one.costs, same.costs)
    assert not np.array_equal(one.qualities, other.qualities)


def test_candidates_that_are_good_for_one_tenant_tend_to_be_for_another():
    """Else there would be nothing to learn across tenants, and all policies would be alike."""
    logits = np.log(1 / (1 / make_world(tenants=200, candidates=40, observations=1).qualities - 1))
    assert np.corrcoef(logits)[np.triu_indices(200, 1)].mean() > 0.3


@pytest.mark.parametrize("sizes", [(0, 5, 0), (3, 0, 0), (3, 5, 5), (3, 5, -1)])
def test_other_sizes_are_refused(sizes):
    with pytest.raises(InvalidInputError, match="observations >= 0 and below candidates"):
        make_world(tenants=sizes[0], candidates=sizes[1], observations=sizes[2])

"""What a scheduler keeps of trials under way is what one that is rebuilt now would keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_installation import make_world

from easeml_core.selection.policies.default_choice import Lessons
from easeml_core.selection.problem import Arms, Pending, Problem, Pull
from easeml_core.selection.scheduler_interface import next_refit
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.settings.config import SelectionConfig


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
    kept, expected = (s.state._guard._committed for s in (lasting, rebuilt))
    np.testing.assert_array_equal(kept, expected)
    assert lasting.choose() == rebuilt.choose()


def test_what_a_board_keeps_of_every_tenant_is_what_holds_now() -> None:
    """While tenants come, after each start and end on four devices: when each is owed a trial, and its cheapest."""
    world = make_world(tenants=7, candidates=12, observations=4)
    before = world.problem()
    studies = tuple(replace(arms, joined=20 + 9 * i if i % 2 else 0) for i, arms in enumerate(before.studies))
    scheduler = scheduler_for(replace(before, studies=studies), config=SelectionConfig(guard=0.3))
    under_way: list[tuple[int, int]] = []
    while (choice := scheduler.choose()) is not None:
        kept = scheduler.state
        board = kept._boards[None]
        for tenant, rates in enumerate(board.rates):
            costs = np.where(rates > 0, kept._costs.of(tenant), np.inf)
            assert board.cheapest[tenant] == costs.min()
            waits = bool((rates > 0).any())
            assert board.due[tenant] == (kept._guard.due(tenant, board.next_cost[tenant]) if waits else np.inf)
        scheduler.start(choice.chosen.tenant, choice.chosen.arm)
        under_way.append((choice.chosen.tenant, choice.chosen.arm))
        if len(under_way) == 4:
            pair = under_way.pop(1)
            scheduler.record(*pair, float(world.qualities[pair]), float(world.costs[pair]))
    assert len(kept._guard._to_come) == 0


def test_what_lessons_took_does_not_depend_on_when_it_was_asked() -> None:
    """One is asked after every trial, at prices that rise and fall; the other once, at prices next to the border."""
    rng = np.random.default_rng(8)
    asked, answers = Lessons(), set()
    costs = rng.lognormal(0, 2, 200)
    for number, cost in enumerate(costs):
        asked.record(cost)
        price = float(costs[rng.integers(number + 1)])
        part = costs[: number + 1]
        share = part[part <= price].sum() / part.sum()
        for times in (0.5, 1 - 1e-12, 1 + 1e-12, 2.0):
            silent = Lessons()
            for earlier in part:
                silent.record(earlier)
            found = asked.are_enough(price, [], share * times)
            assert found == silent.are_enough(price, [], share * times)
            answers.add((times, found))
    assert {(0.5, True), (2.0, False)} <= answers
    assert not {(0.5, False), (2.0, True)} & answers


@pytest.mark.parametrize("policy", ["default", "hybrid"])
def test_what_was_charged_and_how_long_is_left_outlast_a_refit(policy: str) -> None:
    """Each trial takes 2 s: no further one fits into what is left of a budget of 12 s, nor before the deadline."""
    names = ("a", "b", "c")
    studies = (Arms(0, 1.0, names, budget_seconds=12.0), Arms(1, 1.0, names, seconds_left=100.0))
    scheduler = scheduler_for(Problem(studies), config=SelectionConfig(policy=policy))
    scheduler.charge(0, 4.0)
    scheduler.record(0, 0, 0.5, 2.0)
    scheduler.charge(0, 4.5)
    scheduler.set_seconds_left(1, 1.0)
    assert scheduler.needs_refit
    assert scheduler.choose() is None
    scheduler.set_seconds_left(1, 100.0)
    choice = scheduler.choose()
    assert choice is not None
    assert choice.chosen.tenant == 1


def test_a_result_that_comes_late_is_put_into_its_place() -> None:
    """Between two refits, too: whose turn it is follows from the result that ended last, not from the one seen last."""
    names = tuple("abcdefghij")
    problem = Problem(tuple(Arms(i, 1.0, names) for i in range(3)))
    scheduler = scheduler_for(problem, config=SelectionConfig(policy="roundrobin"))
    for arm in range(8):
        for tenant in range(3):
            scheduler.record(tenant, arm, 0.5, 1.0)
    scheduler.refit()
    scheduler.record(0, 8, 0.5, 1.0)
    assert next_refit(24) > 26
    assert not scheduler.needs_refit
    scheduler.record(1, 8, 0.5, 1.0, later=1)
    choice = scheduler.choose()
    assert choice is not None
    assert choice.chosen.tenant == 1

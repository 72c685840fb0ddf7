"""The event loop: by hand on scripts, and as properties of every policy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.selection.scheduler_interface import Choice, Pair
from easeml_core.selection.simulate import run as run_module
from easeml_core.selection.simulate.protocol import Protocol, parse_contestants
from easeml_core.selection.simulate.run import run_repeat
from easeml_core.settings.config import POLICIES, SelectionConfig

EVERYBODY = (*(p for p in POLICIES if p != "order"), "clairvoyant")


class Script:
    """A scheduler that hands out a list of trials, or None where the list says so, and records its reports."""

    def __init__(self, *trials):
        self.trials, self.reported = list(trials), []

    def choose(self, *, seed=(0,), device=None):
        trial = self.trials.pop(0) if self.trials else None
        self.reported.append(("ask", trial))
        return None if trial is None else Choice(Pair(*trial, 1.0), None)

    def start(self, tenant, arm, *, device=None):
        self.reported.append(("start", (tenant, arm)))

    def record(self, tenant, arm, quality, cost_seconds, *, device=None):
        self.reported.append(("record", (tenant, arm), quality, cost_seconds))


@pytest.fixture
def perform(monkeypatch, table_of):
    """The course and the log of a script on two tenants: t0 with costs 3 and 1, t1 with cost 2 (rows are not drawn)."""
    table = table_of([[0.5, 0.9], [0.8, np.nan]], [[3, 1], [2, 9]])

    def run(*trials, **protocol):
        script = Script(*trials)
        monkeypatch.setattr(run_module, "_scheduler", lambda contestant, stands: script)
        monkeypatch.setattr(Protocol, "draw", lambda self, n, repeat: ([0, 1], []))
        course = run_repeat(table, Protocol(served=2, **protocol), SimpleNamespace(), 0)
        return course, script.reported

    return run


A0, A1, B0 = (0, 0), (0, 1), (1, 0)


def schedule(course):
    columns = (course.tenant, course.arm, course.start, course.end, course.quality)
    return [tuple(column[i].item() for column in columns) for i in range(len(course.tenant))]


def test_one_device_by_hand(perform):
    course, reported = perform(A0, B0, A1)
    assert schedule(course) == [(0, 0, 0.0, 3.0, 0.5), (1, 0, 3.0, 5.0, 0.8), (0, 1, 5.0, 6.0, 0.9)]
    assert reported == [
        *[("ask", A0), ("start", A0), ("record", A0, 0.5, 3.0)],
        *[("ask", B0), ("start", B0), ("record", B0, 0.8, 2.0)],
        *[("ask", A1), ("start", A1), ("record", A1, 0.9, 1.0)],
    ]
    assert (course.total_cost, course.devices, course.horizon) == (6.0, 1, 6.0)
    assert course.optimum.tolist() == [0.9, 0.8]
    np.testing.assert_allclose(course.percent(course.end), [50, 500 / 6, 100])


def test_two_devices_by_hand(perform):
    """The second device is free at 2 and asks at once; at 3 both end, and are reported before the next request."""
    course, reported = perform(A0, B0, A1, devices=2)
    assert schedule(course) == [(1, 0, 0.0, 2.0, 0.8), (0, 0, 0.0, 3.0, 0.5), (0, 1, 2.0, 3.0, 0.9)]
    assert [entry[:2] for entry in reported] == [
        *[("ask", A0), ("start", A0), ("ask", B0), ("start", B0)],
        *[("record", B0), ("ask", A1), ("start", A1), ("record", A0), ("record", A1)],
    ]
    np.testing.assert_allclose(course.percent(course.end), [400 / 6, 100, 100])
    assert course.finished.all()


def test_rounds_wait_for_the_slowest(perform):
    """A1 starts only when A0 has ended, although a device is free from 2 on; it ends at 4, beyond the horizon of 3."""
    course, reported = perform(A0, B0, A1, devices=2, drive="rounds")
    assert schedule(course) == [(1, 0, 0.0, 2.0, 0.8), (0, 0, 0.0, 3.0, 0.5)]
    course, reported = perform(A1, B0, A0, devices=2, drive="rounds")
    assert schedule(course) == [(0, 1, 0.0, 1.0, 0.9), (1, 0, 0.0, 2.0, 0.8), (0, 0, 2.0, 5.0, 0.5)]
    assert course.finished.tolist() == [True, True, False]
    assert [entry[:2] for entry in reported if entry[0] != "start"] == [
        *[("ask", A1), ("ask", B0), ("record", A1), ("record", B0), ("ask", A0), ("ask", None), ("record", A0)],
    ]


def test_a_device_that_got_nothing_asks_again_after_the_next_result(perform):
    course, reported = perform(B0, None, A0, A1, devices=2)
    assert [entry[:2] for entry in reported if entry[0] != "start"] == [
        *[("ask", B0), ("ask", None), ("record", B0), ("ask", A0), ("ask", A1), ("record", A1)],
    ]  # at 3 the horizon is reached: no device asks, and A0 never comes
    assert [entry[2:4] for entry in schedule(course)] == [(0.0, 2.0), (2.0, 3.0), (2.0, 5.0)]


def test_it_ends_politely_when_nothing_is_left(perform):
    course, reported = perform()
    assert schedule(course) == []
    assert reported == [("ask", None)]
    course, reported = perform(B0)
    assert reported[-1] == ("ask", None)


def test_nobody_asks_beyond_the_horizon(perform):
    """Half of 6 is 3: A0 ends there and counts, the next one is not started."""
    course, reported = perform(A0, B0, A1, until=50)
    assert [entry[:2] for entry in reported] == [("ask", A0), ("start", A0), ("record", A0)]
    assert course.finished.tolist() == [True]
    course, reported = perform(A0, B0, A1, until=60)
    assert [entry[1] for entry in reported if entry[0] == "ask"] == [A0, B0]
    assert course.finished.tolist() == [True, False]


def test_time_is_that_of_the_clock(table_of):
    """A clock that advances 1 each time it is looked at: asking takes 1 and telling takes 1, so a trial takes 2."""
    ticks = iter(range(10**6))
    [contestant] = parse_contestants(["clairvoyant"], base=SelectionConfig(), candidates=())
    course = run_repeat(
        table_of([[0.5, 0.9]], [[1, 9]]), Protocol(served=1), contestant, 0, clock=lambda: float(next(ticks))
    )
    assert len(course.tenant) == 2
    assert course.decision_seconds == 2.0


@settings(deadline=None, max_examples=examples(60, least=10))
@given(
    seed=st.integers(0, 2**32 - 1),
    policy=st.sampled_from(EVERYBODY),
    gaps=st.floats(0, 0.6),
    devices=st.integers(1, 5),
    drive=st.sampled_from(("stream", "rounds")),
    cost_mode=st.sampled_from(("known", "predicted", "unit")),
)
def test_every_policy_runs_everything_once_on_its_devices(make_table_, seed, policy, gaps, devices, drive, cost_mode):
    table = make_table_(gaps=gaps, seed=seed)
    [contestant] = parse_contestants([policy], base=SelectionConfig(), candidates=table.candidates)
    protocol = Protocol(served=3, history=4, devices=devices, drive=drive, cost_mode=cost_mode, seed=seed)
    course = run_repeat(table, protocol, contestant, 0)
    cost = np.ones_like(table.cost) if cost_mode == "unit" else table.cost
    served = protocol.draw(8, 0)[0]
    trials = list(zip(course.tenant.tolist(), course.arm.tolist(), strict=True))
    assert len(trials) == len(set(trials))
    for i, row in enumerate(served):
        mine = course.tenant == i
        columns = np.flatnonzero(~np.isnan(table.quality[row]))
        np.testing.assert_array_equal(course.quality[mine], table.quality[row, columns[course.arm[mine]]])
        took = cost[row, columns[course.arm[mine]]]
        np.testing.assert_allclose(course.end[mine] - course.start[mine], took, rtol=1e-6, atol=1e-9)
    for moment in course.start:
        assert ((course.start <= moment) & (course.end > moment)).sum() <= devices
    if devices == 1 and policy != "clairvoyant":
        available = sum(int((~np.isnan(table.quality[row])).sum()) for row in served)
        assert len(trials) == available
        assert course.end.max() == pytest.approx(course.total_cost)


@pytest.fixture(scope="module")
def make_table_():
    from easeml_core.selection.simulate.tables import Table

    def make(*, gaps, seed):
        rng = np.random.default_rng(seed)
        quality = rng.uniform(0, 1, (8, 5))
        quality[:, 1:][rng.uniform(size=(8, 4)) < gaps] = np.nan
        names = tuple("abcde")
        return Table(tuple("stuvwxyz"), names, quality, rng.lognormal(sigma=2, size=(8, 5)))

    return make

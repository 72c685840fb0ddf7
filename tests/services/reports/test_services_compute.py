"""What runs where: each device holds one trial at a time, sums are those of the trials, others are shown as sums."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from device_rows import add_reasons, add_study, add_trial
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.entities import TrialState
from easeml_core.errors import ConfigError
from easeml_core.services.reports.compute import compute, lanes_of
from easeml_core.store.queries.compute import DeviceRun, history_stamp
from easeml_core.store.queries.overview import busy_devices

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def run_of(number: int, begun: float, took: float, **more: Any) -> DeviceRun:
    """A trial that began so many hours ago."""
    begun_at = NOW - hours(begun)
    ended = DeviceRun(
        trial_id=number,
        study="study",
        tenant="lab",
        candidate="tree",
        device="gpu",
        state=TrialState.SUCCEEDED,
        attempt=1,
        begun_at=begun_at,
        started_at=begun_at,
        finished_at=begun_at + hours(took),
        lost_seconds=0.0,
        resumed_seconds=0.0,
        lease_until=None,
        lease_key=None,
        is_lost=False,
        predicted_seconds=None,
    )
    return replace(ended, **more)


RUNNING = {"state": TrialState.RUNNING, "finished_at": None, "lease_until": NOW + hours(1)}

times = st.tuples(st.integers(1, 100), st.integers(0, 100), st.sampled_from(["gpu", "cpu", None]))


@given(st.lists(times, max_size=40))
def test_no_lane_holds_two_trials_at_once_and_there_are_no_more_than_it_takes(drawn: list[Any]) -> None:
    runs = [run_of(k, begun, min(took, begun), device=kind) for k, (begun, took, kind) in enumerate(drawn)]
    lanes = lanes_of(runs, now=NOW)
    jobs = [job for lane in lanes for job in lane.jobs]
    assert sorted(job.run.trial_id for job in jobs) == list(range(len(runs)))
    for lane in lanes:
        assert all(a.until <= b.begun for a, b in zip(lane.jobs, lane.jobs[1:], strict=False))
        assert len({job.run.device for job in lane.jobs}) == 1
    for kind in {"gpu", "cpu", None}:
        of_kind = [r for r in runs if r.device == kind and r.finished_at > r.begun_at]
        at_once = [sum(r.begun_at <= x.begun_at < r.finished_at for r in of_kind) for x in of_kind]
        found = [lane for lane in lanes if lane.device == (kind or "device")]
        assert len(found) >= max(at_once, default=0)
        if len(of_kind) == sum(r.device == kind for r in runs):  # those of no length may stand anywhere
            assert len(found) == max(at_once, default=0)


def test_what_runs_ends_when_it_was_predicted_to_less_what_was_resumed() -> None:
    known = run_of(1, 1, 0, **RUNNING, predicted_seconds=3 * 3600.0, resumed_seconds=3600.0)
    late, silent = (run_of(2, 1, 0, **RUNNING, predicted_seconds=60.0), run_of(3, 1, 0, **RUNNING))
    jobs = {job.run.trial_id: job for lane in lanes_of([known, late, silent], now=NOW) for job in lane.jobs}
    assert {number: job.expected for number, job in jobs.items()} == {1: NOW + hours(1), 2: None, 3: None}
    assert {job.state for job in jobs.values()} == {"running"}
    assert {job.until for job in jobs.values()} == {NOW}


def test_a_lease_that_is_over_and_the_time_that_was_lost_before_are_reported() -> None:
    over = RUNNING | {"is_lost": True, "lease_until": NOW - hours(0.5)}
    again = {"started_at": NOW - hours(5), "lost_seconds": 3600.0}
    taken_back = {"state": TrialState.SUGGESTED, "finished_at": None, "lost_seconds": 1800.0}
    runs = [run_of(1, 1, 0, **over), run_of(2, 2, 1, **again), run_of(3, 1, 0, **taken_back)]
    jobs = [j for lane in lanes_of(runs, now=NOW) for j in lane.jobs]
    found = {(j.run.trial_id, j.state, j.begun, j.until) for j in jobs}
    assert found == {
        (1, "lost", NOW - hours(1), NOW - hours(0.5)),
        (2, "ended", NOW - hours(2), NOW - hours(1)),
        (2, "lost", NOW - hours(5), NOW - hours(4)),
        (3, "lost", NOW - hours(1), NOW - hours(0.5)),
    }


@pytest.fixture
def two(database: Any) -> dict[str, int]:
    """Two tenants of the weights 1 and 3. The first used an hour, the second three, and something waits for each."""
    add_study(database, "mine")
    add_study(database, "theirs", tenant="rivals", weight=3.0)
    return {
        "done": add_trial(database, "mine", ended=0, took=1),
        "old": add_trial(database, "mine", ended=8, took=2),
        "their_done": add_trial(database, "theirs", ended=1, took=2),
        "their_run": add_trial(database, "theirs", began=1),
        "waits": add_trial(database, "mine", waits=True),
        "their_waits": add_trial(database, "theirs", waits=True),
    }


def test_sums_are_those_of_the_trials_in_the_time(database: Any, two: dict[str, int]) -> None:
    found = compute(database.worker, window="6h")
    drawn = {job.run.trial_id for lane in found.lanes for job in lane.jobs}
    assert drawn == {two["done"], two["their_done"], two["their_run"]}
    assert {w.trial_id for w in found.waits} == {two["waits"], two["their_waits"]}
    totals = found.totals
    assert (totals.running, totals.own_running, totals.waiting, totals.ended) == (1, 1, 2, 2)
    device_hours = sum(part.devices for part in found.busy) / len(found.busy) * 6
    assert device_hours == pytest.approx(4, abs=0.05)
    shares = {s.tenant: (s.share, s.due) for s in found.shares}
    assert shares["rivals"] == (pytest.approx(0.75, abs=0.01), 0.75)
    assert shares["lab"] == (pytest.approx(0.25, abs=0.01), 0.25)
    longer = compute(database.worker, window="24h")
    assert longer.totals.ended == 3


@pytest.mark.parametrize(
    ("names", "hours_ago"), [(None, {1: 2, 2: 1, 3: 1, 9: 1, 10: 1}), (["mine"], {1: 1, 9: 1, 10: 1}), ([], {})]
)
def test_devices_of_the_last_day_by_the_hour(
    database: Any, two: dict[str, int], names: list[str] | None, hours_ago: dict[int, int]
) -> None:
    with database.worker.begin() as tx:
        found = busy_devices(tx, names)
    assert found == pytest.approx([hours_ago.get(hour, 0) for hour in range(24, 0, -1)], abs=0.05)


def test_of_others_only_sums_are_reported(database: Any, two: dict[str, int]) -> None:
    found = compute(database.worker, window="6h", studies=["mine"])
    assert {job.run.study for lane in found.lanes for job in lane.jobs} == {"mine"}
    assert {w.study for w in found.waits} == {"mine"}
    assert [s.tenant for s in found.shares] == ["lab", None]
    assert found.shares[1].due == 0.75
    totals = found.totals
    assert (totals.running, totals.own_running, totals.waiting, totals.ended) == (1, 0, 1, 1)
    assert "rivals" not in repr(found)
    assert "theirs" not in repr(found)


def test_an_empty_installation_and_one_that_nobody_may_see(database: Any) -> None:
    for seen in (None, []):
        found = compute(database.worker, studies=seen)
        assert (found.lanes, found.waits, found.shares, found.gains) == ([], [], [], [])
        assert len(found.busy) == 36
        assert found.prices[-1].per_hour == 0


def test_a_time_that_is_none_is_refused(database: Any) -> None:
    with pytest.raises(ConfigError, match="6h, 24h, 7d") as refused:
        compute(database.worker, window="1y")
    assert (refused.value.field, refused.value.value) == ("window", "1y")


def test_the_stamp_of_the_history_changes_with_every_result(database: Any) -> None:
    add_study(database, "mine")
    stamps = []
    for _ in range(2):
        with database.worker.begin() as tx:
            stamps.append(history_stamp(tx))
        add_trial(database, "mine", took=1)
    assert len(set(stamps)) == 2


def test_a_choice_is_worth_its_gain_over_its_hours_and_a_first_result_has_no_place(database: Any) -> None:
    add_study(database, "mine")
    promised = {"expected_improvement": 0.002, "predicted_cost_seconds": 1800.0, "guarded": False, "best": 0.9}
    for changes in ({}, {"best": 0.0}, {"predicted_cost_seconds": "soon"}, {"expected_improvement": None}):
        add_reasons(database, add_trial(database, "mine", waits=True), **promised | changes)
    found = compute(database.worker)
    assert [g.gain_per_hour for g in found.gains] == [pytest.approx(0.004)]
    assert [w.gain for w in found.waits] == [0.002, None, 0.002, None]

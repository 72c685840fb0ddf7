"""From rows to the scheduler's view: limits without what the scheduler cannot see, and everything else as it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from easeml_core.entities import Study, StudyState, Tenant, TrialState
from easeml_core.services.selection.problem import (
    Result,
    arm_of,
    build_problem,
    results_by_version,
    runnable_candidates,
)
from easeml_core.store.tables.decisions import KnownTrial, Menu

S, R, OK, F, C = TrialState
MAY = datetime(2026, 5, 1, tzinfo=UTC)
STUDY = Study(1, "a", "lab", StudyState.ACTIVE, "csv:a", "", "accuracy", 2.0, None, {})
OTHER = replace(STUDY, id=2, name="b")
LAB = Tenant(1, "lab", 1.0, None, None, 0.0, 0.0, 0, 2)
VERSIONS = {1: 12, 2: 20}
MENUS = {study: Menu(tuple(range(10 * study, 10 * study + 3)), ("c0", "c1", "c2")) for study in (1, 2)}
NAMES = {10 * study + k: f"c{k}" for study in (1, 2) for k in range(3)}


def result(candidate: int, state: TrialState, order: int, **known: Any) -> Result:
    facts: dict[str, Any] = {"quality": None, "cost_seconds": None} | known
    return Result(candidate, state, order=order, **facts)


RESULTS = {
    (1, 11): [result(10, OK, 0, quality=0.5, cost_seconds=7.0), result(11, R, 1, limit_seconds=9.0, lost_seconds=2.0)],
    (1, 12): [
        result(10, OK, 2, quality=0.6, cost_seconds=4.0, lost_seconds=1.0, device="gpu", finished_at=MAY),
        result(11, S, 3, limit_seconds=30.0, lost_seconds=3.0),
        result(12, F, 4, lost_seconds=5.0),
    ],
    (2, 20): [result(20, S, 5, limit_seconds=8.0)],
}


def problem(active: list[Study] | None = None, **more: Any) -> Any:
    active = active or [STUDY, OTHER]
    arms = runnable_candidates(active, MENUS, VERSIONS, RESULTS)
    return build_problem(active, arms, VERSIONS, RESULTS, names=NAMES, **more)


def test_what_the_scheduler_is_reported_of_a_study() -> None:
    limited = replace(STUDY, priority=3, seconds_left=60.5, target_quality=0.9)
    arms = problem([limited], rows={11: 7, 12: 174}).studies[0]
    assert (arms.tenant, arms.priority, arms.seconds_left, arms.target_quality) == ("lab", 3, 60.5, 0.9)
    assert (arms.rows, arms.weight, arms.budget_seconds) == (174, 2.0, None)
    assert (arms.names, arms.devices, arms.shared) == (("c0", "c1"), (), ())


def test_devices_come_arm_by_arm_without_those_of_a_withdrawn_candidate() -> None:
    gpu, tpu = frozenset({"gpu", "cpu"}), frozenset({"tpu"})
    menus = {1: MENUS[1]._replace(devices=(None, gpu, tpu))}
    (menu,) = runnable_candidates([STUDY], menus, VERSIONS, RESULTS).values()
    assert menu == Menu((10, 11), ("c0", "c1"), (None, gpu))
    assert build_problem([STUDY], {1: menu}, VERSIONS, {}).studies[0].devices == (None, gpu)


def test_an_arm_is_found_by_its_candidate() -> None:
    assert [arm_of(MENUS[2], candidate) for candidate in (19, 20, 22, 23)] == [None, 0, 2, None]


def test_trials_under_way_are_listed_in_the_order_of_their_suggestion_with_their_device() -> None:
    given = {1: [result(10, S, 7)], 2: [result(21, R, 6, device="gpu"), result(20, S, 8)]}
    found = build_problem([STUDY, OTHER], MENUS, VERSIONS, {(s, VERSIONS[s]): r for s, r in given.items()})
    assert [(p.study_id, p.arm, p.device) for p in found.pending] == [(2, 1, "gpu"), (1, 0, None), (2, 0, None)]


def test_pulls_keep_their_device() -> None:
    (pull,) = problem().pulls
    assert (pull.study_id, pull.arm, pull.quality, pull.cost_seconds, pull.device) == (1, 0, 0.6, 4.0, "gpu")


def test_a_budget_is_less_by_what_the_scheduler_does_not_see() -> None:
    """100 less 7 + 2 + 7 of older data (used, lost, reserved) and 1 + 3 + 5 that were lost; the 4 it sees itself."""
    arms = problem([replace(STUDY, budget_seconds=100.0)]).studies[0]
    assert arms.budget_seconds == 75.0
    assert problem([replace(STUDY, budget_seconds=5.0)]).studies[0].budget_seconds == 0.0


def test_a_quota_is_less_by_what_is_used_and_by_open_trials_that_the_scheduler_does_not_see() -> None:
    """Used 22 in all; of the reserved 7 + 27 + 8 the scheduler sees 27 and 8, and charges them itself."""
    lab = replace(LAB, max_parallel=5, quota_seconds=200.0, used_seconds=22.0, reserved_seconds=42.0, open_trials=3)
    (quota,) = problem(tenants=[lab]).quotas.values()
    assert (quota.max_parallel, quota.seconds_left) == (4, 200.0 - 22.0 - 7.0)
    (quota,) = problem([STUDY], tenants=[lab]).quotas.values()
    assert (quota.max_parallel, quota.seconds_left) == (3, 200.0 - 22.0 - 7.0 - 8.0)


def test_a_tenant_whose_places_are_taken_by_trials_out_of_sight_gets_nothing() -> None:
    for limits in ({"max_parallel": 1, "open_trials": 2}, {"quota_seconds": 50.0, "used_seconds": 20.0}):
        found = problem([STUDY], tenants=[replace(LAB, reserved_seconds=60.0, **limits)])
        assert found.quotas == {}
        assert found.studies[0].budget_seconds == 0.0


def test_a_tenant_without_limits_has_no_quota() -> None:
    assert problem(tenants=[LAB]).quotas == {}


def test_results_say_what_they_took_and_may_still_take() -> None:
    row = KnownTrial(1, 1, 10, 12, "RUNNING", None, None, 2.0, 9.0, None, None, False)
    ended = row._replace(state="CANCELLED", cost_seconds=3.0)
    open_one, over = results_by_version([row, ended])[1, 12]
    assert (open_one.used_seconds, open_one.reserved_seconds, open_one.order) == (2.0, 7.0, 0)
    assert (over.used_seconds, over.reserved_seconds, over.is_void, over.order) == (5.0, 0.0, False, 1)


def test_who_joined_late_came_after_the_trials_that_had_ended_before() -> None:
    """The one finished trial of the present data ended on the first of May."""
    for joined_at, ended in ((None, 0), (MAY, 0), (MAY + timedelta(days=1), 1)):
        late = problem([STUDY, replace(STUDY, id=2, name="late", joined_at=joined_at)])
        assert [a.joined for a in late.studies] == [0, ended]


# Models that were measured anew, on another validation part beside the same training part.


def answer(
    number: int, candidate: int, version: int, quality: float, cost: float, anew: int | None = None
) -> KnownTrial:
    end = MAY + timedelta(hours=number)
    return KnownTrial(number, 1, candidate, version, "SUCCEEDED", quality, cost, 0.5, None, None, end, False, anew)


def test_a_result_stands_where_it_was_measured_last_at_the_price_of_its_training() -> None:
    trained = [answer(1, 10, 10, 0.9, 100.0)._replace(start_seconds=2.0), answer(2, 11, 10, 0.8, 50.0)]
    anew = [
        answer(3, 10, 11, 0.7, 2.0, anew=1),
        answer(4, 10, 12, 0.6, 3.0, anew=1),
        answer(5, 11, 11, 0.5, 4.0, anew=2),
    ]
    found = results_by_version([*trained, *anew])
    end = MAY + timedelta(hours=1)
    assert found == {
        (1, 12): [Result(10, OK, 0.6, 100.0, 0, 7.5, None, None, end)],
        (1, 11): [Result(11, OK, 0.5, 50.0, 1, 4.5, None, None, end + timedelta(hours=1))],
    }
    limited = replace(STUDY, budget_seconds=1000.0)
    arms = runnable_candidates([limited], MENUS, VERSIONS, found)
    seen = build_problem([limited], arms, VERSIONS, found, names=NAMES)
    assert [(p.arm, p.quality, p.cost_seconds) for p in seen.pulls] == [(0, 0.6, 100.0)]
    # All that was used is 165, with the start and lost attempts; the pull's own 100 are the scheduler's to subtract.
    assert seen.studies[0].budget_seconds == 1000.0 - (100 + 2 + 50 + 2 + 3 + 4 + 2 * 0.5) + 100.0


def test_candidates_of_the_same_training_part_wait_to_be_measured() -> None:
    known = results_by_version(
        [answer(1, 10, 10, 0.9, 1.0), answer(2, 11, 11, 0.8, 1.0), answer(3, 10, 12, 0.7, 1.0, anew=1)]
    )
    parts = {10: 10, 11: 10, 12: 10, 20: 20}

    def left(training_parts: dict[int, int]) -> tuple[int, ...]:
        found = runnable_candidates([STUDY, OTHER], MENUS, VERSIONS, known, training_parts=training_parts)
        assert found[2].ids == (20, 21, 22)
        return found[1].ids

    assert left(parts) == (10, 12)  # 10 was measured, 11 was not
    assert left({}) == (10, 11, 12)
    assert left(parts | {11: 11}) == (10, 11, 12)  # it ran on other data

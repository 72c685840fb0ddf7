"""Limits: each one by hand, all of them in random games that no policy may break, and nothing where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.selection.limits import Limits
from easeml_core.selection.problem import Arms, Problem, Pull, Quota
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.settings.config import PUBLISHED, SelectionConfig

NAMES = ("a", "b", "c", "d")
COSTS = np.array([1.0, 2.0, 4.0, 8.0])


def limits_of(*studies, quotas=None, pulls=()):
    return Limits(studies, charges=[COSTS[: len(s.names)] for s in studies], quotas=quotas, pulls=pulls)


def one(**settings_):
    return limits_of(Arms(1, 1.0, NAMES, **settings_))


def test_without_limits_everything_is_allowed():
    limits = limits_of(Arms(1, 1.0, NAMES), Arms(2, 1.0, NAMES), quotas={"nobody": Quota(1), "": Quota()})
    limits.start(0, 1)
    limits.finish(0, 1, 0.9, 1e9)
    assert limits.allowed(0) is None
    assert limits.allowed(0, device="gpu") is None
    assert limits.settled(0) is None
    waiting = np.array([True, False])
    assert limits.first_class(waiting) is waiting


def test_a_budget_counts_what_is_spent_and_what_is_under_way():
    """10 seconds: 3 spent, 4 predicted for arm c, so 3 are left; when c ends after 1 second, 6."""
    limits = one(budget_seconds=10.0)
    assert limits.allowed(0).tolist() == [True, True, True, True]
    limits.finish(0, 0, 0.5, 3.0)
    limits.start(0, 2)
    assert limits.allowed(0).tolist() == [True, True, False, False]
    limits.finish(0, 2, None, 1.0)
    assert limits.allowed(0).tolist() == [True, True, True, False]


def test_a_trial_that_fits_exactly_is_allowed_and_a_used_up_budget_ends():
    limits = one(budget_seconds=4.0)
    assert limits.allowed(0).tolist() == [True, True, True, False]
    limits.finish(0, 2, 0.5, 4.0)
    limits.charges[0] = np.zeros(4)
    assert not limits.allowed(0).any()


def test_the_target_ends_a_study_once_it_is_reached():
    limits = one(target_quality=0.9)
    limits.finish(0, 0, 0.89, 1.0)
    limits.finish(0, 1, None, 1.0)
    assert limits.allowed(0).all()
    limits.finish(0, 2, 0.9, 1.0)
    assert not limits.allowed(0).any()
    assert not limits.settled(0).any()


@pytest.mark.parametrize(("left", "allowed"), [(9.0, 4), (4.0, 3), (1.5, 1), (0.0, 0), (-5.0, 0)])
def test_what_would_end_after_the_deadline_is_left_out(left, allowed):
    assert one(seconds_left=left).allowed(0).sum() == allowed


def test_at_most_so_many_at_once():
    limits = one(max_parallel=2)
    limits.start(0, 0)
    assert limits.allowed(0).all()
    limits.start(0, 1)
    assert not limits.allowed(0).any()
    limits.finish(0, 0, 0.5, 1.0)
    assert limits.allowed(0).all()


def test_an_arm_runs_only_where_it_may():
    limits = one(devices=(frozenset({"gpu"}), None, frozenset({"cpu", "gpu"}), frozenset()))
    assert limits.narrows("gpu")
    assert not limits.narrows(None)
    assert limits.allowed(0) is None
    assert limits.allowed(0, device="gpu").tolist() == [True, True, True, False]
    assert limits.allowed(0, device="cpu").tolist() == [False, True, True, False]


def test_what_needs_several_devices_or_a_part_is_given_to_who_offers_exactly_that():
    limits = one(devices=(frozenset({"gpu:2"}), None, frozenset({"gpu/4", "gpu"}), frozenset({"gpu:2", "gpu:4"})))
    allowed = {device: limits.allowed(0, device=device).tolist() for device in (None, "gpu", "gpu:2", "gpu:4", "gpu/4")}
    assert allowed == {
        None: [False, True, True, False],
        "gpu": [False, True, True, False],
        "gpu:2": [True, False, False, True],
        "gpu:4": [False, False, False, True],
        "gpu/4": [False, False, True, False],
    }
    assert limits.allowed(0, anywhere=True) is None
    assert one().allowed(0, device="gpu:2").tolist() == [False] * 4  # no candidate that runs on any device is given two


@pytest.mark.parametrize("policy", PUBLISHED)
def test_a_study_with_nothing_but_several_devices_is_served_by_who_offers_them(policy):
    scheduler = scheduler_of(Problem((Arms(1, 1.0, NAMES, devices=(frozenset({"gpu:2"}),) * 4),)), COSTS, policy)
    assert scheduler.choose(device=None) is None
    assert scheduler.choose(device="gpu") is None
    assert scheduler.choose(device="gpu:2").chosen.tenant == 0


def test_a_quota_is_shared_by_the_studies_of_a_tenant():
    """Two studies of one tenant and one of another: three seconds left, one trial of 2 under way, 1 left."""
    mine = [Arms(i, 1.0, NAMES, tenant="mine") for i in (1, 2)]
    limits = limits_of(*mine, Arms(3, 1.0, NAMES, tenant="yours"), quotas={"mine": Quota(seconds_left=3.0)})
    assert [limits.touched(i) for i in range(3)] == [(0, 1), (0, 1), (2,)]
    limits.start(0, 1)
    assert [limits.allowed(i).tolist() for i in (0, 1)] == [[True, False, False, False]] * 2
    assert limits.allowed(2) is None
    limits.finish(0, 1, 0.5, 3.0)
    assert not limits.allowed(1).any()


def test_a_quota_of_devices_is_shared_too():
    mine = [Arms(i, 1.0, NAMES, tenant="mine") for i in (1, 2)]
    limits = limits_of(*mine, quotas={"mine": Quota(max_parallel=2)})
    limits.start(0, 1)
    assert limits.allowed(1).all()
    limits.start(1, 1)
    assert not limits.allowed(0).any()
    limits.finish(0, 1, 0.5, 3.0)
    assert limits.allowed(1).all()


def test_a_quota_leaves_out_what_was_spent_before_it_was_read():
    """5 seconds are left now, after 100: feeding the old trials in changes nothing, a new one of 3 leaves 2."""
    study, old = Arms(1, 1.0, NAMES, tenant="t"), (Pull(1, 0, 0.5, 60.0), Pull(1, 1, None, 40.0))
    limits = limits_of(study, quotas={"t": Quota(seconds_left=5.0)}, pulls=old)
    for pull in old:
        limits.finish(0, pull.arm, pull.quality, pull.cost_seconds)
    assert limits.allowed(0).tolist() == [True, True, True, False]
    limits.finish(0, 2, 0.5, 3.0)
    assert limits.allowed(0).tolist() == [True, True, False, False]


def test_settled_counts_finished_trials_only():
    limits = one(budget_seconds=10.0, max_parallel=1)
    limits.start(0, 3)
    assert limits.settled(0).all()
    assert not limits.allowed(0).any()
    limits.finish(0, 3, 0.5, 8.0)
    assert limits.settled(0).tolist() == [True, True, False, False]


def test_the_highest_priority_that_waits_is_served():
    limits = limits_of(*(Arms(i, 1.0, NAMES, priority=p) for i, p in enumerate((0, 5, 5, -1))))
    for waiting, first in (("1111", "0110"), ("1001", "1000"), ("0001", "0001"), ("0000", "0000")):
        served = limits.first_class(np.array([w == "1" for w in waiting]))
        assert "".join(str(int(s)) for s in served) == first


# No policy breaks a limit


def scheduler_of(problem, costs, policy):
    config = SelectionConfig(policy=policy, order=("c", "a"))
    return scheduler_for(problem, config=config, known_costs={s.study_id: costs for s in problem.studies})


def optional(strategy):
    return st.none() | strategy


studies = st.builds(
    dict,
    tenant=st.sampled_from(("t", "u")),
    priority=st.integers(0, 1),
    budget_seconds=optional(st.floats(0, 12)),
    target_quality=optional(st.floats(0.5, 0.9)),
    seconds_left=optional(st.floats(0, 9)),
    max_parallel=optional(st.integers(1, 2)),
    devices=st.just(()) | st.tuples(*[optional(st.sampled_from((frozenset({"cpu"}), frozenset({"gpu"}))))] * 4),
)
quota = st.builds(Quota, max_parallel=optional(st.integers(1, 3)), seconds_left=optional(st.floats(0, 20)))


@settings(deadline=None, max_examples=examples(150))
@given(
    st.lists(studies, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(("t", "u")), quota),
    st.sampled_from(("default", *PUBLISHED)),
    st.lists(st.tuples(st.sampled_from(("cpu", "gpu")), st.booleans(), st.floats(0, 1)), max_size=30),
)
def test_no_policy_breaks_a_limit(made, quotas, policy, steps):
    """Trials take what was predicted; every choice is checked against its limits, added up anew."""
    arms = tuple(Arms(i, 1.0, NAMES, **settings_) for i, settings_ in enumerate(made))
    scheduler = scheduler_of(Problem(arms, quotas=quotas), COSTS, policy)
    running, done, best = [], [], [0.0] * len(arms)
    for device, finishes, quality in steps:
        if finishes and running:
            i, k = running.pop(0)
            scheduler.record(i, k, quality, float(COSTS[k]))
            done.append((i, k))
            best[i] = max(best[i], quality)
            continue
        choice = scheduler.choose(device=device)
        if choice is None:
            continue
        i, k = choice.chosen.tenant, choice.chosen.arm
        assert (i, k) not in running + done
        running.append((i, k))
        scheduler.start(i, k, device=device)
        study, used = arms[i], [(j, arm) for j, arm in running + done if j == i]
        assert not study.devices or study.devices[k] is None or device in study.devices[k]
        assert study.budget_seconds is None or sum(COSTS[arm] for _, arm in used) <= study.budget_seconds + 1e-9
        assert study.target_quality is None or best[i] < study.target_quality
        assert study.seconds_left is None or COSTS[k] <= study.seconds_left
        assert study.max_parallel is None or sum(j == i for j, _ in running) <= study.max_parallel
        its = quotas.get(study.tenant, Quota())
        ours = [j for j, other in enumerate(arms) if other.tenant == study.tenant]
        assert its.max_parallel is None or sum(j in ours for j, _ in running) <= its.max_parallel
        spent = sum(COSTS[arm] for j, arm in running + done if j in ours)
        assert its.seconds_left is None or spent <= its.seconds_left + 1e-9


@pytest.mark.parametrize("policy", ["default", *PUBLISHED])
def test_a_quota_binds_every_policy(policy):
    """Two at once of both studies together, and four of two seconds each within nine."""
    arms = tuple(Arms(i, 1.0, NAMES, tenant="t") for i in range(2))
    problem = Problem(arms, quotas={"t": Quota(max_parallel=2, seconds_left=9.0)})
    scheduler, given = scheduler_of(problem, np.full(4, 2.0), policy), []
    for most in (2, 4):
        while (choice := scheduler.choose()) is not None:
            given.append((choice.chosen.tenant, choice.chosen.arm))
            scheduler.start(*given[-1])
        assert len(given) == most
        for trial in given[-2:]:
            scheduler.record(*trial, 0.5, 2.0)
    assert scheduler.choose() is None


@pytest.mark.parametrize("policy", PUBLISHED)
def test_a_higher_priority_is_served_first_and_a_device_is_asked_for(policy):
    urgent = Arms(2, 1.0, NAMES, priority=1, devices=(frozenset({"gpu"}), None, None, None), max_parallel=2)
    scheduler = scheduler_of(Problem((Arms(1, 1.0, NAMES), urgent)), COSTS, policy)
    served = []
    for _ in range(3):
        choice = scheduler.choose(device="cpu")
        served.append(choice.chosen.tenant)
        assert (choice.chosen.tenant, choice.chosen.arm) != (1, 0)
        scheduler.start(choice.chosen.tenant, choice.chosen.arm)
    assert served == [1, 1, 0]

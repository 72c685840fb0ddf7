"""What may be changed while everything runs, and that the next decision obeys it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from registering import register_study

from easeml_core.entities import TrialState
from easeml_core.errors import (
    AlreadyExistsError,
    BudgetExhaustedError,
    ConfigError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from easeml_core.formats.encoding import to_json
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.overview import overview, study_details
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import AddedCandidate, add_candidates
from easeml_core.services.studies.limits import StudyLimits, TenantReport, list_tenants, set_study, set_tenant
from easeml_core.services.trials.execution import (
    cancel_trial,
    claim,
    expire_leases,
    record_failure,
    record_success,
    run_trial,
    trial_details,
    trial_state,
)
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.store.tables.decisions import SuggestedTrial

PAST, FUTURE = "2020-01-01T00:00", "2199-12-31T23:59:59+01:00"


def suggest(lab: Any, count: int = 20, **changes: Any) -> Sequence[SuggestedTrial]:
    asked = {"count": count, "request_key": lab.key()} | changes
    return list(suggest_trials(lab.worker, **asked).trials)


def of_full(lab: Any, count: int = 20) -> Sequence[SuggestedTrial]:
    return suggest(lab, count, studies_only=["full"])


def next_step(lab: Any, study: str = "full") -> str:
    return str(next(e.next for e in overview(lab.worker).tenants if e.study == study))


def limit_of(lab: Any, trial: SuggestedTrial) -> Any:
    return lab.one("SELECT limit_seconds FROM work.trials WHERE id = :id", id=trial.trial_id)


# Settings.


def test_a_study_is_set_again_and_again(lab: Any) -> None:
    wanted = {"weight": 2.0, "priority": 7, "budget_seconds": 500.0, "target_quality": 0.99}
    for _ in range(2):
        answer = set_study(lab.worker, study="full", deadline=FUTURE, **wanted)
        assert answer == StudyLimits(study="full", deadline=datetime(2199, 12, 31, 22, 59, 59, tzinfo=UTC), **wanted)
    seen = study_details(lab.worker, study="full").summary
    assert {k: getattr(seen, k) for k in wanted} == wanted
    assert seen.deadline == answer.deadline
    assert seen.active_since.utcoffset() == timedelta(0)
    kept = set_study(lab.worker, study="full", budget_seconds=None, deadline=None, target_quality=None)
    none = {"budget_seconds": None, "deadline": None, "target_quality": None}
    assert kept == StudyLimits(study="full", weight=2.0, priority=7, **none)


def test_the_weight_reported_is_the_studys_own(lab: Any) -> None:
    set_tenant(lab.worker, tenant="lab", weight=10.0)
    assert set_study(lab.worker, study="full", priority=1).weight == 1.0


def test_a_tenant_is_set_and_listed(lab: Any) -> None:
    wanted = {"weight": 3.0, "max_parallel": 4, "quota_seconds": 900.0}
    for _ in range(2):
        answer = set_tenant(lab.worker, tenant="lab", **wanted)
        used = {"used_seconds": 9.0, "reserved_seconds": 0.0, "open_trials": 0, "studies": 3}
        used |= dict.fromkeys(("checked_results", "not_held", "unmeasurable", "unacknowledged"), 0)
        assert answer == TenantReport(tenant="lab", **wanted, **used, archived_at=None)
    assert list_tenants(lab.worker) == [answer]
    freed = set_tenant(lab.worker, tenant="lab", max_parallel=None, quota_seconds=None)
    assert (freed.max_parallel, freed.quota_seconds, freed.weight) == (None, None, 3.0)


BAD_STUDY = [
    ({"weight": 0}, "weight must be >= 1e-6 and <= 1e6, got 0"),
    ({"priority": 101}, "priority must be a whole number, -100 to 100, got 101"),
    ({"priority": 1.5}, "priority must be a whole number, -100 to 100, got 1.5"),
    ({"priority": None}, "priority must be a whole number"),
    ({"budget_seconds": -1}, "budget_seconds must be > 0 and finite, or None for no limit, got -1"),
    ({"budget_seconds": float("nan")}, "budget_seconds must be > 0"),
    ({"target_quality": 1.01}, "target_quality must be > 0 and <= 1, or None for no target, got 1.01"),
    ({"deadline": "tomorrow"}, r"deadline must be a point in time such as 2026-08-01T18:00 \(UTC\).*, got 'tomorrow'"),
    ({"name": "new"}, "name must be absent; what may be changed: weight, priority, budget_seconds, deadline, target_q"),
    ({}, "changes must be at least one of weight, priority"),
]


@pytest.mark.parametrize(("changes", "words"), BAD_STUDY)
def test_a_study_is_not_set_to_what_is_not_allowed(changes: Any, words: str, lab: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        set_study(lab.worker, study="full", **changes)


BAD_TENANT = [
    ({"weight": float("inf")}, "weight must be >= 1e-6 and <= 1e6, got inf"),
    ({"max_parallel": 0}, "max_parallel must be a whole number, 1 to 2147483647, or None for no limit, got 0"),
    ({"max_parallel": True}, "max_parallel must be a whole number, 1 to 2147483647"),
    ({"quota_seconds": 0}, "quota_seconds must be > 0 and finite, or None for no limit, got 0"),
    ({"priority": 1}, "priority must be absent; what may be changed: weight, max_parallel, quota_seconds"),
]


@pytest.mark.parametrize(("changes", "words"), BAD_TENANT)
def test_a_tenant_is_not_set_to_what_is_not_allowed(changes: Any, words: str, lab: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        set_tenant(lab.worker, tenant="lab", **changes)


def test_unknown_names_are_reported_with_those_there_are(lab: Any) -> None:
    calls: dict[tuple[str, str], Callable[[], object]] = {
        ("study", "ful"): lambda: set_study(lab.worker, study="ful", priority=1),
        ("tenant", "lob"): lambda: set_tenant(lab.worker, tenant="lob", weight=1.0),
    }
    for unknown, call in calls.items():
        with pytest.raises(NotFoundError) as refused:
            call()
        assert (refused.value.kind, refused.value.name) == unknown
        assert refused.value.known == {"study": ["first", "full", "hidden"], "tenant": ["lab"]}[unknown[0]]
    with pytest.raises(NotFoundError, match="study 'ful'"):
        join(lab, name="a", study="ful")


def test_a_registration_brings_its_limits_and_may_be_repeated(bare: Any) -> None:
    candidates = [{"name": "tree", "kind": "decision_tree", "devices": ["gpu"]}]
    given = {"tenant": "lab", "source": "sklearn:breast_cancer", "candidates": candidates, "request_key": "k"}
    given |= {"priority": -3, "deadline": FUTURE, "target_quality": 0.9}
    first = register_study(bare.worker, study="cancer", **given)
    assert register_study(bare.worker, study="cancer", **given) == first
    bare.answer_all()
    details = study_details(bare.worker, study="cancer")
    seen = details.summary
    assert (seen.priority, seen.target_quality) == (-3, 0.9)
    assert seen.deadline == datetime(2199, 12, 31, 22, 59, 59, tzinfo=UTC)
    assert to_json(details.candidates) == candidates


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"priority": "high"}, "priority must be a whole number"),
        ({"deadline": 7}, "deadline must be a point in time"),
        ({"target_quality": 0}, "target_quality must be > 0"),
        ({"candidates": [{"name": "a", "kind": "decision_tree", "devices": []}]}, "'a': devices must be 1 to"),
        ({"candidates": [{"name": "a", "kind": "decision_tree", "devices": "gpu"}]}, "'a': devices must be 1"),
        ({"candidates": [{"name": "a", "kind": "decision_tree", "devices": ["GPU 1"]}]}, "each a kind of device"),
        (
            {"candidates": [{"name": "a", "kind": "decision_tree", "shared": "k"}]},
            "'a': shared must be left out: every",
        ),
        ({"candidates": ["tree"]}, "a candidate has the fields name, kind and parameters"),
        (
            {"candidates": [{"name": f"tree-{i}", "kind": "decision_tree"} for i in range(1001)]},
            "candidates must be at most 1000 in one study",
        ),
    ],
)
def test_a_registration_with_bad_limits_is_refused(changes: Any, words: str, bare: Any) -> None:
    given = {"tenant": "lab", "source": "sklearn:breast_cancer", "request_key": "k"}
    with pytest.raises(InvalidInputError, match=words):
        register_study(bare.worker, study="cancer", **given | changes)
    assert list_tenants(bare.worker) == []


# Candidates that join.


def join(bench: Any, *, study: str = "full", **given: Any) -> AddedCandidate:
    """One more candidate of a study, a decision tree where nothing else is said."""
    (answer,) = add_candidates(bench.worker, study=study, candidates=[{"kind": "decision_tree"} | given])
    return answer


def test_a_running_study_takes_more_candidates(lab: Any) -> None:
    assert len(of_full(lab)) == 3
    answer = join(lab, name="deep", parameters={"max_depth": 9})
    expected = {"study": "full", "candidate": "deep", "kind": "decision_tree", "parameters": {"max_depth": 9}}
    assert answer == AddedCandidate(**expected, devices=None, added=True)
    assert join(lab, name="deep", parameters={"max_depth": 9}) == replace(answer, added=False)
    (trial,) = of_full(lab)
    assert trial.candidate == "deep"


def test_another_candidate_of_the_same_name_is_refused(lab: Any) -> None:
    join(lab, name="deep", devices=["gpu"])
    for other in ({"kind": "gaussian_naive_bayes"}, {"parameters": {"max_depth": 9}}, {"devices": None}):
        with pytest.raises(AlreadyExistsError, match="it is another") as refused:
            join(lab, **{"name": "deep", "devices": ["gpu"]} | other)
        assert refused.value.name == "deep"


def test_a_candidate_that_cannot_be_trained_does_not_join(lab: Any) -> None:
    with pytest.raises(InvalidInputError, match="trainer kind 'oak'"):
        join(lab, name="a", kind="oak")
    with pytest.raises(ConfigError, match="candidate 'a': devices"):
        join(lab, name="a", devices=["-"])
    assert len(of_full(lab)) == 3


def test_a_study_that_is_not_sealed_takes_no_further_candidate(bare: Any) -> None:
    given = {"tenant": "lab", "source": "sklearn:breast_cancer", "request_key": "k"}
    register_study(bare.worker, study="cancer", **given)
    with pytest.raises(StateError, match="'cancer' is REGISTERED"):
        join(bare, name="a", study="cancer")


# Budgets. Every trial of the laboratory so far cost 1 s.


def test_a_trial_of_a_study_with_a_budget_reserves_its_share(lab: Any) -> None:
    """403 s, of which 3 are used: an eighth of what is left, and a second beside the training."""
    set_study(lab.worker, study="full", budget_seconds=403.0)
    trials = of_full(lab)
    limits = [limit_of(lab, t) for t in trials]
    assert limits == pytest.approx([51.0, 349 / 8 + 1, (349 - 44.625) / 8 + 1])
    assert lab.one("SELECT count(*) FROM work.trials WHERE limit_seconds IS NULL") == 9  # those of the laboratory
    assert "under way" in next_step(lab)


def test_a_study_whose_budget_is_reserved_does_not_keep_others_from_the_devices(lab: Any) -> None:
    """One trial reserves all 11 s that are left; by predicted costs of 1 s there would be room for more."""
    set_study(lab.worker, study="full", budget_seconds=14.0, priority=9)
    assert sorted(t.study for t in suggest(lab)) == ["first"] * 3 + ["full"] + ["hidden"] * 3


def test_what_was_reserved_bounds_the_training(lab: Any) -> None:
    set_study(lab.worker, study="full", budget_seconds=403.0)
    (trial,) = of_full(lab, 1)
    lease = claim(lab.worker, trial_id=trial.trial_id, request_key="w")
    assert lease is not None
    assert (lease.reserved_seconds, lease.time_limit_seconds) == (51.0, 50.0)
    # A limit of the study below that still holds.
    (other,) = suggest(lab, 1, studies_only=["first"])
    unbounded = claim(lab.worker, trial_id=other.trial_id, request_key="w")
    assert unbounded is not None
    assert unbounded.time_limit_seconds == 600.0


def test_without_any_cost_known_a_trial_reserves_its_whole_time_limit(bare: Any) -> None:
    bare.register("cancer", budget_seconds=1000.0, training={"time_limit_seconds": 300.0})
    trials = suggest(bare, 10)
    # The third has 398 s left, and it is not known that it takes less.
    assert [limit_of(bare, t) for t in trials] == [301.0, 301.0, 301.0]


@pytest.mark.cold  # the start of the child takes the time that is reserved
def test_a_real_trial_is_cut_by_the_budget_and_says_so(lab: Any) -> None:
    (trial,) = of_full(lab, 1)
    lab.as_superuser("UPDATE work.trials SET limit_seconds = 0.6 WHERE id = %s", trial.trial_id)
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w")
    assert report.state == "FAILED"
    assert report.failure.startswith(("out of time: not finished after 0.3 s, ", "took "))
    assert "reserved" in report.failure
    taken = lab.one("SELECT lost_seconds + coalesce(cost_seconds, 0) FROM work.trials WHERE id = :id", **_id(trial))
    assert 0.3 <= taken <= 0.6


def _id(trial: SuggestedTrial) -> dict[str, int]:
    return {"id": trial.trial_id}


def test_a_real_trial_within_its_reservation_gives_back_what_it_did_not_take(lab: Any) -> None:
    set_study(lab.worker, study="full", budget_seconds=403.0)
    (trial,) = of_full(lab, 1)
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w")
    assert report.state == "SUCCEEDED"
    seen = study_details(lab.worker, study="full").summary
    started = trial_details(lab.worker, trial_id=trial.trial_id).start_seconds
    assert seen.device_seconds == pytest.approx(3.0 + report.cost_seconds + started)
    assert seen.reserved_seconds == 0.0
    assert next_step(lab).startswith("train: 2 candidates ")
    assert " device-minutes " in next_step(lab)


@pytest.mark.parametrize("ends", ["succeeds", "fails"])
def test_who_comes_after_the_reservation_has_lost_the_trial(lab: Any, tmp_path: Any, ends: str) -> None:
    set_study(lab.worker, study="full", budget_seconds=403.0)
    (trial,) = of_full(lab, 1)
    lease = claim(lab.worker, trial_id=trial.trial_id, request_key="w")
    assert lease is not None
    if ends == "fails":
        lease.started -= 100  # as if the machine had been frozen for so long
        record_failure(lab.worker, lease, "it crashed")
    else:
        (tmp_path / "model").write_text('{"label": 1}')
        late = TrainingResult(0.9, 100.0, tmp_path / "model", "constant", lab.open_parts().validation_labels)
        record_success(lab.worker, lab.artifacts, lease, late)
    report = trial_state(lab.worker, trial_id=trial.trial_id)
    assert (report.state, report.model_id) == ("FAILED", None)
    assert re.findall(r"[\d.]+ s\b", report.failure) == ["100.0 s", "51.0 s"]  # taken, reserved
    assert study_details(lab.worker, study="full").summary.device_seconds == 54.0
    with pytest.raises(Exception, match="taken over"):
        record_failure(lab.worker, lease, "again")


def test_a_budget_may_be_set_while_trials_are_under_way(lab: Any) -> None:
    waiting, running, _ = of_full(lab)
    claim(lab.worker, trial_id=running.trial_id, request_key="w")
    with pytest.raises(BudgetExhaustedError) as refused:
        set_study(lab.worker, study="full", budget_seconds=100.0)
    assert (refused.value.used, refused.value.allowed) == (1806, 100)
    assert limit_of(lab, waiting) is None
    set_study(lab.worker, study="full", budget_seconds=1806.0)  # 3 used, and 3 times 600 s and a second
    assert limit_of(lab, waiting) == limit_of(lab, running) == 601.0


def test_a_quota_holds_over_all_studies_of_the_tenant(lab: Any) -> None:
    """9 s are used; of 20 s, 11 are left, which one trial reserves wholly."""
    set_tenant(lab.worker, tenant="lab", quota_seconds=20.0)
    (trial,) = suggest(lab)
    assert limit_of(lab, trial) == pytest.approx(11.0, abs=0.002)
    assert suggest(lab) == []
    cancel_trial(lab.worker, trial_id=trial.trial_id)
    assert len(suggest(lab)) == 1
    set_tenant(lab.worker, tenant="lab", quota_seconds=None)
    assert len(suggest(lab)) == 7


def test_a_used_up_quota_says_so(lab: Any) -> None:
    set_tenant(lab.worker, tenant="lab", quota_seconds=9.0)
    assert suggest(lab) == []
    assert "quota" in next_step(lab)


def test_a_tenant_gets_no_more_trials_at_once_than_it_may(lab: Any) -> None:
    set_tenant(lab.worker, tenant="lab", max_parallel=2)
    first, second = suggest(lab)
    assert suggest(lab) == []
    idle = next(e for e in overview(lab.worker).tenants if e.running + e.waiting == 0)
    assert "open trials" in idle.next
    pause_study(lab.worker, study=first.study, paused=True)  # its trial stays open, and keeps its place
    assert suggest(lab) == []
    cancel_trial(lab.worker, trial_id=second.trial_id)
    assert len(suggest(lab)) == 1


@pytest.mark.parametrize("saved", [0.0, 8.0])
def test_a_lost_worker_costs_what_its_lease_held_and_the_next_attempt_gets_as_much_again(
    lab: Any, saved: float
) -> None:
    """What a checkpoint holds is not lost; it counts as part of the 51 s that the next attempt may take in all."""
    set_study(lab.worker, study="full", budget_seconds=403.0)
    (trial,) = of_full(lab, 1)
    claim(lab.worker, trial_id=trial.trial_id, request_key="w")
    lab.as_superuser(
        "UPDATE work.trials SET attempt_started_at = now() - interval '21 s', lease_until = now() - interval '1 s', "
        "checkpoint = 'sha256:' || repeat('0', 64), checkpoint_seconds = %s, checkpoint_progress = 0.5 WHERE id = %s",
        saved,
        trial.trial_id,
    )
    assert expire_leases(lab.worker) == [trial.trial_id]
    assert study_details(lab.worker, study="full").summary.device_seconds == pytest.approx(23.0 - saved, abs=0.01)
    (again,) = of_full(lab, 1)
    assert again.trial_id == trial.trial_id
    assert limit_of(lab, trial) == pytest.approx(71.0 - saved, abs=0.01)
    lease = claim(lab.worker, trial_id=trial.trial_id, request_key="second")
    assert lease is not None
    assert lease.reserved_seconds == pytest.approx(51.0 - saved, abs=0.01)


def test_a_lost_worker_that_used_up_the_budget_ends_the_trial(lab: Any) -> None:
    set_study(lab.worker, study="full", budget_seconds=14.0)  # 11 s are left, and reserved
    (trial,) = of_full(lab, 1)
    claim(lab.worker, trial_id=trial.trial_id, request_key="w")
    lab.as_superuser(
        "UPDATE work.trials SET attempt_started_at = now() - interval '30 s', lease_until = now() - interval '1 s' "
        "WHERE id = %s",
        trial.trial_id,
    )
    assert of_full(lab) == []
    report = trial_state(lab.worker, trial_id=trial.trial_id)
    assert report.state == "FAILED"
    assert "too little" in report.failure


def test_a_claim_of_what_lost_workers_used_up_ends_the_trial(lab: Any) -> None:
    set_study(lab.worker, study="full", budget_seconds=403.0)
    (trial,) = of_full(lab, 1)
    claim(lab.worker, trial_id=trial.trial_id, request_key="w")
    lab.as_superuser(
        "UPDATE work.trials SET attempt_started_at = now() - interval '51 s' WHERE id = %s", _id(trial)["id"]
    )
    assert claim(lab.worker, trial_id=trial.trial_id, request_key="w") is None
    report = trial_state(lab.worker, trial_id=trial.trial_id)
    assert (report.state, report.failure.startswith("lost workers")) == ("FAILED", True)


# Deadline, target, priority, device.


def test_after_its_deadline_a_study_gets_nothing_and_what_nobody_holds_is_cancelled(lab: Any) -> None:
    held, left_behind, lost = of_full(lab)
    claim(lab.worker, trial_id=held.trial_id, request_key="w")
    lab.let_run_out(left_behind.trial_id, lost.trial_id)
    set_study(lab.worker, study="full", deadline=PAST)
    assert of_full(lab) == []
    states = [trial_state(lab.worker, trial_id=t.trial_id).state for t in (held, left_behind, lost)]
    assert states == ["RUNNING", "CANCELLED", "CANCELLED"]
    join(lab, name="deep", parameters={"max_depth": 9})
    record_failure(lab.worker, claim(lab.worker, trial_id=held.trial_id, request_key="w"), "it crashed")
    assert of_full(lab) == []
    assert "deadline has passed" in next_step(lab)
    set_study(lab.worker, study="full", deadline=datetime.now(UTC) + timedelta(hours=1))
    assert [t.candidate for t in of_full(lab)] == ["deep"]


def test_a_study_ends_when_its_target_is_reached(lab: Any) -> None:
    set_study(lab.worker, study="full", target_quality=0.98)  # its best has 0.98
    assert of_full(lab) == []
    assert "target quality of 0.98" in next_step(lab)
    set_study(lab.worker, study="full", target_quality=0.981)
    assert len(of_full(lab)) == 3


def test_studies_of_a_higher_priority_come_first(lab: Any) -> None:
    set_study(lab.worker, study="hidden", priority=2)
    set_study(lab.worker, study="first", priority=1)
    order = [t.study for t in suggest(lab)]
    assert order == ["hidden"] * 3 + ["first"] * 3 + ["full"] * 3


def test_a_device_gets_only_what_may_run_on_it(lab: Any) -> None:
    join(lab, name="gpu only", devices=["gpu"])
    join(lab, name="cpu or gpu", devices=["cpu", "gpu"])
    on_cpu = suggest(lab, studies_only=["full"], device="cpu")
    assert "gpu only" not in [t.candidate for t in on_cpu]
    assert len(on_cpu) == 4
    (on_gpu,) = suggest(lab, studies_only=["full"], device="gpu")
    assert on_gpu.candidate == "gpu only"
    device = "SELECT device FROM work.trials WHERE id = :id"
    assert [lab.one(device, **_id(t)) for t in (on_cpu[0], on_gpu)] == ["cpu", "gpu"]
    lab.let_run_out(on_gpu.trial_id)
    assert suggest(lab, studies_only=["full"], device="cpu") == []
    assert suggest(lab, studies_only=["full"], device="gpu")[0].trial_id == on_gpu.trial_id
    with pytest.raises(ConfigError) as refused:
        suggest(lab, device="GPU 0")
    assert (refused.value.field, refused.value.value) == ("device", "GPU 0")


def test_limits_of_one_tenant_are_no_business_of_another(bare: Any) -> None:
    bare.register("a", tenant="poor")
    bare.register("b", tenant="rich", source="sklearn:digits")  # the rows of one table are sealed for one tenant only
    set_tenant(bare.worker, tenant="poor", max_parallel=1, quota_seconds=5.0)
    trials = suggest(bare)
    assert sorted(t.study for t in trials) == ["a", "b", "b", "b"]
    states = {trial_state(bare.worker, trial_id=t.trial_id).state for t in trials}
    assert states == {TrialState.SUGGESTED}

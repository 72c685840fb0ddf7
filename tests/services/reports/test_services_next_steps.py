"""What next, and why: each rule on facts made by hand, and the whole on a laboratory with a referee at work."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_commands import parse
from study_facts import NOW, study_facts

from easeml_core.errors import NotFoundError
from easeml_core.services.datasets.feed import file_refresh
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.overview import Asked, board
from easeml_core.services.reports.recommendations import RULES, Severity, Standing, StepKind, standing, steps_of
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.queries.overview import WeekCounts

LONG_AGO = NOW - timedelta(hours=3)
DONE = {"trials": 5}
LATE = {"seconds_left": -7200.0}


FIRST_STEPS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"state": "REFUSED", "refusal": "too few rows"}, "refused", "bad", "too few rows"),
    ({"state": "ARCHIVED", "asked_at": LONG_AGO, "lost": 2}, "archived", "info", "takes no request"),
    ({"asked_at": LONG_AGO}, "referee", "bad", "waited for 3 h"),
    ({"meter_retired": True}, "no-set", "bad", "meter gives no"),
    ({"sets_wanted": ["gate"], "gate_set_live": False}, "no-set", "bad", "new gate set"),
    ({"alert_kinds": ["overfitting"], "signal": 3, "signals": 4}, "overfitting", "bad", "signal 3 of 4"),
    (
        {"alert_kinds": ["drift"], "signal": 2, "direct_signal": 1, "drift": "likely"},
        "drift",
        "bad",
        "drift likely",
    ),
    ({"sets_wanted": ["gate"]}, "set-served", "warn", "after the one"),
    ({"sets_wanted": ["meter"]}, "set-served", "warn", "a meter set has"),
    ({"sets_wanted": ["joint"]}, "set-served", "warn", "gate set and a meter"),
    ({"sets_wanted": ["direct"]}, "set-served", "warn", "second validation sample"),
    ({"lost": 2, "lost_at": LONG_AGO}, "lost", "warn", "2 workers"),
    ({"labels_on_demand": True, "judging_at": LONG_AGO}, "labels", "warn", "for 3 h"),
    ({"best_verdict": "pass", "production_quality": 0.8}, "promote", "warn", "in production 0.8000"),
    ({"gate_steps_used": 16}, "set-nearly-spent", "warn", "4 of 20 steps"),
    ({"submissions_left": 1}, "set-nearly-spent", "warn", "1 more submission"),
    ({"target_quality": 0.95, "budget_seconds": 30.0}, "budget", "warn", "30 of 30 device-seconds"),
    (
        {"target_quality": 0.95, "budget_seconds": 86_400.0, "device_seconds": 86_400.0},
        "budget",
        "warn",
        "24 of 24 device-hours",
    ),
    ({"budget_seconds": 86_400.0}, "compute", "info", "; 24 device-hours of"),
    ({"target_quality": 0.95} | LATE, "budget", "warn", "its deadline was 2 h ago"),
    (
        {"target_quality": 0.95, "tenant_quota_seconds": 5.0, "tenant_charged_seconds": 5.0},
        "budget",
        "warn",
        "5 of 5 device-seconds",
    ),
    ({"state": "REGISTERED"}, "sealing", "info", "wait: the referee"),
    ({"state": "PAUSED"}, "paused", "info", "2 candidates"),
    ({}, "compute", "info", "train: 2 candidates"),
    ({"running": 1, "waiting": 1}, "compute", "info", "1 running, 1 queued"),
    ({"target_quality": 0.9}, "compute", "info", "target quality of 0.9"),
    ({"budget_seconds": 20.0}, "compute", "info", "nothing: its compute budget"),
    ({"tenant_max_parallel": 1, "tenant_open_trials": 1}, "compute", "info", "at most 1 at once"),
    (DONE, "hand-in", "info", "verdict on model 7"),
    (DONE | {"best_is_judged": True}, "hand-in", "info", "gate judges model 7"),
    (DONE | {"best_stands": True}, "compute", "info", "every candidate has"),
    (DONE | {"best_verdict": "fail"}, "compute", "info", "did not pass"),
    (DONE | {"production_quality": 0.95}, "compute", "info", "every candidate has"),
]


def test_the_first_steps_in_words(recorded: Any) -> None:
    steps = [(changes, steps_of(study_facts(**changes))[0]) for changes, *_ in FIRST_STEPS]
    said = (f"{step.kind}: {step.title}\n    {step.why}\n    {step.act}" for _, step in steps)
    recorded("\n".join(dict.fromkeys(said)), "first_steps")


@pytest.mark.parametrize(("changes", "kind", "severity", "said"), FIRST_STEPS)
def test_the_first_step(changes: dict[str, Any], kind: str, severity: str, said: str) -> None:
    step, *others = steps_of(study_facts(**changes))
    assert (step.kind, step.severity) == (kind, severity)
    assert said in f"{step.title} {step.why} {step.act}"
    for answer in (step, *others):
        if answer.command:
            parse(answer.command)


def test_what_waits_for_promotion_leads_to_where_it_is_promoted() -> None:
    step = steps_of(study_facts(best_verdict="pass"))[0]
    assert (step.page, step.command) == ("/studies/x-ray/gate?model=7", "easeml model promote x-ray 7")


@pytest.mark.parametrize(
    "changes",
    [
        {"asked_at": NOW - timedelta(minutes=5)},  # it may still answer
        {"judging_at": LONG_AGO},  # answers may leave at a fixed hour
        {"labels_on_demand": True, "judging_at": NOW - timedelta(minutes=5)},
        {"best_verdict": "pass", "best_was_promoted": True},  # it was rolled back
        {"best_verdict": "pass", "asked_at": NOW},  # it is being promoted
        {"best_verdict": "withheld"},
        {"gate_steps_used": 16, "gate_set_waits": True},
        {"budget_seconds": 10.0},  # spent as planned: without a target
    ],
)
def test_what_needs_nobody(changes: dict[str, Any]) -> None:
    assert not any(step.needs_a_person for step in steps_of(study_facts(**changes)))


def test_one_thing_that_is_wrong_hides_no_other() -> None:
    wrong = {"alert_kinds": ["overfitting"], "sets_wanted": ["joint"], "gate_set_live": False, "meter_retired": True}
    steps = steps_of(study_facts(**wrong, signal=3, signals=4))
    assert [(step.kind, step.page.rpartition("/")[2]) for step in steps if step.needs_a_person][:3] == [
        ("no-set", "meter"),
        ("no-set", "gate"),
        ("overfitting", "meter"),
    ]


@given(
    st.fixed_dictionaries(
        {
            "state": st.sampled_from(["REGISTERED", "ACTIVE", "PAUSED", "REFUSED"]),
            "alert_kinds": st.lists(st.sampled_from(["overfitting", "drift", "new-test-set"]), unique=True),
            "sets_wanted": st.lists(st.sampled_from(["gate", "meter", "joint", "direct"]), unique=True),
            "gate_set_live": st.booleans(),
            "gate_steps": st.sampled_from([None, 1, 8]),
            "best_quality": st.sampled_from([None, 0.2]),
            "best_model_id": st.sampled_from([None, 3]),
            "best_verdict": st.sampled_from([None, "pass", "fail", "withheld"]),
            "trials": st.integers(0, 9),
            "running": st.integers(0, 2),
            "budget_seconds": st.sampled_from([None, 1.0, 99.0]),
            "target_quality": st.sampled_from([None, 0.1, 0.5]),
            "meter_retired": st.sampled_from([None, False, True]),
            "study": st.text(min_size=1, max_size=9),
        }
    )
)
def test_there_is_always_a_step_and_the_worst_is_first(changes: dict[str, Any]) -> None:
    if changes["best_quality"] is None:
        changes["best_model_id"] = None
    steps = steps_of(study_facts(**changes))
    assert steps
    order = [list(StepKind).index(step.kind) for step in steps]
    assert order == sorted(order)
    severities = [list(Severity).index(step.severity) for step in steps]
    assert severities == sorted(severities)
    assert all(step.title and step.why and step.act for step in steps)
    assert (standing(steps) is Standing.NEEDS) == (steps[0].severity is not Severity.INFO)
    # Both sets that can be used up are one kind; wear of the validation set is reported where it can be read, and
    # candidates without an implementation come from other facts than a rule sees (next_steps.py). An archived study
    # has no other step than that.
    assert len(RULES) == len(StepKind) + 1 - 3


def kinds(lab: Any, **asked: Any) -> list[tuple[Any, str]]:
    return [(s.study, str(s.kind)) for s in next_steps(lab.worker, **asked)]


def test_a_laboratory_says_what_is_next(lab: Any) -> None:
    assert kinds(lab) == [(s, k) for k in ("compute", "hand-in") for s in ("first", "full", "hidden")]
    assert next_steps(lab.worker, needs_only=True) == []
    passed = lab.gate("good").request_id
    lab.gate("rare")
    assert kinds(lab, needs_only=True) == [("full", "promote"), ("full", "set-nearly-spent")]
    lab.promote(passed)
    retire_test_set(lab.referee, test_set="1")
    (step,) = next_steps(lab.worker, studies_only=["full"], needs_only=True)
    assert (step.kind, step.tenant, step.page) == ("no-set", "lab", "/studies/full/gate")
    assert step.why.startswith("gate set 1 is retired")
    assert step.since.tzinfo is not None
    assert len(next_steps(lab.worker, limit=2)) == 2
    with pytest.raises(NotFoundError, match="study 'fool'"):
        next_steps(lab.worker, studies_only=["full", "fool"])
    seen = board(lab.worker, Asked(None, order="name"), names=["full", "first"])
    assert [(e.facts.study, e.standing) for e in seen.entries] == [("first", "searching"), ("full", "needs")]
    assert [s.kind for s in seen.steps] == ["no-set"]
    assert seen.week == WeekCounts(passed=1, failed=1, withheld=0, promoted=1, rolled_back=0)
    assert [q for _, q in seen.improvements["full"]] == [pytest.approx(0.98)]
    assert len(seen.busy) == 24
    assert sum(seen.busy) < 24


def test_compute_is_reported_with_its_promise_and_its_price(lab: Any) -> None:
    asked = {"studies_only": ["full"], "request_key": lab.key()}
    (given_out,) = suggest_trials(lab.worker, count=1, **asked).trials

    def why() -> str:
        return next(s.why for s in next_steps(lab.worker, studies_only=["full"]) if s.kind == "compute")

    assert f" {given_out.candidate}, promised +" in why()
    assert " device-second" in why()
    assert "worth it" not in why()
    with_price(lab, 1000.0)
    assert "not worth it" in why()
    pause_study(lab.worker, study="full", paused=True)
    assert kinds(lab, studies_only=["full"])[0] == ("full", "paused")


def with_price(lab: Any, price: float) -> None:
    from easeml_core.store.database import Store

    owner = Store(lab.url("easeml_owner"))
    set_policy(owner, changes={"price_per_second": price}, reason="devices are dear")
    owner.close()


def test_a_referee_that_is_away_is_reported_once(lab: Any) -> None:
    for study in ("full", "first"):
        file_gate_request(lab.worker, study=study, model_id=lab.models[study]["good"], request_key=lab.key())
        file_refresh(lab.worker, study=study, request_key=lab.key())
    assert next_steps(lab.worker, needs_only=True) == []
    lab.as_superuser("UPDATE work.requests SET requested_at = requested_at - interval '2 h'")
    (step,) = next_steps(lab.worker, needs_only=True)
    assert (step.study, step.tenant, step.kind) == (None, None, "referee")
    assert step.why.startswith("requests of 2 studies ")
    (of_one,) = next_steps(lab.worker, studies_only=["full"], needs_only=True)
    assert of_one.study == "full"
    lab.as_superuser(
        "ALTER TABLE work.test_sets DISABLE TRIGGER USER; "
        "UPDATE work.test_sets SET labels_on_demand = true; ALTER TABLE work.test_sets ENABLE TRIGGER USER; "
        "INSERT INTO work.study_changes SELECT id FROM work.studies"
    )
    answer = next_steps(lab.worker, studies_only=["full"], needs_only=True)
    assert [s.kind for s in answer] == ["referee", "labels"]
    assert not any(char.isdigit() for char in answer[1].why.replace("2 h", ""))  # never how many

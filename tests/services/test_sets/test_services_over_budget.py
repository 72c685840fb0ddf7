"""A study that is over its budget, since measuring anew is counted and never refused, stops no other study's trials."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.entities import Executor
from easeml_core.models.formats import load_predictor
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.reevaluation import remeasure
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.limits import list_tenants, set_study, set_tenant
from easeml_core.store.tables import capacity, leases, studies, trials

USED = "SELECT sum(work.charge(t)) FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'full'"
TRIAL = "SELECT state, limit_seconds, lost_seconds FROM work.trials WHERE id = :id"


@pytest.fixture
def at_home(monkeypatch: Any) -> None:
    """Models answer in this process: a child for each takes a second, and is what other tests are about."""
    monkeypatch.setattr(
        sealed_runs, "predict_in_child", lambda path, form, inputs, **_: load_predictor(path, form).predict(inputs)
    )


def ask(lab: Any, count: int = 3, **asked: Any) -> list[tuple[str, str]]:
    found = suggest_trials(lab.worker, count=count, request_key=lab.key(), **asked)
    return [(t.study, t.candidate) for t in found.trials]


def lost(lab: Any, seconds: float) -> int:
    """A trial of study ``full`` that began so long ago and lost its lease a second ago; its budget is then used up."""
    set_study(lab.worker, study="full", budget_seconds=300.0)
    (given,) = suggest_trials(lab.worker, count=1, request_key=lab.key(), studies_only=["full"]).trials
    with lab.worker.begin() as tx:
        leases.start_trial(
            tx,
            trial_id=given.trial_id,
            lease_key="w",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, given.trial_id).implementation, "test"),
        )
    lab.as_superuser(
        "UPDATE work.trials SET attempt_started_at = now() - make_interval(secs => %s), "
        "lease_until = now() - interval '1 s' WHERE id = %s",
        seconds,
        given.trial_id,
    )
    set_study(lab.worker, study="full", budget_seconds=lab.one(USED) + 0.01)
    return int(given.trial_id)


def measured_anew(lab: Any, bring: Any) -> None:
    brought = bring()
    replace_validation(lab.referee, lab.artifacts, study="full", inputs=brought.inputs, labels=brought.labels)
    assert len(remeasure(lab.referee, lab.artifacts, "full").measured) == 3


@pytest.mark.usefixtures("at_home")
def test_a_lost_trial_of_a_study_over_its_budget_keeps_what_it_has(lab: Any, bring: Any) -> None:
    trial_id = lost(lab, 9.123456)
    reserved = lab.one("SELECT limit_seconds FROM work.trials WHERE id = :id", id=trial_id)
    measured_anew(lab, bring)
    with lab.worker.begin() as tx:
        assert capacity.seconds_left(tx, studies.get_study(tx, "full").id) == 0.0
    given = ask(lab)
    assert ("full", given[0][1]) == given[0]  # what is left over comes first
    assert {study for study, _ in given[1:]} <= {"first", "hidden"}
    assert len(given) == 3
    ((state, limit, gone),) = lab.rows(TRIAL, id=trial_id)
    assert (state, limit) == ("SUGGESTED", reserved)
    assert gone == pytest.approx(8.123456, abs=1e-4)  # as long as its lease was held


@pytest.mark.usefixtures("at_home")
def test_a_trial_that_has_too_little_left_is_given_up_and_others_go_on(lab: Any, bring: Any) -> None:
    trial_id = lost(lab, 1e6)  # all of its reservation
    measured_anew(lab, bring)
    assert {study for study, _ in ask(lab)} == {"first", "hidden"}
    assert lab.rows(TRIAL, id=trial_id)[0][0] == "FAILED"


def test_what_the_database_refuses_to_renew_is_given_up_alone(lab: Any, monkeypatch: Any) -> None:
    """As when a user lowers the budget with SQL between the look and the reservation."""
    trial_id = lost(lab, 9.0)
    monkeypatch.setattr(capacity, "seconds_left", lambda tx, study_id: 1000.0)
    given = ask(lab)
    assert {study for study, _ in given} == {"first", "hidden"}
    assert len(given) == 3
    state, failure = lab.rows("SELECT state, failure FROM work.trials WHERE id = :id", id=trial_id)[0]
    assert (state, "too little" in failure) == ("FAILED", True)


@pytest.mark.usefixtures("at_home")
def test_a_tenant_over_its_quota_can_still_be_changed(lab: Any, bring: Any) -> None:
    used = list_tenants(lab.worker)[0].used_seconds
    set_tenant(lab.worker, tenant="lab", quota_seconds=used)
    measured_anew(lab, bring)
    assert list_tenants(lab.worker)[0].used_seconds > used
    assert set_tenant(lab.worker, tenant="lab", max_parallel=7).max_parallel == 7
    assert set_tenant(lab.worker, tenant="lab", quota_seconds=used, weight=2.0).quota_seconds == used
    assert set_study(lab.worker, study="full", budget_seconds=1e6).budget_seconds == 1e6
    assert ask(lab) == []

"""An archived study is in nothing that looks at all studies, and everything of it can be read and restored."""

from __future__ import annotations

from typing import Any

import pytest
from registering import register_study

from easeml_core.errors import AlreadyExistsError, ConfigError, NotFoundError, StateError
from easeml_core.services.models.inference import infer
from easeml_core.services.models.promotion import model_list
from easeml_core.services.operations.monitoring import installation_figures
from easeml_core.services.operations.notifications import look
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.registration.register import study_names
from easeml_core.services.reports.assessments import out_of_step
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.overview import Asked, board, overview, study_details
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.archive import (
    archive_study,
    archive_tenant,
    archived_studies,
    delete_study,
    delete_tenant,
    restore_candidate,
    restore_study,
    restore_tenant,
    withdraw_candidate,
)
from easeml_core.store.tables.models import best_to_judge
from easeml_core.store.tables.test_sets import live_sets


def seen_by_all(lab: Any) -> dict[str, bool]:
    """Where the study ``full`` is found among all studies."""
    with lab.worker.begin() as tx:
        judged = {one.study for one in best_to_judge(tx)}
    with lab.referee.begin() as tx:
        study_id = lab.one("SELECT min(id) FROM work.studies WHERE name = 'full'")
        live = study_id in {study for study, _ in live_sets(tx)}
    (figures,) = installation_figures(lab.worker).tenants
    return {
        "overview": "full" in {entry.study for entry in overview(lab.worker).tenants},
        "board": "full" in {entry.facts.study for entry in board(lab.worker, Asked("")).entries},
        "next": "full" in {step.study for step in next_steps(lab.worker)},
        "names": "full" in study_names(lab.worker),
        "gate": "full" in judged,
        "earlier models": live,
        "metrics": figures.studies == 3,
    }


def test_an_archived_study_is_nowhere_among_the_others_until_it_is_restored(lab: Any) -> None:
    before = seen_by_all(lab)
    assert set(before.values()) == {True}
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["full"], request_key=lab.key()).trials
    cursor = look(lab.worker, None).start.to_stored()
    tried = archive_study(lab.worker, study="full", why="the question changed", dry_run=True)
    assert (tried.dry_run, tried.changed, tried.state, tried.cancelled) == (True, False, "ACTIVE", [trial.trial_id])
    assert seen_by_all(lab) == before
    done = archive_study(lab.worker, study="full", why="the question changed")
    assert (done.changed, done.state, done.cancelled, done.models) == (True, "ARCHIVED", [trial.trial_id], 4)
    assert not archive_study(lab.worker, study="full", why="again").changed
    assert set(seen_by_all(lab).values()) == {False}
    assert out_of_step(lab.worker) == []
    assert look(lab.worker, cursor).events == []
    assert not suggest_trials(lab.worker, count=3, studies_only=["full"], request_key=lab.key()).trials
    (listed,) = archived_studies(lab.worker)
    assert (listed.study, listed.was, listed.why) == ("full", "ACTIVE", "the question changed")
    assert study_details(lab.worker, study="full").summary.next.startswith("nothing, or restore it")
    assert len(model_list(lab.worker, study="full")) == 4  # what was found stays readable
    assert next_steps(lab.worker, studies_only=["full"]) == []
    assert restore_study(lab.worker, study="full").state == "ACTIVE"
    assert seen_by_all(lab) == before


def test_the_referee_refuses_what_an_archived_study_had_asked_and_spends_nothing(lab: Any) -> None:
    asked = file_gate_request(lab.worker, study="full", model_id=lab.models["full"]["good"], request_key="asked")
    assert archive_study(lab.worker, study="full", why="over").refused == [asked]
    lab.answer_all()
    answer = answer_of(lab.worker, asked)
    assert answer is not None
    assert answer.refused
    assert "study 'full' is archived" in answer.message
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0
    with pytest.raises(StateError, match="full is archived"):
        file_gate_request(lab.worker, study="full", model_id=lab.models["full"]["good"], request_key="new")
    assert (
        file_gate_request(lab.worker, study="full", model_id=lab.models["full"]["good"], request_key="asked") == asked
    )


def test_a_model_in_production_answers_again_once_its_study_is_restored(lab: Any) -> None:
    assert lab.promote(lab.gate("good").request_id).promoted
    rows = {"study": "full", "inputs": [[0.0] * 30]}
    before = infer(lab.worker, lab.artifacts, **rows).labels
    with pytest.raises(StateError, match="model in production"):
        archive_study(lab.worker, study="full", why="over")
    assert archive_study(lab.worker, study="full", why="over", withdraw=True).production == lab.models["full"]["good"]
    with pytest.raises(StateError, match="'full' is archived"):
        infer(lab.worker, lab.artifacts, **rows)
    restore_study(lab.worker, study="full")
    assert infer(lab.worker, lab.artifacts, **rows).labels == before


def test_a_refused_study_is_deleted_and_its_name_registered_again(bare: Any) -> None:
    misfit = [{"name": "mine", "kind": "ridge_regression"}]
    assert bare.register("typo", candidates=misfit, request_key="once").refused
    tried = delete_study(bare.worker, study="typo", why="a wrong kind", dry_run=True)
    assert (tried.state, tried.candidates) == ("REFUSED", 1)
    assert delete_study(bare.worker, study="typo", why="a wrong kind").changed
    assert not delete_study(bare.worker, study="typo", why="a wrong kind").changed  # a second time
    with pytest.raises(NotFoundError, match="study 'tipo'"):
        delete_study(bare.worker, study="tipo", why="x")
    assert next_steps(bare.worker, needs_only=True) == []
    assert not bare.register("typo", request_key="once").refused
    with pytest.raises(StateError, match="typo has sealed"):
        delete_study(bare.worker, study="typo", why="x", dry_run=True)


def test_a_name_is_used_again_while_the_archived_study_stays_readable(lab: Any) -> None:
    number = lab.one("SELECT id FROM work.studies WHERE name = 'full'")
    archive_study(lab.worker, study="full", why="a new start")
    assert not lab.register("full", source="sklearn:digits").refused
    assert study_details(lab.worker, study="full").summary.source == "sklearn:digits"
    old = study_details(lab.worker, study=f"full@{number}")
    assert (old.summary.source, len(old.trials)) == ("sklearn:breast_cancer", 3)
    with pytest.raises(AlreadyExistsError):
        restore_study(lab.worker, study=f"full@{number}")
    assert out_of_step(lab.worker) == []


def test_a_withdrawn_candidate_is_not_suggested_and_a_study_without_others_is_finished(lab: Any) -> None:
    left = [name for (name,) in lab.rows(
        "SELECT c.name FROM work.candidates c JOIN work.studies s ON s.id = c.study_id WHERE s.name = 'full' "
        "AND NOT EXISTS (SELECT FROM work.trials t WHERE t.candidate_id = c.id)"
    )]  # fmt: skip
    assert left
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["full"], request_key=lab.key()).trials
    done = withdraw_candidate(lab.worker, study="full", candidate=trial.candidate, why="it overfits")
    assert done.cancelled == [trial.trial_id]
    for name in left:
        withdraw_candidate(lab.worker, study="full", candidate=name, why="none of these")
    assert not suggest_trials(lab.worker, count=3, studies_only=["full"], request_key=lab.key()).trials
    steps = {step.kind: step.act for step in next_steps(lab.worker, studies_only=["full"])}
    assert "every candidate has" in steps.get("compute", "") or "hand-in" in steps
    assert out_of_step(lab.worker) == []
    others = [name for name in left if name != trial.candidate]
    for name in others[:1]:
        assert restore_candidate(lab.worker, study="full", candidate=name).changed
        (again,) = suggest_trials(lab.worker, count=3, studies_only=["full"], request_key=lab.key()).trials
        assert again.candidate == name
    with pytest.raises(NotFoundError, match="no candidate 'x'"):
        withdraw_candidate(lab.worker, study="full", candidate="x", why="y")


def test_a_tenant_is_archived_with_its_studies_and_restored_without_them(lab: Any) -> None:
    assert lab.promote(lab.gate("good").request_id).promoted
    with pytest.raises(StateError, match=r"'lab' .*production.*: full"):
        archive_tenant(lab.worker, tenant="lab", why="over")
    tried = archive_tenant(lab.worker, tenant="lab", why="over", withdraw=True, dry_run=True)
    assert sorted(tried.studies) == sorted(lab.models)
    assert (tried.changed, len(archived_studies(lab.worker))) == (False, 0)
    assert archive_tenant(lab.worker, tenant="lab", why="over", withdraw=True).changed
    assert not archive_tenant(lab.worker, tenant="lab", why="over").changed
    assert len(archived_studies(lab.worker)) == len(lab.models)
    with pytest.raises(StateError, match="lab is archived"):
        lab.register("next")
    with pytest.raises(StateError, match="lab has studies"):
        delete_tenant(lab.worker, tenant="lab", why="x", dry_run=True)
    assert restore_tenant(lab.worker, tenant="lab").changed
    assert restore_study(lab.worker, study="full").changed


@pytest.mark.parametrize("why", ["", "  ", "x" * 501])
def test_a_reason_is_needed(lab: Any, why: str) -> None:
    with pytest.raises(ConfigError, match="1 to 500") as refused:
        archive_study(lab.worker, study="full", why=why)
    assert refused.value.field == "why"


def test_a_nightly_dag_that_keeps_its_study_does_not_make_an_archived_one_anew(bare: Any) -> None:
    def registered(key: str) -> int:
        asked = {"tenant": "lab", "study": "mail", "source": "sklearn:breast_cancer", "keep": True}
        return int(register_study(bare.worker, request_key=key, **asked).study_id)

    first = registered("night/1")
    assert registered("night/2") == first
    archive_study(bare.worker, study="mail", why="over")
    assert registered("night/3") == first
    restore_study(bare.worker, study="mail")
    assert registered("night/4") == first

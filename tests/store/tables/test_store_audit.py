"""The audit: every act of every role leaves a row that says who, through which interface and why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import StudyState
from easeml_core.store import callers
from easeml_core.store.database import Store
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import releases, requests, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]


def audit_of(database: Any, act: str = "%") -> list[Any]:
    with database.worker.begin() as tx:
        return list(rows(tx, "SELECT * FROM work.audit WHERE act LIKE :act ORDER BY id", act=act))


def test_what_is_done_to_a_whole_study_is_in_the_audit_once_each(database: Any, world: Any) -> None:
    assert Counter(row.act for row in audit_of(database)) == {
        "study registered": 1,
        "study sealed": 1,
        "policy changed": 1,
        "set live": 2,
        "pairs fed": 1,
        "pairs switched": 1,
        "promotion asked": 1,
        "forced promotion asked": 1,
        "rollback asked": 1,
        "promoted": 1,
        "model handed in": 1,
    }
    assert {row.study_id for row in audit_of(database) if row.act != "policy changed"} == {world.study.study_id}


def test_a_change_of_limits_says_from_what_to_what_by_whom_and_why(database: Any, make_rows: Any) -> None:
    study = make_rows()
    with callers.acting("ada", door="page"), callers.because("  storm season "), database.worker.begin() as tx:
        studies.change_study(tx, study.study_id, {"budget_seconds": 30.0, "weight": 2.0})  # the weight is 2 already
        studies.change_tenant(tx, studies.get_tenant(tx, "lab").id, {"max_parallel": 4})
        studies.set_study_state(tx, study.study_id, StudyState.PAUSED)
    budget, parallel, paused = audit_of(database)[-3:]
    assert (budget.act, budget.before, budget.after) == (
        "study changed",
        {"budget_seconds": None},
        {"budget_seconds": 30.0},
    )
    assert (parallel.act, parallel.study_id, parallel.after) == ("tenant changed", None, {"max_parallel": 4})
    assert paused.act == "study paused"
    for row in (budget, parallel, paused):
        assert (row.who, row.door, row.role, row.reason) == ("ada", "page", "easeml_worker", "storm season")
        assert row.tenant_id == parallel.tenant_id


def test_a_change_that_changes_nothing_leaves_no_row(database: Any, make_rows: Any) -> None:
    study = make_rows()
    before = len(audit_of(database))
    with database.worker.begin() as tx:
        studies.change_study(tx, study.study_id, {"weight": 2.0, "priority": 0})
        studies.set_study_state(tx, study.study_id, StudyState.ACTIVE)
    assert len(audit_of(database)) == before


def test_the_name_ends_with_its_block_and_its_transaction(database: Any, make_rows: Any) -> None:
    study = make_rows()
    with callers.acting("ada", door="page"), database.worker.begin() as tx:
        studies.set_study_state(tx, study.study_id, StudyState.PAUSED)
    with database.worker.begin() as tx:  # the same connection of the pool
        studies.set_study_state(tx, study.study_id, StudyState.ACTIVE)
    assert [(r.who, r.door) for r in audit_of(database)[-2:]] == [("ada", "page"), ("easeml_worker", "database")]


def test_a_store_can_act_in_a_name_of_its_own(database: Any, make_rows: Any) -> None:
    study = make_rows()
    store = Store(database.url("easeml_worker"), actor=callers.Actor("nightly/run-1/pause", "task"))
    with store.begin() as tx:
        studies.set_study_state(tx, study.study_id, StudyState.PAUSED)
    with store.snapshot() as tx:
        assert scalar(tx, "SELECT state FROM work.studies") == "PAUSED"
    store.close()
    assert audit_of(database)[-1].who == "nightly/run-1/pause"


@pytest.mark.parametrize("name", ["", "\0\n", "a\nb\x1b[2J" + "x" * 900, "\ud800", "'; DROP TABLE work.audit; --"])
def test_no_name_and_no_reason_keeps_a_change_from_being_made(database: Any, make_rows: Any, name: str) -> None:
    study = make_rows()
    with callers.acting(name, door=name, reason=name * 9), database.worker.begin() as tx:
        studies.change_study(tx, study.study_id, {"priority": 7})
    (row,) = audit_of(database, "study changed")
    assert row.after == {"priority": 7}
    assert row.who.isprintable()
    assert len(row.who) <= 200


def test_a_candidate_that_joins_later_is_reported_and_a_cancel_once(database: Any, make_rows: Any) -> None:
    study = make_rows()
    with database.worker.begin() as tx:
        studies.add_candidates(tx, study.study_id, [{"name": "late", "kind": "tree"}])
        trial = trials.add_trial(
            tx, study_id=study.study_id, candidate_id=study.candidates[0], data_version_id=study.version_id
        )
        trials.request_cancel(tx, trial)
        trials.request_cancel(tx, trial)
    assert [(r.act, r.after["candidate"]) for r in audit_of(database)[-2:]] == [
        ("candidate added", "late"),
        ("trial cancelled", "candidate-0"),
    ]


def test_who_asked_stands_beside_what_the_referee_wrote(database: Any, make_rows: Any, succeed: Any, file: Any) -> None:
    study = make_rows()
    _, model_id = succeed(study, 0)
    with callers.acting("ann", door="page"):
        request = file(study, "promote", model_id)
    with database.referee.begin() as tx:
        requests.add_answer(tx, request, refused=True, message="there is no recorded pass")
    asked, refused = audit_of(database)[-2:]
    assert (asked.act, asked.who, asked.door) == ("promotion asked", "ann", "page")
    assert (refused.act, refused.who, refused.role) == ("request refused", "ann", "easeml_referee")
    assert refused.reason == "there is no recorded pass"


def test_the_referee_waits_for_no_worker_to_write_it(database: Any, make_rows: Any, seal: Any) -> None:
    study = make_rows()
    with database.worker.begin() as holder:
        change(holder, "SELECT 1 FROM work.studies FOR UPDATE")
        change(holder, "SELECT 1 FROM work.tenants FOR UPDATE")
        with database.referee.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '2s'")
            change(
                tx,
                "INSERT INTO work.test_sets (study_id, data_version_id, purpose, rows, steps, plan) "
                "VALUES (:study, :version, 'gate', 5, 3, '{}')",
                study=study.study_id,
                version=study.version_id,
            )
            releases.retire_test_set(tx, scalar(tx, "SELECT max(id) FROM work.test_sets"))
    assert [r.act for r in audit_of(database, "set %")] == ["set live", "set retired"]


def test_no_size_of_a_sealed_set_is_reported(database: Any, make_rows: Any, seal: Any) -> None:
    seal(make_rows(), "gate", examples=17)
    (row,) = audit_of(database, "set %")
    assert set(row.after) == {"set", "name", "purpose", "steps", "why"}

"""Archived studies, withdrawn candidates, archived tenants and what is deleted, in the database's own terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from waiting import heard

from easeml_core.entities import Executor, RequestKind
from easeml_core.errors import AlreadyExistsError, ConcurrentUpdateError, StateError
from easeml_core.services.test_sets.row_registry import OTHERS_WORDS, OWN_WORDS
from easeml_core.store import archive
from easeml_core.store.database import REFEREE_CHANNEL
from easeml_core.store.listen import BlockingListener
from easeml_core.store.rows import change
from easeml_core.store.tables import decisions, leases, referee_claims, requests, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]


def turn(store: Any, study: Any, wanted: str, why: str = "it is over") -> bool:
    with store.begin() as tx:
        return archive.apply_study_change(tx, study.study_id, study.name, wanted, why)


def state_of(ask: Ask, study: Any) -> str:
    return str(ask("SELECT state FROM work.studies WHERE id = %s", study.study_id)[0][0])


def waiting_trial(store: Any, study: Any, candidate: int) -> int:
    with store.begin() as tx:
        return trials.add_trial(
            tx,
            study_id=study.study_id,
            candidate_id=study.candidates[candidate],
            data_version_id=study.version_id,
        )


def test_an_archived_study_ends_its_trials_and_returns_to_the_state_that_it_had(
    database: Any, world: Any, ask: Ask
) -> None:
    study, worker = world.study, database.worker
    assert turn(worker, study, "withdraw", "a typo")
    assert not turn(worker, study, "archive")  # a second time
    found = ask("SELECT state, archived_from, archived_why FROM work.studies WHERE id = %s", study.study_id)
    assert found == [("ARCHIVED", "ACTIVE", "a typo")]
    assert ask("SELECT state FROM work.trials WHERE id = %s", world.waiting) == [("CANCELLED",)]
    assert ask("SELECT state, cancel_requested FROM work.trials WHERE id = %s", world.running) == [("RUNNING", True)]
    assert turn(worker, study, "restore")
    assert not turn(worker, study, "restore")
    found = ask("SELECT state, archived_at, archived_from, archived_why FROM work.studies")
    assert found == [("ACTIVE", None, None, None)]
    acts = "SELECT act, reason, before ->> 'model' FROM work.audit WHERE act LIKE 'study %d' ORDER BY id DESC LIMIT 2"
    model = str(world.model_id)
    assert ask(acts) == [
        ("study restored", "it is over", None),
        ("study archived", "a typo", model),
    ]


def test_the_referee_looks_at_what_waits_for_an_archived_study_at_once(
    database: Any, make_rows: Callable[..., Any], ask: Ask
) -> None:
    study = make_rows()
    ((number,),) = ask(
        "INSERT INTO work.requests (request_key, kind, study_id) VALUES ('late', 'refresh', %s) RETURNING id",
        study.study_id,
    )
    with BlockingListener(database.referee.dsn, REFEREE_CHANNEL) as listener:
        assert turn(database.worker, study, "archive")
        assert heard(listener, f"request:{number}")


def test_a_model_in_production_is_kept_unless_it_is_withdrawn_and_none_comes_into_production_of_an_archived_study(
    database: Any, world: Any, ask: Ask
) -> None:
    with pytest.raises(StateError, match="study cancer has a model in production, which answers no rows"):
        turn(database.worker, world.study, "archive")
    assert turn(database.worker, world.study, "withdraw")
    assert ask("SELECT model_id FROM work.production") == [(world.model_id,)]  # the pointer is the referee's
    moved = pytest.raises(StateError, match="study cancer is archived and takes nothing new")
    with moved, database.referee.begin() as tx:
        change(tx, "UPDATE work.production SET model_id = model_id")


CLOSED = {
    "a request": "INSERT INTO work.requests (request_key, kind, study_id) VALUES ('late', 'refresh', {0})",
    "a candidate": "INSERT INTO work.candidates (study_id, name, kind) VALUES ({0}, 'late', 'tree')",
    "a trial": "INSERT INTO work.trials (study_id, candidate_id, data_version_id) SELECT study_id, max(id), "
    "(SELECT max(id) FROM work.data_versions) FROM work.candidates WHERE study_id = {0} GROUP BY 1",
    "a feed": "INSERT INTO work.feeds (study_id, request_key, artifact, rows, origin, fed_by) VALUES "
    "({0}, 'late', 'sha256:' || repeat('0', 64), 1, 'x', 'x')",
}


@pytest.mark.parametrize("what", CLOSED)
def test_an_archived_study_takes_nothing_new(database: Any, make_rows: Callable[..., Any], what: str) -> None:
    study = make_rows()
    turn(database.worker, study, "archive")
    with (
        pytest.raises(StateError, match="study cancer is archived and takes nothing new"),
        database.worker.begin() as tx,
    ):
        change(tx, CLOSED[what].format(study.study_id))
    turn(database.worker, study, "restore")
    with database.worker.begin() as tx:
        assert change(tx, CLOSED[what].format(study.study_id)) == 1


def test_a_key_that_was_used_before_has_its_request_also_once_the_study_is_archived(database: Any, world: Any) -> None:
    turn(database.worker, world.study, "withdraw")
    asked = {"kind": RequestKind.REFRESH, "study_id": world.study.study_id, "model_id": None, "arguments": {}}
    known = world.requests[RequestKind.REFRESH]
    with database.worker.begin() as tx:
        (key,) = tx.exec_driver_sql("SELECT request_key FROM work.requests WHERE id = %s", (known,)).one()
        assert requests.file_request(tx, request_key=key, **asked) == known


def test_the_name_of_an_archived_study_is_its_tenants_to_use_again(
    database: Any, make_rows: Callable[..., Any]
) -> None:
    first = make_rows("churn", tenant="lab")
    turn(database.worker, first, "archive")
    with database.owner.begin() as tx:  # the key is the fixture's
        change(tx, "UPDATE work.studies SET request_key = 'first'")
    with pytest.raises(AlreadyExistsError, match="one of another tenant had it, and is archived"):
        make_rows("churn", tenant="others")
    second = make_rows("churn", tenant="lab")
    with database.worker.begin() as tx:
        assert studies.get_study(tx, "churn").id == second.study_id
        assert studies.get_study(tx, f"churn@{first.study_id}").id == first.study_id
        assert [one.study for one in archive.archived_studies(tx, limit=9)] == [f"churn@{first.study_id}"]
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        turn(database.worker, first, "restore")
    turn(database.worker, second, "archive")
    assert turn(database.worker, first, "restore")


def test_archiving_waits_for_no_trial_that_is_held_and_its_next_heartbeat_ends_it(
    database: Any, make_rows: Callable[..., Any], ask: Ask
) -> None:
    study = make_rows()
    trial = waiting_trial(database.worker, study, 0)
    with database.worker.begin() as holder:
        claim = {"lease_key": "k", "lease_seconds": 60.0}
        implementation = trials.get_trial(holder, trial, lock=True).implementation
        with database.referee.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '1s'")
            archive.apply_study_change(tx, study.study_id, study.name, "archive", "over")
        attempt = leases.start_trial(holder, trial_id=trial, executor=Executor(implementation, "t"), **claim)
    assert ask("SELECT state, cancel_requested FROM work.trials") == [("RUNNING", False)]
    assert ask("SELECT change, trial_id FROM work.change_requests") == [("cancel", trial)]
    with database.worker.begin() as tx:
        assert leases.is_wanted(tx, trial_id=trial, attempt=attempt) is False
        assert leases.extend_lease(tx, trial_id=trial, attempt=attempt, lease_seconds=60.0, progress=None) is True


def test_a_study_without_sealed_data_is_deleted_and_the_audit_keeps_its_name(database: Any, ask: Ask) -> None:
    study_id = registered(database)
    assert turn(database.worker, named(study_id), "delete", "a typo")
    for table in ("studies", "candidates", "requests", "assessments"):
        assert ask(f"SELECT count(*) FROM work.{table}") == [(0,)], table
    kept = ask("SELECT before ->> 'name', reason FROM work.audit WHERE act = 'study deleted'")
    assert kept == [("flwoers", "a typo")]
    with database.worker.begin() as tx:
        assert archive.was_deleted(tx, "study", "flwoers")
        assert not archive.was_deleted(tx, "study", "flowers")
    assert registered(database) != study_id  # the name and the key are free again


def named(study_id: int) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(study_id=study_id, name="flwoers")


def registered(database: Any) -> int:
    """A new study with a candidate and an open request to seal its data; its id."""
    with database.worker.begin() as tx:
        tenant = studies.add_tenant(tx, name="lab")
        study_id = studies.add_study(
            tx,
            name="flwoers",
            tenant_id=tenant,
            data_set_id=studies.add_data_set(tx, tenant_id=tenant, source="csv:flwoers.csv", target=""),
            metric="accuracy",
            weight=1.0,
            budget_seconds=None,
            config={"training": {"max_attempts": 3}},
            request_key="register",
        )
        assert study_id is not None
        studies.add_candidates(tx, study_id, [{"name": "tree", "kind": "tree"}])
        requests.file_request(
            tx, kind=RequestKind.SEAL, study_id=study_id, model_id=None, arguments={}, request_key="seal"
        )
    return study_id


def test_what_evidence_rests_on_or_the_referee_works_on_is_not_deleted(
    database: Any, make_rows: Callable[..., Any]
) -> None:
    with pytest.raises(StateError, match="study cancer has sealed data, which its evidence rests on; archive it"):
        turn(database.worker, make_rows(), "delete")
    study = named(registered(database))
    with database.referee.begin() as tx:
        assert referee_claims.take(
            tx, referee_claims.claim_request(tx) or 0, referee_claims.add_referee(tx, lease_seconds=60)
        )
    with pytest.raises(StateError, match="the referee works on study flwoers right now"):
        turn(database.worker, study, "delete")
    with database.worker.begin() as holder:
        change(holder, "SELECT FROM work.studies WHERE name = 'flwoers' FOR KEY SHARE")
        with pytest.raises(ConcurrentUpdateError, match="another transaction was in the way"):
            turn(database.referee, study, "delete")


@pytest.mark.parametrize("words", [OWN_WORDS, OTHERS_WORDS, "a column is missing"])
def test_a_refusal_that_is_counted_cannot_be_deleted_before_its_count_ends(database: Any, ask: Ask, words: str) -> None:
    """Else a tenant deletes its refusals, and asks as often as it likes which rows others have."""
    study_id = registered(database)
    with database.referee.begin() as tx:
        asked = referee_claims.claim_request(tx)
        assert asked is not None
        requests.refuse_sealing(tx, asked)
        requests.add_answer(tx, asked, refused=True, message=f"source 'csv:flwoers.csv': {words}; register it again")
    if words in (OWN_WORDS, OTHERS_WORDS):
        with pytest.raises(StateError, match="such refusals of a tenant are counted"):
            turn(database.worker, named(study_id), "delete")
        assert turn(database.worker, named(study_id), "archive")
        with pytest.raises(StateError, match="such refusals of a tenant are counted"):
            turn(database.worker, named(study_id), "delete")
        ask("UPDATE work.answers SET answered_at = answered_at - interval '31 days'")
    assert turn(database.worker, named(study_id), "delete")


def test_a_study_whose_data_were_refused_while_it_was_archived_is_restored_as_refused(database: Any, ask: Ask) -> None:
    study_id = registered(database)
    turn(database.worker, named(study_id), "archive")
    with database.referee.begin() as tx:
        asked = referee_claims.claim_request(tx)
        assert asked is not None
        assert not requests.refuse_sealing(tx, asked)
        requests.add_answer(tx, asked, refused=True, message="study 'flwoers' is archived")
    turn(database.worker, named(study_id), "restore")
    assert ask("SELECT state FROM work.studies") == [("REFUSED",)]


def test_a_withdrawn_candidate_is_offered_no_more_and_one_with_a_trial_stays_what_it_is(
    database: Any, make_rows: Callable[..., Any], ask: Ask
) -> None:
    study = make_rows()
    waiting_trial(database.worker, study, 1)

    def offered() -> tuple[int, ...]:
        with database.worker.begin() as tx:
            return decisions.menus(tx, [study.study_id])[study.study_id].ids

    assert len(offered()) == 3
    with database.worker.begin() as tx:
        for name in ("candidate-0", "candidate-1"):
            assert archive.set_withdrawn(tx, study.study_id, name, withdrawn=True, why="it overfits")
            assert not archive.set_withdrawn(tx, study.study_id, name, withdrawn=True, why="again")
    assert offered() == (study.candidates[1], study.candidates[2])
    with database.worker.begin() as tx:
        assert archive.set_withdrawn(tx, study.study_id, "candidate-0", withdrawn=False, why="")
    assert len(offered()) == 3
    acts = ask("SELECT act, reason FROM work.audit WHERE act LIKE 'candidate %' ORDER BY id")
    assert acts == [("candidate withdrawn", "it overfits")] * 2 + [("candidate restored", None)]


def test_an_archived_tenant_registers_nothing_and_one_without_studies_is_deleted(
    database: Any, make_rows: Callable[..., Any], ask: Ask
) -> None:
    study = make_rows()
    ((tenant,),) = ask("SELECT id FROM work.tenants")

    def turned(wanted: str) -> bool:
        with database.worker.begin() as tx:
            return archive.apply_tenant_change(tx, tenant, wanted, "the project is over")

    assert turned("archive")
    assert not turned("archive")
    assert state_of(ask, study) == "ARCHIVED"
    with pytest.raises(StateError, match="tenant lab is archived and takes nothing new"):
        make_rows("second")
    with pytest.raises(StateError, match="tenant lab is archived"):
        turn(database.worker, study, "restore")
    with pytest.raises(StateError, match="tenant lab has studies or logins"):
        turned("delete")
    assert turned("restore")
    assert turn(database.worker, study, "restore")
    with database.worker.begin() as tx:
        other = studies.add_tenant(tx, name="gardne")
        studies.add_data_set(tx, tenant_id=other, source="csv:x", target="")
        assert archive.apply_tenant_change(tx, other, "delete", "a typo")
    assert ask("SELECT name FROM work.tenants") == [("lab",)]
    assert ask("SELECT before ->> 'name' FROM work.audit WHERE act = 'tenant deleted'") == [("gardne",)]


def test_a_model_whose_file_was_removed_is_asked_about_no_more(database: Any, world: Any) -> None:
    with database.referee.begin() as tx:
        change(tx, "UPDATE work.models SET removed_at = now(), removed_why = 'not among the best 5'")
    sql = "INSERT INTO work.requests (request_key, kind, study_id, model_id) VALUES ('late', 'gate', :study, :model)"
    refused = pytest.raises(StateError, match="was removed: not among the best 5; train it again")
    with refused, database.worker.begin() as tx:
        change(tx, sql, study=world.study.study_id, model=world.model_id)

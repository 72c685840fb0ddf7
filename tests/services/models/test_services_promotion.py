"""Moving the production pointer: only by the referee, only on a recorded pass that is still about what stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from easeml_core.entities import RequestKind
from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StateError, WrongRoleError
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee.requests import (
    file_forced_promotion,
    file_gate_request,
    file_promotion,
    file_rollback,
)
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.rows import rows
from easeml_core.store.tables import model_life, releases, requests, studies


def in_production(lab: Any, study: str = "full") -> int | None:
    with lab.worker.begin() as tx:
        model = releases.production_model(tx, studies.get_study(tx, study).id)
    return None if model is None else model.id


def test_a_pass_is_promoted(lab: Any) -> None:
    good = lab.models["full"]["good"]
    passed = lab.gate("good")
    assert in_production(lab) is None
    answer = lab.promote(passed.request_id)
    assert (answer.refused, answer.promoted) == (False, True)
    assert answer.message.startswith(f"model {good} is in production")
    assert in_production(lab) == good
    assert in_production(lab, "first") is None


def test_a_fail_is_refused(lab: Any) -> None:
    answer = lab.promote(lab.gate("rare").request_id, "rare")
    assert answer.refused
    assert "'fail' for model 4;" in answer.message
    assert not hasattr(answer, "promoted")
    assert in_production(lab) is None


def test_a_pass_of_another_condition_is_advice_and_promotes_nothing(lab: Any) -> None:
    lab.allow_other_conditions()
    easier = lab.gate("good", condition="n - o > -0.5 +/- 0.2")
    assert (easier.symbol, easier.planned) == ("pass", False)
    answer = lab.promote(easier.request_id)
    assert answer.refused
    assert "for another condition" in answer.message
    assert in_production(lab) is None
    spelled = lab.gate("good", condition="n-o>0+/-0.2")  # the set's own, in other words
    assert (spelled.symbol, spelled.planned) == ("pass", True)
    assert lab.promote(spelled.request_id).promoted


def test_a_pass_promotes_no_other_model_and_no_other_study(lab: Any) -> None:
    passed = lab.gate("good").request_id
    refusal = lab.promote(passed, "worse").message
    assert f"{passed} has no" in refusal
    assert "on model 3 " in refusal
    assert lab.promote(passed, "good", "first").refused
    assert in_production(lab) is in_production(lab, "first") is None


def test_a_request_that_is_no_verdict_is_refused(lab: Any) -> None:
    for other in (99, lab.meter(lab.models["full"]["rare"]).request_id):
        assert f"{other} has no verdict" in lab.promote(other).message


def test_a_refused_gate_request_promotes_nothing(lab: Any) -> None:
    refused = lab.gate("good", reliability=0.5)
    assert refused.refused
    assert lab.promote(refused.request_id).refused


def test_a_verdict_about_what_stood_before_is_stale(lab: Any) -> None:
    first, second = lab.gate("worse").request_id, lab.gate("good").request_id  # both against the baseline
    assert lab.promote(first, "worse").promoted
    answer = lab.promote(second)
    assert answer.message.startswith("model 3 stands now")
    assert "with model 1; ask the gate again" in answer.message
    assert in_production(lab) == lab.models["full"]["worse"]
    again = lab.gate("good")  # against the one that stands now
    assert (again.symbol, again.step, again.cached) == ("pass", 3, False)
    assert lab.promote(again.request_id).promoted
    assert in_production(lab) == lab.models["full"]["good"]


def test_a_pass_does_not_outlive_doubts_about_its_examples(lab: Any) -> None:
    """By hand they may be why, under overlap they are; an answer that ends the set says nothing about them."""
    passed = lab.gate("good").request_id
    retire_test_set(lab.referee, test_set="1", why="overlap")
    for why in ("overlap", "by hand"):
        lab.as_superuser("UPDATE work.test_sets SET retired_why = %s WHERE id = 1", why)
        answer = lab.promote(passed)
        assert (answer.refused, "retired by now" in answer.message) == (True, True), why
    assert in_production(lab) is None
    lab.as_superuser("UPDATE work.test_sets SET retired_why = 'changes' WHERE id = 1")
    assert lab.promote(passed).promoted


def test_a_repeated_request_promotes_once(lab: Any) -> None:
    passed = lab.gate("good").request_id
    first = lab.promote(passed, request_key="night/1")
    assert lab.promote(passed, request_key="night/1") == first
    assert lab.one("SELECT count(*) FROM work.promotions") == 1
    again = lab.promote(passed)  # as another DAG does, whose gate had the same pass
    assert (again.refused, again.promoted) == (False, False)
    assert "already; nothing" in again.message
    retire_test_set(lab.referee, test_set="1")  # nor does it matter that the verdict would be no ground any more
    assert lab.promote(passed) == replace(again, request_id=again.request_id + 1)
    assert lab.one("SELECT count(*) FROM work.promotions") == 1


def test_a_key_of_another_request_is_refused(lab: Any) -> None:
    file_gate_request(lab.worker, study="full", request_key="night/1")
    with pytest.raises(InvalidInputError, match=r"night/1.* new key"):
        file_promotion(lab.worker, study="full", model_id=2, gate_request_id=4, request_key="night/1")


def test_bad_input_is_refused_before_it_is_filed(lab: Any) -> None:
    asked: dict[str, Any] = {"study": "full", "model_id": 2, "gate_request_id": 4, "request_key": "k"}
    with pytest.raises(ConfigError) as refused:
        file_promotion(lab.worker, **asked | {"gate_request_id": "four"})
    assert (refused.value.field, refused.value.value) == ("gate_request_id", "four")
    with pytest.raises(NotFoundError, match="id 6"):
        file_promotion(lab.worker, **asked | {"model_id": 6})


FORGERIES = {
    "production": "INSERT INTO work.production (study_id, model_id, promotion_id) VALUES (1, 2, 1)",
    "promotion": "INSERT INTO work.promotions (request_id, study_id, model_id, gate_request_id) VALUES (4, 1, 2, 4)",
    "verdict": "INSERT INTO work.gate_verdicts (request_id, study_id, model_id, incumbent_id, test_set_id, step, "
    "symbol, cached) VALUES (4, 1, 2, 1, 1, 1, 'pass', false)",
    "answer": "INSERT INTO work.answers (request_id, refused, message) VALUES (4, false, 'pass')",
    "set": "UPDATE work.test_sets SET plan = '{}'",
    "signature": "INSERT INTO work.requests (request_key, kind, study_id, model_id, requested_by) "
    "VALUES ('k', 'gate', 1, 2, 'easeml_owner')",
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_worker_cannot_forge_it(what: str, lab: Any) -> None:
    file_gate_request(lab.worker, study="full", request_key="k0")
    with pytest.raises(WrongRoleError, match="permission denied"), lab.worker.begin() as tx:
        tx.exec_driver_sql(FORGERIES[what])


def test_the_schema_itself_refuses_a_promotion_without_a_pass(lab: Any) -> None:
    failed = lab.gate("rare").request_id
    asked = file_promotion(lab.worker, study="full", model_id=4, gate_request_id=failed, request_key="k")
    ids = {"request_id": asked, "study_id": 1, "model_id": 4, "gate_request_id": failed}
    with (
        pytest.raises(StateError, match=r"recorded pass .* got 4"),
        lab.referee.begin() as tx,  # even the referee's own code
    ):
        model_life.add_promotion(tx, **ids)
    assert in_production(lab) is None


@pytest.mark.parametrize("kind", ["promote", "rollback", "force"])
def test_a_move_holds_the_study_s_sets_until_it_commits(lab: Any, kind: str) -> None:
    """A verdict that is decided at the same time compares with what stands before it or after it."""
    asked = {"study": "full", "request_key": "move"}
    good, worse = (lab.models["full"][name] for name in ("good", "worse"))
    passed = lab.gate("good").request_id
    if kind == "promote":
        filed = file_promotion(lab.worker, model_id=good, gate_request_id=passed, **asked)
    elif kind == "force":
        filed = file_forced_promotion(lab.worker, model_id=worse, who="Ada", why="holidays", **asked)
    else:
        words = {"who": "Ada", "why": "holidays", "directly": True}
        for model_id, key in ((good, "first"), (worse, "second")):
            file_forced_promotion(lab.referee, study="full", model_id=model_id, request_key=key, **words)
        filed = file_rollback(lab.worker, why="holidays", **asked)
    free = "SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'full'"
    with lab.referee.begin() as tx:
        move = MOVES[RequestKind(kind)](tx, *requests.get_request(tx, filed))
        assert "is in production" in move
        with lab.referee.begin() as other:
            assert len(rows(other, free)) == 2
            assert rows(other, free + " FOR UPDATE OF t SKIP LOCKED") == []

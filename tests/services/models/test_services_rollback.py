"""Which verdict is a ground for a promotion; rollbacks; promotions that a person forces."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from easeml_core.entities import RequestKind
from easeml_core.errors import ConfigError, NotFoundError, StateError, StoreError, WrongRoleError
from easeml_core.services.models.promotion import before_standing, model_list, require_words
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import (
    answer_of,
    file_forced_promotion,
    file_gate_request,
    file_promotion,
    file_rollback,
)
from easeml_core.store.tables import model_life, releases, requests, studies
from easeml_core.store.tables.model_life import Promotion

REASON = {"who": "Ada Lovelace", "why": "the old one fails on holidays"}


def in_production(lab: Any, study: str = "full") -> int | None:
    with lab.worker.begin() as tx:
        model = releases.production_model(tx, studies.get_study(tx, study).id)
    return None if model is None else model.id


def model_id(lab: Any, name: str, study: str = "full") -> int:
    return int(lab.models[study][name])


def force(lab: Any, name: str = "rare", study: str = "full", *, allowed: bool = True) -> Any:
    given = {"study": study, "model_id": model_id(lab, name, study), "request_key": lab.key()}
    asked = file_forced_promotion(lab.worker, **given, **REASON)
    list(iter(Referee(lab.referee, lab.artifacts, allow_forced=allowed).answer_one, None))
    return answer_of(lab.worker, asked)


def roll_back(lab: Any, name: str | None = None, study: str = "full") -> Any:
    wanted = None if name is None else model_id(lab, name, study)
    given = {"study": study, "model_id": wanted, "request_key": lab.key()}
    return lab.answer(file_rollback(lab.worker, **given, why="it got worse"))


# The live set.


def test_the_pass_that_ends_its_set_may_be_promoted(lab: Any) -> None:
    passed = lab.gate("good", "first").request_id
    assert lab.one("SELECT retired_why FROM work.test_sets WHERE id = 3") == "changes"
    assert lab.promote(passed, "good", "first").promoted


def test_a_pass_of_a_set_that_went_on_and_ended_is_no_ground_any_more(lab: Any) -> None:
    passed = lab.gate("good").request_id
    for name in ("rare", "worse"):
        lab.gate(name)
    assert lab.one("SELECT state FROM work.test_sets WHERE id = 1") == "retired"
    answer = lab.promote(passed)
    assert answer.refused
    assert f"request {passed} " in answer.message
    assert "retired by now" in answer.message
    assert in_production(lab) is None


def test_a_pass_of_a_set_that_was_retired_by_hand_is_no_ground(lab: Any) -> None:
    passed = lab.gate("good").request_id
    with lab.referee.begin() as tx:
        assert releases.retire_test_set(tx, 1, "by hand")
    assert "retired by now; ask the gate again, on the live set" in lab.promote(passed).message


def test_under_none_any_recorded_verdict_may_be_promoted_whatever_stands(lab: Any) -> None:
    first, second = (lab.gate(name, "hidden").request_id for name in ("good", "rare"))
    assert lab.promote(second, "rare", "hidden").promoted  # it failed, but that must not show
    assert lab.promote(first, "good", "hidden").promoted
    assert in_production(lab, "hidden") == model_id(lab, "good", "hidden")


def test_what_stands_is_not_put_there_again_and_a_rollback_still_knows_the_way(lab: Any) -> None:
    verdicts = [lab.gate(name, "hidden").request_id for name in ("good", "rare")]
    for request_id, name in zip(verdicts, ("good", "rare"), strict=True):
        assert lab.promote(request_id, name, "hidden").promoted
    assert "already; nothing" in lab.promote(verdicts[1], "rare", "hidden").message
    assert force(lab, "rare", "hidden").message.endswith("'hidden' already")
    assert roll_back(lab, study="hidden").promoted
    assert in_production(lab, "hidden") == model_id(lab, "good", "hidden")


def test_under_none_without_a_recorded_verdict_nothing_is_promoted(lab: Any) -> None:
    assert "no verdict on" in lab.promote(99, "good", "hidden").message


# Rollbacks.


def promote(lab: Any, name: str) -> None:
    assert lab.promote(lab.gate(name).request_id, name).promoted


def test_a_rollback_puts_back_what_stood_before(lab: Any) -> None:
    promote(lab, "worse")
    promote(lab, "good")
    answer = roll_back(lab)
    assert (answer.refused, answer.promoted) == (False, True)
    assert answer.message.endswith(" again")
    assert in_production(lab) == model_id(lab, "worse")
    assert lab.rows("SELECT kind, restores, why FROM work.promotions ORDER BY id DESC LIMIT 1") == [
        ("rollback", 1, "it got worse")
    ]
    with pytest.raises(StateError, match=f"'full' before .* later: {model_id(lab, 'good')}$"):
        roll_back(lab)
    assert roll_back(lab, "good").message.endswith(" again")  # named: and forward again
    assert in_production(lab) == model_id(lab, "good")


def test_the_gate_compares_with_what_was_put_back(lab: Any) -> None:
    promote(lab, "worse")
    promote(lab, "good")
    roll_back(lab)
    answer = lab.gate("rare")
    assert lab.one("SELECT incumbent_id FROM work.gate_verdicts WHERE request_id = :id", id=answer.request_id) == (
        model_id(lab, "worse")
    )


def test_only_what_was_in_production_can_be_put_back(lab: Any) -> None:
    with pytest.raises(StateError, match=r"'full' yet; .*none"):
        roll_back(lab)
    promote(lab, "good")
    with pytest.raises(StateError, match=r"'full' before .*none"):
        roll_back(lab)
    with pytest.raises(StateError, match=r"model 4 .*never"):
        roll_back(lab, "rare")
    with pytest.raises(StateError, match=r"model 2 .*already"):
        roll_back(lab, "good")
    with pytest.raises(StateError, match=r"model 6 .*never"):  # it is another study's
        file_rollback(lab.worker, study="full", model_id=6, why="x", request_key="k")
    with pytest.raises(NotFoundError, match="study 'fool'"):
        file_rollback(lab.worker, study="fool", why="x", request_key="k")
    with pytest.raises(ConfigError) as refused:
        file_rollback(lab.worker, study="full", why=" ", request_key="k")
    assert (refused.value.field, refused.value.value) == ("why", " ")


def test_what_came_meanwhile_is_not_rolled_back_unasked(lab: Any) -> None:
    promote(lab, "worse")
    promote(lab, "good")
    filed = file_rollback(lab.worker, study="full", why="it got worse", request_key="k")
    with lab.referee.begin() as tx:
        forced = file_in(lab, "force")
        model_life.add_forced(tx, request_id=forced, study_id=1, model_id=4, **REASON)
    answer = lab.answer(filed)
    assert answer.refused
    assert answer.message.startswith("model 4 came")
    assert in_production(lab) == 4


def file_in(lab: Any, kind: str) -> int:
    """A request of this kind that the referee does not see before the test has used it."""
    with lab.worker.begin() as tx:
        given = {"kind": RequestKind(kind), "study_id": 1, "model_id": 4, "arguments": {}}
        request_id = requests.file_request(tx, **given, request_key=lab.key())
    lab.as_superuser("INSERT INTO work.answers (request_id, refused, message) VALUES (%s, false, 'test')", request_id)
    return request_id


def test_the_same_request_key_rolls_back_once(lab: Any) -> None:
    promote(lab, "worse")
    promote(lab, "good")
    asked = {"study": "full", "why": "it got worse", "request_key": "night/1"}
    first = file_rollback(lab.worker, **asked)
    lab.answer(first)
    assert file_rollback(lab.worker, **asked) == first
    assert lab.one("SELECT count(*) FROM work.promotions") == 3


def history(*moves: tuple[int, int | None]) -> list[Promotion]:
    """Moves of the pointer from (model, restored promotion); ids count from 1."""
    plain = Promotion(0, RequestKind.PROMOTE, 0, None, None, None, None, datetime(2026, 1, 1, tzinfo=UTC))
    return [replace(plain, id=n, model_id=m, restores=r) for n, (m, r) in enumerate(moves, 1)]


@pytest.mark.parametrize(
    ("moves", "before"),
    [
        ([], None),
        ([(7, None)], None),
        ([(7, None), (8, None)], 7),
        ([(7, None), (8, None), (7, 1)], None),  # 8 was taken back: before 7 there was nothing
        ([(7, None), (8, None), (9, None), (8, 2)], 7),  # rolled back once: the next goes further back
        ([(7, None), (8, None), (9, None), (8, 2), (7, 1)], None),
        ([(7, None), (8, None), (7, 1), (9, None)], 7),
        ([(7, None), (8, None), (7, 1), (9, None), (7, 1)], None),
    ],
)
def test_rolling_back_twice_goes_back_twice(moves: Any, before: int | None) -> None:
    found = before_standing(history(*moves))
    assert (None if found is None else found.model_id) == before


# On a person's word.


def test_a_list_of_models_has_the_verdict_and_the_standing_of_each(lab: Any) -> None:
    first, last = (lab.gate("good").request_id for _ in range(2))
    assert lab.promote(first).promoted
    listed = {entry.origin: entry for entry in model_list(lab.worker, study="full")}
    verdicts = {origin: None if entry.verdict is None else str(entry.verdict) for origin, entry in listed.items()}
    assert verdicts == dict.fromkeys(listed) | {"good": "pass"}
    assert listed["good"].gate_request_id == last
    assert [origin for origin, entry in listed.items() if entry.in_production or entry.moved_by] == ["good"]
    assert force(lab, "rare").promoted
    assert roll_back(lab).promoted
    moved = {entry.origin: entry.moved_by for entry in model_list(lab.worker, study="full") if entry.moved_by}
    assert moved == {"good": "rollback", "rare": "force"}, "the last move of each"


@pytest.mark.parametrize(("words", "allowed"), [("x", True), ("x" * 500, True), ("x" * 501, False), (" ", False)])
def test_a_reason_has_1_to_500_characters(words: str, allowed: bool) -> None:
    with nullcontext() if allowed else pytest.raises(ConfigError, match=r"why .* 1 to 500"):
        assert require_words("why", words) == words


def test_a_forced_promotion_names_who_and_why_for_good(lab: Any, recorded: Any) -> None:
    answer = force(lab)
    assert (answer.refused, answer.promoted) == (False, True)
    recorded(answer.message, "forced_promotion")
    assert in_production(lab) == 4
    (entry,) = [m for m in model_list(lab.worker, study="full") if m.in_production]
    assert {k: getattr(entry, k) for k in ("model_id", "origin", "moved_by", "verdict", "who", "why")} == {
        "model_id": 4,
        "origin": "rare",
        "moved_by": "force",
        "verdict": None,
        **REASON,
    }


@pytest.mark.own_database
def test_of_a_tenants_login_the_login_is_recorded_and_the_name_as_what_it_says(lab: Any) -> None:
    lab.as_superuser("ALTER TABLE work.requests ALTER requested_by SET DEFAULT 'easeml_t_mallory'")
    assert "forced by easeml_t_mallory, which names Ada Lovelace: " in force(lab).message


def test_a_referee_takes_no_forced_promotion_unless_it_was_allowed_to(lab: Any) -> None:
    answer = force(lab, allowed=False)
    assert answer.refused
    assert "--allow-forced" in answer.message
    assert in_production(lab) is None


@pytest.mark.parametrize("missing", ["who", "why"])
def test_nobody_forces_without_a_name_and_a_reason(missing: str, lab: Any) -> None:
    given = {"study": "full", "model_id": 4, "request_key": "k"}
    for nothing in ("", " \n", "x" * 501, None):
        with pytest.raises(ConfigError, match=f"{missing} .* 1 to 500"):
            file_forced_promotion(lab.worker, **given, **REASON | {missing: nothing})
    with lab.worker.begin() as tx:
        asked = {"kind": RequestKind.FORCE, "study_id": 1, "model_id": 4, "arguments": REASON | {missing: " "}}
        forged = requests.file_request(tx, **asked, request_key="forged")
    list(iter(Referee(lab.referee, lab.artifacts, allow_forced=True).answer_one, None))
    assert answer_of(lab.worker, forged).refused
    assert in_production(lab) is None


def test_a_forced_promotion_makes_earlier_verdicts_stale(lab: Any) -> None:
    passed = lab.gate("good").request_id
    force(lab, "worse")
    answer = lab.promote(passed)
    assert (answer.refused, answer.message.startswith("model 3 stands now")) == (True, True)


# With the referee's address, in one call.


def test_the_referees_address_moves_the_pointer_at_once(lab: Any) -> None:
    passed = lab.gate("good").request_id
    given = {"study": "full", "directly": True}
    done = [file_promotion(lab.referee, model_id=2, gate_request_id=passed, **given, request_key="p")]
    done.append(file_forced_promotion(lab.referee, model_id=3, **REASON, **given, request_key="f"))
    done.append(file_rollback(lab.referee, why="x", **given, request_key="r"))
    assert [answer_of(lab.worker, d).refused for d in done] == [False] * 3
    assert in_production(lab) == 2
    assert file_rollback(lab.referee, why="x", **given, request_key="r") == done[2]  # repeated: nothing moves
    assert lab.one("SELECT count(*) FROM work.promotions") == 3
    assert lab.answer_all() == 0


def test_what_is_refused_at_once_leaves_nothing(lab: Any) -> None:
    failed = lab.gate("rare").request_id
    with pytest.raises(StateError, match="answered 'fail'"):
        file_promotion(lab.referee, study="full", model_id=4, gate_request_id=failed, request_key="p", directly=True)
    assert lab.one("SELECT count(*) FROM work.requests WHERE kind = 'promote'") == 0


def test_a_worker_cannot_act_at_once(lab: Any) -> None:
    with pytest.raises(WrongRoleError):
        file_forced_promotion(lab.worker, study="full", model_id=4, **REASON, request_key="p", directly=True)
    assert in_production(lab) is None


FORGERIES = {
    "force": "INSERT INTO work.promotions (request_id, kind, study_id, model_id, who, why, symbol, planned) "
    "VALUES ({request}, 'force', 1, 4, {who}, {why}, NULL, NULL)",
    "rollback": "INSERT INTO work.promotions (request_id, kind, study_id, model_id, restores, symbol, planned) "
    "VALUES ({request}, 'rollback', 1, 4, {restores}, NULL, NULL)",
}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("force", {"who": "NULL", "why": "'because'"}),
        ("force", {"who": "'Ada'", "why": "' '"}),
        ("rollback", {"restores": "NULL"}),
        ("rollback", {"restores": "1"}),  # of another model
    ],
)
def test_the_schema_itself_refuses_a_move_without_its_ground(kind: str, values: dict[str, str], lab: Any) -> None:
    promote(lab, "good")
    request = file_in(lab, kind)
    with pytest.raises(StoreError, match="database refuses"), lab.referee.begin() as tx:
        tx.exec_driver_sql(FORGERIES[kind].format(request=request, **values))


def test_a_gate_request_still_answers_after_all_that(lab: Any) -> None:
    force(lab, "rare")
    filed = file_gate_request(lab.worker, study="full", model_id=2, request_key="g")
    assert lab.answer(filed).symbol == "pass"

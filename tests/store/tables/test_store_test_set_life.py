"""The life of sets as rows: states only lead forward, one live set a purpose, the oldest waiting one comes next."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import RequestKind, SealedSetPurpose, SealedSetState
from easeml_core.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError, StoreError
from easeml_core.settings.config import GateConfig, set_config
from easeml_core.store.rows import change, rows
from easeml_core.store.tables import referee_claims, requests, sealed, test_sets
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

GATE, METER = SealedSetPurpose.GATE, SealedSetPurpose.METER
ARTIFACT = "sha256:" + "0" * 64
LIFE = [str(state) for state in SealedSetState]


@pytest.fixture
def add(database: Any) -> Callable[..., int]:
    """Seal a set in a state; its id."""
    starts = itertools.count(0, 1000)

    def make(study: Any, state: str = "sealed", *, purpose: SealedSetPurpose = GATE, **more: Any) -> int:
        with database.referee.begin() as tx:
            return sealed.seal(
                tx,
                study_id=study.study_id,
                data_version_id=study.version_id,
                purpose=purpose,
                inputs=next(starts) + np.arange(10.0).reshape(5, 2),
                labels=np.zeros(5, dtype=np.int64),
                steps=2,
                plan=set_config(purpose, {}),
                state=SealedSetState(state),
                **more,
            )

    return make


def test_the_one_that_was_sealed_first_comes_next(database: Any, make_rows: Any, add: Any) -> None:
    study, other = make_rows(), make_rows("other")
    first = add(study, "live")
    add(other), add(study, purpose=METER)
    second, third = add(study), add(study)
    with database.referee.begin() as tx:
        assert test_sets.promote_oldest(tx, study.study_id, GATE) is None  # one is live
        assert test_sets.retire(tx, first, "steps")
        assert not test_sets.retire(tx, first, "by hand")
        assert test_sets.get_set(tx, first).retired_why == "steps"
        assert test_sets.promote_oldest(tx, study.study_id, GATE) == second
        assert test_sets.retire(tx, third, "by hand")
        assert test_sets.retire(tx, second, "changes")
        assert test_sets.promote_oldest(tx, study.study_id, GATE) is None
        assert test_sets.live_sets(tx) == []


def test_states_lead_forward_only(ask: Any, make_rows: Any, add: Any, database: Any) -> None:
    set_id = add(make_rows(), "planned")
    ask("SET session_replication_role = replica")  # each state is put there past the rule
    extra = {"retired": ", retired_at = now()", "released": f", retired_at = now(), artifact = '{ARTIFACT}'"}
    for before, after in itertools.product(LIFE, LIFE):
        put = extra.get(before, ", retired_at = NULL") + (", artifact = NULL" if before != "released" else "")
        ask(f"UPDATE work.test_sets SET state = '{before}'{put} WHERE id = %s", set_id)
        move = f"UPDATE work.test_sets SET state = '{after}'{extra.get(after, '')} WHERE id = :id"
        if LIFE.index(after) >= LIFE.index(before):
            with database.referee.begin() as tx:
                assert change(tx, move, id=set_id) == 1, (before, after)
            continue
        refused = pytest.raises(StateError, match=f"cannot go from {before} to {after}; a set goes from planned over")
        with refused, database.referee.begin() as tx:
            change(tx, move, id=set_id)


def test_only_what_is_released_has_an_artifact(database: Any, make_rows: Any, add: Any) -> None:
    set_id = add(make_rows())
    with pytest.raises(StoreError, match="test_sets_released_check"), database.referee.begin() as tx:
        change(tx, "UPDATE work.test_sets SET artifact = :artifact", artifact=ARTIFACT)
    with database.referee.begin() as tx:
        test_sets.release(tx, set_id, ARTIFACT)  # not retired: nothing happens
        assert test_sets.get_set(tx, set_id).state == SealedSetState.SEALED
        test_sets.retire(tx, set_id, "by hand")
        test_sets.release(tx, set_id, ARTIFACT)
        found = test_sets.get_set(tx, set_id)
        assert (found.state, found.artifact) == (SealedSetState.RELEASED, ARTIFACT)


def test_a_planned_row_is_filled_and_keeps_plan_and_steps(database: Any, make_rows: Any, add: Any) -> None:
    study = make_rows()
    with database.referee.begin() as tx:
        planned = test_sets.add_planned(
            tx,
            study_id=study.study_id,
            data_version_id=study.version_id,
            purpose=GATE,
            name="spring",
            rows=99,
            steps=2,
            plan=GateConfig(condition="n > 0.5 +/- 0.1"),
        )
        assert not sealed.is_sealed(tx, planned)
        assert test_sets.get_set(tx, planned).called == "spring"
    assert add(study, name="spring", labels_on_demand=True) == planned
    with database.referee.begin() as tx:
        found = test_sets.get_set(tx, planned)
        assert sealed.is_sealed(tx, planned)
    assert (found.rows, found.steps, found.labels_on_demand) == (5, 2, True)
    assert found.plan == GateConfig(condition="n > 0.5 +/- 0.1")


def test_a_name_is_taken_once_in_a_study(database: Any, make_rows: Any, add: Any) -> None:
    study, other = make_rows(), make_rows("other")
    first, second = add(study, name="spring"), add(other, name="spring")
    planned = {"data_version_id": study.version_id, "purpose": GATE, "rows": 1, "steps": 1, "plan": GateConfig()}
    with pytest.raises(AlreadyExistsError, match="'spring' already exists"), database.referee.begin() as tx:
        test_sets.add_planned(tx, study_id=study.study_id, name="spring", **planned)
    with pytest.raises(InvalidInputError, match="a test set's name must be"), database.referee.begin() as tx:
        test_sets.add_planned(tx, study_id=study.study_id, name="Spring ", **planned)
    with database.worker.begin() as tx:
        assert test_sets.find_set(tx, "spring", other.study_id).id == second
        assert test_sets.find_set(tx, str(first)).id == first
        assert test_sets.find_set(tx, str(first)).called == "spring"
        with pytest.raises(NotFoundError, match="several studies have one"):
            test_sets.find_set(tx, "spring")
        with pytest.raises(NotFoundError, match="see `easeml test-set list`"):
            test_sets.find_set(tx, "1e1")


def test_a_name_goes_before_a_number_unless_it_is_given_as_one(database: Any, make_rows: Any, add: Any) -> None:
    study = make_rows()
    first = add(study)
    second = add(study, name=str(first))
    with database.worker.begin() as tx:
        assert test_sets.find_set(tx, str(first)).id == second
        assert test_sets.find_set(tx, first).id == first
        with pytest.raises(NotFoundError):
            test_sets.find_set(tx, 99)


def test_steps_used_are_those_of_released_answers(world: Any, database: Any) -> None:
    with database.worker.begin() as tx:
        assert [s.steps_used for s in test_sets.list_sets(tx, world.study.study_id)] == [1, 1]


def test_models_that_were_run_are_left_out(world: Any, database: Any) -> None:
    """Production was run on the gate set, the baseline was not; on the meter set nothing was.

    What was handed in and never judged is on no list: to hand in costs nothing.
    """
    with database.referee.begin() as tx:
        study_id = world.study.study_id
        assert rows(tx, "SELECT id FROM work.models WHERE submitted")

        def unseen(set_id: int, limit: int = 9) -> list[int]:
            return [m.id for m in test_sets.unseen_models(tx, study_id, set_id, limit=limit)]

        assert unseen(world.gate_set) == [world.study.baseline_id]
        assert unseen(world.meter_set) == [world.model_id, world.study.baseline_id]
        assert unseen(world.meter_set, 1) == [world.model_id]


def test_no_model_is_unseen_while_a_living_referee_works_on_a_request_of_the_study(world: Any, database: Any) -> None:
    """Its models may be running. A claim outlasts its decision and its referee, and then holds nothing up."""

    def unseen(unless_worked_on: bool) -> list[int]:
        asked = {"limit": 9, "unless_worked_on": unless_worked_on}
        with database.referee.begin() as tx:
            return [m.id for m in test_sets.unseen_models(tx, world.study.study_id, world.meter_set, **asked)]

    found = [world.model_id, world.study.baseline_id]
    assert unseen(True) == found
    with database.referee.begin() as tx:
        referee = referee_claims.add_referee(tx, lease_seconds=60)
        asked = (
            "SELECT a.request_id FROM work.answers a JOIN work.requests r ON r.id = a.request_id WHERE study_id = :id"
        )
        decided = rows(tx, asked, id=world.study.study_id)[0].request_id
        wanted = {"kind": RequestKind.METER, "study_id": world.study.study_id, "model_id": world.model_id}
        open_one = requests.file_request(tx, arguments={}, request_key="open", **wanted)
        change(tx, "INSERT INTO sealed.claims (request_id, referee_id) VALUES (:id, :by)", id=decided, by=referee)
    assert unseen(True) == found
    with database.referee.begin() as tx:
        assert referee_claims.take(tx, open_one, referee)
    assert (unseen(True), unseen(False)) == ([], found)
    with database.referee.begin() as tx:
        referee_claims.beat(tx, referee, 0.0)
    assert unseen(True) == found


def test_the_order_is_a_function_of_secret_and_examples(database: Any, ask: Any) -> None:
    hashes = example_hashes(np.arange(400.0).reshape(200, 2), None)
    with database.referee.begin() as tx:
        order = sealed.fixed_order(tx, hashes)
        backwards = sealed.fixed_order(tx, hashes[::-1])
    assert sorted(order.tolist()) == list(range(200))
    assert [hashes[i] for i in order] == [hashes[::-1][i] for i in backwards]
    assert order.tolist() != sorted(range(200), key=hashes.__getitem__)
    ask("UPDATE sealed.installation SET secret = gen_random_uuid()")
    with database.referee.begin() as tx:
        assert sealed.fixed_order(tx, hashes).tolist() != order.tolist()


def test_a_fingerprint_knows_the_examples_and_not_their_order() -> None:
    hashes = example_hashes(np.arange(40.0).reshape(20, 2), None)
    assert sealed.fingerprint(hashes) == sealed.fingerprint(hashes[::-1]) != sealed.fingerprint(hashes[1:])

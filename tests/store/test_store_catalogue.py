"""Devices, priorities, the stamp of the catalogue, since when a study is active: what a scheduler reads, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attempts import begin_attempt

from easeml_core.entities import StudyState, TrialState
from easeml_core.store.database import savepoint
from easeml_core.store.rows import change, scalar
from easeml_core.store.tables import decisions, leases, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection


def add(tx: Connection, study: Any, candidate: int) -> int:
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    return trials.add_trial(tx, candidate_id=study.candidates[candidate], **ids)


def limit(tx: Connection, study: Any, budget: float) -> None:
    studies.change_study(tx, study.study_id, {"budget_seconds": budget})


def limit_tenant(tx: Connection, **changes: Any) -> None:
    studies.change_tenant(tx, studies.get_tenant(tx, "lab").id, changes)


def test_left_over_trials_by_priority_and_kind_of_device(store: Any, make_rows: Any) -> None:
    plain, urgent = make_rows("plain"), make_rows("urgent")
    with store.begin() as tx:
        studies.change_study(tx, urgent.study_id, {"priority": 5})
        more = [{"name": "net", "kind": "tree", "devices": ["gpu", "big-gpu"]}]
        assert studies.add_candidates(tx, plain.study_id, more) == 1
        plain.candidates = [c.id for c in studies.list_candidates(tx, plain.study_id)]
        any_kind, net, first = add(tx, plain, 0), add(tx, plain, 3), add(tx, urgent, 0)

        def found(device: str | None) -> list[int]:
            ids = [plain.study_id, urgent.study_id]
            return [t.id for t in trials.left_over_trials(tx, ids, device=device)]

        assert found(None) == found("gpu") == [first, any_kind, net]
        assert found("cpu") == found("gp") == [first, any_kind]
        trials.set_device(tx, net, "gpu")
        assert trials.get_trial(tx, net).device == "gpu"


def version(store: Any) -> int:
    with store.begin() as tx:
        return decisions.glance(tx).catalogue


def test_the_catalogue_is_stamped_once_a_transaction_that_changes_it(
    database: Any, make_rows: Any, add_data: Callable[[Any], int]
) -> None:
    store = database.worker
    study = make_rows()
    before = version(store)
    changes: list[Callable[[Connection], Any]] = [
        lambda tx: studies.add_tenant(tx, name="new"),
        lambda tx: limit_tenant(tx, max_parallel=9),
        lambda tx: limit(tx, study, 9.0),
        lambda tx: studies.set_study_state(tx, study.study_id, StudyState.PAUSED),
        lambda tx: studies.add_candidates(tx, study.study_id, [{"name": f"n{k}", "kind": "tree"} for k in range(5)]),
        lambda tx: [limit(tx, study, 8.0), limit_tenant(tx, max_parallel=8)],
    ]
    for done, one in enumerate(changes, 1):
        with store.begin() as tx:
            one(tx)
        assert version(store) == before + done
    add_data(study)
    assert version(store) == before + len(changes) + 1


def stumble_over_a_new_tenant(tx: Connection) -> None:
    studies.add_tenant(tx, name="undone")
    raise ZeroDivisionError


def test_trials_and_what_is_undone_leave_no_stamp(store: Any, make_rows: Any) -> None:
    study = make_rows()
    before = version(store)
    with store.begin() as tx:
        studies.add_tenant(tx, name="lab")  # is there already
        trial_id = add(tx, study, 0)
        attempt = begin_attempt(tx, trial_id, key="k")
        leases.finish_trial(tx, trial_id=trial_id, attempt=attempt, state=TrialState.SUCCEEDED, cost_seconds=1.0)
        with pytest.raises(ZeroDivisionError), savepoint(tx):
            stumble_over_a_new_tenant(tx)
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        stumble_over_a_new_tenant(tx)
    assert version(store) == before


def test_a_long_transaction_does_not_keep_others_from_changing_the_catalogue(database: Any, make_rows: Any) -> None:
    study = make_rows()
    before = version(database.worker)
    with database.referee.begin() as sealing:
        studies.set_study_state(sealing, study.study_id, StudyState.PAUSED)
        with database.worker.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '2s'")
            studies.add_tenant(tx, name="meanwhile")
        assert version(database.worker) == before + 1
    assert version(database.worker) == before + 2


def test_many_changes_are_folded_and_the_stamp_goes_on(database: Any, store: Any) -> None:
    with database.owner.begin() as tx:
        change(
            tx,
            "INSERT INTO work.catalogue_changes SELECT (10^12 + k)::bigint::text::xid8 FROM generate_series(1, 1000) k",
        )
    before = version(store)
    with store.begin() as tx:
        studies.add_tenant(tx, name="one-more")
    with store.begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.catalogue_changes") == 1
    assert version(store) == before + 1


def test_a_study_knows_since_when_it_is_active(store: Any, make_rows: Any) -> None:
    study = make_rows()
    since = "SELECT active_since FROM work.studies WHERE id = :id"
    with store.begin() as tx:
        first = scalar(tx, since, id=study.study_id)
        assert first is not None
        studies.set_study_state(tx, study.study_id, StudyState.PAUSED)
        assert scalar(tx, since, id=study.study_id) == first
        studies.set_study_state(tx, study.study_id, StudyState.ACTIVE)
        again = scalar(tx, since, id=study.study_id)
        assert again > first
        studies.change_study(tx, study.study_id, {"priority": 3, "weight": 7.0})
        assert scalar(tx, since, id=study.study_id) == again

"""More was taken than a limit allows, since measuring anew is never refused: only what takes more still is refused."""

from __future__ import annotations

from typing import Any

import pytest
from attempts import begin_attempt

from easeml_core.entities import TrialState
from easeml_core.errors import BudgetExhaustedError, ConcurrentUpdateError
from easeml_core.store.rows import scalar
from easeml_core.store.tables import capacity, leases, studies, trials

MEASURED = (
    "INSERT INTO work.trials (study_id, candidate_id, data_version_id, state, started_at, finished_at, cost_seconds, "
    "reevaluates) SELECT study_id, %s, data_version_id, 'SUCCEEDED', now(), now(), %s, id FROM work.trials "
    "WHERE id = %s"
)


@pytest.fixture
def overrun(store: Any, make_rows: Any, ask: Any) -> tuple[Any, int]:
    """A study with 10 s taken and 5 s reserved, of 20; then 50 s of measuring. The id of the open trial."""
    study = make_rows(candidates=4)
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    with store.begin() as tx:
        studies.change_study(tx, study.study_id, {"budget_seconds": 20.0})
        studies.change_tenant(tx, studies.get_tenant(tx, "lab").id, {"quota_seconds": 30.0, "max_parallel": 3})
        done = trials.add_trial(tx, candidate_id=study.candidates[0], limit_seconds=10.0, **ids)
        attempt = begin_attempt(tx, done, key="k")
        ended = {"attempt": attempt, "state": TrialState.SUCCEEDED, "cost_seconds": 10.0}
        assert leases.finish_trial(tx, trial_id=done, **ended)
        waiting = trials.add_trial(tx, candidate_id=study.candidates[1], limit_seconds=5.0, **ids)
    ask(MEASURED, study.candidates[2], 50.0, done)
    return study, waiting


def test_nothing_is_left_and_never_less(overrun: Any, store: Any) -> None:
    with store.begin() as tx:
        assert scalar(tx, "SELECT sum(work.charge(t)) FROM work.trials t") == 65.0
        assert capacity.seconds_left(tx, overrun[0].study_id) == 0.0


def test_a_reservation_may_shrink_and_may_not_grow(overrun: Any, store: Any) -> None:
    _, waiting = overrun
    with store.begin() as tx:
        capacity.reserve(tx, waiting, 4.0)
    with pytest.raises(BudgetExhaustedError), store.begin() as tx:
        capacity.reserve(tx, waiting, 4.000001)
    with pytest.raises(ConcurrentUpdateError), store.begin() as tx:  # as if the budget were new
        capacity.reserve(tx, waiting, None)


def test_no_trial_is_added(overrun: Any, store: Any) -> None:
    study, _ = overrun
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    with pytest.raises(BudgetExhaustedError, match="compute budget of study 'cancer': 66 of 20"), store.begin() as tx:
        trials.add_trial(tx, candidate_id=study.candidates[3], limit_seconds=1.0, **ids)


ALLOWED = [
    ("study", {"budget_seconds": 20.0}),
    ("study", {"budget_seconds": 21.0}),  # raised, and less than what is taken
    ("study", {"budget_seconds": None}),
    ("study", {"priority": 3}),
    ("tenant", {"quota_seconds": 30.0}),
    ("tenant", {"quota_seconds": 31.0}),
    ("tenant", {"quota_seconds": None}),
    ("tenant", {"max_parallel": 1}),  # one is open: nothing is wrong with it but the quota
    ("tenant", {"max_parallel": 7, "quota_seconds": 30.0}),
    ("tenant", {"weight": 2.0}),
]


def change(tx: Any, study: Any, whose: str, wanted: dict[str, Any]) -> None:
    if whose == "study":
        studies.change_study(tx, study.study_id, wanted)
    else:
        studies.change_tenant(tx, studies.get_tenant(tx, "lab").id, wanted)


def test_what_takes_no_more_is_allowed(overrun: Any, store: Any) -> None:
    for whose, wanted in ALLOWED:
        with store.begin() as tx:
            change(tx, overrun[0], whose, wanted)
            tx.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
            tx.get_transaction().rollback()  # each by itself


REFUSED = [
    ("study", {"budget_seconds": 19.0}, "compute budget of study 'cancer': 65 of 19"),
    ("tenant", {"quota_seconds": 29.0}, "quota of tenant 'lab': 65 of 29"),
    ("tenant", {"quota_seconds": 29.0, "max_parallel": 5}, "quota of tenant 'lab': 65 of 29"),
]


def test_a_limit_that_is_lowered_below_what_is_taken_is_refused(overrun: Any, store: Any) -> None:
    for whose, wanted, words in REFUSED:
        with pytest.raises(BudgetExhaustedError, match=words), store.begin() as tx:
            change(tx, overrun[0], whose, wanted)


def test_a_limit_that_was_taken_away_comes_back_only_where_it_holds(overrun: Any, store: Any) -> None:
    study, _ = overrun
    for whose, name in (("study", "budget_seconds"), ("tenant", "quota_seconds")):
        with store.begin() as tx:
            change(tx, study, whose, {name: None})
        with pytest.raises(BudgetExhaustedError), store.begin() as tx:
            change(tx, study, whose, {name: 64.0})
        with store.begin() as tx:
            change(tx, study, whose, {name: 65.0})


def test_a_budget_is_not_held_against_the_quota_of_its_tenant(overrun: Any, store: Any) -> None:
    study, _ = overrun
    with store.begin() as tx:
        change(tx, study, "study", {"budget_seconds": 100.0})
        change(tx, study, "study", {"budget_seconds": 70.0})  # lowered, and beyond the quota of 30

"""What is written down of a rung, and which trials teach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attempts import begin_attempt

from easeml_core.entities import TrialState
from easeml_core.store.tables import leases, models, trials

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("torch_mlp",)
DECISION = trials.RungDecision(
    rung=1, step=3, of=27, quality=0.5, hoped=0.6, needed=0.9, known=12, rule="gains", goes_on=False
)


@pytest.fixture
def study(make_rows: Callable[..., Any], database: Any) -> Any:
    found = make_rows()
    with database.owner.begin() as tx:
        from easeml_core.store.rows import change

        change(tx, "UPDATE work.candidates SET kind = 'torch_mlp' WHERE study_id = :id", id=found.study_id)
    return found


@pytest.fixture
def begin(database: Any, study: Any) -> Callable[..., int]:
    """A running trial of a candidate that has told these qualities, epoch by epoch."""

    def make(candidate: int, qualities: list[float | None], *, of: int = 10) -> int:
        ids = {"study_id": study.study_id, "data_version_id": study.version_id}
        with database.worker.begin() as tx:
            trial_id = trials.add_trial(tx, candidate_id=study.candidates[candidate], **ids)
            begin_attempt(tx, trial_id, key="w")
            points = [
                trials.CurvePoint(step=step, of=of, quality=quality, loss=1.0, seconds=float(step))
                for step, quality in enumerate(qualities, start=1)
            ]
            trials.add_points(tx, trial_id, points)
        return trial_id

    return make


def succeed(tx: Any, trial_id: int, quality: float) -> None:
    leases.finish_trial(tx, trial_id=trial_id, attempt=1, state=TrialState.SUCCEEDED, cost_seconds=1.0)
    models.add_observation(tx, trial_id=trial_id, quality=quality, cost_seconds=1.0)


def decide(tx: Any, trial_id: int, *, attempt: int = 1, **changes: Any) -> None:
    trials.add_decision(tx, trial_id=trial_id, attempt=attempt, decision=replace(DECISION, **changes))


def test_a_rung_is_decided_once_and_by_whoever_holds_the_lease(database: Any, begin: Any) -> None:
    trial_id = begin(0, [0.5])
    with database.worker.begin() as tx:
        assert trials.decision_at(tx, trial_id, 1) is None
        decide(tx, trial_id, attempt=2)  # it has another attempt's number
        assert trials.decision_at(tx, trial_id, 1) is None
        decide(tx, trial_id)
        decide(tx, trial_id, goes_on=True, hoped=0.95)
        decide(tx, trial_id, rung=2, goes_on=True, hoped=None, needed=None, known=0)
        assert trials.decision_at(tx, trial_id, 1) == DECISION
        assert [(answer.rung, answer.goes_on) for answer in trials.decisions_of(tx, trial_id)] == [
            (1, False),
            (2, True),
        ]
        leases.release_lease(tx, trial_id)
        decide(tx, trial_id, rung=3)
        assert trials.decision_at(tx, trial_id, 3) is None


def test_ended_trials_teach_and_those_that_a_rung_stopped_do_not(database: Any, begin: Any, study: Any) -> None:
    first, second, third = begin(0, [0.2, 0.3, 0.4, 0.6]), begin(1, [0.1, 0.2, None]), begin(2, [0.5, 0.6, 0.7], of=3)
    here = {"study_id": study.study_id, "kinds": KINDS}

    def taught(share: float, **changes: Any) -> list[tuple[float, float, bool]]:
        with database.worker.begin() as tx:
            return sorted(ended[:3] for ended in trials.ended_after(tx, share=share, **{**here, **changes}))

    assert taught(0.1) == []  # they all run
    with database.worker.begin() as tx:
        assert trials.best_of_study(tx, study_id=study.study_id, data_version_id=study.version_id) is None
        decide(tx, third, goes_on=True, hoped=0.95)
        for trial_id, quality in ((first, 0.7), (second, 0.8), (third, 0.9)):
            succeed(tx, trial_id, quality)
        assert trials.best_of_study(tx, study_id=study.study_id, data_version_id=study.version_id) == 0.9
        assert trials.best_of_study(tx, study_id=study.study_id, data_version_id=-1) is None
    assert taught(0.1) == [(0.1, 0.8, True), (0.2, 0.7, True), (0.5, 0.9, True)]
    assert taught(0.3) == [(0.4, 0.7, True), (0.5, 0.9, True)]  # the second told no quality there
    assert taught(0.34) == [(0.6, 0.7, True), (0.6, 0.9, True)]  # the fourth of ten epochs, the second of three
    assert taught(0.9) == [(0.7, 0.9, True)]
    assert taught(0.1, study_id=-1) == [(0.1, 0.8, False), (0.2, 0.7, False), (0.5, 0.9, False)]
    assert taught(0.1, kinds=("command",)) == []
    with database.worker.begin() as tx:
        averages = {ended.final: ended.average for ended in trials.ended_after(tx, share=0.3, **here)}
    assert averages == {0.7: pytest.approx((0.2 + 0.3 + 0.4) / 3), 0.9: 0.5}


def test_a_stopped_trial_teaches_nothing(database: Any, begin: Any, study: Any) -> None:
    trial_id = begin(0, [0.5] * 3)
    with database.worker.begin() as tx:
        decide(tx, trial_id)
        succeed(tx, trial_id, 0.5)
        assert trials.ended_after(tx, study_id=study.study_id, kinds=KINDS, share=0.1) == []
        assert trials.best_of_study(tx, study_id=study.study_id, data_version_id=study.version_id) == 0.5

"""Which studies are still to be refreshed, trained and released after they were fed, whatever became of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fed_rows import as_pairs, bring, new_rows, renew
from sklearn.linear_model import LogisticRegression

from easeml_core.entities import Executor, TrialState
from easeml_core.models.formats import save_constant
from easeml_core.services.datasets.feed import studies_that_wait
from easeml_core.services.registration.register import pause_study
from easeml_core.services.studies.limits import set_study
from easeml_core.store.tables import leases, studies, trials

if TYPE_CHECKING:
    from pathlib import Path


def fail_all(lab: Any, study: str) -> None:
    """Let every candidate have a failed trial on the study's newest data."""
    with lab.worker.begin() as tx:
        found = studies.get_study(tx, study)
        version = studies.latest_data_version(tx, found.id)
        made = [
            trials.add_trial(tx, candidate_id=candidate.id, study_id=found.id, data_version_id=version.id)
            for candidate in studies.list_candidates(tx, found.id)
        ]
    for trial in made:
        assert studies_that_wait(lab.worker) == [study]  # while one has not ended
        with lab.worker.begin() as tx:
            executor = Executor(trials.get_trial(tx, trial).implementation, "test")
            attempt = leases.start_trial(tx, trial_id=trial, lease_key="t", lease_seconds=60, executor=executor)
            ended: dict[str, Any] = {"trial_id": trial, "attempt": attempt, "state": TrialState.FAILED}
            assert leases.finish_trial(tx, cost_seconds=1.0, failure="a test", **ended)


@pytest.fixture
def fed(lab: Any) -> Any:
    """A study that was fed, and whose data the referee has refreshed after the run had given up waiting."""
    bring(lab, as_pairs(*new_rows(4)))
    assert renew(lab).version == 2
    return lab


def test_a_study_is_listed_until_its_new_data_are_trained_on_and_the_best_model_is_released(
    fed: Any, tmp_path: Path
) -> None:
    assert studies_that_wait(fed.worker) == ["full"]
    fail_all(fed, "full")
    assert studies_that_wait(fed.worker) == []  # all candidates have failed: there is nothing to release
    save_constant(tmp_path / "rare", 0)
    model = fed.hand_in("full", "late", tmp_path / "rare", kind="constant", loss=0.5)
    assert studies_that_wait(fed.worker) == ["full"]  # as where the run ended before it was judged
    assert fed.gate(model).symbol == "fail"
    assert studies_that_wait(fed.worker) == []
    better = fed.hand_in("full", "better", fed.fit(LogisticRegression(), tmp_path / "b"), kind="skops", loss=0.02)
    verdict = fed.gate(better)
    assert (verdict.symbol, studies_that_wait(fed.worker)) == ("pass", ["full"])
    fed.promote(verdict.request_id, better)
    assert studies_that_wait(fed.worker) == []
    bring(fed, as_pairs(*new_rows(1, seed=2)))
    assert studies_that_wait(fed.worker) == ["full"]


def test_a_study_whose_search_has_ended_or_is_paused_is_not_listed_for_candidates_that_stay_untried(fed: Any) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    for ends in ({"deadline": past}, {"budget_seconds": 3.0}):
        set_study(fed.worker, study="full", **ends)
        assert studies_that_wait(fed.worker) == []
        set_study(fed.worker, study="full", **dict.fromkeys(ends))
        assert studies_that_wait(fed.worker) == ["full"]
    pause_study(fed.worker, study="full", paused=True)
    assert studies_that_wait(fed.worker) == []


def test_a_study_that_has_reached_its_target_waits_for_its_verdict_alone(fed: Any, tmp_path: Path) -> None:
    set_study(fed.worker, study="full", target_quality=0.5)
    save_constant(tmp_path / "rare", 0)
    model = fed.hand_in("full", "late", tmp_path / "rare", kind="constant", loss=0.4)
    assert studies_that_wait(fed.worker) == ["full"]
    fed.gate(model)
    assert studies_that_wait(fed.worker) == []

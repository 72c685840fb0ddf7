"""The referee's work without requests, which delays no request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.sealed_runs import at_once
from easeml_core.services.referee import housekeeping
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.services.referee.housekeeping import Housekeeper
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_forced_promotion, file_gate_request
from easeml_core.services.reports.assessments import assess_changes, shorten_log
from easeml_core.services.test_sets.lifecycle import reevaluation_steps
from easeml_core.store.queries import assessments
from easeml_core.store.tables import models, sealed

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def moved(monkeypatch: Any) -> list[Any]:
    """Calls to move the tags."""
    calls: list[Any] = []
    monkeypatch.setattr(housekeeping, "sync_bundle_tags", lambda store, where: calls.append(dict(where)))
    return calls


def test_tags_are_looked_at_once_and_after_every_move(lab: Any, moved: list[Any], tmp_path: Path) -> None:
    idle_work = Housekeeper(lab.referee, lab.artifacts, RefereeLease(lab.referee), {"dags": tmp_path})
    for _ in range(3):
        idle_work.work()
    assert moved == [{"dags": tmp_path}]
    words = {"who": "Ada", "why": "holidays", "request_key": "f", "directly": True}
    file_forced_promotion(lab.referee, study="full", model_id=4, **words)  # by another process
    for _ in range(3):
        idle_work.work()
    assert moved == [{"dags": tmp_path}] * 2


def test_without_repositories_no_tag_is_looked_at(lab: Any, moved: list[Any]) -> None:
    Housekeeper(lab.referee, lab.artifacts, RefereeLease(lab.referee), {}).work()
    assert moved == []


def test_a_referee_moves_tags_after_a_promotion(lab: Any, moved: list[Any], tmp_path: Path) -> None:
    words = {"study": "full", "model_id": 4, "who": "Ada", "why": "holidays", "request_key": "f"}
    file_forced_promotion(lab.worker, **words)
    assert Referee(lab.referee, lab.artifacts, allow_forced=True, repositories={"dags": tmp_path}).run_once() == 1
    assert moved == [{"dags": tmp_path}]


def test_a_set_learns_the_models_of_the_past_and_requests_come_first(lab: Any) -> None:
    lab.as_superuser("DELETE FROM sealed.predictions WHERE model LIKE 'constant %' AND test_set_id = 1")
    known = "SELECT count(*) FROM sealed.predictions WHERE test_set_id = 1 AND model LIKE 'constant %'"
    assert lab.one(known) == 0
    assert Referee(lab.referee, lab.artifacts).run_once() == 0
    assert lab.one(known) == 1  # the baseline; the other constant was never judged
    asked = {"study": "full", "model_id": lab.models["full"]["rare"], "request_key": "g"}
    file_gate_request(lab.worker, **asked)
    assert Referee(lab.referee, lab.artifacts).run_once() == 1
    assert lab.one(known) == 2


def test_the_log_of_changed_studies_stays_short_without_a_page(lab: Any, monkeypatch: Any) -> None:
    count = "SELECT count(*) FROM work.study_changes"
    assess_changes(lab.worker)
    monkeypatch.setattr(assessments, "MOST_CHANGES", 100)
    for rows, left in ((99, 99), (1, 0)):  # a short log is left to the next page
        lab.as_superuser(f"INSERT INTO work.study_changes SELECT 1 FROM generate_series(1, {rows})")
        Referee(lab.referee, lab.artifacts, upkeep=shorten_log).run_once()
        assert lab.one(count) == left


def test_what_cannot_be_run_is_logged_and_left_for_later(lab: Any, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(housekeeping, "reevaluation_steps", lambda *_, **__: 1 / 0)
    idle_work = Housekeeper(lab.referee, lab.artifacts, RefereeLease(lab.referee), {})
    assert [idle_work.work() for _ in range(3)] == [False] * 3
    assert caplog.text.count("of the past") == 1


def test_where_no_model_is_left_to_run_no_look_follows_at_once(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def none_left(*_: Any, **__: Any) -> Generator[None, None, int]:
        asked.append(1)
        yield from ()
        return 0

    monkeypatch.setattr(housekeeping, "reevaluation_steps", none_left)
    idle_work = Housekeeper(lab.referee, lab.artifacts, RefereeLease(lab.referee), {})
    for _ in range(3):
        idle_work.work()
    assert asked == [1]


def test_who_gives_labels_does_not_wait_for_a_model_of_the_past(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may sleep as long as it may run. And what another referee has kept of it meanwhile stays."""
    lab.as_superuser("DELETE FROM sealed.predictions WHERE model LIKE 'constant %' AND test_set_id = 1")

    def run(artifacts: Any, model: Any, inputs: Any, task: Any) -> Any:
        with lab.referee.begin() as tx:
            assert tx.exec_driver_sql("SELECT 1 FROM work.test_sets WHERE id = 1 FOR UPDATE NOWAIT").scalar() == 1
            sealed.keep_predictions(tx, 1, model.identity, labels=np.zeros(len(inputs), dtype=np.int64), failure=None)
        return np.ones(len(inputs), dtype=np.int64), None

    monkeypatch.setattr(sealed_runs, "run_model", run)
    assert at_once(reevaluation_steps(lab.referee, lab.artifacts, 1)) == 1
    with lab.referee.begin() as tx:
        baseline = models.baseline_model(tx, 1)
        assert not sealed.known_predictions(tx, 1, baseline.identity)[baseline.identity].labels.any()

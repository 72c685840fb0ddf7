"""One trial from its claim to its end: really trained, counted once, ended with a reason whatever happens."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event
from waiting import heard

from easeml_core.errors import ArtifactError, InvalidInputError, NotFoundError, TrialStateError
from easeml_core.models.formats import load_predictor
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials import execution as service
from easeml_core.services.trials.attempts import hand_back
from easeml_core.services.trials.execution import (
    cancel_trial,
    claim,
    finished_trial,
    record_failure,
    record_success,
    run_trial,
    trial_details,
    trial_state,
)
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import CHANNEL
from easeml_core.store.listen import BlockingListener
from easeml_core.store.rows import unpack
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def trial_of(lab: Any, candidate: str, study: str = "full") -> int:
    """The id of a fresh trial of this candidate."""
    suggested = suggest_trials(lab.worker, count=20, studies_only=[study], request_key=lab.key())
    return next(t.trial_id for t in suggested.trials if t.candidate == candidate)


def only_trial(lab: Any, **study: Any) -> int:
    """The id of the one trial of a study made for it."""
    lab.register("only", **study)
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["only"], request_key=lab.key()).trials
    return int(trial.trial_id)


def counted(lab: Any, trial_id: int) -> tuple[int, int, int]:
    """How many observations, models and kept predictions there are of the trial."""
    return (
        lab.one("SELECT count(*) FROM work.observations WHERE trial_id = :id", id=trial_id),
        lab.one("SELECT count(*) FROM work.models WHERE trial_id = :id", id=trial_id),
        lab.one(
            "SELECT count(*) FROM work.predictions p JOIN work.models m ON m.id = p.model_id WHERE m.trial_id = :id",
            id=trial_id,
        ),
    )


@pytest.fixture
def no_training(monkeypatch: Any) -> None:
    """A training in this test fails it."""

    def run_job(*_: Any, **__: Any) -> None:
        pytest.fail("nothing may be trained here")

    monkeypatch.setattr(service, "run_job", run_job)


def result(lab: Any, folder: Path, **changes: Any) -> TrainingResult:
    """What a training process could have left."""
    (folder / "model").write_text('{"label": 1}')
    made = TrainingResult(0.9, 2.0, folder / "model", "constant", np.zeros(85, dtype=np.int64))
    return dataclasses.replace(made, **changes)


def test_a_trial_is_trained_for_real_and_recorded(lab: Any) -> None:
    trial_id, lines = trial_of(lab, "decision_tree"), list[str]()
    with BlockingListener(lab.worker.dsn, CHANNEL) as listener:
        report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w", log=lines.append)
        assert heard(listener, f"trial:{trial_id}", "study:full")  # for pages and waiters
    assert report == trial_state(lab.worker, trial_id=trial_id) == finished_trial(lab.worker, trial_id=trial_id)
    assert (report.state, report.study, report.candidate) == ("SUCCEEDED", "full", "decision_tree")
    assert report.failure is None
    assert report.cost_seconds > 0
    assert trial_details(lab.worker, trial_id=trial_id).start_seconds > 0  # a process was started
    assert counted(lab, trial_id) == (1, 1, 1)
    assert any("fitting decision_tree on 174 rows" in line for line in lines)

    ((artifact, kind, loss),) = lab.rows(
        "SELECT artifact, format, validation_loss FROM work.models WHERE id = :id", id=report.model_id
    )
    parts = lab.open_parts()
    predicted = load_predictor(lab.artifacts.path(artifact), kind).predict(parts.validation_inputs)
    assert report.quality == pytest.approx(float(np.mean(predicted == parts.validation_labels)), abs=1e-12)
    assert loss == pytest.approx(1 - report.quality, abs=1e-12)
    kept = unpack(lab.one("SELECT labels FROM work.predictions WHERE model_id = :id", id=report.model_id))
    assert np.array_equal(kept, predicted)


@pytest.mark.usefixtures("no_training")
def test_a_finished_trial_is_reported_and_not_repeated(lab: Any) -> None:
    report = trial_state(lab.worker, trial_id=1)
    for key in ("hand-in", "another worker"):
        assert run_trial(lab.worker, lab.artifacts, trial_id=1, request_key=key) == report
    assert counted(lab, 1)[0] == 1


@pytest.mark.usefixtures("no_training")
def test_another_worker_is_refused_while_the_lease_lives(lab: Any) -> None:
    trial_id = trial_of(lab, "decision_tree")
    claim(lab.worker, trial_id=trial_id, request_key="w1")
    with pytest.raises(TrialStateError, match=f"trial {trial_id} is RUNNING on another worker, this step needs it"):
        run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w2")


def test_a_retry_takes_over_its_own_lease_and_the_first_attempt_is_fenced_off(lab: Any, tmp_path: Path) -> None:
    trial_id = trial_of(lab, "decision_tree")
    first = claim(lab.worker, trial_id=trial_id, request_key="w")
    second = claim(lab.worker, trial_id=trial_id, request_key="w")
    assert (first.attempt, second.attempt) == (1, 2)
    first.beat()
    assert first.should_stop()  # the zombie learns of it at its next heartbeat
    for late in (
        lambda: record_success(lab.worker, lab.artifacts, first, result(lab, tmp_path)),
        lambda: record_failure(lab.worker, first, "too late"),
    ):
        with pytest.raises(TrialStateError, match="taken over by another attempt, this step needs it to be RUNNING in"):
            late()
    assert counted(lab, trial_id) == (0, 0, 0)
    record_success(lab.worker, lab.artifacts, second, result(lab, tmp_path))
    assert counted(lab, trial_id) == (1, 1, 1)
    with pytest.raises(TrialStateError):
        record_success(lab.worker, lab.artifacts, second, result(lab, tmp_path))
    assert counted(lab, trial_id) == (1, 1, 1)


def test_a_lease_that_is_over_can_be_taken_by_anybody(lab: Any) -> None:
    trial_id = trial_of(lab, "decision_tree")
    first = claim(lab.worker, trial_id=trial_id, request_key="w1")
    lab.let_run_out(trial_id)
    assert claim(lab.worker, trial_id=trial_id, request_key="w2").attempt == 2
    first.beat()
    assert first.lost


def test_a_heartbeat_extends_the_lease_and_stores_the_progress(lab: Any) -> None:
    trial_id = trial_of(lab, "decision_tree")
    lease = claim(lab.worker, trial_id=trial_id, request_key="w")
    lab.let_run_out(trial_id)
    lease.progress({"progress": 0.5, "quality": float("nan")})
    lease.beat()
    assert not lease.should_stop()
    row = lab.rows("SELECT lease_until > now(), progress FROM work.trials WHERE id = :id", id=trial_id)
    assert row == [(True, {"progress": 0.5, "quality": None})]


@pytest.mark.usefixtures("no_training")
def test_after_three_attempts_the_trial_has_failed(lab: Any) -> None:
    trial_id = trial_of(lab, "decision_tree")
    for _ in range(3):
        claim(lab.worker, trial_id=trial_id, request_key="w")
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w")
    assert (report.state, report.failure) == ("FAILED", "its worker was lost 3 times")


DIVERGING = {"name": "net", "kind": "torch_mlp", "parameters": {"learning_rate": 1e30, "epochs": 1}}


def test_a_trainer_that_cannot_is_a_failed_trial_with_reason_and_cost(lab: Any) -> None:
    trial_id = only_trial(lab, candidates=[DIVERGING])
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w")
    assert report.state == "FAILED"
    assert report.failure.startswith("torch_mlp diverged: the loss of epoch 1 is nan; lower learning_rate")
    assert report.cost_seconds > 0
    assert report.quality is report.model_id is None
    assert counted(lab, trial_id) == (0, 0, 0)


@pytest.mark.cold  # the start of the child takes longer than the limit
def test_a_trial_that_takes_too_long_is_a_failed_one(lab: Any) -> None:
    trial_id = only_trial(lab, training={"time_limit_seconds": 0.2})
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w")
    assert report.state == "FAILED"
    assert "0.2 s" in report.failure
    assert report.cost_seconds >= 0.2


@pytest.mark.usefixtures("no_training")
def test_a_waiting_trial_is_cancelled_at_once(lab: Any) -> None:
    trial_id = trial_of(lab, "decision_tree")
    for _ in range(2):
        assert cancel_trial(lab.worker, trial_id=trial_id).state == "CANCELLED"
    assert run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w").state == "CANCELLED"


@pytest.mark.cold  # a warm child may end before the heartbeat
def test_a_running_trial_is_cancelled_at_its_next_heartbeat(lab: Any, wait_for: Any) -> None:
    trial_id = only_trial(lab, training={"lease_seconds": 0.8})
    ended: list[Any] = []

    def work() -> None:
        ended.append(run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="w"))

    worker = threading.Thread(target=work)
    worker.start()
    wait_for(lambda: trial_state(lab.worker, trial_id=trial_id).state == "RUNNING")
    assert finished_trial(lab.worker, trial_id=trial_id) is None
    cancel_trial(lab.worker, trial_id=trial_id)
    worker.join(timeout=30)
    (report,) = ended
    assert (report.state, report.failure) == ("CANCELLED", None)
    assert report.cost_seconds > 0  # the seconds it took are paid for
    assert counted(lab, trial_id) == (0, 0, 0)


@pytest.mark.usefixtures("no_training")
def test_a_finished_trial_cannot_be_cancelled(lab: Any) -> None:
    assert cancel_trial(lab.worker, trial_id=1).state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quality": float("nan")}, r"quality must be a number in \[0, 1\], which NaN is not, got nan"),
        ({"quality": 1.5}, r"quality must be a number in \[0, 1\], which NaN is not, got 1.5"),
        ({"quality": -0.1}, r"quality must be a number in \[0, 1\], which NaN is not, got -0.1"),
        ({"cost_seconds": -1.0}, r"cost_seconds must be > 0 and <= 1e9, got -1.0"),
        ({"cost_seconds": 0.0}, r"cost_seconds must be > 0 and <= 1e9, got 0.0"),
        ({"cost_seconds": float("nan")}, r"cost_seconds must be > 0 and <= 1e9, got nan"),
    ],
)
def test_no_quality_or_cost_that_is_none_ever_enters(changes: Any, words: str, lab: Any, tmp_path: Path) -> None:
    trial_id = trial_of(lab, "decision_tree")
    lease = claim(lab.worker, trial_id=trial_id, request_key="w")
    with pytest.raises(InvalidInputError, match=words):
        record_success(lab.worker, lab.artifacts, lease, result(lab, tmp_path, **changes))
    assert counted(lab, trial_id) == (0, 0, 0)
    assert trial_state(lab.worker, trial_id=trial_id).state == "RUNNING"  # nothing of it was written
    record_failure(lab.worker, lease, "no usable result")
    assert trial_state(lab.worker, trial_id=trial_id).state == "FAILED"


def test_an_unknown_trial_is_reported_with_what_to_do(lab: Any) -> None:
    for look in (
        lambda: run_trial(lab.worker, lab.artifacts, trial_id=99, request_key="w"),
        lambda: cancel_trial(lab.worker, trial_id=99),
        lambda: finished_trial(lab.worker, trial_id=99),
    ):
        with pytest.raises(NotFoundError, match="there is no trial 99; list them with `easeml study show STUDY`"):
            look()


def test_a_wrong_artifact_folder_is_reported_and_costs_no_candidate(lab: Any, tmp_path: Path) -> None:
    trial_id = trial_of(lab, "decision_tree")
    with pytest.raises(ArtifactError, match=r"is missing under .*is this the folder that the workers use"):
        run_trial(lab.worker, ArtifactStore(tmp_path / "elsewhere"), trial_id=trial_id, request_key="w")
    assert trial_state(lab.worker, trial_id=trial_id).state == "RUNNING"  # until its lease is over: to be given again


def sent(lab: Any, end: Callable[[], None]) -> list[str]:
    """The statements of a trial's end, each by its first words, with what the wait for other ends is made of as one."""
    found: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append("in turn" if "work.locks" in statement else " ".join(statement.split()[:3]))

    event.listen(lab.worker._engine, "before_cursor_execute", heard)
    try:
        end()
    finally:
        event.remove(lab.worker._engine, "before_cursor_execute", heard)
    return found


def test_while_others_wait_an_end_writes_only_what_needs_its_time(lab: Any, tmp_path: Path) -> None:
    """Each statement under the lock lets every other end wait for a trip to the server: 64 waited up to nine seconds.

    The rest is written before; a result that is not counted is not written then either.
    """
    suggested = suggest_trials(lab.worker, count=3, request_key=lab.key()).trials
    lease, lost, over = (claim(lab.worker, trial_id=trial.trial_id, request_key="w") for trial in suggested)
    lease.progress({"step": 1, "quality": 0.5})
    statements = sent(lab, lambda: record_success(lab.worker, lab.artifacts, lease, result(lab, tmp_path)))
    before, after = statements[: statements.index("in turn")], statements[statements.index("in turn") + 1 :]
    assert after == ["UPDATE work.trials t", "INSERT INTO work.observations"]
    assert {"INSERT INTO work.models", "INSERT INTO work.predictions", "INSERT INTO work.curves"} <= set(before)
    assert counted(lab, lease.trial.id) == (1, 1, 1)
    statements = sent(lab, lambda: record_failure(lab.worker, lost, "it crashed"))
    assert statements[statements.index("in turn") + 1 :] == ["UPDATE work.trials t"]
    hand_back(lab.worker, trial_id=over.trial.id, request_key="w")
    with pytest.raises(TrialStateError):
        record_success(lab.worker, lab.artifacts, over, result(lab, tmp_path))
    assert counted(lab, over.trial.id) == (0, 0, 0)

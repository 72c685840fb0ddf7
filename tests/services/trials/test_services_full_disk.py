"""A disk that is full while a trial trains delays the trial; in the end it is a failure of the task.

The candidate is not used up by it.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from registering import register_study
from sklearn.tree import DecisionTreeClassifier

from easeml_core.errors import ArtifactError, TrainingMachineError, is_put_off
from easeml_core.sandbox import child_protocol, process
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials import execution
from easeml_core.services.trials.attempts import run_function_trial
from easeml_core.services.trials.execution import run_trial
from easeml_core.services.trials.worker import run_device
from easeml_core.store.artifacts import disk
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.training import child

if TYPE_CHECKING:
    from pathlib import Path

FULL = OSError(errno.ENOSPC, "No space left on device")


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


CANDIDATES = [{"name": "tree", "kind": "decision_tree"}]


@pytest.fixture
def trial(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(execution, "PAUSES", (0.0,))
    lab.register("disk", candidates=CANDIDATES)
    asked = {"count": 1, "studies_only": ["disk"], "request_key": lab.key()}
    return suggest_trials(lab.worker, **asked).trials[0]


@pytest.mark.parametrize("where", ["staging", "folder"])
def test_a_full_disk_is_no_failure_of_the_candidate(
    lab: Any, monkeypatch: pytest.MonkeyPatch, trial: Any, where: str
) -> None:
    with monkeypatch.context() as patch:
        if where == "staging":
            patch.setattr(ArtifactStore, "staged", failing(FULL))
        else:
            patch.setattr(tempfile, "TemporaryDirectory", failing(FULL))
        report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w")
    assert (report.state, report.failure) == (
        "FAILED",
        "this machine cannot train now: no space left on device",
    )
    query = "SELECT failure_kind FROM work.trials WHERE id = :id"
    assert lab.one(query, id=trial.trial_id) == "task"


def test_training_and_sealing_wait_for_room_and_nothing_is_used_up(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.register("disk", candidates=[{"name": "tree", "kind": "decision_tree"}])
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["disk"], request_key=lab.key()).trials
    seal = register_study(lab.worker, tenant="new", study="new", source="sklearn:iris", request_key=lab.key())
    states = list[str]()

    def make_room(_: float) -> None:
        states.append(lab.one("SELECT state FROM work.trials WHERE id = :id", id=trial.trial_id))
        monkeypatch.setenv(disk.VARIABLE, "0")

    monkeypatch.setattr(disk, "time", SimpleNamespace(sleep=make_room))
    monkeypatch.setenv(disk.VARIABLE, "100%")
    assert lab.answer_all() == 1  # put off
    assert answer_of(lab.worker, seal.request_id) is None
    assert lab.rows("SELECT bounded, reason FROM sealed.put_offs") == [(False, "ENOSPC")]
    lines = list[str]()
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w", log=lines.append)
    assert states == ["SUGGESTED"]
    assert (report.state, lab.one("SELECT attempt FROM work.trials WHERE id = :id", id=trial.trial_id)) == (
        "SUCCEEDED",
        1,
    )
    assert lines[0].startswith("waiting for room: ")
    earlier = "put_off_at = put_off_at - interval '1 h', until = until - interval '1 h'"
    lab.as_superuser(f"UPDATE sealed.put_offs SET {earlier}")
    assert lab.answer(seal.request_id).kind == "seal"


def test_a_checkpoint_outlives_a_store_that_is_away(lab: Any, monkeypatch: pytest.MonkeyPatch, trial: Any) -> None:
    """It is forgotten only where its file is gone."""
    saved, query = "sha256:" + "0" * 64, "SELECT checkpoint FROM work.trials WHERE id = :id"
    given = "checkpoint = %s, checkpoint_seconds = 7, checkpoint_progress = 0.5"
    lab.as_superuser(f"UPDATE work.trials SET {given} WHERE id = %s", saved, trial.trial_id)
    files_of, seen = execution.files_of, list[Any]()

    def away_once(*given: Any) -> ArtifactStore:
        seen.append(lab.one(query, id=trial.trial_id))
        if len(seen) == 1:
            message = "the artifacts cannot be read"
            raise ArtifactError(message) from OSError(errno.ESTALE, "Stale file handle")
        return files_of(*given)

    monkeypatch.setattr(execution, "files_of", away_once)
    assert run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w").state == "SUCCEEDED"
    assert seen == [saved, saved]


def test_a_disk_that_has_room_again_loses_no_trial(lab: Any, monkeypatch: pytest.MonkeyPatch, trial: Any) -> None:
    """A model could not be stored: the trial is handed back, does not count as lost, and succeeds in the end."""
    put, calls = ArtifactStore._put, list[Any]()

    def full_twice(store: Any, path: Path) -> str:
        calls.append(path)
        if len(calls) <= 2:
            raise FULL
        return put(store, path)

    monkeypatch.setattr(ArtifactStore, "_put", full_twice)
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w")
    assert report.state == "SUCCEEDED"
    assert lab.rows("SELECT attempt, excused FROM work.trials WHERE id = :id", id=trial.trial_id) == [(3, 2)]
    assert lab.one("SELECT count(*) FROM work.observations WHERE trial_id = :id", id=trial.trial_id) == 1


def test_a_device_that_pauses_for_its_disk_can_be_stopped(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.register("disk", candidates=CANDIDATES)
    monkeypatch.setattr(execution, "PAUSES", (600.0,))
    monkeypatch.setattr(ArtifactStore, "_put", failing(FULL))
    paused: list[str] = []
    summary = run_device(
        lab.worker,
        lab.artifacts,
        device=None,
        request_key="d",
        studies_only=["disk"],
        log=lambda line: paused.append(line) if "tries again in 600 s" in line else None,
        should_stop=lambda: bool(paused),
    )
    assert (summary.reason, summary.handed_back is None) == ("stopped", False)
    assert lab.one("SELECT state FROM work.trials WHERE id = :id", id=summary.handed_back) == "SUGGESTED"


def test_a_disk_that_was_full_in_the_child_loses_no_trial(
    lab: Any, monkeypatch: pytest.MonkeyPatch, trial: Any
) -> None:
    run_job, calls = execution.run_job, list[Any]()

    def full_once(job: Any, **how: Any) -> Any:
        calls.append(job)
        if len(calls) == 1:
            raise TrainingMachineError(FULL.strerror)
        return run_job(job, **how)

    monkeypatch.setattr(execution, "run_job", full_once)
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w")
    assert report.state == "SUCCEEDED"
    assert lab.rows("SELECT attempt, excused FROM work.trials WHERE id = :id", id=trial.trial_id) == [(2, 1)]


@pytest.mark.parametrize(("times", "ended"), [(1, ("SUCCEEDED", None, 2)), (99, ("FAILED", "task", 13))])
def test_a_training_function_that_meets_a_full_disk_is_tried_again(
    lab: Any, monkeypatch: pytest.MonkeyPatch, times: int, ended: tuple[str, str | None, int]
) -> None:
    monkeypatch.setattr(execution, "PAUSES", (0.0,))
    lab.register("disk", candidates=[{"name": "own", "kind": "function", "parameters": {"k": 1}}])
    asked = {"count": 1, "studies_only": ["disk"], "functions": ["own"], "request_key": lab.key()}
    (trial,) = suggest_trials(lab.worker, **asked).trials
    calls = list[int]()

    def own(data: Any, parameters: Any, report: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise FULL
        return DecisionTreeClassifier(max_depth=2, random_state=0).fit(data.train_inputs, data.train_labels)

    run_function_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w", function=own)
    query = "SELECT state, failure_kind, attempt FROM work.trials WHERE id = :id"
    assert lab.rows(query, id=trial.trial_id) == [ended]


def test_a_training_function_whose_bucket_is_away_is_tried_again(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PAUSES", (0.0,))
    lab.register("disk", candidates=[{"name": "own", "kind": "function"}])
    asked = {"count": 1, "studies_only": ["disk"], "functions": ["own"], "request_key": lab.key()}
    (trial,) = suggest_trials(lab.worker, **asked).trials
    staged, calls = ArtifactStore.staged, list[str]()

    def away_once(store: Any, reference: str, *given: Any) -> Any:
        calls.append(reference)
        if len(calls) == 1:
            message = "the artifact cannot be had"
            raise ArtifactError(message) from ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return staged(store, reference, *given)

    monkeypatch.setattr(ArtifactStore, "staged", away_once)

    def own(data: Any, *_: Any) -> Any:
        return DecisionTreeClassifier(max_depth=2, random_state=0).fit(data.train_inputs, data.train_labels)

    run_function_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w", function=own)
    query = "SELECT state, attempt, excused FROM work.trials WHERE id = :id"
    assert lab.rows(query, id=trial.trial_id) == [("SUCCEEDED", 2, 1)]


@pytest.mark.parametrize(("error", "passing"), [(FULL, True), (OSError(errno.ENOENT, "no such file"), None)])
def test_the_child_says_that_the_disk_was_at_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, error: OSError, passing: bool | None
) -> None:
    job = tmp_path / "job.json"
    job.write_text("{}")
    monkeypatch.setattr(child_protocol, "prepare", lambda _: None)
    monkeypatch.setattr(child, "take_stdout", lambda: os.open(os.devnull, os.O_WRONLY))
    monkeypatch.setattr(child, "report_to", lambda _: None)
    monkeypatch.setattr(child.TrainingJob, "from_json", lambda _: SimpleNamespace(kind="constant", devices=1))
    monkeypatch.setattr(child, "run", failing(error))
    with pytest.raises(SystemExit if passing else OSError):
        child.main(["1", str(job)])
    if passing:
        said = capsys.readouterr().err
        assert json.loads(said.splitlines()[-1]) == {"reason": "no space left on device", "passing": True}
        found = process._failure(child_protocol.REASON_STATUS, said)
        assert isinstance(found, TrainingMachineError)
        assert not is_put_off(found)  # the referee believes no child

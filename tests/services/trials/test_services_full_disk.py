"""A disk that is full while a trial trains is a failure of the task: the candidate is not used up by it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.sandbox import child_guard
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial
from easeml_core.training import child

if TYPE_CHECKING:
    from pathlib import Path

FULL = OSError(errno.ENOSPC, "No space left on device")


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("where", ["staging", "folder"])
def test_a_full_disk_is_no_failure_of_the_candidate(lab: Any, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    lab.register("disk", candidates=[{"name": "tree", "kind": "decision_tree"}])
    asked = {"count": 1, "studies_only": ["disk"], "request_key": lab.key()}
    (trial,) = suggest_trials(lab.worker, **asked).trials
    with monkeypatch.context() as patch:
        if where == "staging":
            patch.setattr(lab.artifacts.__class__, "staged", failing(FULL))
        else:
            patch.setattr(tempfile, "TemporaryDirectory", failing(FULL))
        report = run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="w")
    assert (report.state, report.failure) == (
        "FAILED",
        "this machine cannot train now: no space left on device",
    )
    query = "SELECT failure_kind FROM work.trials WHERE id = :id"
    assert lab.one(query, id=trial.trial_id) == "task"


@pytest.mark.parametrize(("error", "of_task"), [(FULL, True), (OSError(errno.ENOENT, "no such file"), None)])
def test_the_child_says_that_the_disk_was_at_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, error: OSError, of_task: bool | None
) -> None:
    job = tmp_path / "job.json"
    job.write_text("{}")
    monkeypatch.setattr(child_guard, "prepare", lambda _: None)
    monkeypatch.setattr(child, "take_stdout", lambda: os.open(os.devnull, os.O_WRONLY))
    monkeypatch.setattr(child, "report_to", lambda _: None)
    monkeypatch.setattr(child.TrainingJob, "from_json", lambda _: SimpleNamespace(kind="constant"))
    monkeypatch.setattr(child, "run", failing(error))
    with pytest.raises(SystemExit if of_task else OSError):
        child.main(["1", str(job)])
    if of_task:
        assert json.loads(capsys.readouterr().err.splitlines()[-1])["of_task"] is True

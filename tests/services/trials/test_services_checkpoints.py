"""Trainings killed with 9 in the middle: the next attempt goes on from the checkpoint, and its cost counts once."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from easeml_core.errors import ArtifactError
from easeml_core.sandbox.process import is_alive
from easeml_core.services.reports.overview import study_details
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.limits import set_study
from easeml_core.services.trials import lease as leases
from easeml_core.services.trials.execution import cancel_trial, claim, run_trial, train, trial_details
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.tables.leases import checkpoint_of
from easeml_core.store.tables.trials import TrialReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.store.tables.decisions import SuggestedTrial

pytestmark = pytest.mark.journey

EPOCHS = 300
TASK = """
import sys
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
url, artifacts, trial_id = sys.argv[1:]
run_trial(Store(url), ArtifactStore(artifacts), trial_id=int(trial_id), request_key="task", log=print)
"""
CHILD = "easeml_core.training.child"
SAVED = "SELECT checkpoint_progress FROM work.trials WHERE id = :id"


@pytest.fixture
def register(lab: Any) -> Callable[..., int]:
    """A trial of a network of many short epochs, with a checkpoint after each of them."""

    def make(epochs: int = EPOCHS, **training: Any) -> int:
        parameters = {"epochs": epochs, "hidden_width": 8, "batch_size": 16}
        settings = {"lease_seconds": 1.0, "checkpoint_seconds": 0.0, "early_stopping": False} | training
        candidates = [{"name": "net", "kind": "torch_mlp", "parameters": parameters}]
        lab.register("net", training=settings, candidates=candidates)
        set_study(lab.worker, study="net", budget_seconds=700.0)
        (trial,) = suggest(lab)
        return int(trial.trial_id)

    return make


def suggest(lab: Any) -> Sequence[SuggestedTrial]:
    return list(suggest_trials(lab.worker, count=1, studies_only=["net"], request_key=lab.key()).trials)


def account(lab: Any, trial_id: int) -> dict[str, Any]:
    names = (
        "state", "attempt", "cost_seconds", "start_seconds", "lost_seconds", "resumed_seconds", "limit_seconds",
        "checkpoint",
    )  # fmt: skip
    (row,) = lab.rows(f"SELECT {', '.join(names)} FROM work.trials WHERE id = :id", id=trial_id)
    return dict(zip(names, row, strict=True))


def require_counted_once(lab: Any, trial_id: int, began: float) -> None:
    """The trial has ended well in its second attempt, and all it took counts once: less than all there was of time."""
    found, curve = account(lab, trial_id), trial_details(lab.worker, trial_id=trial_id).curve
    assert (found["state"], found["attempt"], found["checkpoint"]) == ("SUCCEEDED", 2, None)
    assert 0 < found["resumed_seconds"] < found["cost_seconds"]
    charged = found["cost_seconds"] + found["start_seconds"] + found["lost_seconds"]
    assert charged <= min(found["limit_seconds"], time.monotonic() - began)
    assert lab.one("SELECT cost_seconds FROM work.observations WHERE trial_id = :id", id=trial_id) == pytest.approx(
        found["cost_seconds"]
    )
    assert lab.one("SELECT count(*) FROM work.models WHERE trial_id = :id", id=trial_id) == 1
    summary = study_details(lab.worker, study="net").summary
    assert summary.device_seconds == pytest.approx(charged)
    assert summary.reserved_seconds == 0.0
    assert [point.step for point in curve] == list(range(1, EPOCHS + 1))
    assert not (lab.artifacts.root / "checkpoints" / str(trial_id)).exists()


def resumed_after(lines: list[str]) -> int:
    """After which epoch an attempt went on, from its log; and nothing before it was trained again."""
    (note,) = [line for line in lines if "going on after epoch" in line]
    epoch = int(note.partition("after epoch ")[2].split()[0])
    after = [int(line.partition(": epoch ")[2].split()[0]) for line in lines[lines.index(note) :] if ": epoch " in line]
    assert min(after) > epoch >= 1
    return epoch


def test_a_killed_child_ends_its_attempt_and_the_next_goes_on(lab: Any, register: Any, wait_for: Any) -> None:
    trial_id, lines, ended = register(), list[str](), list[TrialReport]()
    began = time.monotonic()

    def work() -> None:
        answer = {"trial_id": trial_id, "request_key": "task", "log": lines.append}
        ended.append(run_trial(lab.worker, lab.artifacts, **answer))

    task = threading.Thread(target=work)
    task.start()
    saved = wait_for(lambda: lab.one(SAVED, id=trial_id))
    (child,) = [p for p in psutil.Process().children(recursive=True) if CHILD in p.cmdline()]
    child.kill()
    task.join(60)
    assert [report.state for report in ended] == ["SUCCEEDED"]
    assert any("attempt 1 is over, the process was ended by SIGKILL" in line for line in lines)
    assert resumed_after(lines) >= round((saved - 0.1) / 0.7 * EPOCHS)
    require_counted_once(lab, trial_id, began)


def test_a_killed_task_takes_its_child_along_and_the_next_goes_on(
    lab: Any, register: Any, start: Any, child_of: Any, wait_for: Any
) -> None:
    trial_id, began = register(), time.monotonic()
    task = start("-c", TASK, lab.url("easeml_worker"), str(lab.artifacts.root), str(trial_id))
    saved = wait_for(lambda: lab.one(SAVED, id=trial_id))
    child = child_of(task)
    task.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(child))

    (again,) = wait_for(lambda: suggest(lab))  # as soon as the lease is over
    assert again.trial_id == trial_id
    assert again.reason.endswith("its worker was lost in attempt 1")
    before, lines = account(lab, trial_id), list[str]()
    answer = {"trial_id": trial_id, "request_key": "another task", "log": lines.append}
    assert run_trial(lab.worker, lab.artifacts, **answer).state == "SUCCEEDED"
    assert resumed_after(lines) >= round((saved - 0.1) / 0.7 * EPOCHS)
    after = account(lab, trial_id)
    assert 0 < after["lost_seconds"] == before["lost_seconds"] < time.monotonic() - began
    require_counted_once(lab, trial_id, began)
    assert suggest(lab) == []  # it is never given a third time


def test_a_killed_worker_is_started_again_and_goes_on(
    lab: Any, register: Any, start: Any, child_of: Any, wait_for: Any
) -> None:
    trial_id, began = register(), time.monotonic()
    command = ("-m", "easeml_core.cli", "device", "run", "--database", lab.url("easeml_worker"), "--study", "net")
    command = (*command, "--artifacts", str(lab.artifacts.root), "--request-key", "worker", "--max-trials", "1")
    lab.let_run_out(trial_id)  # it was reserved for the first caller
    worker = start(*command)
    wait_for(lambda: lab.one(SAVED, id=trial_id))
    child = child_of(worker)
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(child))

    lines = start(*command, "--slot", "cpu", stderr=subprocess.STDOUT).communicate(timeout=90)[0].splitlines()
    resumed_after(lines)
    require_counted_once(lab, trial_id, began)
    assert any("1 trial (1 succeeded)" in line for line in lines)


def test_a_checkpoint_that_is_gone_costs_time_and_no_result(lab: Any, register: Any, wait_for: Any) -> None:
    trial_id, lines = register(epochs=30), list[str]()
    lease = claim(lab.worker, trial_id=trial_id, request_key="a")
    path = lab.artifacts.root.parent / "saved"
    path.write_bytes(b"no checkpoint at all")
    lease.started -= 5.0
    lab.as_superuser("UPDATE work.trials SET attempt_started_at = now() - interval '5 s' WHERE id = %s", trial_id)
    lease.keep(lab.artifacts, path, seconds=3.0, progress=0.5)
    lease.finish_upload()
    with lab.worker.begin() as tx:
        assert checkpoint_of(tx, trial_id)[1:] == (3.0, 0.5)
    lab.let_run_out(trial_id)
    lab.as_superuser("UPDATE work.trials SET lease_until = attempt_started_at + interval '4 s' WHERE id = %s", trial_id)

    report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="b", log=lines.append)
    assert report.state == "SUCCEEDED"
    assert any("beginning anew: the checkpoint cannot be read" in line for line in lines)
    found = account(lab, trial_id)
    assert found["lost_seconds"] == pytest.approx(4.0)  # a second that was never saved, and three that were for nothing
    assert found["resumed_seconds"] == 0.0
    assert len(trial_details(lab.worker, trial_id=trial_id).curve) == 30


def test_a_checkpoint_whose_file_is_missing_is_forgotten_before_training(lab: Any, register: Any) -> None:
    trial_id, lines = register(epochs=2), list[str]()
    nowhere = "sha256:" + "0" * 64
    lab.as_superuser(
        "UPDATE work.trials SET checkpoint = %s, checkpoint_seconds = 7, checkpoint_progress = 0.5 WHERE id = %s",
        nowhere,
        trial_id,
    )
    assert run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="a", log=lines.append).quality > 0
    assert any(f"beginning anew: artifact {nowhere} is missing" in line for line in lines)
    found = account(lab, trial_id)
    assert (found["lost_seconds"], found["resumed_seconds"]) == (7.0, 0.0)


def test_only_the_attempt_that_holds_the_lease_records_a_checkpoint(lab: Any, register: Any) -> None:
    trial_id = register()
    first = claim(lab.worker, trial_id=trial_id, request_key="a")
    second = claim(lab.worker, trial_id=trial_id, request_key="a")
    path = lab.artifacts.root.parent / "saved"
    for content, lease in (("second", second), ("first", first)):
        path.write_text(content)
        lease.keep(lab.artifacts, path, seconds=1.0, progress=0.5)
        lease.finish_upload()
    assert (first.lost, second.lost) == (True, False)
    with lab.worker.begin() as tx:
        reference = checkpoint_of(tx, trial_id).reference
    files = lab.artifacts.part("checkpoints", str(trial_id))
    assert files.path(reference).read_text() == "second"
    path.write_text("newer")
    second.keep(lab.artifacts, path, seconds=2.0, progress=0.6)
    second.finish_upload()
    kept = sorted(p.read_text() for p in files.root.rglob("*") if p.is_file())
    assert kept == ["first", "newer"]  # what the other attempt left goes with the folder

    assert cancel_trial(lab.worker, trial_id=trial_id).state == "RUNNING"
    second.beat()
    assert second.should_stop()
    train(lab.worker, lab.artifacts, second)
    assert account(lab, trial_id)["state"] == "CANCELLED"
    assert not files.root.exists()


def test_work_that_leads_to_no_result_is_lost_whoever_ends_the_trial(lab: Any, register: Any) -> None:
    trial_id = register()
    lab.as_superuser(
        "UPDATE work.trials SET checkpoint = 'sha256:' || repeat('a', 64), checkpoint_seconds = 7, "
        "checkpoint_progress = 0.5, lost_seconds = 2 WHERE id = %s",
        trial_id,
    )
    assert cancel_trial(lab.worker, trial_id=trial_id).state == "CANCELLED"
    found = account(lab, trial_id)
    assert (found["lost_seconds"], found["cost_seconds"], found["checkpoint"]) == (9.0, None, None)
    assert study_details(lab.worker, study="net").summary.device_seconds == 9.0


def test_a_cancel_is_seen_by_the_next_look_however_long_the_lease(lab: Any, register: Any, monkeypatch: Any) -> None:
    trial_id, polls = register(lease_seconds=3600.0), 0
    lease = claim(lab.worker, trial_id=trial_id, request_key="a")
    now = [time.monotonic()]
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert not lease.should_stop()
    cancel_trial(lab.worker, trial_id=trial_id)
    while not lease.should_stop():
        now[0] += 0.2  # as often as a training process is looked at
        polls += 1
    assert polls in (4, 5)  # a second, of which the claim has taken a part
    assert lease.cancelled
    assert not lease.lost


def test_of_many_epochs_a_second_one_is_logged_and_all_are_kept(lab: Any, register: Any, monkeypatch: Any) -> None:
    trial_id, lines = register(), list[str]()
    lease = claim(lab.worker, trial_id=trial_id, request_key="a", log=lines.append)
    now = [time.monotonic()]
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for step in range(1, 41):
        now[0] += 0.25
        lease.progress({"note": f"epoch {step} of 40", "step": step, "of": 40, "loss": 0.5, "seconds_left": 12.3})
    lease.progress({"note": "saved", "peak_mb": 512.25})
    assert [line.partition(" epoch ")[2].split()[0] for line in lines[:-1]] == [
        *("1", "5", "9", "13", "17", "21", "25", "29", "33", "37"),
        "40",  # the last one always
    ]
    assert lines[0] == f"trial {trial_id}: epoch 1 of 40, loss 0.5, about 12 s left"
    assert lines[-1] == f"trial {trial_id}: saved, peak mb 512.2"
    lease.beat()
    assert len(trial_details(lab.worker, trial_id=trial_id).curve) == 40


def test_an_attempt_that_lost_its_lease_tells_nothing(lab: Any, register: Any) -> None:
    trial_id = register()
    first = claim(lab.worker, trial_id=trial_id, request_key="a")
    claim(lab.worker, trial_id=trial_id, request_key="a")
    first.progress({"step": 1, "of": 3, "loss": 0.5})
    first.beat()
    assert first.lost
    assert trial_details(lab.worker, trial_id=trial_id).curve == ()


def test_the_curve_and_the_memory_are_there_for_people(lab: Any, register: Any) -> None:
    trial_id = register(epochs=3)
    lines: list[str] = []
    run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="a", log=lines.append)
    details = trial_details(lab.worker, trial_id=trial_id)
    assert [point.of for point in details.curve] == [3, 3, 3]
    assert all(0 <= point.quality <= 1 and point.loss > 0 for point in details.curve)
    seconds = [point.seconds for point in details.curve]
    assert seconds == sorted(seconds)
    assert details.progress["peak_mb"] > 50
    assert any("epoch 3 of 3, quality" in line for line in lines)
    assert (details.state, details.attempt, details.lost_seconds) == ("SUCCEEDED", 1, 0.0)


def test_a_place_that_is_slow_or_full_keeps_no_heartbeat_waiting(lab: Any, register: Any, monkeypatch: Any) -> None:
    trial_id, lines, may_go_on = register(), list[str](), threading.Event()
    lease = claim(lab.worker, trial_id=trial_id, request_key="a", log=lines.append)
    put = ArtifactStore.put

    def slow(store: ArtifactStore, path: Any) -> str:
        assert may_go_on.wait(30)
        if "full" in Path(path).read_text():
            message = "the disk is full"
            raise ArtifactError(message)
        return put(store, path)

    monkeypatch.setattr(ArtifactStore, "put", slow)
    path = lab.artifacts.root.parent / "saved"
    for number, content in enumerate(["first", "passed over"], start=1):
        path.unlink(missing_ok=True)  # as a child does: a new file in the place of the old one
        path.write_text(content)
        lease.keep(lab.artifacts, path, seconds=number / 1000, progress=number / 10)
    assert not lease.should_stop()  # while it is under way
    may_go_on.set()
    lease.finish_upload()
    with lab.worker.begin() as tx:
        found = checkpoint_of(tx, trial_id)
    assert found.progress == 0.1
    files = lab.artifacts.part("checkpoints", str(trial_id))
    assert files.path(found.reference).read_text() == "first"

    path.unlink()
    path.write_text("full")
    lease.keep(lab.artifacts, path, seconds=1.0, progress=0.9)
    lease.finish_upload()
    assert any("checkpoint not kept, training goes on (the disk is full)" in line for line in lines)
    with lab.worker.begin() as tx:
        assert checkpoint_of(tx, trial_id) == found

"""Real processes killed or frozen in the middle of their work: nothing is lost, nothing is counted or spent twice."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.sandbox.process import is_alive
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.reports.overview import study_details
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.limits import set_study
from easeml_core.services.trials.execution import expire_leases, run_trial, trial_details, trial_state

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from easeml_core.store.tables.decisions import SuggestedTrial

pytestmark = pytest.mark.journey

WORKER = """
import sys
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
url, artifacts, trial_id = sys.argv[1:]
run_trial(Store(url), ArtifactStore(artifacts), trial_id=int(trial_id), request_key="the first worker")
"""


@pytest.fixture
def trial_id(lab: Any) -> int:
    """A trial of a study whose leases are short."""
    lab.register("short", training={"lease_seconds": 1.0}, candidates=[{"name": "tree", "kind": "decision_tree"}])
    (trial,) = suggest(lab)
    return int(trial.trial_id)


def suggest(lab: Any) -> list[SuggestedTrial]:
    asked = {"count": 5, "studies_only": ["short"], "request_key": lab.key()}
    return list(suggest_trials(lab.worker, **asked).trials)


def work(start: Any, lab: Any, trial_id: int) -> subprocess.Popen[str]:
    worker = start("-c", WORKER, lab.url("easeml_worker"), str(lab.artifacts.root), str(trial_id))
    return worker


def referee_command(lab: Any, tmp_path: Path, *, delay: int = 0) -> list[str]:
    command = [
        "-m",
        "easeml_core.cli",
        "referee",
        "--database",
        lab.url("easeml_referee"),
        "--answer-delay",
        str(delay),
    ]
    return [*command, "--artifacts", str(lab.artifacts.root), "--keys", str(tmp_path / "keys")]


def next_referees(lab: Any, tmp_path: Path, *, delay: float = 0.0) -> list[int]:
    """How many requests each of two further referees handles."""
    given: dict[str, Any] = {"keys": tmp_path / "keys", "timetable": Timetable(delay)}
    return [Referee(lab.referee, lab.artifacts, **given).run_once() for _ in range(2)]


def counts(lab: Any, trial_id: int) -> tuple[int, ...]:
    of_trial = ("observations", "models")
    return tuple(lab.one(f"SELECT count(*) FROM work.{t} WHERE trial_id = :id", id=trial_id) for t in of_trial)


def test_a_worker_killed_under_a_budget_has_used_what_it_ran_until_its_last_heartbeat(
    lab: Any, trial_id: int, start: Any, child_of: Any, wait_for: Any
) -> None:
    set_study(lab.worker, study="short", budget_seconds=700.0)  # the trial that waits reserves 601 s of them
    worker = work(start, lab, trial_id)
    wait_for(lambda: child_of(worker))
    worker.send_signal(signal.SIGKILL)
    worker.wait(60)
    began, beat = lab.rows("SELECT attempt_started_at, beat_at FROM work.trials WHERE id = :id", id=trial_id)[0]
    wait_for(lambda: suggest(lab))
    held, limit = lab.rows("SELECT lost_seconds, limit_seconds FROM work.trials WHERE id = :id", id=trial_id)[0]
    assert held == pytest.approx((beat - began).total_seconds(), abs=1e-3)
    assert limit == pytest.approx(601.0 + held)
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="the second worker")
    assert report.state == "SUCCEEDED"
    seen = study_details(lab.worker, study="short").summary
    charged = held + report.cost_seconds + trial_details(lab.worker, trial_id=trial_id).start_seconds
    assert (seen.device_seconds, seen.reserved_seconds) == (pytest.approx(charged), 0.0)


def test_a_worker_that_was_frozen_comes_too_late(
    lab: Any, trial_id: int, start: Any, child_of: Any, wait_for: Any
) -> None:
    worker = work(start, lab, trial_id)
    wait_for(lambda: child_of(worker))
    worker.send_signal(signal.SIGSTOP)
    assert wait_for(lambda: expire_leases(lab.worker)) == [trial_id]
    report = run_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key="the second worker")

    worker.send_signal(signal.SIGCONT)
    _, complaint = worker.communicate(timeout=60)
    assert worker.returncode != 0
    assert f"TrialStateError: trial {trial_id} is taken over by another attempt" in complaint
    assert trial_state(lab.worker, trial_id=trial_id) == report
    assert counts(lab, trial_id) == (1, 1)


def large_model(lab: Any, tmp_path: Path) -> int:
    """It takes half a second to load, so that its process is seen also where every core is busy."""
    from sklearn.ensemble import RandomForestClassifier

    large = RandomForestClassifier(n_estimators=250, random_state=0)
    return int(lab.hand_in("full", "new", lab.fit(large, tmp_path / "new"), kind="skops", loss=0.1))


def test_a_referee_killed_in_the_middle_of_a_verdict(
    lab: Any, start: Any, child_of: Any, wait_for: Any, tmp_path: Path
) -> None:
    model_id = large_model(lab, tmp_path)
    asked = file_gate_request(lab.worker, study="full", model_id=model_id, request_key="night/1")
    referee = start(*referee_command(lab, tmp_path))
    model = wait_for(lambda: child_of(referee, "easeml_core.models.predict_child"))
    referee.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(model))
    lab.end_leases()

    assert answer_of(lab.worker, asked) is None
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0  # nothing was spent
    assert file_gate_request(lab.worker, study="full", model_id=model_id, request_key="night/1") == asked
    assert next_referees(lab, tmp_path) == [1, 0]
    answer = answer_of(lab.worker, asked)
    assert answer.message == "step 1 of 3: pass"
    assert not answer.cached
    assert lab.rows("SELECT step, request_id FROM sealed.ledger") == [(1, asked)]


def test_a_referee_killed_in_the_middle_of_a_run_while_another_one_is_alive(
    lab: Any, start: Any, child_of: Any, wait_for: Any, tmp_path: Path
) -> None:
    """The other one leaves the request alone as long as the first lives, and repeats its run when it does not."""
    model_id = large_model(lab, tmp_path)
    asked = file_gate_request(lab.worker, study="full", model_id=model_id, request_key="night/1")
    command = (*referee_command(lab, tmp_path), "--poll", "1", "--workers", "2")
    killed = start(*command)
    model = wait_for(lambda: child_of(killed, "easeml_core.models.predict_child"))
    model.suspend()  # a model that takes its time
    other = start(*command)
    elsewhere = file_gate_request(lab.worker, study="first", model_id=lab.models["first"]["good"], request_key="2")
    wait_for(lambda: answer_of(lab.worker, elsewhere))
    assert child_of(other, "easeml_core.models.predict_child") is None
    killed.send_signal(signal.SIGKILL)
    lab.end_leases()  # instead of waiting for it; the one that lives extends its own
    assert wait_for(lambda: answer_of(lab.worker, asked)).message == "step 1 of 3: pass"
    assert lab.rows("SELECT step, request_id FROM sealed.ledger WHERE request_id = :id", id=asked) == [(1, asked)]
    attempts = "SELECT count(*) FROM sealed.attempts WHERE NOT survived AND request_id = :id"
    assert lab.one(attempts, id=asked) == 2  # the killed one, and the one that decided


def test_a_referee_killed_while_a_run_is_padded(
    lab: Any, start: Any, child_of: Any, wait_for: Any, tmp_path: Path
) -> None:
    """Nothing shows yet that the model has run; the next referee runs and pads it again, and counts it once."""
    model_id = large_model(lab, tmp_path)
    asked = file_gate_request(lab.worker, study="full", model_id=model_id, request_key="night/1")
    referee, kept = (
        start(*referee_command(lab, tmp_path, delay=3600)),
        lab.one("SELECT count(*) FROM sealed.predictions"),
    )
    wait_for(lambda: child_of(referee, "easeml_core.models.predict_child"), 180)
    wait_for(lambda: child_of(referee, "easeml_core.models.predict_child") is None)
    referee.send_signal(signal.SIGKILL)
    referee.wait(60)
    lab.end_leases()

    assert lab.one("SELECT count(*) FROM sealed.predictions") == kept
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0
    assert next_referees(lab, tmp_path, delay=3600.0) == [1, 0]
    assert lab.rows("SELECT step, request_id FROM sealed.ledger") == [(1, asked)]
    assert lab.one("SELECT count(*) FROM sealed.predictions") > kept


@pytest.mark.nightly  # by day in test_services_answers.py, with a referee that is left alone after its decision
def test_a_referee_killed_between_a_decision_and_its_answer(
    lab: Any, start: Any, wait_for: Any, tmp_path: Path
) -> None:
    asked = file_gate_request(lab.worker, study="full", model_id=2, request_key="night/1")
    referee = start(*referee_command(lab, tmp_path, delay=3600))
    wait_for(lambda: lab.one("SELECT count(*) FROM sealed.outbox WHERE request_id = :id", id=asked))
    referee.send_signal(signal.SIGKILL)
    referee.wait(60)

    assert answer_of(lab.worker, asked) is None
    assert lab.one("SELECT count(*) FROM work.gate_verdicts") == 0
    lab.as_superuser("UPDATE sealed.outbox SET leaves_at = now() WHERE left_at IS NULL")  # an hour later
    assert next_referees(lab, tmp_path, delay=3600.0) == [1, 0]
    assert answer_of(lab.worker, asked).message == "step 1 of 3: pass"
    assert lab.rows("SELECT step, request_id FROM sealed.ledger") == [(1, asked)]

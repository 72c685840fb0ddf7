"""At a rung a hopeless network is ended and a good one goes on, by what other tenants' trials have taught."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import StoreUnavailableError
from easeml_core.services.reports.decision import explain_trial
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials import rungs as service
from easeml_core.services.trials.execution import claim, record_success, run_trial, trial_details
from easeml_core.services.trials.rungs import Ladder
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.services.trials.lease import Lease
    from easeml_core.store.tables.trials import RungDecision

SETTINGS = {"rungs": [0.01, 0.3], "early_stopping": False, "checkpoint_seconds": 1e6}
SMALL = {"hidden_width": 8, "batch_size": 4}
EPOCHS = 1000
HOPELESS = {"name": "hopeless", "kind": "torch_mlp", "parameters": {**SMALL, "epochs": EPOCHS, "learning_rate": 1e-7}}
GOOD = {"name": "good", "kind": "torch_mlp", "parameters": {**SMALL, "epochs": 40, "learning_rate": 0.01}}
DIES = """
import os, signal, sys
from easeml_core.services.trials import rungs
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
decide = rungs.Ladder._decide
def die(self, *told, **given):
    decide(self, *told, **given)
    os.kill(os.getpid(), signal.SIGKILL)
rungs.Ladder._decide = die
url, artifacts, trial_id = sys.argv[1:]
run_trial(Store(url), ArtifactStore(artifacts), trial_id=int(trial_id), request_key="w")
"""
TREE = {"name": "tree", "kind": "decision_tree"}


def claimed(lab: Any, study: str, candidate: str) -> Lease:
    """Claim the trial of a candidate."""
    lease = claim(lab.worker, trial_id=trial_of(lab, study, candidate), request_key="w")
    assert lease is not None
    return lease


@pytest.fixture(scope="module")
def template(
    server: Any, all_databases: Any, furnished: Any, template_maker: Any, tmp_path_factory: Any
) -> Iterator[Any]:
    """Seven networks of another tenant gained little after both rungs, and one of study ``net`` has reached .95."""
    original, _ = furnished
    lab, folder = template_maker(server, original.name, original.artifacts), tmp_path_factory.mktemp("rungs")
    names = [f"net-{k}" for k in range(7)]
    candidates = [{"name": name, "kind": "torch_mlp", "parameters": {"epochs": 10}} for name in names]
    lab.register("teacher", tenant="another", source="sklearn:digits", candidates=candidates, training=SETTINGS)
    for name in names:
        lease = claimed(lab, "teacher", name)
        for step in (1, 3):
            lease.progress({"step": step, "of": 10, "quality": 0.5})
        end(lab, lease, folder, quality=0.8)
    best = {"name": "best", "kind": "torch_mlp"}
    lab.register("net", candidates=[best, HOPELESS, GOOD, TREE], training=SETTINGS)
    end(lab, claimed(lab, "net", "best"), folder, quality=0.95)
    lab.close()
    yield lab
    all_databases.forget(lab.name)
    server.drop_database(lab.name)


@pytest.fixture
def taught(databases: Any, template: Any, lab_opener: Any) -> Iterator[Any]:
    """A copy of it."""
    lab = lab_opener(databases, template.name, template.artifacts)
    lab.models, lab._keys = template.models, template._keys  # no key is used twice
    yield lab
    lab.end()


def trial_of(lab: Any, study: str, candidate: str) -> int:
    suggest_trials(lab.worker, count=20, studies_only=[study], request_key=lab.key())
    find = "SELECT t.id FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
    find += "JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study AND c.name = :candidate"
    return int(lab.one(find, study=study, candidate=candidate))


def end(lab: Any, lease: Lease, folder: Path, *, quality: float) -> None:
    """As a training process would have ended it."""
    (folder / "model").write_text('{"label": 1}')
    predictions = np.zeros(len(lab.open_parts(lease.trial.study).validation_labels), dtype=np.int64)
    result = TrainingResult(quality, 1.0, folder / "model", "constant", predictions)
    record_success(lab.worker, lab.artifacts, lease, result)


def at_rung(ladder: Ladder, quality: float, *, step: int = 10, of: int = EPOCHS) -> bool:
    """Tell of an epoch; whether the rest of them is wanted."""
    ladder.progress({"step": step, "of": of, "quality": quality})
    return not ladder.is_over()


@pytest.mark.journey
def test_a_hopeless_network_ends_at_a_rung_with_a_model_like_any_other(taught: Any) -> None:
    trial_id, lines = trial_of(taught, "net", "hopeless"), list[str]()
    report = run_trial(taught.worker, taught.artifacts, trial_id=trial_id, request_key="w", log=lines.append)
    assert report.state == "SUCCEEDED"
    assert 0 <= report.quality < 0.95
    details = trial_details(taught.worker, trial_id=trial_id)
    (answer,) = details.rungs
    assert (answer.rung, answer.of, answer.needed, answer.known) == (1, EPOCHS, 0.95, 7)
    assert answer.quality <= answer.hoped < 0.95
    assert 10 <= answer.step <= details.curve[-1].step < EPOCHS
    assert taught.one("SELECT cost_seconds FROM work.observations WHERE trial_id = :id", id=trial_id) == pytest.approx(
        report.cost_seconds
    )
    assert any("was stopped at rung 1" in line for line in lines)
    assert "it was stopped at rung 1, epoch" in explain_trial(taught.worker, trial_id=trial_id).sentence
    assert taught.gate(report.model_id, study="net").step == 1


def test_a_good_network_is_trained_to_its_end(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LEAST_LEFT_SECONDS", 0.0)  # so quick a training is not asked otherwise
    trial_id = trial_of(taught, "net", "good")
    assert run_trial(taught.worker, taught.artifacts, trial_id=trial_id, request_key="w").state == "SUCCEEDED"
    details = trial_details(taught.worker, trial_id=trial_id)
    assert details.curve[-1].step == 40
    assert details.rungs
    assert all(answer.goes_on for answer in details.rungs)


def test_each_rung_is_asked_once_and_the_last_epoch_is_none(taught: Any) -> None:
    lease = claimed(taught, "net", "good")
    ladder = Ladder(lease)
    for step, quality in ((1, None), (2, 0.97), (3, 0.1), (12, 0.96), (13, 0.1), (40, 0.1)):
        assert at_rung(ladder, quality, step=step, of=40)
    details = trial_details(taught.worker, trial_id=lease.trial.id)
    assert [(answer.rung, answer.step) for answer in details.rungs] == [(1, 2), (2, 12)]
    both = Ladder(claimed(taught, "net", "hopeless"))
    assert at_rung(both, 0.96, step=1, of=2)  # both rungs are the first epoch: one decision, at the later one
    assert [answer.rung for answer in rungs_of(taught, "net", "hopeless")] == [2]


def rungs_of(lab: Any, study: str, candidate: str) -> list[RungDecision]:
    return list(trial_details(lab.worker, trial_id=trial_of(lab, study, candidate)).rungs)


def test_the_attempt_after_a_crash_is_bound_by_what_was_decided(taught: Any) -> None:
    first = claimed(taught, "net", "hopeless")
    assert not at_rung(Ladder(first), 0.5)
    second = claim(taught.worker, trial_id=first.trial.id, request_key="w")
    assert second.attempt == 2
    ladder = Ladder(second)
    assert not ladder.is_over()  # not before it is there again
    assert at_rung(ladder, 0.1, step=9)
    assert not at_rung(ladder, 0.99, step=11)
    assert len(rungs_of(taught, "net", "hopeless")) == 1


@pytest.mark.journey
def test_a_worker_that_is_killed_between_decision_and_end(taught: Any) -> None:
    trial_id = trial_of(taught, "net", "hopeless")
    where = (taught.url("easeml_worker"), str(taught.artifacts.root), str(trial_id))
    assert subprocess.run([sys.executable, "-c", DIES, *where], check=False).returncode == -signal.SIGKILL
    decided = rungs_of(taught, "net", "hopeless")
    assert [answer.goes_on for answer in decided] == [False]
    report = run_trial(taught.worker, taught.artifacts, trial_id=trial_id, request_key="w")
    assert report.state == "SUCCEEDED"
    details = trial_details(taught.worker, trial_id=trial_id)
    assert (details.attempt, list(details.rungs)) == (2, decided)
    assert decided[0].step <= details.curve[-1].step < EPOCHS
    counts = "SELECT count(*) FROM work.observations WHERE trial_id = :id"
    assert taught.one(counts, id=trial_id) == 1


def test_an_attempt_that_has_lost_its_trial_writes_nothing(taught: Any) -> None:
    first = claimed(taught, "net", "hopeless")
    second = claim(taught.worker, trial_id=first.trial.id, request_key="w")
    at_rung(Ladder(first), 0.5)
    assert rungs_of(taught, "net", "hopeless") == []
    assert at_rung(Ladder(second), 0.97)


def test_without_the_database_training_goes_on(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> None:
        raise StoreUnavailableError

    lines: list[str] = []
    lease = claimed(taught, "net", "hopeless")
    lease.log = lines.append
    with monkeypatch.context() as patched:
        patched.setattr(service.trials, "decision_at", absent)
        assert at_rung(Ladder(lease), 0.1)
    assert "rung 1 is passed without a decision, training goes on" in lines[-1]
    assert rungs_of(taught, "net", "hopeless") == []


def test_other_kinds_and_studies_without_rungs_are_never_asked(taught: Any) -> None:
    assert at_rung(Ladder(claimed(taught, "net", "tree")), 0.1)
    assert rungs_of(taught, "net", "tree") == []
    taught.register("free", candidates=[HOPELESS], training={"rungs": []})
    assert at_rung(Ladder(claimed(taught, "free", "hopeless")), 0.1)
    assert rungs_of(taught, "free", "hopeless") == []
    assert "torch_mlp" in service.NETWORKS
    assert not {"decision_tree", "command", "container", "function"} & set(service.NETWORKS)


def test_a_training_that_is_nearly_over_is_not_asked(taught: Any) -> None:
    lease = claimed(taught, "net", "hopeless")
    for left in (service.LEAST_LEFT_SECONDS - 0.1, service.LEAST_LEFT_SECONDS):
        assert rungs_of(taught, "net", "hopeless") == []
        answer = {"progress": 0.1, "note": "epoch", "step": 4, "of": 40, "quality": 0.1, "seconds_left": left}
        Ladder(lease).progress(answer)
    assert len(rungs_of(taught, "net", "hopeless")) == 1

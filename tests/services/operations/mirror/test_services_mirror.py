"""The mirror in a real MLflow server: nothing is missing, nothing stands there twice, and what goes wrong is made good.

All of it is one file, since each process of the tests that runs a part of it starts a server.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from mlflow_lab import end_trial, force, free_address, run_of, seen, sync_of

from easeml_core.entities import TrialState
from easeml_core.errors import NotFoundError, StateError, StoreUnavailableError
from easeml_core.models.formats import load_predictor
from easeml_core.services.operations.mlflow_sync import Mirror
from easeml_core.services.referee.requests import file_rollback
from easeml_core.store.tables import studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.journey


# Runs.


def test_an_ended_trial_is_one_run_however_often_it_is_synced(lab: Any, mirrored: Mirror) -> None:
    failed = end_trial(lab, "deep", failure="no convergence", parameters={"max_depth": 3, "splitter": "best"})
    cancelled = end_trial(lab, "late", TrialState.CANCELLED)
    assert sync_of(lab, mirrored)["full"]["runs"] == 5
    first = seen(mirrored)
    ((begin, end, version),) = lab.rows(
        "SELECT started_at, finished_at, d.version FROM work.trials t JOIN work.data_versions d "
        f"ON d.id = t.data_version_id WHERE t.id = {failed}"
    )
    end_ms = int(end.timestamp() * 1000)
    assert run_of(mirrored, failed) == {
        "name": "deep",
        "status": "FAILED",
        "begin": int(begin.timestamp() * 1000),
        "end": end_ms,
        "params": {"max_depth": "3", "splitter": "best"},
        "tags": {
            "easeml.trial_id": str(failed),
            "easeml.tenant": "lab",
            "easeml.study": "full",
            "easeml.metric": "accuracy",
            "easeml.candidate": "deep",
            "easeml.kind": "decision_tree",
            "easeml.data_version": str(version),
            "easeml.state": "FAILED",
            "easeml.failure": "no convergence",
            "easeml.attempt": "1",
            "easeml.implementation": "trainer:decision_tree",
            "easeml.code_version": "test",
            "easeml.parameters": '{"max_depth": 3, "splitter": "best"}',
        },
        "metrics": {"cost_seconds": [(2.5, 0, end_ms)]},
        "files": [],
    }
    assert run_of(mirrored, cancelled)["status"] == "KILLED"
    good = next(r for r in first["runs"]["/lab/full"] if r["name"] == "good")
    assert (good["status"], good["metrics"]["quality"][0][:2]) == ("FINISHED", (0.98, 0))
    again = sync_of(lab, mirrored)
    assert {(e["runs"], e["versions"]) for e in again.values()} == {(0, 0)}
    assert seen(mirrored) == first
    end_trial(lab, "next", failure="x")
    assert sync_of(lab, mirrored)["full"]["runs"] == 1


def test_a_trial_that_has_not_ended_is_not_reported(lab: Any, mirrored: Mirror) -> None:
    lab.as_superuser("INSERT INTO work.candidates (study_id, name, kind) SELECT id, 'open', 'x' FROM work.studies")
    with lab.worker.begin() as tx:
        found = studies.get_study(tx, "full")
        candidate = next(c for c in studies.list_candidates(tx, found.id) if c.name == "open")
        version = studies.latest_data_version(tx, found.id)
        trials.add_trial(tx, study_id=found.id, candidate_id=candidate.id, data_version_id=version.id)
    assert sync_of(lab, mirrored, "full")["full"]["runs"] == 3
    assert set(seen(mirrored)["runs"]) == {"/lab/full"}


def test_a_result_that_did_not_hold_is_no_finished_run_whenever_it_is_found_out(lab: Any, mirrored: Mirror) -> None:
    sync_of(lab, mirrored, "full")
    ((trial, artifact),) = lab.rows(f"SELECT trial_id, id FROM work.models WHERE id = {lab.models['full']['good']}")
    lab.as_superuser(
        "INSERT INTO work.quality_checks (trial_id, study_id, model_id, claimed, measured, tolerance) "
        f"SELECT trial_id, study_id, id, .98, .5, .001 FROM work.models WHERE id = {artifact}"
    )
    assert sync_of(lab, mirrored, "full")["full"]["runs"] == 1
    late = run_of(mirrored, trial)
    assert (late["status"], late["tags"]["easeml.checked"]) == ("FAILED", "not held")
    assert [point[:2] for point in late["metrics"]["quality"]] == [(0.98, 0), (0.5, 1)]
    assert sync_of(lab, mirrored, "full")["full"]["runs"] == 0
    at_once = replace(mirrored, prefix=f"{mirrored.prefix}-later")
    sync_of(lab, at_once, "full")
    assert run_of(at_once, trial) == late


def test_a_learning_curve_is_there_point_by_point(lab: Any, mirrored: Mirror) -> None:
    failed = end_trial(lab, "net", failure="diverged")
    points = [{"step": n, "of": 700, "quality": n / 1000, "loss": 1 / n, "seconds": n / 2} for n in range(1, 701)]
    points[1] |= {"quality": None}
    with lab.worker.begin() as tx:
        trials.add_points(tx, failed, points)
    sync_of(lab, mirrored, "full")
    run = run_of(mirrored, failed)
    found = {name: run["metrics"][f"curve/{name}"] for name in ("quality", "loss")}
    assert found == {
        name: [(p[name], p["step"], run["begin"] + 500 * p["step"]) for p in points if p[name] is not None]
        for name in ("quality", "loss")
    }


HOSTILE = {
    "a/../b": 1,
    "..": 2,
    "": 3,
    "$(rm)": 4,
    "plain name-1.0_x": "x" * 3000,
    "words": "\u2028caf\u00e9\n'; DROP",
    "empty": "",
    "nothing": None,
    "list": [1, {"a": True}],
}


def test_any_parameters_and_any_words_are_taken(lab: Any, mirrored: Mirror) -> None:
    many = {f"p{n:03}": n for n in range(250)}
    strange = end_trial(lab, '\u202e\' OR "1"=1 {{x}} /..', failure="\u00e9" * 9000, parameters=HOSTILE)
    large = end_trial(lab, "large", failure="x", parameters=many)
    sync_of(lab, mirrored, "full")
    run = run_of(mirrored, strange)
    assert run["params"] == {
        "plain name-1.0_x": "x" * 3000,
        "words": HOSTILE["words"],
        "empty": "",
        "nothing": "null",
        "list": '[1, {"a": true}]',
    }
    assert json.loads(run["tags"]["easeml.parameters"]) == HOSTILE
    assert run["tags"]["easeml.failure"] == "\u00e9" * 4000
    assert run["name"] == run["tags"]["easeml.candidate"] == '\u202e\' OR "1"=1 {{x}} /..'
    assert run_of(mirrored, large)["params"] == {name: str(n) for name, n in many.items()}


# Versions and the alias.


def test_the_alias_follows_promotion_and_rollback(lab: Any, mirrored: Mirror) -> None:
    good, rare = (str(lab.models["full"][name]) for name in ("good", "rare"))
    passed = lab.gate("good")
    assert passed.symbol == "pass"
    assert sync_of(lab, mirrored)["full"] | {"runs": 0} == {
        "study": "full",
        "experiment": f"{mirrored.prefix}/lab/full",
        "runs": 0,
        "versions": 1,
        "production_version": None,
    }
    assert seen(mirrored)["models"][".full"]["aliases"] == {}
    assert lab.promote(passed.request_id).promoted
    assert sync_of(lab, mirrored)["full"]["production_version"] == "1"
    registered = seen(mirrored)["models"]
    ((artifact, trial),) = lab.rows(f"SELECT artifact, trial_id FROM work.models WHERE id = {good}")
    version = {"easeml.model_id": good, "easeml.artifact": artifact, "easeml.format": "skops", "easeml.gate": "pass"}
    assert registered == {
        ".full": {"versions": [version], "trials": [str(trial)], "aliases": {"production": good}},
    }
    force(lab, "rare")
    assert sync_of(lab, mirrored)["full"]["production_version"] == "2"
    assert seen(mirrored)["models"][".full"]["aliases"] == {"production": rare}
    asked = {"study": "full", "model_id": None, "why": "too slow", "request_key": lab.key()}
    assert lab.answer(file_rollback(lab.worker, **asked)).promoted
    again = sync_of(lab, mirrored)["full"]
    assert (again["versions"], again["production_version"]) == (0, "1")
    assert seen(mirrored)["models"][".full"]["aliases"] == {"production": good}


def test_a_withheld_verdict_is_not_reported_and_a_failed_one_lets_nothing_out(lab: Any, mirrored: Mirror) -> None:
    lab.gate("rare")
    withheld = lab.gate("good", "hidden")
    sync_of(lab, mirrored)
    assert seen(mirrored)["models"] == {}
    assert lab.promote(withheld.request_id, "good", "hidden").promoted
    sync_of(lab, mirrored)
    (version,) = seen(mirrored)["models"][".hidden"]["versions"]
    assert "easeml.gate" not in version


@pytest.mark.nightly
def test_a_forced_model_that_passes_later_says_so(lab: Any, mirrored: Mirror) -> None:
    force(lab, "good")
    sync_of(lab, mirrored)
    (version,) = seen(mirrored)["models"][".full"]["versions"]
    assert "easeml.gate" not in version
    force(lab, "rare")
    assert lab.gate("good").symbol == "pass"
    sync_of(lab, mirrored)
    gates = {v["easeml.model_id"]: v.get("easeml.gate") for v in seen(mirrored)["models"][".full"]["versions"]}
    assert gates == {str(lab.models["full"]["good"]): "pass", str(lab.models["full"]["rare"]): None}


def test_the_file_is_the_model_and_the_page_says_how_it_is_loaded(
    lab: Any, mirrored: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    force(lab, "good")
    sync_of(lab, mirrored, "full")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(mirrored.tracking_uri))
    found = mlflow.artifacts.download_artifacts(
        f"models:/{mirrored.prefix}.full@production", dst_path=str(tmp_path / "model")
    )
    assert found.rstrip("/") == f"{tmp_path}/model"
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["README.md", "model.skops"]
    artifact = lab.one("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"]["good"])
    assert (tmp_path / "model/model.skops").read_bytes() == lab.artifacts.path(artifact).read_bytes()
    page = (tmp_path / "model/README.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    parts = lab.open_parts()
    names = {"inputs": parts.validation_inputs}
    exec(code.replace('"model.skops"', repr(str(tmp_path / "model/model.skops"))), names)  # what a reader does
    wanted = load_predictor(lab.artifacts.path(artifact), "skops").predict(parts.validation_inputs)
    assert (names["labels"] == wanted).all()


@pytest.mark.nightly
def test_a_model_that_no_trial_made_has_a_run_of_its_own(lab: Any, mirrored: Mirror) -> None:
    baseline = lab.one("SELECT id FROM work.models WHERE study_id = 1 AND trial_id IS NULL")
    force(lab, "good")
    lab.models = {**lab.models, "full": {**lab.models["full"], "baseline": baseline}}
    force(lab, "baseline")
    for _ in range(2):
        sync_of(lab, mirrored, "full")
    (run,) = (r for r in seen(mirrored)["runs"]["/lab/full"] if "easeml.model_id" in r["tags"])
    assert (run["tags"]["easeml.model_id"], run["status"]) == (str(baseline), "FINISHED")
    assert run["files"] == ["model/README.md", "model/model.constant"]
    assert seen(mirrored)["models"][".full"]["aliases"] == {"production": str(baseline)}


# The command.


def command(lab: Any, *words: str) -> list[str]:
    given = ["mlflow", "sync", "--database", lab.url("easeml_worker"), "--artifacts", str(lab.artifacts.root)]
    return [*given, *words]


def test_the_command_says_what_it_has_done(lab: Any, mirrored: Mirror) -> None:
    from easeml_core.cli.app import cli

    force(lab, "good")
    words = ("--tracking-uri", str(mirrored.tracking_uri), "--prefix", mirrored.prefix, "--alias", "live", "--json")
    done = CliRunner().invoke(cli, command(lab, *words))
    assert done.exit_code == 0, done.stderr
    full = next(e for e in json.loads(done.stdout) if e["study"] == "full")
    assert (full["runs"], full["versions"], full["production_version"]) == (3, 1, "1")
    assert list(seen(mirrored)["models"][".full"]["aliases"]) == ["live"]
    away = CliRunner().invoke(cli, command(lab, "--tracking-uri", free_address()))
    assert (away.exit_code, away.stdout) == (2, "")
    assert away.stderr.startswith("easeml: the MLflow server cannot be used")


@pytest.mark.nightly
def test_a_watch_mirrors_what_comes_and_ends_when_stopped(
    lab: Any, mirrored: Mirror, wait_for: Any, tmp_path: Path
) -> None:
    words = ("--tracking-uri", str(mirrored.tracking_uri), "--prefix", mirrored.prefix, "--watch", "--poll", "0.2")
    with (tmp_path / "log").open("wb") as log:
        watching = subprocess.Popen(
            [sys.executable, "-m", "easeml_core.cli", *command(lab, *words)], stdout=log, stderr=log, env=os.environ
        )
    try:
        wait_for(lambda: len(seen(mirrored)["runs"]) == 3)
        failed = end_trial(lab, "deep", failure="no convergence")
        wait_for(lambda: any(r["tags"]["easeml.trial_id"] == str(failed) for r in seen(mirrored)["runs"]["/lab/full"]))
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(timeout=60) == 0
    finally:
        watching.kill()
        watching.wait()
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


# What goes wrong: killed, twice at once, away, refused.


class Killed(BaseException):
    """No handler catches it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, requests_left: int) -> Callable[[], int]:
    """Let the process die once so many requests have been answered; gives how many are left."""
    import requests

    left, send = [requests_left], requests.Session.send

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        answer = send(self, *arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return answer

    monkeypatch.setattr(requests.Session, "send", counted)
    return lambda: left[0]


def sync_killed(lab: Any, mirrored: Mirror, after: int) -> int:
    """A sync that is killed after so many requests, or not; how many it has made."""
    with pytest.MonkeyPatch.context() as patched:
        left = kill_after(patched, after)
        with contextlib.suppress(Killed):
            sync_of(lab, mirrored, "full")
        return after - left()


@pytest.mark.nightly  # 30 syncs; by day two at once, and one whose server is away
def test_killed_after_any_request_the_next_sync_makes_it_good(lab: Any, mirrored: Mirror) -> None:
    failed = end_trial(lab, "deep", failure="no convergence", parameters={"max_depth": 3})
    with lab.worker.begin() as tx:
        trials.add_points(tx, failed, [trials.CurvePoint(1, 1, 0.5, 0.25, 1.5)])
    assert lab.promote(lab.gate("good").request_id).promoted
    needed = sync_killed(lab, mirrored, 1000)
    undisturbed = seen(mirrored)
    assert undisturbed["models"][".full"]["aliases"] == {"production": str(lab.models["full"]["good"])}
    for after in range(1, needed + 1):
        broken = Mirror(mirrored.tracking_uri, prefix=f"{mirrored.prefix}-{after}")
        assert sync_killed(lab, broken, after) == after
        sync_of(lab, broken, "full")
        assert seen(broken) == undisturbed, after


def test_two_syncs_at_once_make_nothing_twice(lab: Any, mirrored: Mirror) -> None:
    force(lab, "good")
    done: list[dict[str, Any]] = []
    both = [threading.Thread(target=lambda: done.append(sync_of(lab, mirrored)["full"])) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=120)
    assert sorted((d["runs"], d["versions"]) for d in done) == [(0, 0), (3, 1)]
    assert [len(runs) for runs in seen(mirrored)["runs"].values()] == [3, 3, 3]


def test_a_server_that_is_away_is_reported_and_the_next_sync_goes_on(lab: Any, mirrored: Mirror) -> None:
    away = Mirror(free_address())
    with pytest.raises(StoreUnavailableError, match=r"(?s)MLflow server cannot be used: .*refused.*Nothing else waits"):
        sync_of(lab, away)
    assert sync_of(lab, mirrored)["full"]["runs"] == 3


def test_something_that_is_no_mlflow_is_reported(lab: Any, database: Any) -> None:
    with pytest.raises(StoreUnavailableError, match="MLflow server cannot be used"):
        sync_of(lab, Mirror(f"http://127.0.0.1:{database.server.port}"))


def test_one_that_is_refused_stops_no_other(lab: Any, mirrored: Mirror) -> None:
    force(lab, "good")
    force(lab, "rare")
    artifact = lab.one("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"]["good"])
    file = lab.artifacts.path(artifact)
    away = file.rename(file.with_name("away"))
    try:
        with pytest.raises(StateError, match=r"model \d+: artifact sha256:.* is missing"):
            sync_of(lab, mirrored)
    finally:
        away.rename(file)
    assert len(seen(mirrored)["models"][".full"]["versions"]) == 1
    assert [len(runs) for runs in seen(mirrored)["runs"].values()] == [3, 3, 3]
    assert sync_of(lab, mirrored)["full"]["versions"] == 1


def test_what_somebody_deleted_in_mlflow_stays_deleted(lab: Any, mirrored: Mirror) -> None:
    import mlflow

    sync_of(lab, mirrored)
    client = mlflow.MlflowClient(mirrored.tracking_uri)
    first, second = (
        client.get_experiment_by_name(f"{mirrored.prefix}/lab/{s}").experiment_id for s in ("first", "full")
    )
    client.delete_experiment(first)
    client.delete_run(client.search_runs([second])[0].info.run_id)
    end_trial(lab, "next", failure="x")
    with pytest.raises(StateError, match=r"study first: .* was deleted in MLflow; restore it there"):
        sync_of(lab, mirrored)
    assert [r.info.run_name for r in client.search_runs([second], max_results=1)] == ["next"]
    assert len(client.search_runs([second], run_view_type=3)) == 4


def test_a_study_that_is_not_there_is_said(lab: Any, mirrored: Mirror) -> None:
    with pytest.raises(NotFoundError, match="ful"):
        sync_of(lab, mirrored, "ful")


@pytest.mark.nightly  # by day the message of many refusals, without a server
def test_ten_refusals_are_enough_for_one_study(lab: Any, mirrored: Mirror) -> None:
    import mlflow

    sync_of(lab, mirrored, "full")
    client = mlflow.MlflowClient(mirrored.tracking_uri)
    experiment = client.get_experiment_by_name(f"{mirrored.prefix}/lab/full").experiment_id
    for n in range(12):
        trial = end_trial(lab, f"tree-{n:02}", failure="x", parameters={"max_depth": n})
        run = client.create_run(experiment, tags={"easeml.trial_id": str(trial)})
        client.log_param(run.info.run_id, "max_depth", "another")  # MLflow changes no parameter
    with pytest.raises(StateError) as refused:
        sync_of(lab, mirrored)
    assert str(refused.value).count("Changing param values is not allowed") == 10
    assert {study: len(runs) for study, runs in seen(mirrored)["runs"].items()} == {
        "/lab/first": 3,
        "/lab/full": 15,
        "/lab/hidden": 3,
    }


def test_a_message_stays_short_however_much_is_refused(lab: Any, mirrored: Mirror) -> None:
    import mlflow

    client = mlflow.MlflowClient(mirrored.tracking_uri)
    for study in ("first", "full", "hidden"):
        experiment = client.create_experiment(f"{mirrored.prefix}/lab/{study}")
        for n in range(4):
            trial = end_trial(lab, f"tree-{n}", study=study, failure="x", parameters={"max_depth": n})
            run = client.create_run(experiment, tags={"easeml.trial_id": str(trial)})
            client.log_param(run.info.run_id, "max_depth", "another")
    with pytest.raises(StateError, match=r"; and 2 more, see the log$") as refused:
        sync_of(lab, mirrored)
    assert len(str(refused.value)) < 6000

"""``easeml candidate``: a program is packed and joins a study, and so does a search space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easeml_core.models.command_model import read_program
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial

AWK = Path(__file__).parents[3] / "docs" / "examples" / "awk"


@pytest.fixture
def add(ask: Any, artifacts: Any, make_study: Any) -> Any:
    """Let candidates join a study on real data that has one."""
    make_study(candidates=[{"name": "tree", "kind": "decision_tree"}])
    return lambda *options: ask("candidate", "add", "cancer", *options, "--artifacts", str(artifacts.root))


def test_a_program_in_another_language_joins_a_study_and_is_trained(
    add: Any, ask: Any, database: Any, artifacts: Any
) -> None:
    asked = ("--program", str(AWK), "--name", "middles", "--parameters", '{"power": 1}', "--json")
    (shown,) = add(*asked).json
    reference = shown["parameters"].pop("program")
    wanted = {"study": "cancer", "candidate": "middles", "kind": "command", "parameters": {"power": 1}}
    assert shown == wanted | {"devices": None, "added": True}
    assert read_program(artifacts.path(reference)).train == ("sh", "train.sh")
    assert add(*asked).json == [shown | {"parameters": {"power": 1, "program": reference}, "added": False}]
    found = suggest_trials(database.worker, count=2, request_key="k").trials
    (trial,) = [t for t in found if t.candidate == "middles"]
    report = run_trial(database.worker, artifacts, trial_id=trial.trial_id, request_key="w")
    assert (report.state, report.failure) == ("SUCCEEDED", None)
    assert report.quality > 0.75  # always the larger class: 0.63
    assert report.model_id in [m["model_id"] for m in ask("model", "list", "cancer", "--json").json]


def test_a_program_that_is_gone_is_a_failed_trial(add: Any, database: Any, artifacts: Any) -> None:
    (shown,) = add("--program", str(AWK), "--json").json
    assert shown["candidate"] == "awk"
    artifacts.path(shown["parameters"]["program"]).unlink()
    found = suggest_trials(database.worker, count=2, request_key="k").trials
    (trial,) = [t for t in found if t.candidate == "awk"]
    report = run_trial(database.worker, artifacts, trial_id=trial.trial_id, request_key="w")
    assert report.state == "FAILED"
    assert f"artifact {shown['parameters']['program']} is missing" in report.failure


def test_a_candidate_joins_for_some_devices_and_a_repetition_says_so(add: Any, ask: Any) -> None:
    asked = ("--name", "deep", "--kind", "decision_tree", "--parameters", '{"max_depth": 9}')
    asked = (*asked, "--device", "cpu", "--device", "gpu", "--json")
    (shown,) = add(*asked).json
    assert shown == {
        "study": "cancer",
        "candidate": "deep",
        "kind": "decision_tree",
        "parameters": {"max_depth": 9},
        "devices": ["cpu", "gpu"],
        "added": True,
    }
    assert add(*asked).json == [shown | {"added": False}]
    listed = ask("study", "show", "cancer", "--json").json["candidates"]
    deep = {"name": "deep", "kind": "decision_tree", "devices": ["cpu", "gpu"]}
    assert listed == [{"name": "tree", "kind": "decision_tree"}, deep]


def test_a_space_joins_from_a_file_or_as_text(add: Any, nowhere: Path) -> None:
    (nowhere / "space.yaml").write_text("max_depth: {.int: [2, 40]}")
    asked = ("--kind", "decision_tree", "--count", "3", "--device", "cpu", "--json")
    shown = add("--space", "space.yaml", *asked).json
    assert [t["added"] for t in shown] == [True] * 3
    assert all(t["candidate"].startswith("decision_tree-max_depth") and t["devices"] == ["cpu"] for t in shown)
    again = add("--space", '{"max_depth": {".int": [2, 40]}}', *asked).json
    assert again == [t | {"added": False} for t in shown]


def test_a_dry_run_shows_and_adds_nothing(add: Any, ask: Any) -> None:
    space = '{"kind": {".choice": ["nearest_centroid", "gaussian_naive_bayes"]}}'
    assert "nearest_centroid" in add("--space", space, "--dry-run").text
    details = json.dumps(ask("study", "show", "cancer", "--json").json)
    assert "nearest_centroid" not in details


def test_a_program_is_packed_for_a_registration(ask: Any, artifacts: Any) -> None:
    asked = ("candidate", "pack", str(AWK), "--tenant", "lab")
    shown = ask(*asked, "--artifacts", str(artifacts.root))
    assert (shown.status, ask(*asked, "--json").json) == (0, {"program": shown.out.strip()})
    assert read_program(artifacts.path(shown.out.strip())).command == ("sh", "predict.sh")


def test_a_program_goes_where_the_workers_look_or_nowhere(
    ask: Any, run: Any, database: Any, artifacts: Any, make_study: Any, nowhere: Path
) -> None:
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    add = ("candidate", "add", "cancer", "--program", str(AWK), "--name", "awk")
    lost = ask(*add)  # an installation without a row: what it knows is not in ./.easeml/artifacts
    assert (lost.status, lost.out) == (2, "")
    assert "does not hold" in lost.err
    owner = ("--database", database.url("easeml_owner"))
    assert ask("db", "artifacts").status == 1
    assert "set by easeml_owner" in run("db", "artifacts", str(artifacts.root), *owner).out
    assert ask("db", "artifacts", "--json").json["place"] == str(artifacts.root)
    elsewhere = ask(*add, "--artifacts", "elsewhere")
    assert (elsewhere.status, elsewhere.out) == (2, "")
    assert (f"{nowhere}/elsewhere is not" in elsewhere.err, str(artifacts.root) in elsewhere.err) == (True, True)
    assert "lacks" not in elsewhere.err
    assert ask("db", "artifacts", "elsewhere").status == 2  # the worker's role moves nothing
    program = ask(*add, "--json").json[0]["parameters"]["program"]
    assert artifacts.path(program).is_file()
    assert not (nowhere / ".easeml").exists()
    assert not (nowhere / "elsewhere").exists()
    shown = run("referee", "--once", "--artifacts", "elsewhere", "--database", database.url("easeml_referee"))
    assert (shown.status, "elsewhere is not" in shown.err) == (2, True)
    moved = run("db", "artifacts", "--unchecked", "new", *owner)
    assert f"a service names {artifacts.root}, and restart" in moved.out


MISTAKES = (
    (("--program", str(AWK / "train.sh")), "is no archive"),
    (("--program", str(AWK), "--kind", "decision_tree"), "command, not 'decision_tree'"),
    (("--name", "a", "--kind", "decision_tree", "--train", "sh"), "the program too"),
    (("--name", "a", "--kind", "decision_tree", "--parameters", "[1]"), "--parameters must"),
    (("--kind", "decision_tree", "--space", "max_depth: {.int: [0, 4]}"), "max_depth must"),
    (("--name", "tree", "--kind", "linear_svm"), "is another one"),
    (("--name", "a", "--kind", "decision_tree", "--device", "GPU"), "'a': devices must"),
)


def test_mistakes_add_nothing(add: Any, ask: Any) -> None:
    for options, words in MISTAKES:
        answer = add(*options)
        assert (answer.status, words in answer.err) == (2, True), (options, answer.err)
    assert [one["name"] for one in ask("study", "show", "cancer", "--json").json["candidates"]] == ["tree"]

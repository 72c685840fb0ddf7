"""``easeml test-set``: the life of a set from the command line, in the referee's role and in others."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).resolve().parents[3] / "docs/test-sets.md").read_text(encoding="utf-8")
CLASSES = ("malignant", "benign")
SMALL = ("--condition", "n - o > 0 +/- 0.3", "--steps", "2", "--reliability", "0.8")


@pytest.fixture
def files(nowhere: Path) -> tuple[Path, Path]:
    """Inputs and labels of 200 new patients."""
    return write_patients(nowhere, seed=1)


def write_patients(folder: Path, seed: int) -> tuple[Path, Path]:
    """Files of inputs and labels of 200 patients; those of another seed share no value with them."""
    table, rng = load_source("sklearn:breast_cancer"), np.random.default_rng(seed)
    chosen = rng.choice(len(table.labels), 200, replace=False)
    values = (table.inputs[chosen] * rng.uniform(0.99, 1.01, (200, 30))).astype(np.float32)
    inputs = [
        ",".join(["example", *table.feature_names]),
        *(f"p{i}," + ",".join(map(str, v)) for i, v in enumerate(values)),
    ]
    labels = ["example,label", *(f"p{i},{CLASSES[label]}" for i, label in enumerate(table.labels[chosen]))]
    for name, lines in (("inputs.csv", inputs), ("labels.csv", labels)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder / "inputs.csv", folder / "labels.csv"


@pytest.fixture
def rule(run: Any, database: Any, artifacts: Any) -> Callable[..., Any]:
    """Run a command on the test's database, as the referee."""
    place = ("--database", database.url("easeml_referee"))

    def invoke(*arguments: str) -> Any:
        kept = ("--artifacts", str(artifacts.root)) if arguments[1] in ("seal", "release") else ()
        return run(*arguments, *place, *kept)

    return invoke


def test_a_set_from_plan_to_release(
    ask: Any, rule: Any, files: Any, make_study: Any, artifacts: Any, nowhere: Path, recorded: Any
) -> None:
    make_study("cancer")
    told = [rule("test-set", "plan", "--study", "cancer", "--name", "spring", *SMALL)]
    inputs, labels = map(str, files)
    given = ("test-set", "seal", "--study", "cancer", "--name", "spring", "--inputs", inputs, "--labels", labels)
    sealed = rule(*given, "--json").json
    assert (sealed["state"], sealed["rows"], sealed["sealed_before"]) == ("sealed", 200, False)
    assert rule(*given, "--json").json["sealed_before"]
    told += [rule(*given)]
    listed = ask("test-set", "list", "--json").json
    assert [entry["name"] for entry in listed] == ["spring", None, None]
    told += [rule("test-set", "retire", "1")]
    states = {entry["test_set_id"]: entry["state"] for entry in ask("test-set", "list", "--json").json}
    assert states == {1: "retired", 2: "live", sealed["test_set_id"]: "live"}
    assert rule("test-set", "retire", "spring", "--json").json["live"] is None
    told += [ask("test-set", "list", "--study", "cancer"), rule("test-set", "release", "spring")]
    told += [ask("test-set", "fetch", "spring", "--to", "spring.npz", "--artifacts", str(artifacts.root))]
    assert np.load(nowhere / "spring.npz")["inputs"].shape == (200, 30)
    recorded("\n".join(answer.recorded() for answer in told), "test_set")


def test_a_folder_brings_its_labels(rule: Any, make_study: Any, nowhere: Path) -> None:
    make_study("cancer")
    table = load_source("sklearn:breast_cancer")
    (nowhere / "new").mkdir()
    np.save(nowhere / "new" / "inputs.npy", table.inputs[:200] * 1.01)
    np.save(nowhere / "new" / "targets.npy", np.array(CLASSES)[table.labels[:200]])
    given = ("test-set", "seal", "--study", "cancer", "--purpose", "joint", *SMALL)
    answer = rule(*given, "--inputs", "new", "--json").json
    assert (answer["rows"], answer["labels_on_demand"]) == (200, False)


def test_a_plan_and_a_release_are_the_referees(ask: Any, files: Any, make_study: Any, artifacts: Any) -> None:
    make_study("cancer")
    assert ask("test-set", "plan", "--study", "cancer", "--name", "spring", "--json").refusal == "WrongRoleError"
    seal = ("test-set", "seal", "--study", "cancer", "--inputs", str(files[0]), "--artifacts", str(artifacts.root))
    assert ask(*seal, "--json").refusal == "WrongRoleError"
    answer = ask(*seal)
    assert '--database "$(easeml db url --role easeml_referee)"' in answer.err


def test_an_error_names_what_was_given(rule: Any, files: Any, make_study: Any) -> None:
    make_study("cancer")
    inputs = str(files[0])
    cases: list[tuple[tuple[str, ...], str]] = [
        (("seal", "--study", "nobody", "--inputs", inputs), "study 'nobody'"),
        (("seal", "--study", "cancer", "--inputs", "none.csv"), "none.csv"),
        (("seal", "--study", "cancer", "--inputs", inputs, "--condition", "n >"), "condition: "),
        (("seal", "--study", "cancer", "--inputs", inputs, "--meter", "{}"), "--purpose meter"),
        (("seal", "--study", "cancer", "--inputs", inputs, "--gate-share", "0.5"), "--purpose joint"),
        (("seal", "--study", "cancer", "--inputs", inputs, "--purpose", "meter", "--meter", "{"), "must be JSON"),
        (("seal", "--study", "cancer", "--inputs", inputs, "--purpose", "meter", "--meter", "[]"), "a JSON object"),
        (("seal", "--study", "cancer", "--inputs", inputs, "--purpose", "meter", *SMALL), "reliability, steps"),
        (("seal", "--study", "cancer", "--inputs", inputs, "--slice", "north"), '"NAME: CONDITION"'),
        (("retire", "winter"), "set 'winter'"),
        (("release", "1"), "retired"),
    ]
    for arguments, message in cases:
        answer = rule("test-set", *arguments)
        assert (answer.status, message in answer.err) == (2, True), (arguments, answer.err)


def test_a_meter_set_and_slices(rule: Any, files: Any, make_study: Any) -> None:
    make_study("cancer")
    inputs, labels = files
    meter = json.dumps({"tolerance": 0.3, "steps": 2})
    given = ("test-set", "seal", "--study", "cancer", "--inputs", str(inputs), "--labels", str(labels))
    done = rule(*given, "--purpose", "meter", "--meter", meter, "--json").json
    assert (done["purpose"], done["plan"]["tolerance"]) == ("meter", 0.3)
    write_patients(inputs.parent, seed=2)  # other examples than those of the meter set
    lines = inputs.read_text().splitlines()
    moved = [line.replace(",", ",1", 1) for line in lines[1:]]  # and one column of them in another unit
    wards = [f"{line},{'north' if i % 2 else 'south'}" for i, line in enumerate(moved)]
    inputs.write_text("\n".join([lines[0] + ",ward", *wards]) + "\n")
    sliced = ("--slices", "ward", "--slice", "north: n > 0.3 +/- 0.29", "--condition", "n > 0.3 +/- 0.29")
    found = rule(*given, *sliced, "--steps", "1", "--json").json
    assert found["plan"]["slices"] == [["north", "n > 0.3 +/- 0.29"]]
    assert "same unit?" in found["warnings"][0]


def test_a_set_for_gate_and_meter(rule: Any, ask: Any, make_study: Any) -> None:
    make_study("cancer")
    both = ("--purpose", "joint", "--reliability", "0.8", "--gate-share", "0.25", "--meter", '{"tolerance": 0.3}')
    planned = rule("test-set", "plan", "--study", "cancer", "--name", "both", *both, "--steps", "2", "--json").json
    plan = planned["plan"]
    assert (plan["reliability"], plan["gate_share"], plan["gate"]["steps"]) == (0.8, 0.25, 2)
    assert plan["gate"]["reliability"] == pytest.approx(0.95, rel=1e-12)
    assert plan["meter"]["tolerance"] == 0.3
    assert planned["steps"] == 2 + plan["meter"]["steps"]
    listed = ask("test-set", "list", "--study", "cancer").text
    assert f"both: {plan['gate']['condition']}, full; ranges {plan['meter']['ranges']}, tolerance 0.3" in listed
    refused = rule("test-set", "plan", "--study", "cancer", "--name", "x", *both, "--adaptivity", "recycle")
    assert (refused.status, "it reuses" in refused.err) == (2, True)


SCRIPT = """ml:
  - script: ./train.sh
  - condition: n - o > 0 +/- 0.3
  - reliability: 0.8
  - mode: fp-free
  - adaptivity: none -> ann@example.org
  - steps: 2
"""


def test_a_script_says_what_is_planned_and_no_option_beside_it(rule: Any, make_study: Any, nowhere: Path) -> None:
    make_study("cancer")
    (nowhere / "ml.yml").write_text(SCRIPT)
    given = ("test-set", "plan", "--study", "cancer", "--script", "ml.yml", "--name")
    plan = rule(*given, "spring", "--json").json["plan"]
    expected = {
        "condition": "n - o > 0 +/- 0.3",
        "reliability": 0.8,
        "mode": "fp-free",
        "adaptivity": "none",
        "steps": 2,
    }
    assert {name: plan[name] for name in expected} == expected
    assert plan["mail"] == "ann@example.org"
    answer = rule(*given, "summer", "--steps", "3", "--power", "same")
    assert answer.status == 2
    assert "--steps, --power" in answer.err
    sliced = rule(*given, "summer", "--slice", "old: d < 0.5 +/- 0.2", "--json").json["plan"]
    assert sliced == plan | {"slices": [["old", "d < 0.5 +/- 0.2"]]}
    (nowhere / "ml.yml").write_text("ml: [condition: 7")
    assert rule(*given, "autumn").status == 2


def test_power_same_is_what_the_level_asks_whatever_the_study_has(rule: Any, make_study: Any) -> None:
    make_study("cancer", gate={"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "power": 0.8})
    given = ("test-set", "plan", "--study", "cancer", "--json", "--name")
    powers = {"spring": ("--power", "same"), "summer": (), "autumn": ("--power", "0.7")}
    plans = {name: rule(*given, name, *more).json["plan"]["power"] for name, more in powers.items()}
    assert plans == {"spring": None, "summer": 0.8, "autumn": 0.7}
    assert "--power must be" in rule(*given, "winter", "--power", "high").err


def retired_by(text: str) -> list[str]:
    """The sets that are retired by the commands in a text."""
    return re.findall(r"`easeml test-set retire (\d+)`", text)


JOINT = ("--purpose", "joint", "--reliability", "0.8", "--meter", '{"tolerance": 0.3, "steps": 3}', "--steps", "2")


def test_a_planned_set_for_both_is_sealed_without_its_purpose_and_says_what_it_waits_for(
    rule: Any, ask: Any, files: Any, make_study: Any, recorded: Any
) -> None:
    make_study("cancer")
    given = ("--study", "cancer", "--name", "both")
    told = [rule("test-set", "plan", *given, *JOINT)]
    seal = ("test-set", "seal", *given, "--inputs", str(files[0]), "--labels", str(files[1]))
    wrong = rule(*seal, "--purpose", "gate")
    assert (wrong.status, "--purpose joint" in wrong.err) == (2, True)
    told += [rule(*seal), ask("test-set", "list")]
    waits = rule(*seal, "--json").json["when_live"]
    assert retired_by(waits) == ["1", "2"]
    assert f"; {waits}" in PAGE
    entry = ask("test-set", "list", "--json").json[0]
    assert entry["systems"] == {"gate": {"steps_used": 0, "steps": 2}, "meter": {"steps_used": 0, "steps": 3}}
    rule("test-set", "retire", "1")
    assert retired_by(rule(*seal, "--json").json["when_live"]) == ["2"]
    assert rule("test-set", "retire", "2", "--json").json["live"] == 3
    told += [rule(*seal)]
    recorded("\n".join(answer.recorded() for answer in told), "test_set_for_both")


@pytest.mark.parametrize(("system", "own", "other"), [("gate", "1", "2"), ("meter", "2", "1")])
def test_a_refusal_names_the_set_that_waits(
    system: str, own: str, other: str, rule: Any, ask: Any, files: Any, make_study: Any, database: Any, artifacts: Any
) -> None:
    make_study("cancer")
    asked = {"study": "cancer", "model_id": 1}
    file = file_gate_request if system == "gate" else file_meter_request

    def answer(key: str) -> str:
        request = file(database.worker, **asked, request_key=key)
        Referee(database.referee, artifacts).run_once()
        found = answer_of(database.worker, request)
        assert found is not None
        return str(found.message)

    rule("test-set", "retire", own)
    assert (retired_by(missing := answer("a")), f"no live {system} set" in missing) == ([], True)
    given = ("--study", "cancer", "--name", "j3", *JOINT, "--inputs", str(files[0]), "--labels", str(files[1]))
    rule("test-set", "seal", *given)
    waits = answer("b")
    assert (retired_by(waits), f"no live {system} set" in waits, "set j3" in waits) == ([other], True, True)


def test_the_set_for_both_of_the_page_is_planned_so(rule: Any, make_study: Any) -> None:
    make_study("tumours", source="sklearn:digits", gate={}, meter={})
    (shown,) = re.findall(r"^set both of tumours is planned: .*$", PAGE, re.MULTILINE)
    (command,) = re.findall(r"^\$ easeml (test-set plan .* --name both .*)$", PAGE, re.MULTILINE)
    assert rule(*shlex.split(command)).text == shown
    needed = re.search(r"at least (\d+) examples for (.*)", shown)
    assert needed is not None
    assert f"400 examples, {needed[1]} needed, {needed[2]};" in PAGE


def test_who_waits_longer_comes_first(rule: Any, files: Any, make_study: Any) -> None:
    make_study("cancer")
    inputs, labels = files
    given = ("test-set", "seal", "--study", "cancer", "--inputs", str(inputs), "--labels", str(labels), *SMALL)
    assert retired_by(rule(*given, "--name", "spring").text) == ["1"]
    write_patients(inputs.parent, seed=2)
    shown = rule(*given, "--name", "summer").text
    assert (retired_by(shown), shown.endswith("; gate set spring waits longer")) == (["1", "3"], True)


def test_the_list_counts_used_steps(ask: Any, make_study: Any) -> None:
    make_study("cancer")
    sets = {entry["purpose"]: entry["systems"] for entry in ask("test-set", "list", "--json").json}
    assert sets["gate"] == {"gate": {"steps_used": 0, "steps": 3}}

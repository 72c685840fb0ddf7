"""``easeml validation``: what a person and a program read of it, and who may replace a validation set."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.models.formats import save_constant
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import claim, record_success
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = ("malignant", "benign")
CANDIDATES = [{"name": "tree", "kind": "decision_tree"}, {"name": "centroid", "kind": "nearest_centroid"}]


def write(name: str, lines: list[list[str]]) -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


@pytest.fixture
def files(nowhere: Path) -> tuple[str, ...]:
    """Options with inputs and labels of 200 new patients, one of them twice."""
    table, rng = load_source("sklearn:breast_cancer"), np.random.default_rng(1)
    chosen = rng.choice(len(table.labels), 200, replace=False)
    values = (table.inputs[chosen] * rng.uniform(0.99, 1.01, (200, 30))).astype(np.float32)
    values[199], chosen[199] = values[0], chosen[0]
    inputs = [["example", *table.feature_names], *([f"p{i}", *map(str, v)] for i, v in enumerate(values))]
    labels = [["example", "label"], *([f"p{i}", CLASSES[y]] for i, y in enumerate(table.labels[chosen]))]
    write("inputs.csv", inputs)
    write("labels.csv", labels)
    return "--inputs", "inputs.csv", "--labels", "labels.csv"


@pytest.fixture
def rule(run: Any, database: Any, artifacts: Any) -> Callable[..., Any]:
    """Run a command as the referee."""
    place = ("--database", database.url("easeml_referee"), "--artifacts", str(artifacts.root))
    return lambda *arguments: run("validation", *arguments, *place)


@pytest.fixture
def study(make_study: Any, database: Any, artifacts: Any, nowhere: Path) -> str:
    """A study of which one candidate has run; its model names one class."""
    make_study("cancer", candidates=CANDIDATES)
    (trial,) = suggest_trials(database.worker, count=1, request_key="k").trials
    save_constant(nowhere / "model", 1)
    result = TrainingResult(0.4, 1.0, nowhere / "model", "constant", np.ones(85, dtype=np.int64))
    record_success(database.worker, artifacts, claim(database.worker, trial_id=trial.trial_id, request_key="w"), result)
    return "cancer"


def test_a_set_from_use_to_replacement(ask: Any, rule: Any, files: Any, study: str, artifacts: Any) -> None:
    place = ("--artifacts", str(artifacts.root))
    shown = ask("validation", "show", study, *place).text
    assert "validation set 1 of cancer is used: go on" in shown
    assert "looked at 2 times: trials 1, rungs 0, submissions 0, nights 1; no signal of the meter" in shown
    assert "85 rows; 38 keep their own noise in range 1, 47 do for so many looks" in shown  # ln(40) / 0.08 = 46.1
    assert "split: study cancer is active; rows: train " in shown
    assert "wait to be measured" not in shown

    replaced = rule("replace", study, *files)
    assert "validation set 2 of cancer: 199 rows, 199 of them new; 1 model to measure" in replaced.text
    assert "left out: 1 repeat another row" in replaced.text
    again = rule("replace", study, *files, "--json").json
    assert (again["version"], again["replaced_before"]) == (2, True)
    assert "has it already: validation set 2 of cancer" in rule("replace", study, *files).text

    shown = ask("validation", "show", study, *place).text
    assert "most of its rows are" not in shown
    assert "validation set 2 of cancer is fresh: go on" in shown
    assert "trained models that wait to be measured on it: 1 (`easeml validation remeasure cancer`" in shown
    measured = rule("remeasure", study)
    assert (
        "validation set 2 of cancer: 1 model measured, 0 failed, 0 left; 0 trials on earlier data under way"
        in measured.text
    )
    assert ": quality 0." in measured.err
    assert measured.err.endswith("(1 of 1)\n")
    report = ask("validation", "show", study, "--json", *place).json
    assert (report["version"], report["state"], report["to_measure"]) == (2, "used", 0)
    assert [entry["state"] for entry in report["history"]] == ["replaced", "used"]
    assert rule("remeasure", study, "--json").json["measured"] == []


def test_the_page_s_commands_run(run: Any, files: Any, study: str, database: Any, artifacts: Any) -> None:
    """In their order; what the first prints is the example's."""
    page = (Path(__file__).parents[3] / "docs" / "meter.md").read_text(encoding="utf-8")
    section = page.split("\n## The validation set is used up too\n")[1].split("\n## ")[0]
    shown, *commands = re.findall(r"^easeml (.*)$", section, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["replace", "replace", "remeasure"]
    example = section.split("```sh\n")[1].split("```\n")[2].splitlines()
    kept = ("--artifacts", str(artifacts.root))
    printed = run(*shown.split(), "--database", database.url("easeml_worker"), *kept).out.splitlines()
    assert printed[:4] == example[:4]
    for new, old in (("new.csv", "inputs.csv"), ("truth.csv", "labels.csv")):
        Path(old).rename(new)
    place = ("--database", database.url("easeml_referee"))
    make_released_set(run, place, kept)
    for command in commands:
        answer = run(*command.split(), *place, *kept)
        assert answer.status == 0, answer.err


def make_released_set(run: Any, place: tuple[str, ...], kept: tuple[str, ...]) -> None:
    """A released test set ``spring``: rows that are in no part."""
    table, rng = load_source("sklearn:breast_cancer"), np.random.default_rng(2)
    values = (table.inputs[:120] * rng.uniform(0.99, 1.01, (120, 30))).astype(np.float32)
    write("spring.csv", [["example", *table.feature_names], *([f"s{i}", *map(str, v)] for i, v in enumerate(values))])
    labels = ([f"s{i}", CLASSES[y]] for i, y in enumerate(table.labels[:120]))
    write("spring-labels.csv", [["example", "label"], *labels])
    settings = ("--condition", "n - o > 0 +/- 0.4", "--steps", "1", "--reliability", "0.8")
    given = ("--study", "cancer", "--name", "spring", "--inputs", "spring.csv", "--labels", "spring-labels.csv")
    for command in (
        ("test-set", "seal", *given, *settings, *kept),
        ("test-set", "retire", "spring"),
        ("test-set", "release", "spring", *kept),
    ):
        answer = run(*command, *place)
        assert answer.status == 0, answer.err


def test_what_the_kept_rows_have_seen_is_shown_by_itself(ask: Any, rule: Any, study: str, nowhere: Path) -> None:
    table = load_source("sklearn:breast_cancer")
    write("one.csv", [["example", *table.feature_names], ["p", *map(str, table.inputs[0] * 1.001)]])
    write("its-label.csv", [["example", "label"], ["p", CLASSES[table.labels[0]]]])
    answer = rule("replace", study, "--inputs", "one.csv", "--labels", "its-label.csv", "--add")
    said = "easeml: 85 rows were in an earlier validation set and 1 was in none: looks and signals of before count on"
    assert said in answer.err
    shown = rule("show", study).text
    assert "validation set 2 of cancer is used: go on looked at 0 times" in " ".join(shown.split())
    seen = "looked at 2 times: trials 1, rungs 0, submissions 0, nights 1; no signal of the meter"
    assert f"most of its rows are from version 1, and count with what was seen there: {seen}" in shown


def test_rows_are_added(rule: Any, files: Any, study: str) -> None:
    assert "validation set 2 of cancer: 284 rows, 199 of them new" in rule("replace", study, *files, "--add").text
    answer = rule("replace", study, *files, "--add")
    assert "has it already: validation set 2 of cancer: 284 rows, 0 of them new" in answer.text
    assert "left out: 1 repeat another row, 199 are there already" in answer.text


def test_a_model_that_cannot_be_measured_is_status_1(rule: Any, files: Any, study: str, database: Any) -> None:
    rule("replace", study, *files)
    with database.server.connect(database=database.name) as opened, opened.cursor() as cursor:
        cursor.execute(f"UPDATE work.models SET artifact = 'sha256:{'0' * 64}' WHERE trial_id IS NOT NULL")
        opened.commit()
    answer = rule("remeasure", study, "--json")
    assert (answer.status, answer.json["left"], len(answer.json["failed"])) == (1, 1, 1)
    assert ": not measured, " in answer.err


def test_replacing_is_the_referee_s(ask: Any, rule: Any, files: Any, study: str, artifacts: Any) -> None:
    answer = ask("validation", "replace", study, *files, "--artifacts", str(artifacts.root))
    assert (answer.status, "this role may not do that" in answer.err) == (2, True)
    assert "this command needs the address of the role easeml_referee" in answer.err
    assert rule("replace", study, *files).status == 0
    answer = ask("validation", "remeasure", study, "--artifacts", str(artifacts.root))
    assert (answer.status, "this role may not do that" in answer.err) == (2, True)


def test_errors_are_sentences(ask: Any, rule: Any, study: str) -> None:
    answer = rule("replace", study)
    assert (answer.status, "give --inputs, with --labels where they tell none themselves" in answer.err) == (2, True)
    answer = ask("validation", "show", "nothing")
    assert (answer.status, "nothing" in answer.err) == (2, True)
    answer = rule("replace", study, "--from-set", "spring")
    assert (answer.status, "spring" in answer.err) == (2, True)

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


def test_a_set_from_use_to_replacement(
    ask: Any, rule: Any, files: Any, study: str, artifacts: Any, recorded: Any
) -> None:
    show = ("validation", "show", study, "--artifacts", str(artifacts.root))
    told = [ask(*show)]
    report = ask(*show, "--json").json
    assert (report["state"], report["to_measure"], report["inherits_from"], report["signals"]) == ("used", 0, [], [])
    assert report["looks"] == {"trials": 1, "rungs": 0, "submissions": 0, "nights": 1}
    assert (report["rows"], report["rows_for_looks"]) == (85, 47)  # ln(40) / 0.08 = 46.1

    told += [rule("replace", study, *files)]
    again = rule("replace", study, *files, "--json").json
    assert (again["version"], again["replaced_before"]) == (2, True)
    told += [rule("replace", study, *files), ask(*show)]
    report = ask(*show, "--json").json
    assert (report["state"], report["to_measure"], report["inherits_from"]) == ("fresh", 1, [])
    measured = rule("remeasure", study)
    told += [measured]
    recorded("\n".join(answer.recorded() for answer in told), "validation")
    assert ": quality 0." in measured.err
    assert measured.err.endswith("(1 of 1)\n")
    report = ask(*show, "--json").json
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


def test_what_the_kept_rows_have_seen_is_shown_by_itself(rule: Any, study: str, nowhere: Path, recorded: Any) -> None:
    table = load_source("sklearn:breast_cancer")
    write("one.csv", [["example", *table.feature_names], ["p", *map(str, table.inputs[0] * 1.001)]])
    write("its-label.csv", [["example", "label"], ["p", CLASSES[table.labels[0]]]])
    answer = rule("replace", study, "--inputs", "one.csv", "--labels", "its-label.csv", "--add")
    assert "85 rows were" in answer.err
    assert "1 was in none" in answer.err
    report = rule("show", study, "--json").json
    assert (report["version"], report["state"], report["inherits_from"]) == (2, "used", [1])
    assert (sum(report["looks"].values()), sum(report["inherited_looks"].values())) == (0, 2)
    recorded(rule("show", study).recorded(), "validation_of_kept_rows")


def test_rows_are_added(rule: Any, files: Any, study: str) -> None:
    added, again = (rule("replace", study, *files, "--add", "--json").json for _ in range(2))
    counts = ("version", "rows", "added", "duplicates", "already", "replaced_before")
    assert [added[name] for name in counts] == [2, 284, 199, 1, 0, False]
    assert [again[name] for name in counts] == [2, 284, 0, 1, 199, True]
    assert "199 are there" in rule("replace", study, *files, "--add").text


def test_a_model_that_cannot_be_measured_is_status_1(rule: Any, files: Any, study: str, database: Any) -> None:
    rule("replace", study, *files)
    with database.server.connect(database=database.name) as opened, opened.cursor() as cursor:
        cursor.execute(f"UPDATE work.models SET artifact = 'sha256:{'0' * 64}' WHERE trial_id IS NOT NULL")
        opened.commit()
    answer = rule("remeasure", study, "--json")
    assert (answer.status, answer.json["left"], len(answer.json["failed"])) == (1, 1, 1)
    assert ": not measured, " in answer.err


def test_replacing_is_the_referee_s(ask: Any, rule: Any, files: Any, study: str, artifacts: Any) -> None:
    as_worker = ("--artifacts", str(artifacts.root), "--json")
    answer = ask("validation", "replace", study, *files, *as_worker)
    assert (answer.refusal, "--role easeml_referee" in answer.err) == ("WrongRoleError", True)
    assert rule("replace", study, *files).status == 0
    assert ask("validation", "remeasure", study, *as_worker).refusal == "WrongRoleError"


def test_an_error_names_what_was_given(ask: Any, rule: Any, study: str) -> None:
    answer = rule("replace", study)
    assert (answer.status, "give --inputs" in answer.err) == (2, True)
    answer = ask("validation", "show", "nothing")
    assert (answer.status, "nothing" in answer.err) == (2, True)
    answer = rule("replace", study, "--from-set", "spring")
    assert (answer.status, "spring" in answer.err) == (2, True)

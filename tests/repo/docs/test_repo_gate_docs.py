"""docs/gate.md: its figures have their places, its commands are understood, its sizes are what the planner says."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

import pytest
from doc_pages import Page, parse
from figures.gate import catalogue

from easeml_core.entities import Adaptivity, Mode, Verdict
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.planner import plan_gate

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = Page("gate.md", without=("The condition language",))
PAGE, TEXT, BLOCKS, COMMANDS = _PAGE.path, _PAGE.text, _PAGE.blocks, _PAGE.commands
CONDITIONS = sorted(set(re.findall(r"`([^`\n]*[<>][^`\n]*\+/-[^`\n]*)`", TEXT)))


def rows(block: str) -> list[list[str]]:
    """The cells of the block's table, without its header."""
    lines = [line for line in BLOCKS[block].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_figures_of_the_script_and_of_the_page_are_the_same_and_all_are_made() -> None:
    assert sorted(BLOCKS) == sorted(catalogue.FIGURES)
    assert all(block.strip() for block in BLOCKS.values())


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_of_the_page_parses(command: str) -> None:
    given = parse(command)
    parse_condition(given["condition"])


def test_there_are_commands_of_every_kind() -> None:
    assert {command.split()[2] for command in COMMANDS} == {"plan", "decide", "selftest"}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_of_the_page_is_one(condition: str) -> None:
    assert str(parse_condition(condition))


@pytest.mark.parametrize("word", [*Adaptivity, *Mode])
def test_every_choice_is_named(word: str) -> None:
    assert re.search(rf"`{word.value}[:`]", TEXT)


@pytest.mark.parametrize("word", list(Verdict))
def test_every_verdict_is_named(word: Verdict) -> None:
    assert f"| {word.value} |" in TEXT


def test_the_script_of_the_page_is_read() -> None:
    from easeml_core.gate.script import read_script

    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    script = read_script(text)
    assert (script.adaptivity, script.steps, script.power, script.mail) == ("none", 32, 0.9, "boss@example.org")


def test_promises_are_all_there() -> None:
    assert re.findall(r"^\| (T\d) \|", TEXT, re.MULTILINE) == [f"T{k}" for k in range(1, 9)]


@pytest.mark.parametrize("row", rows("published"), ids=lambda row: " ".join(row[:2]))
def test_published_sizes_are_the_planner_s(row: list[str]) -> None:
    reliability, tolerance, *cells = row
    asked = {"reliability": float(reliability), "steps": 32, "mode": "fp-free"}
    expected = []
    for left in ("n > 0.9", "n - o > 0.02"):
        condition = parse_condition(f"{left} +/- {tolerance}")
        for adaptivity in ("none", "full"):
            paper = plan_gate(condition, **asked, adaptivity=adaptivity, estimator="paper")
            exact = plan_gate(condition, **asked, adaptivity=adaptivity, target="estimate")
            expected.append(f"{paper.labels:,} / {exact.labels:,}")
    assert cells == expected


def test_sizes_by_adaptivity_are_the_planner_s() -> None:
    condition = parse_condition("n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01")
    for name, nats, examples, each in rows("adaptivity"):
        found = re.fullmatch(r"`([^`]*)`(?: after (\d) pass(?:es)?)?", name)
        assert found is not None
        plan = plan_gate(
            condition,
            reliability=0.9999,
            steps=32,
            adaptivity=found[1],
            mode="fp-free",
            power=0.9,
            changes=int(found[2] or 0),
        )
        shown = (f"{plan.log_multiplicity:.2f}", f"{plan.labels:,}", f"{plan.labels_per_submission:,}")
        assert shown == (nats, examples, each)


def test_the_example_s_program_makes_the_files_that_its_commands_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"```python\n{catalogue.FILES}\n```" in TEXT
    monkeypatch.chdir(tmp_path)
    exec(compile(catalogue.FILES, "docs/gate.md", "exec"), {})
    counts = {}
    for path in tmp_path.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            counts[path.name] = len(list(csv.reader(stream))) - 1
    assert counts["old.csv"] == counts["new.csv"] == 9000
    assert f'"labels": {counts["labels.csv"]},' in BLOCKS["example-report"]


def test_nothing_is_wrong_in_the_tables_of_risks() -> None:
    """The page must not show a gate that breaks its word: if a table does, that is news, and this test says so."""
    assert all(row[5:7] == ["0", "0"] for row in rows("cifar"))
    for name, _, *cells in rows("attacks"):
        least = [float(cell.split("(")[1].split("-")[0]) for cell in cells]
        assert max(least) > 0.05 if name.startswith("delta / H") else max(least) <= 0.05
    for *_, cell in rows("errors"):
        assert float(cell.split("(")[1].split("-")[0]) <= 0.01

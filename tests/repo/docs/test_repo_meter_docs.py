"""docs/meter.md: its figures have their places, its commands run, its sizes are the planner's and another program's."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from doc_pages import MOST_BYTES, Page, parse
from figures.meter import catalogue as catalogue
from figures.meter import sizes
from figures.meter.promises import exact_validation_minimum
from meter_oracles import combine_signals

from easeml_core.cli.app import cli
from easeml_core.meter.overfitting_budget import parse_rule
from easeml_core.meter.planner import plan_meter, validation_minimum
from easeml_core.meter.sentences import CAVEATS, advice
from easeml_core.meter.tree_size import METHODS
from easeml_core.meter.validation_set import LOOKS, ValidationState, rows_for_looks
from easeml_core.settings.config import MeterConfig

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = Page("meter.md")
PAGE, TEXT, BLOCKS, COMMANDS = _PAGE.path, _PAGE.text, _PAGE.blocks, _PAGE.commands


def cells(text: str) -> list[list[str]]:
    """The cells of the first table, without its header."""
    lines = [line for line in text[text.index("\n|") :].strip().split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def rows(block: str) -> list[list[str]]:
    return cells("\n" + BLOCKS[block])


def section(title: str) -> str:
    """A section of the page up to the next heading."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_figures_of_the_script_and_of_the_page_are_the_same_and_all_are_made() -> None:
    assert sorted(BLOCKS) == sorted(catalogue.FIGURES)
    assert all(block.strip() for block in BLOCKS.values())
    assert set(catalogue.FIGURES) > catalogue.NEED_DATA


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_of_the_page_parses(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()  # where the plots go
    given = parse(command)
    if boundaries := given.get("ranges"):
        ranges = tuple(map(float, boundaries.split(",")))
        MeterConfig(ranges=ranges, tolerance=given["tolerance"])


def test_there_are_commands_of_every_kind() -> None:
    of_meter = {("meter", "plan"), ("meter", "replay")}
    of_validation = {("validation", verb) for verb in ("show", "replace", "remeasure")}  # run in tests/cli
    assert {tuple(command.split()[1:3]) for command in COMMANDS} == of_meter | of_validation


def test_every_method_has_its_row_and_its_condition() -> None:
    table = cells(section("What a signal promises"))
    named = {name: row for row in table for name in re.findall(r"`([a-z-]+)`", row[0])}
    assert set(named) == set(METHODS)
    plain = {name for name, row in named.items() if row[2] == "both ends" and not row[3]}
    conditions = {"non-adaptive", "fresh", "score", "ratchet", "multitenant"}  # another promise, or when it holds
    assert plain.isdisjoint(conditions)
    assert conditions < set(CAVEATS)


def test_sizes_are_the_planner_s_and_another_program_s() -> None:
    asked = {"ranges": (0.1, 0.3, 0.5, 0.7), "reliability": 0.99, "ambiguous": 5}
    found = rows("sizes")
    assert len(found) == len(sizes.METHODS)
    for (method, about, expected), row in zip(sizes.METHODS, found, strict=True):
        assert row[:2] == [f"`{method}`", about]
        for (tolerance, steps), other, cell in zip(sizes.CASES, expected, row[2:], strict=True):
            more: dict[str, Any] = {"tolerance": tolerance, "steps": steps, "method": method}
            more |= {"ranges": (0.1, 0.1 + 10 * tolerance)} if method == "dithered" else {}
            more |= {"teams": 4, "steps": 96 if steps == 100 else steps} if method == "multitenant" else {}
            more |= {"ambiguous": 10} if about.startswith("10") else {}
            more |= {"tail": "clopper-pearson", "error_rate": 0.1} if "Clopper" in about else {}
            labels = plan_meter(**asked | more).labels
            assert cell == (f"{labels:,} / {other:,}" if other else f"{labels:,}")
            assert not other or abs(labels - other) <= (0.001 * other if "Clopper" in about else 0)


def test_exact_sizes_are_within_a_thousandth_of_another_program_s() -> None:
    assert len(rows("tails")) == len(sizes.TAILS)
    for (_, _, expected), row in zip(sizes.TAILS, rows("tails"), strict=True):
        for other, cell in zip(expected, row[1:], strict=True):
            left, right = map(number, cell.split(" / "))
            assert right == other
            assert left == pytest.approx(right, rel=1e-3)


def test_sizes_in_the_prose_are_the_planner_s() -> None:
    asked: dict[str, Any] = {"ranges": (0.1, 0.3, 0.5, 0.7), "reliability": 0.99, "steps": 32}
    worst_first = plan_meter(**asked, tolerance=0.05, method="nonuniform", tolerances=(0.02, 0.04, 0.05, 0.06, 0.08))
    uniform = plan_meter(**asked, tolerance=0.02, method="exact-tree")
    assert f"need {worst_first.labels:,} labels" in section("How many labels")
    assert f"needs {uniform.labels:,} by the exact tree" in section("How many labels")
    for tolerance, each in ((0.05, "139"), (0.02, "866")):
        more, few = (plan_meter(**asked, tolerance=tolerance, ambiguous=b).labels for b in (1_000, 0))
        assert f"{(more - few) / 31:.0f}" == each  # at most 31 of 32 answers have an answer before them
        assert each in section("Choosing ranges and tolerance")


def test_the_replay_of_the_page_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = re.search(r"```\n(submission,.*?)```", BLOCKS["example-history"], re.DOTALL)
    command, printed = re.findall(r"```(?:sh)?\n(.*?)```", BLOCKS["example-replay"], re.DOTALL)
    assert history is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "history.csv").write_text(history[1], encoding="utf-8")
    done = CliRunner().invoke(cli, shlex.split(command.replace("\\\n", " "))[1:])
    assert done.exit_code == 0, done.output
    expected = printed.splitlines()
    assert [line.rstrip() for line in done.output.splitlines()[: len(expected) - 1]] == expected[:-1]
    assert "easeml: warning: the plan asks for 7,063 examples, the set has 5,000" in done.output
    assert (tmp_path / "pictures" / "meter-replay.png").stat().st_size > 1_000


def test_the_plan_of_the_page_is_what_the_command_prints() -> None:
    command, printed = re.findall(r"```(?:sh)?\n(.*?)```", BLOCKS["example-plan"], re.DOTALL)
    done = CliRunner().invoke(cli, shlex.split(command.replace("\\\n", " "))[1:])
    assert [line.rstrip() for line in done.output.splitlines()] == printed.splitlines()


def test_the_story_of_the_example_is_that_of_its_tables() -> None:
    losses = {int(number): float(loss) for number, _, loss, *_ in rows("example-truth")}
    signals = {int(number): int(signal) for number, *_, signal in rows("example-truth")}
    assert min(losses, key=losses.__getitem__) == 6
    assert (signals[6], signals[8], signals[9]) == (1, 2, 2)
    assert "alert at submission 9:" in BLOCKS["example-replay"]


def test_what_to_do_is_what_alerts_say() -> None:
    (_, _, green), (_, _, yellow), (_, _, red), _ = cells(section("What to do at each signal"))
    assert [green, yellow, red] == [advice(1, 3), advice(2, 3), advice(3, 3)]


@pytest.mark.parametrize("row", cells(section("The overfitting budget")), ids=lambda row: row[0])
def test_budget_rules_are_read_and_broken_as_said(row: list[str]) -> None:
    rule = parse_rule(row[0].strip("`"), 3)
    broken = {
        "signal above range 2": ([1, 3], [3, 2]),
        "two yellow in a row": ([1, 2, 3], [2, 1, 2]),
        "three red in a row": ([3, 3, 3], [3, 2, 3]),
        "3 in a row at range 2 or above": ([2, 3, 2], [2, 2]),
        "retire within 5 submissions": ([1, 1, 1, 1, None], [1, 1, 1, 1, 1, None]),
    }
    breaks, keeps = broken[row[0].strip("`")]
    assert rule.broken_by(breaks)
    assert not rule.broken_by(keeps)


@pytest.mark.nightly
def test_the_validation_set_s_states_and_sizes() -> None:

    text = section("The validation set is used up too")
    states = cells("\n| state |" + text.split("\n| state |")[1])
    assert [row[0].strip("`") for row in states] == [state.value for state in ValidationState]
    assert ", ".join(LOOKS) in text
    for boundary, rule, worst, better, many in rows("validation"):
        asked: dict[str, Any] = {"ranges": (float(boundary),), "reliability": 0.99}
        assert number(rule) == validation_minimum(**asked)
        assert number(worst) == exact_validation_minimum(**asked)
        assert number(better) == exact_validation_minimum(**asked, error_rate=0.1)
        assert number(many) == rows_for_looks(500, **asked)


@pytest.mark.parametrize(
    ("row", "total", "direct", "words"),
    [
        (0, 1, 1, "go on"),
        (1, 2, 2, "renew it from the same source"),
        (2, 3, 1, "collect validation data"),
        (3, 3, 2, "do not only add to it"),
        (4, 1, 3, "renew the validation set"),
    ],
)
def test_two_signals_mean_what_the_page_says(row: int, total: int, direct: int, words: str) -> None:
    table = cells(section("Two meters: tuning or drift"))
    assert words in table[row][3]
    found = combine_signals(total=total, direct=direct, config=MeterConfig(ranges=(0.1, 0.3), tolerance=0.05))
    assert words in found.sentence


def test_no_promise_is_broken_in_the_tables() -> None:
    """The page must not show a meter that breaks its word: if a table does, that is news, and this test says so."""
    for method, *_, broken in rows("attack"):
        if broken.startswith("none"):
            continue
        least = float(broken.split("(")[1].split("-")[0])
        assert least > 0.01 if method == "`non-adaptive`" else least <= 0.01
    for data, _, _, _, signals, *_ in rows("cifar"):
        assert signals == ("30 x 1" if "halves" in data else "30 x 2")
    for _, gained, _, tolerance in rows("ladder"):
        assert float(gained) < float(tolerance)


def test_votes_on_noise_are_told_as_promised() -> None:
    """Ranges .15 and .35, tolerance .1, a true accuracy of 1/2: each signal covers the gap of its row."""
    edges, tolerance = (-1.0, 0.15, 0.35, 1.0), 0.1
    found = cells("\n| voters |" + TEXT.split("\n| voters |")[1])
    assert len(found) == 8
    for _, accuracy, gap, signal, sealed_loss, then in found:
        assert float(gap) == pytest.approx(float(accuracy.split()[0]) / 100 - 0.5, abs=1e-9)
        low, high = edges[int(signal) - 1], edges[int(signal)]
        assert low - tolerance <= float(gap) <= high + tolerance
        assert abs(float(sealed_loss) - 0.5) <= float(then) <= tolerance


def test_a_reading_of_the_page_is_within_what_was_asked_for() -> None:
    readings = cells("\n| entries in the ledger |" + TEXT.split("\n| entries in the ledger |")[1])
    assert [number(row[0]) for row in readings] == [1, 100, 1_000]
    assert all(float(row[2]) < 20 for row in readings[:2])  # the page says that the last row is above


@pytest.mark.parametrize("picture", sorted((PAGE.parent / "pictures").glob("meter-*.png")), ids=lambda path: path.name)
def test_pictures_are_small_and_used(picture: Path) -> None:
    assert picture.stat().st_size < MOST_BYTES
    assert f"(pictures/{picture.name})" in TEXT

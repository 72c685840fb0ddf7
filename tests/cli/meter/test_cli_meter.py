"""``easeml meter plan`` and ``easeml meter replay`` from the command line, without a database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HISTORY = "submission,validation_loss,test_errors\n1,0.2,1000\n2,0.2,1500\n3,0.2,2100\n4,0.2,1000\n"
WANTED = ("--ranges", "0.1,0.3", "--tolerance", "0.05", "--reliability", "0.99", "--steps", "32")


@pytest.fixture
def history(nowhere: Path) -> str:
    (nowhere / "h.csv").write_text(HISTORY, encoding="utf-8")
    return "h.csv"


@pytest.mark.parametrize(
    ("method", "more", "labels"),
    [
        ("ratchet", (), 3_628),
        ("deviations", ("--deviations", "3"), 3_997),
        ("multitenant", ("--teams", "4"), 3_635),
        ("nonuniform", ("--tolerances", "0.02,0.04,0.05,0.06,0.08"), 10_956),
        ("first-change", (), 1_753),
        ("path-adaptive", ("--tail", "clopper-pearson", "--error-rate", "0.1"), 923),
    ],
)
def test_every_method_is_planned_in_one_form(method: str, more: tuple[str, ...], labels: int, run: Any) -> None:
    plan = run("meter", "plan", "--method", method, *more, "--json").json
    assert plan["labels"] == labels
    assert plan["method"] == method
    for key in ("log_nodes", "validation_minimum", "warnings", "alternatives"):
        assert key in plan
    others = {other["method"]: other["labels"] for other in plan["alternatives"]}
    assert method not in others
    assert {"path-adaptive", "full", "fresh", "ratchet"} - {method} <= set(others)
    assert list(others.values()) == sorted(others.values())


def test_alternatives_are_those_that_a_plan_of_their_own_gives(run: Any) -> None:
    more = ("--teams", "4", "--tolerances", "0.02,0.04,0.05,0.06,0.08", "--ranges", "0.1,0.3,0.5,0.7")
    plan = run("meter", "plan", "--method", "full", *more, "--json").json
    others = {other["method"]: other["labels"] for other in plan["alternatives"]}
    assert set(others) == {
        *("path-adaptive", "pruned", "exact-tree", "first-change", "dithered", "ratchet", "deviations"),
        *("nonuniform", "multitenant", "non-adaptive", "fresh", "score"),
    }
    for method, labels in others.items():
        given = more if method in ("nonuniform", "multitenant") else ()
        assert run("meter", "plan", "--method", method, *given, "--json").json["labels"] == labels


def test_methods_that_are_not_possible_are_no_alternatives(run: Any) -> None:
    plan = run("meter", "plan", "--ranges", "0.05,0.13,0.3", "--one-sided", "--method", "full", "--json").json
    others = {other["method"] for other in plan["alternatives"]}
    assert not others & {"pruned", "dithered", "path-adaptive", "multitenant", "nonuniform"}
    assert "ratchet" in others


def test_a_plan_says_what_it_promises_and_compares(run: Any, recorded: Any) -> None:
    recorded(run("meter", "plan", "--method", "ratchet").out, "meter_plan_ratchet")


def test_a_replay_answers_in_json(history: str, run: Any) -> None:
    found = run("meter", "replay", "--history", history, "--test-size", "5000", *WANTED, "--json").json
    assert [reading["signal"] for reading in found["readings"]] == [1, 1, 2, 1]
    assert [reading["submission"] for reading in found["readings"]] == [1, 2, 3, 4]
    assert [reading["reachable"] for reading in found["readings"]] == [1, 2, 1, 1]
    assert found["retired_at"] is None
    assert found["final_tolerance"] == found["readings"][-1]["tolerance"] < 0.05


def test_a_replay_is_shown_to_people(history: str, run: Any, recorded: Any) -> None:
    asked = ("meter", "replay", "--history", history, *WANTED)
    answer = run(*asked, "--test-size", "1753", "--budget", "retire within 9 submissions")
    assert (answer.status, "row 4, column test_errors" in answer.err, "'2100'" in answer.err) == (2, True, True)
    shown = run(*asked, "--test-size", "5000", "--method", "first-change", "--budget", "signal above range 1")
    recorded(shown.out, "meter_replay")
    small = run(*asked, "--test-size", "2200", "--tolerance", "0.2", "--steps", "3000")
    assert small.status == 0
    few = run("meter", "replay", "--history", history, "--test-size", "2200", "--tolerance", "0.05")
    assert ("2,446 examples" in few.err, "2,200" in few.err) == (True, True)


@pytest.mark.parametrize(
    "more",
    [
        ("--method", "pruned", "--tail", "clopper-pearson"),
        ("--method", "exact-tree"),
        ("--method", "full"),
        ("--method", "dithered", "--ranges", "0.1,0.3,0.5", "--seed", "3"),
        ("--method", "ratchet", "--one-sided"),
        ("--method", "deviations", "--deviations", "2"),
        ("--method", "nonuniform", "--tolerances", "0.05,0.06,0.07"),
        ("--method", "multitenant", "--teams", "2"),
        ("--open-ended", "--developer", "kt"),
    ],
)
def test_every_method_replays(more: tuple[str, ...], history: str, run: Any) -> None:
    asked = ("meter", "replay", "--history", history, "--test-size", "50000", *WANTED)
    found = run(*asked, *more, "--json").json
    assert len(found["readings"]) == 4
    assert all(reading["signal"] == 1 for reading in found["readings"])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_replay_is_drawn(suffix: str, history: str, run: Any, nowhere: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = f"replay.{suffix}"
    answer = run("meter", "replay", "--history", history, "--test-size", "5000", *WANTED, "--plot", plot, "--json")
    assert json.loads(answer.out)["retired_at"] is None
    assert f"plot: {plot}" in answer.err
    start = (nowhere / plot).read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in start


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("plan", "--method", "nonuniform", "--tolerances", "low"), ("--tolerances must be numbers", "'low'")),
        (("plan", "--method", "nonuniform"), ("tolerances must be 5",)),
        (("plan", "--method", "dithered", "--ranges", "0.1,0.2,0.4"), ("same distance apart",)),
        (
            ("plan", "--one-sided"),
            (
                "one_sided must",
                "'path-adaptive'",
            ),
        ),
        (
            ("plan", "--method", "multitenant", "--teams", "99"),
            (
                "teams must",
                "32 steps",
            ),
        ),
        (
            ("replay", "--history", "h.csv", "--test-size", "0"),
            (
                "--test-size must",
                "got 0",
            ),
        ),
        (("replay", "--history", "none.csv", "--test-size", "9"), ("none.csv cannot",)),
        (
            ("replay", "--history", "h.csv", "--test-size", "5000", "--method", "score"),
            (
                "method must",
                "'score'",
            ),
        ),
        (("replay", "--history", "h.csv", "--test-size", "5000", "--plot", "a.txt"), (".png, .svg, .pdf",)),
        (("replay", "--history", "h.csv", "--test-size", "5000", "--budget", "be good"), ("rule 'be good'",)),
        (("replay", "--history", "h.csv", "--test-size", "5000", "--seed", "-1"), ("--seed must",)),
        (("replay", "--test-size", "9"), ("option '--history'",)),
    ],
)
def test_bad_input_is_an_error_with_what_is_allowed(
    asked: tuple[str, ...], words: tuple[str, ...], history: str, run: Any
) -> None:
    answer = run("meter", *asked)
    assert (answer.status, answer.out) == (2, "")
    for word in words:
        assert word in answer.err

"""``easeml gate decide`` and ``selftest``: one word, a report for the referee, three exit statuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.gate import attack
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import count_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLASSES = np.array(["cat", "dog", "owl, snowy"])
BETTER = ("--condition", "n - o > 0.02 +/- 0.02", "--steps", "4", "--reliability", "0.99")


def write(path: Path, column: str, values: np.ndarray, names: Any) -> str:
    quoted = "".join(f'{name},"{CLASSES[v]}"\n' for name, v in zip(names, values, strict=True))
    path.write_text(f"example,{column}\n{quoted}")
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """Two thousand examples; the new model is better by 8 points."""
    rng = np.random.default_rng(4)
    n = 2000
    labels = rng.integers(0, 3, n)
    cells = rng.choice(4, size=n, p=[0.7, 0.12, 0.04, 0.14])
    wrong = (labels + 1) % 3
    old, new = np.where(cells % 3 == 0, labels, wrong), np.where(cells < 2, labels, wrong)
    old = np.where(cells == 2, labels, np.where(cells == 3, wrong, old))
    names = [f"img{i}" for i in range(n)]
    return {
        "labels": labels,
        "old": old,
        "new": new,
        "names": names,
        "files": (
            *("--labels", write(tmp_path / "labels.csv", "label", labels, names)),
            *("--old", write(tmp_path / "old.csv", "prediction", old, names)),
            *("--new", write(tmp_path / "new.csv", "prediction", new, names)),
        ),
        "turned": (
            *("--labels", str(tmp_path / "labels.csv")),
            *("--old", str(tmp_path / "new.csv")),
            *("--new", str(tmp_path / "old.csv")),
        ),
    }


def test_one_word_and_the_status(run: Callable[..., Any], data: dict[str, Any]) -> None:
    answer = run("gate", "decide", *BETTER, *data["files"])
    assert (answer.status, answer.out, answer.err) == (0, "pass\n", "")
    answer = run("gate", "decide", *BETTER, *data["turned"])
    assert (answer.status, answer.out) == (1, "fail\n")
    assert "needs 23,100" in answer.err  # the plan's figure: the condition bounds no disagreement


def test_the_referees_report(run: Callable[..., Any], data: dict[str, Any]) -> None:
    report = run("gate", "decide", *BETTER, *data["files"], "--json").json
    log_level = math.log(0.01) - 3 * math.log(2)
    outcomes = count_outcomes(data["labels"], data["old"], data["new"])
    expected = decide_counts(parse_condition(BETTER[1]), outcomes, log_level=log_level, mode="fp-free").to_json()
    assert (report["verdict"], report["released"]) == ("PASS", "pass")
    assert (report["examples"], report["wins"], report["losses"]) == (2000, outcomes.wins, outcomes.losses)
    assert report["disagreements"] == outcomes.disagreements == report["labels"]
    assert report["level"] == pytest.approx(0.01 / 8)
    assert [c["verdict"] for c in report["clauses"]] == [c["verdict"] for c in expected["clauses"]]
    assert report["interval"] == report["clauses"][0]["interval"]
    low, high = report["interval"]
    assert 0.02 < low < (outcomes.wins - outcomes.losses) / 2000 < high


def test_an_unknown_is_settled_by_the_mode(run: Callable[..., Any], data: dict[str, Any]) -> None:
    close = ("--condition", "n - o > 0.08 +/- 0.02", *data["files"], "--json")
    strict, kind = run("gate", "decide", *close), run("gate", "decide", *close, "--mode", "fn-free")
    assert (strict.status, strict.json["verdict"], strict.json["released"]) == (1, "UNKNOWN", "fail")
    assert (kind.status, kind.json["verdict"], kind.json["released"]) == (0, "UNKNOWN", "pass")


def test_labels_of_disagreements_suffice(
    run: Callable[..., Any], data: dict[str, Any], tmp_path: Path, recorded: Callable[..., None]
) -> None:
    apart = np.flatnonzero(data["old"] != data["new"])
    names = [data["names"][i] for i in apart]
    some = write(tmp_path / "some.csv", "label", data["labels"][apart], names)
    files = ("--labels", some, *data["files"][2:])
    full = run("gate", "decide", *BETTER, *data["files"], "--json").json
    assert run("gate", "decide", *BETTER, *files, "--json").json == full
    answer = run("gate", "decide", "--condition", "n > 0.5 +/- 0.1", *files)
    assert (answer.status, answer.out) == (2, "")
    recorded(answer.err.replace(f"{tmp_path}/", ""), "gate_decide_labels_missing")
    fewer = write(tmp_path / "fewer.csv", "label", data["labels"][apart[1:]], names[1:])
    answer = run("gate", "decide", *BETTER, "--labels", fewer, *data["files"][2:])
    assert (answer.status, "fewer.csv lacks 1 label " in answer.err, f"'{names[0]}'" in answer.err) == (2, True, True)


def test_d_alone_needs_no_labels(run: Callable[..., Any], data: dict[str, Any]) -> None:
    answer = run("gate", "decide", "--condition", "d < 0.3 +/- 0.05", *data["files"][2:], "--json")
    assert (answer.status, answer.json["labels"], answer.json["wins"]) == (0, 0, None)


def test_early_uses_fewer_labels_for_the_same_word(run: Callable[..., Any], data: dict[str, Any]) -> None:
    loose = ("--condition", "n - o > 0 +/- 0.02", "--steps", "1", "--reliability", "0.9", *data["files"], "--json")
    fixed = run("gate", "decide", *loose).json
    early = run("gate", "decide", *loose, "--sampling", "early").json
    assert early["released"] == fixed["released"] == "pass"
    assert early["labels"] < fixed["labels"]
    assert early["examples"] < fixed["examples"]


def test_labels_are_asked_for_step_by_step_whatever_the_order_of_the_files(
    run: Callable[..., Any], data: dict[str, Any], tmp_path: Path
) -> None:
    """The file that names the labels that are needed next goes on where the call before it ended."""
    plan = ("--condition", "n - o > 0 +/- 0.02", "--steps", "1", "--reliability", "0.9", "--sampling", "early")
    whole = run("gate", "decide", *plan, *data["files"], "--json").json
    place = {name: i for i, name in enumerate(data["names"])}
    known: list[str] = []
    for seed in range(20):
        at = np.random.default_rng(seed).permutation(2000)
        names, some = [data["names"][i] for i in at], tmp_path / "some.csv"
        write(some, "label", data["labels"][[place[name] for name in known]], known)
        files = ["--labels", str(some)] if known else []
        for kind in ("old", "new"):
            files += [f"--{kind}", write(tmp_path / f"{kind}{seed}.csv", "prediction", data[kind][at], names)]
        answer = run("gate", "decide", *plan, *files, "--json", "--wanted", str(tmp_path / "wanted.csv"))
        if answer.status != 2:
            break
        header, *wanted = (tmp_path / "wanted.csv").read_text().splitlines()
        assert (header, len(wanted), set(wanted) & set(known)) == ("example", 200, set())
        assert ("lacks 200 labels" in answer.err, repr(wanted[0]) in answer.err) == (True, True)
        known += wanted
    assert answer.json == whole | {"warnings": answer.json["warnings"]}
    assert whole["labels"] == len(known) or whole["labels"] > len(known) - 200


def test_names_that_a_spreadsheet_would_run_are_written_guarded_and_taken_in_either_form(
    run: Callable[..., Any], data: dict[str, Any], tmp_path: Path
) -> None:
    plan = ("--condition", "n - o > 0 +/- 0.02", "--steps", "1", "--reliability", "0.9", "--sampling", "early")
    names, truth = [f"={name}" for name in data["names"]], tmp_path / "truth.csv"
    files = [f"--{k}={write(tmp_path / f'{k}.csv', 'prediction', data[k], names)}" for k in ("old", "new")]
    assert run("gate", "decide", *plan, *files, "--wanted", str(tmp_path / "wanted.csv")).status == 2
    assert all(line.startswith("'=") for line in (tmp_path / "wanted.csv").read_text().splitlines()[1:])
    answers = []
    for given in (names, [f"'{name}" for name in names]):
        write(truth, "label", data["labels"], given)
        answers.append(run("gate", "decide", *plan, *files, "--labels", str(truth), "--json").json)
    assert answers[0] == answers[1]
    (tmp_path / "both.csv").write_text(f"example,label\n{names[0]},dog\n'{names[0]},cat\n")
    twice = run("gate", "decide", *plan, *files, "--labels", str(tmp_path / "both.csv"))
    assert "without a prediction" in twice.err


def test_slices(run: Callable[..., Any], data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "slices.csv").write_text(
        "example,slice\n" + "".join(f"{name},{'young' if i % 2 else 'old'}\n" for i, name in enumerate(data["names"]))
    )
    asked = (*BETTER, *data["files"], "--slices", str(tmp_path / "slices.csv"))
    answer = run(
        "gate", "decide", *asked, "--slice", "young: n > 0.5 +/- 0.1", "--slice", "old: d < 0.5 +/- 0.1", "--json"
    )
    assert (answer.status, sorted(answer.json["slices"])) == (0, ["old", "young"])
    assert answer.json["level"] == pytest.approx(0.01 / 8)
    assert answer.json["slices"]["young"]["examples"] == 1000
    assert run("gate", "decide", *asked, "--slice", "young: n > 0.95 +/- 0.1").out == "fail\n"
    for wrong, message in [
        (("--slice", "teen: n > 0.5 +/- 0.1"), "'old', 'young'"),
        (("--slice", "n > 0.5 +/- 0.1"), '"NAME: CONDITION"'),
        (("--slice", "old: n > 0 +/- 1", "--slice", "old: d < 1 +/- 1"), "slice twice"),
        ((), "--slice belong together"),
    ]:
        answer = run("gate", "decide", *asked, *wrong)
        assert (answer.status, answer.out) == (2, "")
        assert message in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--condition", "n - o > 0.02"), "expected a tolerance"),
        (("--condition", "n > 0.5 +/- 0.1", "--step", "33"), "1 to 32"),
        (("--condition", "n > 0.5 +/- 0.1", "--adaptivity", "upTo:2", "--passes", "2"), "passes must be < 2"),
        (("--condition", "n > 0.5 +/- 0.1", "--mode", "strict"), "'--mode'"),
        (("--condition", "n > 0.5 +/- 0.1", "--new", "gone.csv"), "gone.csv cannot"),
        (("--condition", "n > 0.5 +/- 0.1", "--labels", "/dev/zero"), "/dev/zero is larger"),
        (("--condition", "n > 0.5 +/- 0.1", "--colour", "red"), "No such option"),
        ((), "give --condition"),
    ],
)
def test_an_error_is_no_verdict(
    run: Callable[..., Any], data: dict[str, Any], arguments: tuple[str, ...], message: str
) -> None:
    answer = run("gate", "decide", *data["files"], *arguments)
    assert (answer.status, answer.out) == (2, "")
    assert message in answer.err


def test_examples_that_do_not_match_are_named(run: Callable[..., Any], data: dict[str, Any], tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", "prediction", data["new"], ["x7", *data["names"][1:]])
    answer = run("gate", "decide", *BETTER, *data["files"], "--new", other)
    assert (answer.status, answer.out) == (2, "")
    assert "other.csv lacks 'img0'" in answer.err
    assert "old.csv lacks 'x7'" in answer.err


@pytest.mark.usefixtures("breaks")
def test_a_bug_or_an_interruption_is_no_fail(run: Any, data: dict[str, Any], monkeypatch: Any) -> None:
    from easeml_core.gate import judge

    for accident, status in ((ZeroDivisionError("bug"), 2), (KeyboardInterrupt(), 130)):

        def stumble(*_: Any, accident: BaseException = accident, **__: Any) -> None:
            raise accident

        monkeypatch.setattr(judge, "judge_predictions", stumble)
        answer = run("gate", "decide", *BETTER, *data["files"])
        assert (answer.status, answer.out) == (status, "")


def test_as_a_program_of_its_own_without_a_database(data: dict[str, Any], tmp_path: Path) -> None:
    """What a CI job does: no folder of ours, no address, the exit status of the process."""
    command = [sys.executable, "-m", "easeml_core.cli", "gate", "decide", *BETTER]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for files, status, word in ((data["files"], 0, "pass\n"), (data["turned"], 1, "fail\n")):
        done = subprocess.run(
            [*command, *files], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert (done.returncode, done.stdout, "warning: too few" in done.stderr) == (status, word, status == 1)
    assert not (tmp_path / ".easeml").exists()


SCRIPT = """\
ml:
  - script: ./predict.sh
  - condition: n - o > 0.02 +/- 0.02
  - reliability: 0.99
  - mode: fp-free
  - adaptivity: full
  - steps: 4
"""


def test_a_script_says_it_all(run: Callable[..., Any], data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "ml.yml").write_text(SCRIPT)
    by_script = run("gate", "decide", "--script", "ml.yml", *data["files"], "--json").json
    assert by_script == run("gate", "decide", *BETTER, *data["files"], "--json").json
    answer = run("gate", "decide", "--script", "ml.yml", "--steps", "5", *data["files"])
    assert (answer.status, "leave out --steps" in answer.err) == (2, True)
    (tmp_path / "early.yml").write_text(SCRIPT + "  - sampling: early\n  - power: 0.9\n")
    early = run("gate", "decide", "--script", "early.yml", *data["files"], "--json").json
    options = ("--sampling", "early", "--power", "0.9")
    assert early == run("gate", "decide", *BETTER, *options, *data["files"], "--json").json != by_script
    answer = run("gate", "decide", "--script", "gone.yml", *data["files"])
    assert (answer.status, "gone.yml cannot" in answer.err) == (2, True)


def test_selftest(run: Callable[..., Any], data: dict[str, Any], recorded: Callable[..., None]) -> None:
    small = ("--runs", "40", "--examples", "400")
    answer = run("gate", "selftest", *small)
    assert (answer.status, answer.err) == (0, "")  # no bar without a terminal
    recorded(answer.out, "gate_selftest")
    report = run("gate", "selftest", *small, "--json").json
    assert report["level"] == pytest.approx(math.exp(report["log_level"]))
    assert report["compatible"] is True
    assert report["interval"][0] <= report["rate"] <= report["interval"][1]
    assert json.dumps(report) == json.dumps(run("gate", "selftest", *small, "--json", "--seed", "0").json)
    real = run("gate", "selftest", *small, *data["files"], "--json").json
    assert real["labels"] == pytest.approx(400 * 0.16, abs=8)
    for arguments, message in [
        (("--labels", "x.csv"), "--new belong together"),
        (("--condition", "n > 0.5 +/- 0.1"), "do not satisfy"),
        (("--disagreement", "0.9"), "disagreement must"),
    ]:
        answer = run("gate", "selftest", *small, *arguments)
        assert (answer.status, answer.out) == (2, "")
        assert message in answer.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((), "wrong_pass"),
        (("--mode", "fn-free"), "wrong_fail"),
        (("--examples", "89", "--reliability", "0.9", "--steps", "3"), "too_weak"),
    ],
)
def test_attack(run: Callable[..., Any], change: tuple[str, ...], said: str, recorded: Callable[..., None]) -> None:
    plan = ("--examples", "303", "--reliability", "0.95", "--steps", "8", *change)
    report = run("gate", "attack", *plan, "--json").json
    answer = run("gate", "attack", *plan)
    assert (answer.status, report["holds"]) == (0, True)
    for told in ("fooled", "naive"):
        assert f" {report[told]} of {report['runs']}" in answer.out
    assert (report["naive"] / report["runs"] <= report["promised"]) is (said == "too_weak")
    recorded(answer.out, f"gate_attack_{said}")


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_attack_ends_with_1_where_the_promise_does_not_hold(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, as_json: tuple[str, ...]
) -> None:
    broken = attack.AttackedPlan(200, 303, 60, 60, (0.2, 0.41), 0.05, holds=False)
    monkeypatch.setattr(attack, "attack_plan", lambda **_: broken)
    answer = run("gate", "attack", "--examples", "303", *as_json)
    assert answer.status == 1
    assert as_json or "DOES NOT FIT the promised 0.05" in answer.out
    monkeypatch.undo()
    refused = run("gate", "attack", "--examples", "0", *as_json)
    assert (refused.status, refused.out) == (2, "")


@pytest.fixture
def loans(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Predictions about loans, of a new model that is better; spellings of the label ``repaid`` are the caller's."""
    rng = np.random.default_rng(7)

    def make(n: int, *, label: str = "repaid", old: str = "repaid", new: str = "repaid") -> tuple[str, ...]:
        truth, wrong = rng.random(n) < 0.5, rng.random(n)
        columns = {
            "labels": ("label", label, truth),
            "old": ("prediction", old, truth ^ (wrong < 0.2)),
            "new": ("prediction", new, truth ^ (wrong < 0.1)),
        }
        for name, (column, word, values) in columns.items():
            rows = "".join(f"{i},{word if value else 'default'}\n" for i, value in enumerate(values))
            (tmp_path / f"{name}.csv").write_text(f"example,{column}\n{rows}", encoding="utf-8")
        return tuple(x for name in columns for x in (f"--{name}", str(tmp_path / f"{name}.csv")))

    return make


CLOSE = ("--condition", "n > 0.9 +/- 0.02", "--steps", "4", "--reliability", "0.99")


UNKNOWN: tuple[tuple[int, dict[str, str], tuple[str, ...], str], ...] = (
    (200, {}, (), "needs 1,675"),
    (200, {}, ("--mode", "fn-free"), "UNKNOWN as pass"),
    (3100, {"label": "Repaid"}, (), "nearest prediction is 'repaid'"),
    (3100, {"label": "repayed"}, (), "label 'repayed' ("),
    (3100, {"label": "1.0", "old": "1", "new": "1"}, (), "nearest prediction is '1'"),
    (3100, {"new": " repaid"}, (), "prediction ' repaid'"),
)


def test_what_makes_an_answer_unknown_is_said(
    run: Callable[..., Any], loans: Any, recorded: Callable[..., None]
) -> None:
    told = []
    for examples, words, options, expected in UNKNOWN:
        asked = ("gate", "decide", *CLOSE, *options, *loans(examples, **words))
        answer = run(*asked)
        assert answer.out in ("pass\n", "fail\n")
        assert answer.err.startswith("easeml: warning: ")
        assert expected in answer.err
        assert any(expected in warning for warning in run(*asked, "--json").json["warnings"])
        told.append(answer.err)
    recorded("\n".join(told), "gate_decide_warnings")


def test_nothing_is_said_where_there_is_nothing_to_say(run: Callable[..., Any], loans: Any) -> None:
    answer = run("gate", "decide", *CLOSE, *loans(3100))
    assert answer.err == ""
    assert run("gate", "decide", *CLOSE, *loans(3100), "--json").json["warnings"] == []


def test_what_is_said_of_the_size_tells_no_fail_from_unknown(
    run: Callable[..., Any], loans: Any, tmp_path: Path
) -> None:
    """Standard error of a CI job is read by developers, who may have one symbol and no more."""
    files = loans(200)
    asked = ("gate", "decide", "--condition", "n - o > 0.1 +/- 0.05 /\\ d < 0.4 +/- 0.1", *files)
    examples = [line.split(",")[0] for line in (tmp_path / "labels.csv").read_text().splitlines()[1:]]
    old = (tmp_path / "old.csv").read_text().splitlines()[1:]
    seen = {}
    for right in ("labels", "old"):  # the labels as they are, and labels with which the old model is always right
        if right == "old":
            text = "".join(f"{name},{line.split(',')[1]}\n" for name, line in zip(examples, old, strict=True))
            (tmp_path / "labels.csv").write_text(f"example,label\n{text}")
        answer = run(*asked, "--reliability", "0.9", "--steps", "1")
        seen[run(*asked, "--reliability", "0.9", "--steps", "1", "--json").json["verdict"]] = answer
    assert set(seen) == {"UNKNOWN", "FAIL"}
    assert seen["UNKNOWN"] == seen["FAIL"]
    assert "too few examples" in seen["FAIL"].err


def test_a_slice_that_is_too_small_is_named(run: Callable[..., Any], loans: Any, tmp_path: Path) -> None:
    files = loans(6000)
    (tmp_path / "slices.csv").write_text("example,slice\n" + "".join(f"{i},young\n" for i in range(30)))
    answer = run(
        "gate", "decide", *CLOSE, *files, "--slices", str(tmp_path / "slices.csv"), "--slice", "young: n > 0.5 +/- 0.1"
    )
    assert "slice 'young' has 30" in answer.err
    assert "the set has" not in answer.err

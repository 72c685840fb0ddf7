"""``easeml simulate``: options to tables, JSON and plots; errors in one line; Ctrl-C without a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

TENANTS, CANDIDATES = 6, ("knn", "tree", "forest", "svm")


@pytest.fixture
def tables(nowhere: Path) -> tuple[str, ...]:
    """Options that name a small table of qualities and costs."""
    rng = np.random.default_rng(0)
    for name, low, high in (("quality.csv", 0.3, 1.0), ("cost.csv", 1.0, 100.0)):
        rows = [[f"t{i}", *map(str, rng.uniform(low, high, len(CANDIDATES)).round(3))] for i in range(TENANTS)]
        lines = [",".join(row) for row in [["tenant", *CANDIDATES], *rows]]
        (nowhere / name).write_text("\n".join(lines) + "\n")
    return "--quality", "quality.csv", "--cost", "cost.csv"


QUICK = ("--served", "2", "--repeats", "3", "--processes", "1", "--policy", "roundrobin", "--policy", "clairvoyant")


def test_json_has_the_promised_form(run: Any, tables: tuple[str, ...]) -> None:
    answer = run("simulate", *tables, *QUICK, "--losses", "0.1,0.02", "--json").json
    assert list(answer) == ["protocol", "policies"]
    assert answer["protocol"] == {
        **{"quality": "quality.csv", "cost": "cost.csv", "synthetic": None, "tenants": 6, "candidates": 4},
        **{"beta_scale": 1.0, "guard": 0.1, "objective": 0.0, "served": 2, "repeats": 3, "seed": 0, "history": None},
        **{"devices": 1, "cost_mode": "known", "until": 100.0, "losses": [0.1, 0.02], "drive": "stream"},
    }
    assert list(answer["policies"]) == ["roundrobin", "clairvoyant"]
    for figures in answer["policies"].values():
        assert list(figures["percent_to_loss"]) == ["0.1", "0.02"]
        assert set(figures["percent_to_loss"]["0.1"]) == {"median", "p10", "p90", "mean_curve", "reached"}
        assert set(figures["regret"]) == {"total", "worst_tenant", "p10_tenant"}
        assert set(figures["first_model_percent"]) == {"median", "worst"}
        assert "10" in figures["worst_loss"]
        assert figures["decision_microseconds"] > 0


def test_a_table_for_people(run: Any, tables: tuple[str, ...], recorded: Any) -> None:
    assert "4 candidates, 2 devices, costs known" in run("simulate", *tables, *QUICK, "--devices", "2").text
    text = run("simulate", *tables, *QUICK).recorded()
    assert "[share of the" not in text
    recorded(re.sub(r"(?s)(?<=\nFairness\n).*?(?=Regret: )", "", text), "simulate")  # has microseconds
    text = run("simulate", *tables, *QUICK, "--until", "1").text
    assert "[0 %]" in text
    assert "[share of the" in text


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (("--cost-mode", "unit"), "cost_mode", "unit"),
        (("--history", "0"), "history", 0),
        (("--until", "20"), "until", 20.0),
        (("--drive", "rounds", "--devices", "3"), "drive", "rounds"),
        (("--objective", "maxmin"), "objective", 1.0),
        (("--guard", "0.2"), "guard", 0.2),
        (("--beta-scale", "0.05"), "beta_scale", 0.05),
    ],
)
def test_options_reach_the_protocol(
    run: Any, tables: tuple[str, ...], options: tuple[str, ...], key: str, value: object
) -> None:
    assert run("simulate", *tables, *QUICK, *options, "--json").json["protocol"][key] == value


def test_without_costs_all_are_one(run: Any, tables: tuple[str, ...]) -> None:
    plain = run("simulate", *tables[:2], *QUICK, "--json").json
    unit = run("simulate", *tables, *QUICK, "--cost-mode", "unit", "--json").json
    assert plain["protocol"]["cost_mode"] == "unit"
    for name in ("roundrobin", "clairvoyant"):
        assert plain["policies"][name]["percent_to_loss"] == unit["policies"][name]["percent_to_loss"]


def test_a_multiplier_of_beta_is_that_of_beta_scale(run: Any, tables: tuple[str, ...]) -> None:
    options = ("simulate", *tables, "--served", "3", "--repeats", "4", "--processes", "1", "--json")
    scaled = run(*options, "--policy", "hybrid", "--beta-scale", "0.01").json["policies"]["hybrid"]
    named = run(*options, "--policy", "hybrid@0.01").json["policies"]["hybrid@0.01"]
    assert scaled["percent_to_loss"] == named["percent_to_loss"]


def test_a_synthetic_table(run: Any) -> None:
    answer = run("simulate", "--synthetic", "SYN(0.5,0.1)", *QUICK, "--until", "2", "--json").json["protocol"]
    assert (answer["tenants"], answer["candidates"], answer["cost_mode"]) == (200, 100, "known")
    assert answer["synthetic"] == "SYN(0.5,0.1)"


def test_an_order_of_candidates(run: Any, tables: tuple[str, ...], nowhere: Path) -> None:
    (nowhere / "habit.txt").write_text("svm\nknn\n")
    options = ("--served", "2", "--repeats", "2", "--processes", "1")
    assert "order:habit.txt" in run("simulate", *tables, *options, "--policy", "order:habit.txt").text


def test_efficiency_against_fairness(run: Any, tables: tuple[str, ...], nowhere: Path) -> None:
    options = ("--served", "2", "--repeats", "2", "--processes", "1", "--curve", "guard", "--plot", "curve.png")
    answer = run("simulate", *tables, *options, "--policy", "default", "--policy", "roundrobin", "--json").json
    assert answer["curve"]["knob"] == "guard"
    assert [p["value"] for p in answer["curve"]["points"]] == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, None]
    assert set(answer["policies"]) == {f"default:guard={g:g}" for g in (0, 0.05, 0.1, 0.2, 0.4, 0.8)} | {"roundrobin"}
    assert (nowhere / "curve.png").stat().st_size > 1000
    text = run("simulate", *tables, *options, "--policy", "default").text
    assert "over the guard" in text


def test_a_plot(run: Any, tables: tuple[str, ...], nowhere: Path) -> None:
    answer = run("simulate", *tables, *QUICK, "--plot", "losses.png")
    assert (nowhere / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "plot: losses.png" in answer.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "or all costs"),
        (("--quality", "quality.csv", "--synthetic", "SYN(1,1)"), "give either quality"),
        (("--cost", "cost.csv", "--synthetic", "SYN(1,1)"), "leave out cost"),
        (("--synthetic", "SYN(1)"), '"SYN(sigma_M,alpha)"'),
        (("--quality", "nowhere.csv"), "nowhere.csv cannot be"),
        (("--quality", "quality.csv", "--repeats", "0"), "repeats must be"),
        (("--quality", "quality.csv", "--seed", "-1"), "seed must be >= 0"),
        (("--quality", "quality.csv", "--losses", "a"), "--losses must be"),
        (("--quality", "quality.csv", "--losses", "2"), "[0, 1]"),
        (("--quality", "quality.csv", "--objective", "fair"), "got 'fair'"),
        (("--quality", "quality.csv", "--objective", "2"), "got 2.0"),
        (("--quality", "quality.csv", "--policy", "best"), "no policy 'best'"),
        (("--quality", "quality.csv", "--policy", "fcfs", "--policy", "fcfs"), "policy 'fcfs'"),
        (("--quality", "quality.csv", "--plot", "x.doc"), ".png, .svg, .pdf"),
    ],
)
def test_errors_are_one_line(run: Any, tables: tuple[str, ...], options: tuple[str, ...], message: str) -> None:
    answer = run("simulate", *options)
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("easeml: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_a_bad_cell_is_named(run: Any, tables: tuple[str, ...], nowhere: Path) -> None:
    text = (nowhere / "quality.csv").read_text().splitlines()
    (nowhere / "quality.csv").write_text("\n".join([*text[:2], "t1,0.5,0.5,ok,0.5", *text[3:]]))
    answer = run("simulate", *tables)
    assert answer.status == 2
    assert "quality.csv, line 3 (row 't1'), column 'forest': 'ok'" in answer.err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "easeml_core.cli", "simulate", *arguments]


@pytest.mark.nightly
def test_processes_give_what_one_gives(tables: tuple[str, ...]) -> None:
    """As a separate program, so that processes start as they do for users; nothing but JSON on standard output."""
    answers = []
    for processes in ("1", "2"):
        options = ("--served", "3", "--repeats", "4", "--policy", "random", "--policy", "mm-gp-ei", "--json")
        arguments = command(*tables, *options, "--processes", processes)
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        answer = json.loads(done.stdout)
        for figures in answer["policies"].values():
            del figures["decision_microseconds"]
        answers.append(answer)
    assert answers[0] == answers[1]


def test_ctrl_c_ends_it_without_a_traceback(nowhere: Path) -> None:
    """The whole group gets the signal, as from a terminal, once the processes are at work."""
    arguments = command("--synthetic", "SYN(0.5,1.0)", "--repeats", "5000", "--policy", "hybrid", "--processes", "2")
    program = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    family = psutil.Process(program.pid)
    while len(family.children()) < 3 and program.poll() is None:  # two processes, and the tracker of resources
        time.sleep(0.05)
    children = family.children()
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (130, "")
    assert err.strip() == "easeml: interrupted"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []

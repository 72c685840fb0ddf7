"""``easeml policy``, ``easeml backtest`` and ``easeml explain`` from the command line, on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click
import made_up_installation
import numpy as np
import pytest

from easeml_core.cli.app import cli
from easeml_core.config import SelectionConfig
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import claim, record_failure
from easeml_core.store.tables import scheduler_requests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("bayes", "forest", "svm")


@pytest.fixture
def order(run: Any, database: Any) -> Callable[..., Any]:
    """Run a command on the test's database, as its owner."""
    return lambda *arguments: run(*arguments, "--database", database.url("easeml_owner"))


def fill(database: Any, tenants: int) -> None:
    rng = np.random.default_rng(0)
    ended = [(i, k, float(rng.uniform(0.5, 1)), float(10.0**k)) for i in range(tenants) for k in range(3)]
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key="b", candidates=NAMES, config={}, trials=ended, rows=[100] * tenants)


# Policy.


def test_every_setting_has_an_option() -> None:
    """A new field of the settings gets one by itself, with its help."""
    group = cli.commands["policy"]
    assert isinstance(group, click.Group)
    options = {p.name: p for p in group.commands["set"].params if isinstance(p, click.Option)}
    for field in attrs.fields(SelectionConfig):
        assert options[field.name].opts == [f"--{field.name.replace('_', '-')}"]


def test_every_setting_can_be_set(order: Any, nowhere: Path) -> None:
    (nowhere / "habit.txt").write_text("svm\n\n bayes \n")
    given = {
        **{"policy": "order", "delta": 0.2, "noise_variance": 0.01, "beta_multiplier": 0.05, "freeze_rounds": 3},
        **{"kernel": "squared-exponential", "pseudo_studies": 2.5, "seed": 7, "guard": 0.3, "objective": 0.25},
        **{"price_per_second": 1e-6, "link": "identity", "blend": 0.75},
    }
    flags = {"greedy_gap_per_cost": True, "cost_aware": False, "tenant_scale": False}
    flags |= {"believe": False, "cold_start": False, "greedy_from_best": True}
    assert {*given, *flags, "order"} == {field.name for field in attrs.fields(SelectionConfig)}
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    options += [f"--{'' if value else 'no-'}{name.replace('_', '-')}" for name, value in flags.items()]
    shown = order("policy", "set", *options, "--order", "habit.txt", "--reason", "all of it", "--json").json
    assert shown["config"] == {**given, **flags, "order": ["svm", "bayes"]}
    assert order("policy", "set", *options, "--order", "habit.txt", "--reason", "all of it", "--json").json == {
        **shown,
        "changed": False,
    }
    back = order("policy", "set", "--defaults", "--reason", "back", "--json").json
    assert SelectionConfig.from_json(back["config"]) == SelectionConfig()


def test_settings_are_shown_and_listed(ask: Any, order: Any) -> None:
    assert "none were set here" in ask("policy", "show").text
    assert ask("policy", "show", "--json").json["id"] is None
    assert ask("policy", "history", "--json").json == []
    order("policy", "set", "--objective", "maxmin", "--reason", "the worst served come first")
    order("policy", "set", "--policy", "hybrid", "--beta-multiplier", "0.05", "--reason", "equal costs")
    text = ask("policy", "show").text
    for words in ("policy hybrid (default: default)", "beta_multiplier 0.05", "objective 1.0", "guard 0.1"):
        assert words in text
    assert "equal costs (easeml_owner, " in text
    assert [h["reason"] for h in ask("policy", "history", "--json").json] == [
        "equal costs",
        "the worst served come first",
    ]
    text = ask("policy", "history").text
    for words in ("equal costs", "beta_multiplier=0.05, objective=1.0", "easeml_owner"):
        assert words in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "luck", "--reason", "r"), "policy must be one of default"),
        (
            ("--objective", "fair", "--reason", "r"),
            "--objective must be mean, maxmin or a number in [0, 1]; got 'fair'",
        ),
        (("--reason", "r"), "nothing to change; name at least one option"),
        (("--guard", "0.2"), "Missing option '--reason'"),
        (("--order", "missing.txt", "--reason", "r"), "--order: missing.txt cannot be read as text"),
        (("--order", "twice.txt", "--reason", "r"), "at least one, each once"),
    ],
)
def test_what_cannot_be_set(order: Any, nowhere: Path, options: tuple[str, ...], message: str) -> None:
    (nowhere / "twice.txt").write_text("a\nb\na\n")
    answer = order("policy", "set", *options)
    assert answer.status == 2
    assert message in answer.err
    assert order("policy", "history", "--json").json == []


def test_the_worker_reads_and_does_not_choose(ask: Any) -> None:
    answer = ask("policy", "set", "--policy", "order", "--reason", "mine first")
    assert answer.status == 2
    assert "this role may not do that" in answer.err
    assert "docs/security.md" in answer.err


# Backtest.

QUICK = ("--repeats", "2", "--processes", "1")


def test_a_past_is_judged_applied_and_plotted(ask: Any, order: Any, database: Any, nowhere: Path) -> None:
    fill(database, 9)
    shown = ask("backtest", *QUICK, "--json").json
    assert (shown["tenants"], shown["protocol"]["repeats"], shown["protocol"]["served"]) == (9, 2, 3)
    other = ask("backtest", *QUICK, "--seed", "1", "--served", "2", "--json").json["protocol"]
    assert (other["seed"], other["served"]) == (1, 2)
    answer = order("backtest", *QUICK, "--apply", "--plot", "past.png")
    assert (nowhere / "past.png").read_bytes().startswith(b"\x89PNG")
    for words in ("27 results of 9 tenants with 3 candidates", "Against default", "hybrid@0.01", "Calibration"):
        assert words in answer.text
    assert f"{shown['message']} applied: change 1, see `easeml policy show`" in answer.text
    assert ask("policy", "show", "--json").json["report"]["policies"] == shown["policies"]
    assert "9 tenants" in ask("policy", "history").text


def test_too_little_history_is_said(ask: Any, database: Any) -> None:
    fill(database, 4)
    answer = ask("backtest")
    assert answer.status == 0
    assert "too little history: 4 of 4 tenants have 3 results or more, it takes 8" in answer.text
    assert "default stays" in answer.text


def test_a_file_is_judged(run: Any, nowhere: Path) -> None:
    rng = np.random.default_rng(0)
    for name, low in (("q.csv", 0.3), ("c.csv", 0.5)):
        rows = [f"t{i}," + ",".join(map(str, rng.uniform(low, 1.0, 3).round(3))) for i in range(9)]
        (nowhere / name).write_text("\n".join(["tenant,a,b,c", *rows]) + "\n")
    text = run("backtest", "--quality", "q.csv", "--cost", "c.csv", *QUICK).text
    assert "The same in units of the cost table, for 3 tenants: median" in text
    shown = run("backtest", "--quality", "q.csv", "--cost", "c.csv", "--cost-mode", "predicted", *QUICK, "--json").json
    assert shown["protocol"]["cost_mode"] == "predicted"
    assert "The same in trials" in run("backtest", "--quality", "q.csv", *QUICK).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cost", "c.csv"), "--cost and --cost-mode go with --quality FILE"),
        (("--quality", "q.csv", "--apply"), "--apply goes by the installation's own history"),
        (("--quality", "missing.csv"), "cannot be read"),
        (("--plot", "x.doc"), "a plot's name must end in one of"),
        ((), "there is no database"),
    ],
)
def test_errors_of_a_backtest(run: Any, options: tuple[str, ...], message: str) -> None:
    answer = run("backtest", *options)
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_the_worker_may_not_apply(ask: Any, database: Any) -> None:
    fill(database, 9)
    answer = ask("backtest", *QUICK, "--apply")
    assert answer.status == 2
    assert "give the address of easeml_owner" in answer.err


# Explain.


def test_a_trial_is_explained(ask: Any, database: Any, make_study: Any) -> None:
    make_study(
        "cancer",
        candidates=[{"name": "tree", "kind": "decision_tree"}, {"name": "bayes", "kind": "gaussian_naive_bayes"}],
    )
    first, second = suggest_trials(database.worker, count=2, request_key="k").trials
    record_failure(database.worker, claim(database.worker, trial_id=first.trial_id, request_key="w"), "no memory")
    found = ask("explain", str(first.trial_id), "--json").json
    assert found["sentence"] == f"{first.reason}; it failed: no memory"
    text = ask("explain", str(first.trial_id)).text
    assert text.startswith(found["sentence"])
    for words in (
        "policy default, the program's own settings",
        "expected quality",
        "runner-up cancer/",
        "state FAILED",
    ):
        assert words in text
    assert "runner-up nothing else was left" in ask("explain", str(second.trial_id)).text
    answer = ask("explain", "999")
    assert answer.status == 2
    assert "there is no trial 999; list them with `easeml study show STUDY`" in answer.err


def test_what_a_backtest_applies_is_the_owners(run: Any, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def open_store(url: str | None, *, role: str = "easeml_worker") -> Any:
        asked.append(role)
        return database.owner

    monkeypatch.setattr("easeml_core.cli.simulation.open_store", open_store)
    assert run("backtest", "--apply").status == 0
    assert asked == ["easeml_owner"]


# The scheduler's process.


def test_the_scheduler_decides_what_was_filed_and_refuses_another_role(run: Any, database: Any) -> None:
    fill(database, 2)
    given = {"requested": 1, "device": None, "studies": None, "functions": {}, "trainers": True, "runtimes": None}
    with database.worker.begin() as tx:
        scheduler_requests.file_suggestion_request(tx, request_key="night", **given)
    decided = [run("scheduler", "--once", "--database", database.url("easeml_owner")) for _ in range(2)]
    assert [(d.status, d.out) for d in decided] == [(0, "1 request decided\n"), (0, "0 requests decided\n")]
    refused = run("scheduler", "--once", "--json", "--database", database.url("easeml_referee"))
    assert refused.status == 2
    assert "needs that of easeml_scheduler" in refused.err

"""``easeml policy``, ``easeml backtest`` and ``easeml explain`` from the command line, on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click
import made_up_installation
import numpy as np
import pytest

from easeml_core.cli.app import cli
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import claim, record_failure
from easeml_core.settings.config import SelectionConfig
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


def test_settings_are_shown_and_listed(ask: Any, order: Any, recorded: Any) -> None:
    told = [ask("policy", "show")]
    assert ask("policy", "show", "--json").json["id"] is None
    assert ask("policy", "history", "--json").json == []
    order("policy", "set", "--objective", "maxmin", "--reason", "the poorest first")
    order("policy", "set", "--policy", "hybrid", "--beta-multiplier", "0.05", "--reason", "equal costs")
    shown = ask("policy", "show", "--json").json
    own = SelectionConfig().to_json() | {"policy": "hybrid", "beta_multiplier": 0.05, "objective": 1.0}
    assert SelectionConfig.from_json(shown["config"]) == SelectionConfig.from_json(own)
    listed = [(change["reason"], change["created_by"]) for change in ask("policy", "history", "--json").json]
    assert listed == [("equal costs", "easeml_owner"), ("the poorest first", "easeml_owner")]
    told += [ask("policy", "show"), ask("policy", "history")]
    recorded("\n".join(answer.recorded() for answer in told), "policy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "luck", "--reason", "r"), "policy must be"),
        (("--objective", "fair", "--reason", "r"), "got 'fair'"),
        (("--reason", "r"), "nothing to change"),
        (("--guard", "0.2"), "'--reason'"),
        (("--order", "missing.txt", "--reason", "r"), "--order: missing.txt"),
        (("--order", "twice.txt", "--reason", "r"), "each once"),
    ],
)
def test_what_cannot_be_set(order: Any, nowhere: Path, options: tuple[str, ...], message: str) -> None:
    (nowhere / "twice.txt").write_text("a\nb\na\n")
    answer = order("policy", "set", *options)
    assert answer.status == 2
    assert message in answer.err
    assert order("policy", "history", "--json").json == []


def test_the_worker_reads_and_does_not_choose(ask: Any) -> None:
    answer = ask("policy", "set", "--policy", "order", "--reason", "mine first", "--json")
    assert (answer.refusal, "docs/security.md" in answer.err) == ("WrongRoleError", True)


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
    assert shown["candidates"] == 3
    for words in ("27 results of 9", "Against default", "hybrid@0.01", "Calibration"):
        assert words in answer.text
    assert f"{shown['message']} applied: change 1" in answer.text
    assert ask("policy", "show", "--json").json["report"]["policies"] == shown["policies"]
    assert "9 tenants" in ask("policy", "history").text


def test_too_little_history_is_said(ask: Any, database: Any) -> None:
    fill(database, 4)
    text = ask("backtest").text
    assert "too little history" in text
    assert "default stays" in text


def test_a_file_is_judged(run: Any, nowhere: Path) -> None:
    rng = np.random.default_rng(0)
    for name, low in (("q.csv", 0.3), ("c.csv", 0.5)):
        rows = [f"t{i}," + ",".join(map(str, rng.uniform(low, 1.0, 3).round(3))) for i in range(9)]
        (nowhere / name).write_text("\n".join(["tenant,a,b,c", *rows]) + "\n")
    assert "the cost table" in run("backtest", "--quality", "q.csv", "--cost", "c.csv", *QUICK).text
    shown = run("backtest", "--quality", "q.csv", "--cost", "c.csv", "--cost-mode", "predicted", *QUICK, "--json").json
    assert shown["protocol"]["cost_mode"] == "predicted"
    text = run("backtest", "--quality", "q.csv", *QUICK).text
    assert ("in trials" in text, "the cost table" in text) == (True, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cost", "c.csv"), "--quality FILE"),
        (("--quality", "q.csv", "--apply"), "leave out --quality"),
        (("--quality", "missing.csv"), "missing.csv"),
        (("--plot", "x.doc"), ".png, .svg"),
        ((), "no database"),
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
    assert "easeml_owner" in answer.err


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
    for words in ("policy default, the", "expected quality", "runner-up cancer/", "state FAILED"):
        assert words in text
    assert "nothing else" in ask("explain", str(second.trial_id)).text
    assert ask("explain", str(second.trial_id), "--json").json["batches"][0]["runner_up"] is None
    answer = ask("explain", "999")
    assert (answer.status, "trial 999" in answer.err, "`easeml study show STUDY`" in answer.err) == (2, True, True)


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
    assert (refused.status, "may not suggest" in refused.err) == (2, True)

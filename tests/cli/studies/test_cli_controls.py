"""What may be set while everything runs, from the command line, on a real database."""

from __future__ import annotations

import json
from typing import Any

import pytest

CANDIDATES = [{"name": "tree", "kind": "decision_tree"}]


@pytest.fixture
def study(make_study: Any) -> str:
    """A study of the tenant lab."""
    return str(make_study("cancer", candidates=CANDIDATES))


def test_a_study_is_set_and_shown(ask: Any, study: str, recorded: Any) -> None:
    set_ = ("study", "set", study)
    given = (
        "--weight",
        "2",
        "--priority",
        "-5",
        "--budget",
        "90",
        "--deadline",
        "2199-01-01T12:00",
        "--target",
        "0.99",
    )
    found = ask(*set_, *given, "--json").json
    assert found == {
        "study": "cancer",
        "weight": 2.0,
        "priority": -5,
        "budget_seconds": 90.0,
        "deadline": "2199-01-01T12:00:00Z",
        "target_quality": 0.99,
    }
    assert ask(*set_, *given, "--json").json == found
    recorded(ask("study", "show", study).out, "study_show_limits")
    assert "-5 90.0" in " ".join(ask("study", "list").text.replace("\u2502", " ").split())
    assert "0.0 of 90.0" in ask("status").text
    freed = ask(*set_, "--no-budget", "--no-deadline", "--no-target", "--json").json
    assert freed == found | {"budget_seconds": None, "deadline": None, "target_quality": None}


def test_a_tenant_is_set_and_listed(ask: Any, study: str, recorded: Any) -> None:
    found = ask("tenant", "set", "lab", "--max-parallel", "2", "--quota-seconds", "600", "--weight", "3", "--json").json
    assert (found["max_parallel"], found["quota_seconds"], found["weight"], found["studies"]) == (2, 600.0, 3.0, 1)
    assert ask("tenant", "list", "--json").json == [found]
    shown = ask("study", "show", study).text
    assert ("tenant 600.0 s: 0.0" in shown, "tenant 0, at most 2" in shown) == (True, True)
    recorded(ask("tenant", "list").out, "tenant_list")
    bare = ask("tenant", "set", "lab", "--no-max-parallel", "--no-quota", "--json").json
    assert (bare["max_parallel"], bare["quota_seconds"]) == (None, None)


@pytest.mark.usefixtures("referee")
def test_a_registration_takes_limits(ask: Any) -> None:
    candidates = json.dumps([{"name": "tree", "kind": "decision_tree", "devices": ["gpu"]}])
    ask(
        *("study", "register", "cancer", "--tenant", "lab", "--source", "sklearn:breast_cancer"),
        *("--priority", "4", "--deadline", "2199-01-01T00:00+01:00", "--target-quality", "0.9"),
        *("--candidates", candidates, "--no-wait"),
    )
    (entry,) = ask("study", "list", "--json").json
    assert (entry["priority"], entry["deadline"], entry["target_quality"]) == (4, "2198-12-31T23:00:00Z", 0.9)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("study", "set", "cancer"), "nothing to change"),
        (("study", "set", "cancer", "--budget", "9", "--no-budget"), "--budget-seconds is given"),
        (("tenant", "set", "lab", "--quota-seconds", "9", "--no-quota"), "--quota-seconds is given"),
        (("study", "set", "fool", "--priority", "1"), "study 'fool'; known: 'cancer'"),
        (("study", "set", "cancer", "--priority", "1000"), "easeml: priority must"),
        (("study", "set", "cancer", "--deadline", "soon"), "easeml: deadline must"),
        (("study", "set", "cancer", "--budget", "0"), "easeml: budget_seconds must"),
        (("tenant", "set", "fool", "--weight", "1"), "tenant 'fool'; known: 'lab'"),
        (("tenant", "set", "lab", "--max-parallel", "0"), "easeml: max_parallel must"),
        (("tenant", "acknowledge", "lab", "--why", "x"), "outcome 'not held'"),
        (("tenant", "acknowledge", "lab", "--why", "x", "--trial", "7"), "of trial 7"),
        (("tenant", "acknowledge", "lab", "--why", " "), "easeml: why must"),
    ],
)
@pytest.mark.usefixtures("study")
def test_bad_input_is_an_error_with_what_is_allowed(asked: tuple[str, ...], words: str, ask: Any) -> None:
    answer = ask(*asked)
    assert (answer.status, answer.out) == (2, "")
    assert words in " ".join(answer.err.split())
    assert "Traceback" not in answer.err

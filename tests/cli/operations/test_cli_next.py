"""``easeml next``: what next, and why, for people and for programs."""

from __future__ import annotations

from typing import Any

from study_facts import next_step_of

from easeml_core.services.reports.recommendations import Severity, StepKind


def test_nothing_registered_says_what_to_do(ask: Any) -> None:
    assert "easeml study register" in ask("next").text
    assert ask("next", "--json").json == []


def test_what_is_next_is_reported_with_reason_and_remedy(
    ask: Any, make_study: Any, monkeypatch: Any, recorded: Any
) -> None:
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    monkeypatch.setenv("COLUMNS", "80")
    answer = ask("next", "cancer")
    assert answer.status == 0
    assert max(len(line) for line in answer.out.splitlines()) <= 80
    recorded(answer.recorded(), "next")
    (step,) = ask("next", "--json").json
    assert (step["study"], step["tenant"], step["kind"], step["severity"]) == ("cancer", "lab", "compute", "info")
    assert step["act"].startswith("train: 1 candidate")
    assert (step["page"], step["since"]) == ("/studies/cancer", None)
    assert ask("next", "--needs", "--json").json == []
    assert "nothing needs" in ask("next", "--needs").text


def test_status_and_next_say_the_same(ask: Any, make_study: Any) -> None:
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    (row,) = ask("status", "--json").json["tenants"]
    assert row["next"] == ask("next", "cancer", "--json").json[0]["act"]


def test_an_unknown_study_is_an_error(ask: Any, make_study: Any) -> None:
    make_study("cancer")
    answer = ask("next", "canker")
    assert answer.status == 2
    assert "study 'canker'" in answer.err


def test_words_of_others_are_no_markup_and_no_escape(ask: Any, monkeypatch: Any) -> None:
    hostile = next_step_of("cancer", StepKind.REFUSED, Severity.BAD, why="[red]a\x1b[2J[/red] :smile:")
    monkeypatch.setattr("easeml_core.services.reports.next_steps.next_steps", lambda *_, **__: [hostile])
    answer = ask("next")
    assert "[red]a\\x1b[2J[/red] :smile:" in answer.out
    assert "\x1b" not in answer.out

"""Archive, restore and delete from the command line: what is said, what is asked first, and what a dry run leaves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

CANDIDATES = [{"name": "tree", "kind": "decision_tree"}, {"name": "deep", "kind": "decision_tree"}]


def test_a_study_is_archived_listed_and_restored(ask: Any, make_study: Any, recorded: Any) -> None:
    make_study("cancer", candidates=CANDIDATES)
    asked = ("study", "archive", "cancer", "--why", "a typo")
    recorded(ask(*asked, "--dry-run").out + ask(*asked).out, "study_archive")
    again = ask("study", "archive", "cancer", "--why", "again", "--json").json
    assert (again["changed"], again["candidates"]) == (False, 2)
    assert ask("study", "list", "--json").json == []
    (listed,) = ask("study", "list", "--archived", "--json").json
    assert (listed["study"], listed["was"], listed["why"]) == ("cancer", "ACTIVE", "a typo")
    assert "a typo" in ask("study", "list", "--archived").text
    assert ask("study", "show", "cancer").status == 0
    refused = ask("study", "pause", "cancer")
    assert (refused.status, "is ARCHIVED" in refused.err) == (2, True)
    assert ask("study", "restore", "cancer", "--json").json["state"] == "ACTIVE"
    assert ask("study", "restore", "cancer", "--json").json["changed"] is False
    assert "'--why'" in ask("study", "archive", "cancer").err
    refused = ask("study", "delete", "cancer", "--why", "a typo")
    assert (refused.status, "has sealed data" in refused.err) == (2, True)


def test_a_person_is_asked_first_and_may_say_no(ask: Any, make_study: Any, monkeypatch: Any) -> None:
    make_study("cancer", candidates=CANDIDATES)
    asked: list[str] = []
    monkeypatch.setattr(
        "easeml_core.cli.operations.archive.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    )

    def no(question: str, **_: Any) -> None:
        import click

        asked.append(question)
        raise click.Abort

    monkeypatch.setattr("click.confirm", no)
    assert ask("study", "archive", "cancer", "--why", "a typo").status == 130
    assert asked == ["archive study cancer?"]
    assert ask("study", "archive", "cancer", "--why", "a typo", "--yes").status == 0


def test_a_candidate_is_withdrawn_and_a_tenant_archived(ask: Any, make_study: Any, recorded: Any) -> None:
    make_study("cancer", candidates=CANDIDATES)
    done = ask("candidate", "withdraw", "cancer", "deep", "--why", "it overfits", "--json").json
    assert done == {"study": "cancer", "candidate": "deep", "withdrawn": True, "changed": True, "cancelled": []}
    back = ask("candidate", "restore", "cancer", "deep", "--json").json
    assert (back["withdrawn"], back["changed"]) == (False, True)
    tenant = ask("tenant", "list", "--json").json[0]["tenant"]
    assert "archived with it: cancer" in ask("tenant", "archive", tenant, "--why", "over", "--dry-run").text
    recorded(ask("tenant", "archive", tenant, "--why", "over").out, "tenant_archive")
    assert ask("tenant", "list", "--json").json == []
    assert [one["tenant"] for one in ask("tenant", "list", "--archived", "--json").json] == [tenant]
    assert ask("tenant", "restore", tenant, "--json").json["archived"] is False
    refused = ask("tenant", "delete", tenant, "--why", "a typo")
    assert (refused.status, "studies or logins" in refused.err) == (2, True)


def test_a_planned_set_is_deleted_with_the_referees_address(
    ask: Any, run: Any, make_study: Any, database: Any, recorded: Any
) -> None:
    make_study("cancer", candidates=CANDIDATES)
    of_referee = ("--database", database.url("easeml_referee"))
    run("test-set", "plan", "--study", "cancer", "--name", "spring", "--steps", "2", *of_referee)
    gone = ("test-set", "delete", "spring", "--study", "cancer", "--why", "a typo", *of_referee)
    recorded(run(*gone, "--dry-run").out, "test_set_delete_dry_run")
    assert run(*gone, "--json").json["changed"] is True
    assert "spring" not in ask("test-set", "list", "--study", "cancer", "--json").out
    refused = ask("test-set", "delete", "spring", "--why", "a typo")  # with the worker's address
    assert refused.status == 2

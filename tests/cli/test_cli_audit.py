"""``easeml audit``: what was done on the command line is known by name, with the reason that was given."""

from __future__ import annotations

import csv
import getpass
import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from device_rows import add_study

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def found(database: Any, run: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a command as the worker, on a database with two studies."""
    add_study(database, "mine")
    add_study(database, "other", tenant="rivals")
    url = database.url("easeml_worker")
    return lambda *words: run(*words, "--database", url)


def test_a_change_bears_the_user_s_name_or_another_and_its_reason(found: Any) -> None:
    assert found("--reason", "storm season", "study", "set", "mine", "--budget-seconds", "3600").status == 0
    assert found("--by", "ada", "tenant", "set", "lab", "--weight", "2").status == 0
    tenant, study = found("audit", "--only", "limits", "--json").json
    assert (study["who"], study["door"], study["reason"]) == (getpass.getuser(), "command line", "storm season")
    assert (tenant["who"], tenant["after"], tenant["reason"]) == ("ada", {"weight": 2.0}, None)
    read = found("audit", "mine").text
    assert "budget none → 1" in read
    assert "storm season" in read
    assert "rivals" not in read


@pytest.mark.parametrize("missing", [KeyError("getpwuid(): uid not found: 7"), OSError("No username set")])
def test_an_account_without_a_name_is_known_by_its_number(missing: Exception, found: Any, monkeypatch: Any) -> None:
    def fail() -> str:
        raise missing

    monkeypatch.setattr(getpass, "getuser", fail)
    assert found("study", "pause", "mine").status == 0
    assert found("audit", "mine", "--limit", "1", "--json").json[0]["who"] == f"uid {os.getuid()}"


def test_filters_and_the_table(found: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(found("audit", "other", "--csv").out)))
    assert [row["act"] for row in rows] == ["study sealed", "study registered"]
    assert found("audit", "--since", "2999-01-01", "--json").json == []
    assert "nothing of" in found("audit", "--since", "2999-01-01").text
    assert len(found("audit", "--limit", "1", "--json").json) == 1


def test_a_study_that_is_none_is_named(found: Any) -> None:
    answer = found("audit", "nosuch")
    assert answer.status == 2
    assert "no study" in answer.err or "study 'nosuch'" in answer.err

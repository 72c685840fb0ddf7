"""Shells complete commands, options and names of studies; without a store they are offered nothing, silently."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any

import pytest

from easeml_core.cli import connection
from easeml_core.cli.app import PROGRAM, SHELLS, VARIABLE, cli


def completed(words: str, incomplete: str = "") -> list[str]:
    """What the shell is offered after these words, by click's own way in."""
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli, {}, PROGRAM, VARIABLE)
    return [item.value for item in complete.get_completions(words.split()[1:], incomplete)]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_the_shells_own(shell: str, run: Any) -> None:
    answer = run("completion", shell)
    assert (answer.status, answer.err) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in answer.out
    assert run("completion", shell, "--json").json == {"shell": shell, "script": answer.out}
    if found := shutil.which(shell):  # what the shell itself says of the script
        subprocess.run([found, "-n"], input=answer.out, text=True, check=True)


def test_another_shell_is_an_error(run: Any) -> None:
    assert run("completion", "tcsh").status == 2


def test_commands_and_options() -> None:
    assert "gate" in completed("easeml", "ga")
    assert completed("easeml gate", "de") == ["decide"]
    assert "--condition" in completed("easeml gate plan", "--cond")


@pytest.mark.parametrize("words", ["easeml study show", "easeml submissions --study", "easeml label wanted --study"])
def test_names_of_studies(words: str, database: Any, make_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make_study("cancer")
    monkeypatch.setenv("EASEML_DATABASE_URL", database.url("easeml_worker"))
    assert completed(words) == ["cancer"]
    assert completed(words, "can") == ["cancer"]
    assert completed(words, "dog") == []


def test_without_a_store_nothing_is_offered_or_said(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    assert completed("easeml study show") == []
    monkeypatch.setenv("EASEML_DATABASE_URL", "postgresql+psycopg2://x:y@127.0.0.1:9/easeml")
    assert completed("easeml study show") == []
    monkeypatch.setenv("EASEML_DATABASE_URL", "nonsense")
    assert completed("easeml study show") == []
    assert capfd.readouterr() == ("", "")


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(connection, "_study_names", lambda _: answers.wait(60) and ["late"])
    assert completed("easeml study show") == []
    answers.set()

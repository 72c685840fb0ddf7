"""Every command explains itself, answers in JSON, and costs nothing to load."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

import easeml_core
from easeml_core.cli.app import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}


MANUAL = {
    "": (
        "alerts audit backtest completion costs doctor explain feed infer ledger metrics next promote referee "
        "scheduler rollback simulate status submissions submit"
    ),
    "artifacts": "move prune status sweep verify",
    "cache": "clear show",
    "candidate": "add pack restore withdraw",
    "dags": "copy",
    "db": "artifacts backup create note-restart restore start upgrade url",
    "device": "announce list run",
    "evidence": "acknowledge keys rotate trust verify",
    "gate": "ask attack decide plan selftest",
    "labels": "conflicts give unsure wanted",
    "meter": "plan replay",
    "mlflow": "sync",
    "model": "list meter promote rollback show",
    "policy": "history set show",
    "program": "check infer match",
    "promotion": "evidence verify",
    "refine": "apply feeds list off on rank",
    "service": "install",
    "study": "archive delete list pause register restore resume set show",
    "tenant": "acknowledge archive delete folder list login logout restore set",
    "test-set": "delete fetch list overlaps plan release retire seal",
    "trial": "cancel retry show",
    "validation": "remeasure replace show",
}
"""Commands of each group, and without one."""


def test_the_commands_are_those_of_the_manual() -> None:
    assert {" ".join(path) for path in LEAVES} == {
        f"{group} {name}".strip() for group, names in MANUAL.items() for name in names.split()
    }


def examples(path: tuple[str, ...]) -> list[str]:
    """The calls that the help of a command shows, each as one line."""
    text = (ALL[path].epilog or "").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("easeml ")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself_and_its_options_and_has_examples_that_parse(
    path: tuple[str, ...], run: Any, nowhere: Path
) -> None:
    answer = run(*path, "--help")
    assert (answer.status, answer.err) == (0, "")
    assert (ALL[path].help or "").splitlines()[0] in " ".join(answer.out.split())
    assert [p.name for p in ALL[path].params if isinstance(p, click.Option) and not p.help] == []
    assert path not in LEAVES or "--json" in [option for p in ALL[path].params for option in p.opts]
    (nowhere / "my_net").mkdir()  # a path that must be there
    for name in ("other-host.pub", "ID.pub", "old.pub", "new.pub", "model-7.json"):
        (nowhere / name).touch()
    assert examples(path), f"the help of {' '.join(path)} has no example"
    assert "Example" in answer.out
    for line in examples(path):
        words = list(itertools.takewhile(lambda word: word != ">", shlex.split(line)))[1:]
        command: click.Command = cli
        context = click.Context(cli, info_name="easeml", **cli.context_settings)  # a command keeps its help's options
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found is not None, line
            command, words = found, words[1:]
        command.make_context(command.name, words, parent=context)  # raises where an option or a value is wrong
        assert set(path) <= {*shlex.split(line)[1:]} or path[-1] in ("promote", "rollback"), line


def test_the_first_page_says_where_the_database_is_and_what_a_status_means(run: Any) -> None:
    text = run("--help").text
    for word in ("--database URL", "EASEML_DATABASE_URL", "./.easeml", "--json", "1 the answer is no, 2 an error"):
        assert word in text
    assert run("gate", "plan", "-h").out == run("gate", "plan", "--help").out
    assert run("--version").text == f"easeml, version {easeml_core.__version__}"


def test_an_unknown_command_is_an_error_with_a_hint(run: Any) -> None:
    answer = run("stats")
    assert answer.status == 2
    assert "No such command 'stats'" in answer.err


HEAVY = ("numpy", "scipy", "sklearn", "torch", "sqlalchemy", "psycopg2", "alembic", "rich", "airflow")


def test_help_loads_nothing_heavy() -> None:
    look = f"import sys; import easeml_core.cli.app; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "easeml_core.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"easeml, version {easeml_core.__version__}"

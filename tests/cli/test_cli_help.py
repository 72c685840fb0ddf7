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


def test_the_commands_are_those_of_the_manual() -> None:
    assert {" ".join(path) for path in LEAVES} == {
        "alerts",
        "artifacts move",
        "artifacts prune",
        "artifacts status",
        "artifacts sweep",
        "artifacts verify",
        "audit",
        "backtest",
        "cache clear",
        "cache show",
        "candidate add",
        "candidate pack",
        "candidate restore",
        "candidate withdraw",
        "completion",
        "costs",
        "dags copy",
        "db artifacts",
        "db backup",
        "db create",
        "db note-restart",
        "db restore",
        "db start",
        "db upgrade",
        "db url",
        "device announce",
        "device list",
        "device run",
        "doctor",
        "evidence acknowledge",
        "evidence keys",
        "evidence rotate",
        "evidence trust",
        "evidence verify",
        "explain",
        "feed",
        "gate ask",
        "gate attack",
        "gate plan",
        "gate decide",
        "gate selftest",
        "infer",
        "labels conflicts",
        "labels give",
        "labels unsure",
        "labels wanted",
        "ledger",
        "meter plan",
        "meter replay",
        "metrics",
        "mlflow sync",
        "model list",
        "model meter",
        "model promote",
        "model rollback",
        "model show",
        "next",
        "policy history",
        "policy set",
        "policy show",
        "program check",
        "program infer",
        "program match",
        "promote",
        "promotion evidence",
        "promotion verify",
        "referee",
        "scheduler",
        "refine apply",
        "refine feeds",
        "refine list",
        "refine off",
        "refine on",
        "refine rank",
        "rollback",
        "service install",
        "simulate",
        "status",
        "study archive",
        "study delete",
        "study list",
        "study pause",
        "study register",
        "study restore",
        "study resume",
        "study set",
        "study show",
        "submissions",
        "submit",
        "tenant acknowledge",
        "tenant archive",
        "tenant delete",
        "tenant folder",
        "tenant list",
        "tenant login",
        "tenant logout",
        "tenant restore",
        "tenant set",
        "test-set delete",
        "test-set fetch",
        "test-set list",
        "test-set overlaps",
        "test-set plan",
        "test-set release",
        "test-set retire",
        "test-set seal",
        "trial cancel",
        "trial retry",
        "trial show",
        "validation remeasure",
        "validation replace",
        "validation show",
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], run: Any) -> None:
    for option in ("--help", "-h"):
        answer = run(*path, option)
        assert (answer.status, answer.err) == (0, "")
        assert (ALL[path].help or "").splitlines()[0] in " ".join(answer.out.split())


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_answers_in_json_if_asked(path: tuple[str, ...]) -> None:
    assert "--json" in [option for parameter in LEAVES[path].params for option in parameter.opts]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    options = [p for p in LEAVES[path].params if isinstance(p, click.Option)]
    assert [p.name for p in options if not p.help] == []


def examples(path: tuple[str, ...]) -> list[str]:
    """The calls that the help of a command shows, each as one line."""
    text = (ALL[path].epilog or "").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("easeml ")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_an_example_that_parses(path: tuple[str, ...], run: Any, nowhere: Path) -> None:
    (nowhere / "my_net").mkdir()  # a path that must be there
    for name in ("other-host.pub", "ID.pub", "old.pub", "new.pub", "model-7.json"):
        (nowhere / name).touch()
    assert examples(path), f"the help of {' '.join(path)} has no example"
    assert "Example" in run(*path, "--help").out
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

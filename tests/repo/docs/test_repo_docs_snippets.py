"""Every fenced block of ``docs`` and the README holds: it runs, loads, parses, or is listed below with what tests it.

Pages with tests of their own (``test_repo_*_docs.py``) are read here, too: what holds for every block costs little.
What needs a database runs in ``test_repo_docs_runs.py``.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import json
import re
import shlex
import tomllib
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, cast

import click
import pytest
import yaml
from doc_pages import ROOT, parse
from snippets import BLOCKS, PAGES, Block, calls, named

from easeml_core.cli.app import cli
from easeml_core.errors import ConditionSyntaxError, InvalidInputError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.script import read_script
from easeml_core.programs import templates
from easeml_core.programs.search_space.reader import read_space
from easeml_core.services.datasets.access import read_queries
from easeml_core.training.candidates import expand_candidates

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = {
    "COMMAND --data": "how a program of one's own is called; tests/core/training runs such programs",
    "ENTRYPOINT train": "how an image is called; tests/core/training/test_training_containers.py",
    "n - o > 0.02 +/- 0.05": "a condition: read below",
    "condition = clause": "a grammar: tests/repo/docs/test_repo_docs.py",
    "condition: unknown": "a mistake: made below",
    "script, line 3: condition": "a mistake: made below",
    "n - o > 0.02 +/- 0.01": "printed: the figures of tests/repo/docs/test_repo_gate_docs.py",
    "pass ": "printed: the figures of tests/repo/docs/test_repo_gate_docs.py",
    "fail ": "printed: the figures of tests/repo/docs/test_repo_gate_docs.py",
    "{ ": "printed: the figures of tests/repo/docs/test_repo_gate_docs.py",
    "identical models passed": "printed: the figures of tests/repo/docs/test_repo_gate_docs.py",
    "4,861 labelled examples": "printed: tests/repo/docs/test_repo_meter_docs.py",
    "submission,validation_loss": "a file: tests/repo/docs/test_repo_meter_docs.py",
    "plot: pictures/meter-replay.png": "printed: tests/repo/docs/test_repo_meter_docs.py",
    "validation set 1 of cancer": "printed: tests/cli/datasets/test_cli_validation.py",
    "program = ": "a grammar: tests/repo/docs/test_repo_program_docs.py",
    "images.txt, line 1": "a mistake: tests/repo/docs/test_repo_program_docs.py",
    "dags/ ": "the folders of the repository",
}
"""How a block that is no call begins, and what it is."""

OF_THE_SYSTEM = {
    "mkdir": "run by tests/repo/docs/test_repo_docs_runs.py, and by the tutorial's test",
    "cp": "the same",
    "head": "run by the tutorial's test",
    "export": "the shell's own",
    "umask": "the shell's own",
    "tar": "run by the test of docs/operations.md",
    "pg_restore": "the same",
    "psql": "the same",
    "cat": "run in the cells of scripts/matrix.py",
    "buildah": "builds an image, whose base comes from a registry",
    "sed": "run by tests/repo/docs/test_repo_docs_runs.py",
    "pg_dump": "run by the test of docs/operations.md",
    "groupadd": "changes accounts: tests/store/artifacts/test_store_tenant_folders.py uses numbers",
    "useradd": "the same",
    "usermod": "the same",
    "install": "the same",
    "curl": "needs an Airflow that answers: tests/plugin/web asks the same routes",
}
"""Programs that are not ours, and who runs the lines that begin with them. pip installs: its extras are looked up."""

HEAVY = {
    "bring-your-own.md: train = DockerOperator(  # or KubernetesPodOperator with a shared volume": "needs Docker",
    "feed-refine-infer.md: import requests": "asks an Airflow elsewhere: tests/plugin/web asks the same routes",
    "operations.md: folder = mlflow.artifacts.download_artifacts("
    '"models:/easeml.flowers@production")': "needs an MLflow server: tests/services/mirror has one",
    "submissions.md: import numpy as np": "a model's program: handed in by tests/repo/docs/test_repo_docs_runs.py",
    "python.md: import easeml_core as easeml": "asks a database: tests/cli/test_cli_python_client.py",
    "gate.md: import csv": "makes the example's files: run by tests/repo/docs/test_repo_gate_docs.py",
}
"""Blocks of Python that are compiled, but are no part of a DAG."""

HELD = {
    ("operators.md", "Operators one by one"): "run by tests/repo/docs/test_repo_docs_how_to.py",
}
"""Sections whose every block of Python another test loads; so it does of docs/cookbook.md."""

AROUND = """
from pathlib import Path
from airflow.sdk import DAG, Asset, task
from easeml_airflow import assets, decorators, notifications, operators, params, sensors
from easeml_airflow.assets import *
from easeml_airflow.decorators import *
from easeml_airflow.notifications import *
from easeml_airflow.operators import *
from easeml_airflow.sensors import *
study, model_id = "digits", 7

@task
def train_and_save():
    return "model.skops"

chat = WebhookNotifier(webhook_conn_id="easeml_webhook")
"""
"""What the sentences around a block say that is there."""


def of_kind(*kinds: str) -> list[Any]:
    return [pytest.param(block, id=f"{n}-{block.name}"[:70]) for n, block in enumerate(BLOCKS) if block.kind in kinds]


def told(block: Block) -> str | None:
    """What a block is that is no call."""
    return next((why for start, why in SHOWN.items() if f"{block.text.splitlines()[0]} ".startswith(start)), None)


SHELL = [(b.page, words) for b in BLOCKS if b.kind in ("", "sh") and told(b) is None for words in calls(b.text)]
IN_BLOCKS = sorted({(page, tuple(words)) for page, words in SHELL})
IN_SENTENCES = sorted({(p, tuple(w)) for program in ("easeml", "make", "airflow") for p, w in named(program)})


def of_program(program: str, shown: Iterable[tuple[str, tuple[str, ...]]]) -> list[Any]:
    """The calls of a program among those that are shown."""
    own = [(page, words) for page, words in shown if Path(words[0]).name == program]
    return [pytest.param(words, id=f"{n}-{page} {' '.join(words)}"[:80]) for n, (page, words) in enumerate(own)]


def test_every_kind_of_block_is_looked_at() -> None:
    elsewhere = {"pycon", "program", "module", "data", "text"}  # the tests of their pages run them, or compare them
    assert {block.kind for block in BLOCKS} == elsewhere | {"", "sh", "python", "json", "yaml", "ini", "toml", "sql"}
    assert {b.page for b in BLOCKS if b.kind in elsewhere - {"pycon"}} == {"data.md", "tutorial.md"}
    assert {b.page for b in BLOCKS if b.kind == "pycon"} == {"bring-your-own.md", "python.md", "studies.md"}


@pytest.mark.parametrize("start", SHOWN)
def test_a_block_that_is_listed_as_no_call_is_there(start: str) -> None:
    assert any(told(b) == SHOWN[start] and f"{b.text.splitlines()[0]} ".startswith(start) for b in BLOCKS)


def test_every_program_of_the_calls_is_known() -> None:
    ours = {"easeml", "make", "airflow", "python", "pip"}
    found = {Path(words[0]).name for _, words in SHELL}
    assert ours < found
    assert found - ours == set(OF_THE_SYSTEM)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the present one, with the examples of the documentation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "pictures").mkdir()
    return tmp_path


def make_files(words: Iterable[str]) -> None:
    """Make what a call reads, empty: when it is parsed, it asks only whether a file is there."""
    for word in words:
        if re.fullmatch(r"\w[\w-]*\.[a-z]{2,6}", word):
            Path(word).touch()
        elif re.fullmatch(r"\w+/", word):
            Path(word).mkdir(exist_ok=True)


@pytest.mark.parametrize("words", of_program("easeml", IN_BLOCKS))
def test_a_call_of_ours_in_a_block_parses(words: tuple[str, ...], folder: Path) -> None:
    if "..." in words or words[-1] == "--help":  # what it leaves out, and what ends before anything is read
        assert_is_there(words)
        return
    make_files(words)
    assert isinstance(parse(shlex.join(("easeml", *words[1:]))), dict)


@pytest.mark.parametrize("words", of_program("easeml", IN_SENTENCES))
def test_a_call_of_ours_in_a_sentence_names_a_command_and_its_options(words: tuple[str, ...]) -> None:
    assert_is_there(words)


def assert_is_there(words: tuple[str, ...]) -> None:
    """That a call names a command that there is, with options of it; a sentence leaves out the rest."""
    rest, command = list(words[1:]), cast("click.Command", cli)
    while isinstance(command, click.Group) and rest and re.match("[a-z]", rest[0]):
        found = command.get_command(click.Context(command), rest.pop(0))
        assert found is not None, words
        command = found
    options = {name for parameter in [*command.params, *cli.params] for name in parameter.opts} | {"--help", "-h"}
    assert {word for word in rest if re.match("--?[a-z]", word)} <= options


@pytest.mark.parametrize("words", of_program("make", [*IN_BLOCKS, *IN_SENTENCES]))
def test_a_target_of_make_is_one(words: tuple[str, ...]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        assert f"$({name})" in text if is_variable else re.search(rf"^{name}:", text, re.MULTILINE), word


@pytest.mark.parametrize("words", of_program("airflow", [*IN_BLOCKS, *IN_SENTENCES]))
def test_airflow_takes_the_call(words: tuple[str, ...]) -> None:
    from airflow.cli.cli_parser import get_parser

    if words[1] in ("roles", "users"):
        pytest.skip("their parser comes with FAB's login, which cannot be installed beside constraints.txt")
    if words[1:] == ("db", "clean"):
        words = (*words, "--clean-before-timestamp", "2026-01-01")  # the sentence leaves it out
    assert get_parser().parse_args(words[1:]).func


@pytest.mark.parametrize("words", of_program("python", IN_BLOCKS))
def test_a_call_of_python_finds_its_program(words: tuple[str, ...]) -> None:
    if words[1] == "-c":
        compile(words[2], "page", "exec")
    elif words[1] != "-m" and words[1:] != ("train.py",):
        assert (ROOT / words[1]).exists()


@pytest.mark.parametrize("words", of_program("pip", IN_BLOCKS))
def test_the_extras_that_are_installed_are_there(words: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for listed in re.findall(r"(?:^\.|easeml-airflow)\[(.+)\]", "\n".join(words), re.MULTILINE):
        assert set(listed.split(",")) <= set(project["optional-dependencies"])


# Python


@pytest.mark.parametrize("block", of_kind("python"))
def test_python_compiles_and_finds_what_it_imports(block: Block) -> None:
    if block.name in HEAVY:
        compile(block.text.replace("<64 hex digits>", "0"), block.name, "exec")
        return
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            exec(ast.unparse(node), {})


def test_blocks_that_are_loaded_elsewhere_or_not_at_all_are_there() -> None:
    python = [block for block in BLOCKS if block.kind == "python"]
    assert set(HEAVY) <= {block.name for block in python}
    assert set(HELD) <= {(block.page, block.section) for block in python}


@pytest.mark.parametrize(
    "block",
    [
        p
        for p in of_kind("python")
        for b in p.values
        if b.name not in HEAVY and b.page != "cookbook.md" and (b.page, b.section) not in HELD
    ],
)
def test_python_of_a_dag_loads_in_airflow(block: Block, tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    body = block.text
    if "with DAG(" not in body:
        body = f"with DAG('page', schedule=None):\n{indent(body, '    ')}"
    folder = tmp_path / "candidates"  # the bundle that the page on handing in asks for
    folder.mkdir()
    (folder / "page.py").write_text(f'"""A page."""\n{AROUND}\n{body}', encoding="utf-8")
    bag = DagBag(dag_folder=str(folder), safe_mode=False)
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    made = {type(task).__name__ for task in dag.tasks}
    assert {n for n in re.findall(r"\b(\w+(?:Operator|Sensor))\(", block.text) if n not in made} == set()


# Data


@pytest.mark.parametrize("block", of_kind("json"))
def test_json_parses(block: Block) -> None:
    try:
        parsed = [json.loads(block.text)]
    except json.JSONDecodeError:  # a line of news each
        parsed = [json.loads(line) for line in block.text.splitlines()]
    assert all(isinstance(one, dict | list) for one in parsed)


@pytest.mark.parametrize("block", of_kind("yaml"))
def test_yaml_is_what_its_reader_takes(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.text.startswith("ml:"):
        (steps,) = [entry["steps"] for entry in yaml.safe_load(block.text)["ml"] if "steps" in entry]
        assert read_script(block.text).steps == steps
    elif block.page == "data.md":
        (tmp_path / "queries.yaml").write_text(block.text, encoding="utf-8")
        monkeypatch.setenv("ROSES_URL", "postgresql://roses@localhost/roses")
        (query,) = read_queries(tmp_path / "queries.yaml").values()
        assert (query.name, query.timeout_seconds) == ("roses", 60)
    else:
        assert read_space(block.text)


def test_candidates_of_a_page_are_candidates() -> None:
    (block,) = [b for b in BLOCKS if b.page == "data.md" and b.kind == "json"]
    assert [c["name"] for c in expand_candidates(json.loads(block.text))] == [c["name"] for c in json.loads(block.text)]


def test_an_entry_point_of_a_page_is_of_the_group_that_is_read() -> None:
    (block,) = [b for b in BLOCKS if b.kind == "toml"]
    assert list(tomllib.loads(block.text)["project"]["entry-points"]) == [templates.GROUP]


def test_the_bundles_of_a_page_are_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [b for b in BLOCKS if b.kind == "ini"]
    read = configparser.ConfigParser()
    read.read_string(block.text)
    assert read.sections() == ["dag_processor"]
    bundles = json.loads(read["dag_processor"]["dag_bundle_config_list"])
    assert [b["name"] for b in bundles] == ["dags-folder", "candidates", "production"]
    for bundle in bundles:
        module, name = bundle["classpath"].rsplit(".", 1)
        kind = getattr(importlib.import_module(module), name)
        inspect.signature(kind.__init__).bind(None, name=bundle["name"], **bundle["kwargs"])


def test_options_of_airflow_s_configuration_are_ours_by_name() -> None:
    from easeml_airflow.settings import OPTIONS

    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    found = {name for text in texts.values() for name in re.findall(r"`\[easeml\] (\w+)", text)}
    found |= {name.lower() for text in texts.values() for name in re.findall(r"AIRFLOW__EASEML__(\w+)", text)}
    assert len(found) > 3
    assert found <= {option.name for option in OPTIONS}


def test_conditions_and_their_mistakes_are_as_shown() -> None:
    shown = [b for b in BLOCKS if b.section == "The condition language"]
    whole, mistake, in_script = (
        next(b.text for b in shown if b.text.startswith(start))
        for start in ("n - o", "condition: unknown", "script, line 3")
    )
    parse_condition(whole.strip())
    with pytest.raises(ConditionSyntaxError) as caught:
        parse_condition(mistake.splitlines()[1].strip())
    assert f"{caught.value}\n" == mistake
    script = next(b.text for b in shown if b.kind == "yaml")
    with pytest.raises(InvalidInputError) as refused:
        read_script(script.replace(script.split("condition: ")[1].splitlines()[0], in_script.splitlines()[1].strip()))
    assert f"{refused.value}\n" == in_script

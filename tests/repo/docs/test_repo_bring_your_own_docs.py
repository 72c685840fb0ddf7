"""docs/bring-your-own.md: its DAG parses, its commands are commands, its JSON and its spaces are what they say."""

from __future__ import annotations

import ast
import doctest
import json
import re
import tempfile
from typing import Any

import pytest
from doc_pages import ROOT, Page, parse

from easeml_airflow.hooks.trials import FUNCTION
from easeml_core.testing import check_trainer
from easeml_core.training import command_training
from easeml_core.training.candidates import MOST_CANDIDATES, expand_candidates
from easeml_core.training.trainer import MOST_BYTES
from easeml_core.training.trainers import TRAINERS

PAGE = Page("bring-your-own.md")


def fenced(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.text, re.DOTALL)


@pytest.mark.parametrize("block", fenced("pycon"))
def test_the_examples_hold(block: str) -> None:
    test = doctest.DocTestParser().get_doctest(block, {}, PAGE.path.name, None, 0)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("command", PAGE.commands)
def test_every_command_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for folder in ("my_net/",):
        command = command.replace(folder, "docs/examples/awk")
    assert parse(command)


def test_the_dag_parses_and_its_candidates_are_candidates() -> None:
    dag_code, _, operators_code, *_ = fenced("python")
    names: dict[str, Any] = {}
    exec(dag_code, names)
    (entry,) = names["register"].candidates
    assert len(expand_candidates([entry])) == 12
    assert set(entry) == {"name", "kind", "space", "count"}
    ast.parse(operators_code)


def test_the_torch_function_trains_and_its_folder_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pytest.importorskip("torch")
    _, code, *_ = fenced("python")
    assert code == (ROOT / "docs" / "examples" / "functions" / "torch_function.py").read_text(encoding="utf-8")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    functions: dict[str, Any] = {}
    exec(code, functions)
    assert len(expand_candidates(functions["register"].candidates)) == 4
    check_trainer(vars(functions["net"].function)[FUNCTION], {"width": 32, "rate": 0.01})


def test_the_json_is_json_and_the_container_is_a_candidate() -> None:
    manifest, news, container = fenced("json")
    assert sorted(json.loads(manifest)) == ["command", "train"]
    for line in news.splitlines():
        assert {"step", "of"} < set(json.loads(line))
    candidate = json.loads(container.replace("<64 hex digits>", 64 * "0"))
    assert TRAINERS["container"].parameters(candidate["parameters"])["layers"] == 2


def test_the_bounds_and_names_are_those_of_the_code() -> None:
    assert f"{MOST_BYTES:,} bytes" in PAGE.text
    assert f"at most {MOST_CANDIDATES} candidates" in PAGE.text
    assert f"`{command_training.CHECKPOINTS}/` is no part of the model" in PAGE.text
    for kind in ("function", "command", "container"):
        assert f"| `{kind}` |" in PAGE.text


def test_the_tensorflow_example_uses_nothing_but_numpy_to_answer() -> None:
    tree = ast.parse((ROOT / "docs" / "examples" / "tensorflow" / "predict.py").read_text())
    imported = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    assert imported == ["numpy"]

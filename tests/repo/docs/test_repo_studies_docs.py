"""The page of studies: every setting that can be registered is there, and the examples are as short as it says."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from doc_pages import Page

from easeml_core.actions.studies import RegisterStudy

PAGE = Page("studies.md", without=("Metrics", "Search spaces"))
EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples" / "studies"
ELSEWHERE = {"tenant", "study", "training", "keep"}
"""What the page tells in its text, or what is no setting of a study."""


@pytest.mark.parametrize("name", sorted(set(inspect.signature(RegisterStudy).parameters) - ELSEWHERE))
def test_every_setting_of_a_study_is_in_the_table(name: str) -> None:
    heads = [line.split("|")[1] for line in PAGE.text.splitlines() if line.startswith("|")]
    assert any(f"`{name}`" in head for head in heads)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_listed_short_and_keeps_its_study(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert f"| `{path.name}` |" in PAGE.text
    assert len(source.splitlines()) <= 41
    (register,) = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "easeml.RegisterStudyOperator"
    ]
    assert "keep" in {keyword.arg for keyword in register.keywords}

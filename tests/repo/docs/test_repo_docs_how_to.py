"""Operators one by one, in docs/operators.md: everything that a DAG may import is there, and every snippet runs."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from doc_pages import Page

PAGE = Page("operators.md", "Operators one by one")
SECTIONS: dict[str, str] = dict(re.findall(r"^### @?(\w+)\n(.*?)(?=^##|\Z)", PAGE.text, re.DOTALL | re.MULTILINE))
COMMON = re.findall(r"```python\n(.*?)```", PAGE.text.split("\n## ")[0], re.DOTALL)


def public() -> list[str]:
    from easeml_airflow import decorators, notifications, operators, sensors

    return [name for package in (decorators, notifications, operators, sensors) for name in package.__all__]


def test_everything_that_may_be_imported_has_a_section_and_nothing_else() -> None:
    assert set(SECTIONS) == {*public(), "submissions", "alerts", "production_model", "evidence"}


def test_arguments_of_the_table_are_those_of_the_classes() -> None:
    from easeml_airflow import operators, sensors

    table = re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", Page("operators.md").text, re.MULTILINE)
    assert {name for name, _ in table} == {*operators.__all__, *sensors.__all__}
    for name, shown in table:
        kind = getattr(operators, name, None) or getattr(sensors, name)
        own = [p.name for p in inspect.signature(kind).parameters.values() if p.kind is not p.VAR_KEYWORD]
        assert sorted(re.findall(r"(\w+)(?:=[^,]*)?(?:, |$)", shown)) == sorted(own), name


@pytest.mark.parametrize("name", SECTIONS)
def test_the_snippet_runs_and_uses_what_it_is_about(name: str) -> None:
    from airflow.sdk import DAG

    (snippet,) = re.findall(r"```python\n(.*?)```", SECTIONS[name], re.DOTALL)
    assert re.search(rf"\b{name}\b", snippet)
    names: dict[str, Any] = {}
    exec("".join(COMMON), names)
    if "with DAG(" in snippet:
        exec(snippet, names)
        return
    with DAG("page", schedule=None):
        exec(snippet, names)

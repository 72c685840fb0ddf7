"""docs/feed-refine-infer.md: its commands parse, its operators and routes are those that there are."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from doc_pages import Page, parse

from easeml_core.services.datasets.refresh import MOST_FEEDS
from easeml_core.services.models.inference import WarmModels

PAGE = Page("feed-refine-infer.md")


@pytest.mark.parametrize("command", PAGE.commands)
def test_every_command_of_the_page_parses(command: str) -> None:
    assert parse(command)["study"] in ("flowers", "digits")


def test_every_command_there_is_stands_on_the_page() -> None:
    from easeml_core.cli.datasets import refine

    used = " ".join(PAGE.commands)
    assert "easeml feed " in used
    assert "easeml infer " in used
    for name in refine.commands:
        assert f"easeml refine {name}" in PAGE.text


def test_the_operators_of_the_page_are_made_as_it_says() -> None:
    from airflow.sdk import DAG

    from easeml_airflow import operators

    (block,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE.text, re.DOTALL) if "Operator(" in b]
    with DAG("page", schedule=None) as dag:
        for line in ast.parse(block).body:
            assert isinstance(line, ast.Expr)
            assert isinstance(line.value, ast.Call)
            assert isinstance(line.value.func, ast.Name)
            given = {str(k.arg): ast.literal_eval(k.value) for k in line.value.keywords}
            getattr(operators, line.value.func.id)(**given)
    assert set(dag.task_dict) == {"feed", "refresh", "answer"}


def test_the_routes_of_the_page_are_those_of_the_service() -> None:
    from easeml_airflow.web.server.request_limits import Turns
    from easeml_airflow.web.server.service import (
        MOST_ANSWERS,
        MOST_BYTES,
        MOST_CELLS,
        MOST_ROWS,
        Service,
        create_router,
    )

    router = create_router(service=Service(lambda: None, lambda: None), rights=lambda write: lambda: "ann")
    prefix = "/api/v1/studies/{study}"
    there = {
        (method, route.path.removeprefix(prefix).replace("{request_id}", "ID"))
        for route in router.routes
        if route.path.startswith(prefix)
        for method in route.methods
    }
    told = set(re.findall(r"^\| `(GET|POST) (/[a-zA-Z/]+)", PAGE.text, re.MULTILINE))
    assert told == there
    assert (MOST_BYTES, MOST_ROWS, MOST_CELLS) == (4 * 2**20, 10_000, 10_000_000)
    assert (MOST_ANSWERS, inspect.signature(Turns).parameters["waiting"].default) == (1_000_000, 8)
    assert [inspect.signature(Turns).parameters[n].default for n in ("at_once", "patience_seconds")] == [2, 10.0]
    assert "at most 4 MB and 10,000 rows, an answer 1,000,000 numbers. Two requests are worked on" in PAGE.text
    assert WarmModels()._most == 4
    assert MOST_FEEDS == 1000

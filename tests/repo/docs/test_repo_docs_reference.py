"""docs/reference: the committed pages are what scripts/reference.py makes of the code."""

from __future__ import annotations

import importlib
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jsonschema
import pytest
import reference
from reference_pages import answers
from reference_pages.code_pages import CLASS_PACKAGES, arguments, read_docstring
from reference_pages.database_pages import letters
from reference_pages.signatures import stubs

from easeml_airflow.web.server.service import Service
from easeml_core.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[3]
NAMES = (
    *("answers.json", "commands.md", "database.md", "errors.md", "functions.sql", "observable.md", "openapi.json"),
    *("operators.md", "python.md"),
)
MOST_UNTYPED = 96
"""Public answers that are mappings still; the number only falls."""


def test_the_committed_pages_are_those_of_the_code(server: Any) -> None:
    with closing(server.connect(database="easeml")) as opened:
        made = reference.pages(opened)
    assert sorted(made) == sorted(path.name for path in reference.FOLDER.iterdir()) == list(NAMES)
    stale = [n for n, text in made.items() if (reference.FOLDER / n).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"


def test_the_committed_signatures_are_those_of_the_actions() -> None:
    stale = [path for path, text in stubs().items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"


def test_answers_get_schemas_and_never_lose_them() -> None:
    assert set(answers.TYPED) <= {*answers.commands(), *answers.routes(), *answers.tasks()}
    assert len(answers.untyped()) <= MOST_UNTYPED


@pytest.mark.parametrize("name", answers.BODIES)
def test_the_service_takes_exactly_the_bodies_that_openapi_describes(name: str) -> None:
    schema = answers.BODIES[name]
    for example in schema["examples"]:
        jsonschema.Draft202012Validator(schema).validate(example)
    work = getattr(Service(open_store=Mock(), open_artifacts=Mock()), name)
    with pytest.raises(InvalidInputError) as refused:
        work("flowers", "ann", {"other": 1})
    assert sorted(str(refused.value).partition("known: ")[2].split(", ")) == sorted(schema["properties"])


def test_the_letters_of_the_alphabet_are_in_the_page_on_security() -> None:
    assert letters() in (ROOT / "docs" / "security.md").read_text(encoding="utf-8"), letters()


def test_docstrings_come_apart() -> None:
    source = "Do it.\n\n    More.\n\n    Args:\n        a: One\n            and more.\n        b: Two: 2.\n"
    found = read_docstring(source + "\n    Returns:\n        It.\n    ")
    assert found.text == "Do it.\n\nMore."
    assert found.entries("Args") == {"a": "One and more.", "b": "Two: 2."}
    assert [line for line in found.sections["Returns"] if line] == ["It."]
    assert read_docstring(None).text == ""


def test_every_argument_of_what_dags_import_is_explained() -> None:
    for package in CLASS_PACKAGES.values():
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            about = read_docstring(thing.__doc__)
            assert about.text
            assert [r[0] for r in arguments(thing, about) if not r[3]] == [], name

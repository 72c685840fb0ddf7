"""docs/reference: the committed pages are what scripts/reference.py makes of the code."""

from __future__ import annotations

import importlib
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
NAMES = (
    *("answers.json", "commands.md", "database.md", "errors.md", "observable.md", "operators.md", "python.md"),
    "settings.md",
)
MOST_UNTYPED = 96
"""Public answers that are mappings still; the number only falls."""


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("reference")
    for name in [n for n in sys.modules if n.split(".")[0] in ("reference", "reference_pages")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_committed_pages_are_those_of_the_code(maker: Any, server: Any) -> None:
    with closing(server.connect(database="easeml")) as opened:
        made = maker.pages(opened)
    assert sorted(made) == sorted(path.name for path in maker.FOLDER.iterdir()) == list(NAMES)
    stale = [n for n, text in made.items() if (maker.FOLDER / n).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"


def test_answers_get_schemas_and_never_lose_them(maker: Any) -> None:
    answers = importlib.import_module("reference_pages.answers")
    assert set(answers.TYPED) <= {*answers.commands(), *answers.routes(), *answers.tasks()}
    assert len(answers.untyped()) <= MOST_UNTYPED


def test_the_letters_of_the_alphabet_are_in_the_page_on_security(maker: Any) -> None:
    letters = importlib.import_module("reference_pages.alphabet").letters()
    assert letters in (ROOT / "docs" / "security.md").read_text(encoding="utf-8"), letters


def test_docstrings_come_apart(maker: Any) -> None:
    read = importlib.import_module("reference_pages.docstring").read_docstring
    source = "Do it.\n\n    More.\n\n    Args:\n        a: One\n            and more.\n        b: Two: 2.\n"
    found = read(source + "\n    Returns:\n        It.\n    ")
    assert found.text == "Do it.\n\nMore."
    assert found.entries("Args") == {"a": "One and more.", "b": "Two: 2."}
    assert [line for line in found.sections["Returns"] if line] == ["It."]
    assert read(None).text == ""


def test_every_argument_of_what_dags_import_is_explained(maker: Any) -> None:
    classes = importlib.import_module("reference_pages.classes")
    for package in classes.PACKAGES.values():
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            about = importlib.import_module("reference_pages.docstring").read_docstring(thing.__doc__)
            assert about.text
            assert [r[0] for r in classes.arguments(thing, about) if not r[3]] == [], name

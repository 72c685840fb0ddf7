"""docs/pages.md: every page that there is, who sees it as the code says, and its picture where one was taken."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
from doc_pages import ROOT, Page

PAGE = Page("pages.md")
PICTURES = ROOT / "docs" / "pictures" / "pages"
ROWS = dict(re.findall(r"^\| ([A-Z][a-z ]+) \| ([^|]+) \|", PAGE.text, re.MULTILINE))
HEADINGS = re.findall(r"^### (.+)$", PAGE.text, re.MULTILINE)


def tabs() -> dict[str, frozenset[str]]:
    """The pages of the code by their word, and the roles that alone see them."""
    import easeml_airflow.web as web

    found = {}
    for module in pkgutil.walk_packages(web.__path__, f"{web.__name__}."):
        loaded = importlib.import_module(module.name)
        if not hasattr(loaded, "routes"):
            continue
        for tab in (getattr(loaded, name, None) for name in ("TAB", "STUDY_TAB")):
            if tab is not None:
                found[tab.word] = frozenset(str(role) for role in tab.roles)
    return found


def test_every_page_has_a_row_and_a_heading() -> None:
    assert set(tabs()) | {"Decision"} == set(ROWS) == set(HEADINGS)


@pytest.mark.parametrize("word", sorted(ROWS))
def test_who_sees_a_page_is_what_the_code_says(word: str) -> None:
    roles = tabs().get(word, frozenset())
    said = ROWS[word].lower()
    if roles:
        assert all(role in said for role in roles - {"operator"})
        assert not said.startswith(("every user", "a user who"))
    else:
        assert said.startswith(("every user", "a user who"))


def test_every_picture_of_a_page_is_shown_and_no_other() -> None:
    taken = {path.name for path in PICTURES.glob("*.png")}
    shown = set(re.findall(r"\]\(pictures/pages/([^)]+)\)", PAGE.text))
    assert shown <= taken
    assert {name for name in taken if "-" not in name} <= shown

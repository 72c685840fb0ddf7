"""Mutants are changes that a test should notice, and each is tried by the tests that run it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import a script by name; modules of ``scripts`` are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        if path is not None and Path(path).is_relative_to(SCRIPTS):
            monkeypatch.delitem(sys.modules, name)


ANSWERS = """
LIMIT = 3

def answer(value: int, known: bool = True) -> int | None:
    \"\"\"Doc 1 < 2.\"\"\"
    logger.info("seen %d", 1)
    if value is None or value < LIMIT and known:
        self.seen = min(value, 2)
        return value - 1
    tx.execute("SELECT 1 FROM t WHERE a AND b > 0 FOR UPDATE")
    return None
"""
CHANGED = {
    "constant": {"3 -> (4)", "3 -> (2)", "True -> False", "2 -> (3)", "2 -> (1)", "1 -> (2)", "1 -> (0)"},
    "comparison": {"is -> is not", "< -> <="},
    "boolean": {"or -> and", "and -> or"},
    "condition": {"value is None or value < LIMIT and known -> (not (value is None or value < LIMIT and known))"},
    "statement": {
        "self.seen = min(value, 2) -> pass",
        'tx.execute("SELECT 1 FROM t WHERE a AND b > 0 FOR UPDATE") -> pass',
    },
    "bound": {"min -> max"},
    "return": {"value - 1 -> None"},
    "arithmetic": {"- -> +"},
    "sql": {"AND -> OR", "> -> >=", "FOR UPDATE -> "},
}


def test_mutations_are_those_that_a_test_should_notice(script: Any) -> None:
    mutations = script("measuring.mutations")
    source = ANSWERS.encode()
    found = mutations.mutations_of("a.py", source)
    shown: dict[str, set[str]] = {}
    for one in found:
        shown.setdefault(one.kind, set()).add(f"{one.before} -> {one.after}")
        assert mutations.is_valid(one, source)
    assert shown == CHANGED
    assert [one.names for one in found if one.line == 2] == [("LIMIT",), ("LIMIT",)]


def test_a_change_at_the_top_level_is_tried_by_the_tests_of_what_is_made_of_it(script: Any, tmp_path: Path) -> None:
    coverage = pytest.importorskip("coverage")
    files = {
        "easeml_core/a.py": "_PART = 3 > 2\nWHOLE = (\n    _PART,\n)\ndef f():\n    return WHOLE\n",
        "easeml_core/b.py": "from easeml_core import a\ndef g():\n    return a.WHOLE\n\ndef h():\n    return 1\n",
    }
    tree = tmp_path / "tree"
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    data = coverage.CoverageData(str(tmp_path / "coverage"))
    for test, path, line in (("f", "easeml_core/a.py", 6), ("g", "easeml_core/b.py", 3), ("h", "easeml_core/b.py", 6)):
        data.set_context(f"tests/test_x.py::{test}|run")
        data.add_lines({path: [line]})
    data.write()
    (tmp_path / "outcomes.jsonl").write_text("")
    (change, *_) = script("measuring.mutations").mutations_of("easeml_core/a.py", files["easeml_core/a.py"].encode())
    assert (change.line, change.names) == (1, ("_PART",))
    test_map = script("measuring.test_map").TestMap
    assert test_map(tree, tmp_path).tests_of(change) == {"tests/test_x.py::f", "tests/test_x.py::g"}
    with pytest.raises(LookupError, match="names no file"):
        test_map(tmp_path, tmp_path)


def test_the_named_survivors_are_always_tried(script: Any) -> None:
    mutants = script("mutants")
    drawn = mutants.draw(SCRIPTS.parent, 0, seed=1)
    assert len(drawn) >= len(mutants.NAMED)

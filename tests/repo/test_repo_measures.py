"""The scripts that measure how the product is built count what is there: on small trees whose figures are known."""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

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


TREE = {
    "easeml_core/__init__.py": "",
    "easeml_core/gate/__init__.py": "",
    "easeml_core/gate/first.py": "from easeml_core.gate import second\nWanted: dict[str, Any] = {}\n_hidden = 1\n",
    "easeml_core/gate/second.py": "def f(x: Mapping[str, Any]):\n    from easeml_core.gate import first\n",
    "easeml_core/meter/first.py": "class Wanted: ...\n",
    "easeml_core/gate/third.py": "class Wanted: ...\nif TYPE_CHECKING:\n    import easeml_core.gate.fourth\n",
    "easeml_core/gate/fourth.py": "from easeml_core.gate import third\n",
    "plugins/easeml_airflow/__init__.py": "import easeml_core.gate.first\n",
    "plugins/easeml_airflow/page.html": "<p>\n",
    "tests/test_x.py": "\n\n",
    "docs/index.md": "",
    "docs/inner/page.md": "",
}


def test_structure_counts_a_small_tree(script: Any, tmp_path: Path) -> None:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = script("structure").measure(tmp_path, "small")
    gate = "easeml_core.gate"
    assert found.modules == {"": 8, "easeml_airflow": 1, "easeml_core": 1, gate: 5, "easeml_core.meter": 1}
    assert (found.product_lines, found.product_other_lines, found.test_lines) == (11, 1, 2)
    assert found.folders["easeml_core/gate"] == 4
    assert found.imports.circles == [[f"{gate}.first", f"{gate}.second"]]
    assert found.imports.circles_with_types == [*found.imports.circles, [f"{gate}.fourth", f"{gate}.third"]]
    assert found.imports.single_importers == {f"{gate}.second": f"{gate}.first", f"{gate}.third": f"{gate}.fourth"}
    assert found.loose_mappings == {"easeml_core": 2, "easeml_airflow": 0}
    assert list(found.repeated_names) == [f"{gate}: Wanted"]
    assert found.recurring_files == {"first.py": 2}
    assert found.documentation_pages == 1


CALLER = """
import contextlib
def numbers():
    yield called.one()
    yield 2
@contextlib.contextmanager
def block():
    yield
def run(connection):
    with block(), connection.begin():
        list(numbers())
        called.send(connection)
"""
CALLED = """
from sqlalchemy import text
def one():
    return 1
def send(connection):
    connection.execute(text("SELECT  1"))
"""


def test_a_trace_counts_calls_between_our_modules_and_what_they_send(script: Any) -> None:
    import sqlalchemy

    called = types.ModuleType("easeml_core.store.called")
    caller = types.ModuleType("easeml_core.caller")
    exec(compile(CALLED, "called.py", "exec"), vars(called))
    vars(caller)["called"] = called
    exec(compile(CALLER, "caller.py", "exec"), vars(caller))
    tracing = script("trace_journeys")
    with sqlalchemy.create_engine("sqlite://").connect() as connection, tracing.tracing() as trace:
        caller.run(connection)
        sqlalchemy.create_engine("sqlite://")  # a library's own work is no call of ours
    # run, block and numbers: a generator that goes on is not called again
    assert trace.modules == {"easeml_core.caller": 3, "easeml_core.store.called": 2}
    assert trace.calls == {("easeml_core.caller", "easeml_core.store.called"): 2}
    assert trace.transactions == 1
    assert trace.statements == [tracing.Statement("easeml_core.store.called", "easeml_core.caller", 1, "SELECT 1")]


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


@pytest.mark.parametrize(
    ("before", "after", "status", "shown"),
    [
        ([("help", "easeml", "a\nb")], [("help", "easeml", "a\nb")], 0, ""),
        ([("help", "easeml", "a\nb")], [("help", "easeml", "a\nc")], 1, "help: easeml\n    -b\n    +c\n"),
        ([("routes", "GET /x", "")], [], 1, "routes: GET /x\n    only in the first snapshot\n"),
        ([("text", "expected: 1", "a")], [("text", "expected: 1", "b")], 0, ""),
    ],
)
def test_interfaces_are_compared_item_by_item(
    script: Any, tmp_path: Path, before: Any, after: Any, status: int, shown: str
) -> None:
    for name, items in {"a": before, "b": after}.items():
        (tmp_path / name).mkdir()
        written = [dict(zip(("section", "name", "text"), item, strict=True)) for item in items]
        (tmp_path / name / "snapshot.json").write_text(json.dumps(written))
    (tmp_path / "allowed").write_text("# why\ntext: expected*\n")
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--allow", str(tmp_path / "allowed")]
    found = CliRunner().invoke(script("compare_interface").main, arguments)
    assert (found.exit_code, found.stdout) == (status, shown)

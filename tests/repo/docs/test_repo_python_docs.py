"""docs/python.md and its notebook: sessions and cells give what they show."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from typing import Any

import pytest
from doc_pages import ROOT
from snippets import BLOCKS

NOTEBOOK = ROOT / "docs" / "examples" / "notebook" / "from-python.ipynb"


def test_its_sessions_give_what_they_show() -> None:
    names: dict[str, Any] = {}  # the sessions go on with each other's values
    runner = doctest.DocTestRunner()
    blocks = [block.text for block in BLOCKS if block.page == "python.md" and block.kind == "pycon"]
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, names, "python.md", None, 0)
        runner.run(test, clear_globs=False)
        names = test.globs
    assert len(blocks) == 3
    assert runner.summarize(verbose=False) == (0, runner.tries)


def test_the_notebook_is_kept_with_its_outputs() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert len(kinds) >= len(cells) - 3  # imports, and what opens and closes the installation, show nothing
    assert set(kinds) == {"execute_result", "stream"}
    assert "postgresql" not in text


@pytest.mark.nightly
def test_the_notebook_gives_what_it_holds() -> None:
    command = [sys.executable, str(NOTEBOOK.with_name("execute.py")), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

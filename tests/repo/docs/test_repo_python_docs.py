"""docs/python.md: its sessions give what they show."""

from __future__ import annotations

import doctest
from typing import Any

from snippets import BLOCKS


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

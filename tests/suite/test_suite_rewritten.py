"""Code of a test file that another process has rewritten is what pytest runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _pytest.assertion.rewrite import PYC_TAIL, _read_pyc, get_cache_dir
from rewritten import rewrite

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_pytest_takes_the_code_that_was_rewritten_ahead(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("def test_it():\n    assert [1] == [2]\n")
    rewrite([file], pytestconfig)
    code = _read_pyc(file, get_cache_dir(file) / f"test_it{PYC_TAIL}")
    assert code is not None
    assert "@pytest_ar" in code.co_names

"""Children that processes of an earlier version start by their former names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["predict_child", "warm_child", "rank_child", "inference_child", "sandbox_probe"])
def test_a_child_has_its_former_name(name: str) -> None:
    """Each child reads the number of its parent first; a wrong number ends it, and a missing module would say so."""
    command = [sys.executable, "-m", f"easeml_core.training.{name}", "not-a-number"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode != 0
    assert "No module named" not in done.stderr
    assert "ValueError" in done.stderr or "IndexError" in done.stderr, done.stderr

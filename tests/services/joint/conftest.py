"""The tests of sets that gate and meter share have a study with one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

collect_ignore = ["joint_lab.py"]
sys.path.insert(0, str(Path(__file__).parent))

from joint_lab import Shared, register  # noqa: E402


@pytest.fixture
def shared(bare: Any, tmp_path: Any) -> Shared:
    """Verdicts are released."""
    return register(bare, tmp_path)


@pytest.fixture
def hidden(bare: Any, tmp_path: Any) -> Shared:
    """Verdicts are withheld."""
    return register(bare, tmp_path, gate={"adaptivity": "none"})

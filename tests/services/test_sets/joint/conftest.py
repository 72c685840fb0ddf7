"""The tests of sets that gate and meter share have a study with one."""

from __future__ import annotations

from typing import Any

import pytest
from joint_lab import Shared, register

collect_ignore = ["joint_lab.py"]


@pytest.fixture
def shared(bare: Any, tmp_path: Any) -> Shared:
    """Verdicts are released."""
    return register(bare, tmp_path)


@pytest.fixture
def hidden(bare: Any, tmp_path: Any) -> Shared:
    """Verdicts are withheld."""
    return register(bare, tmp_path, gate={"adaptivity": "none"})

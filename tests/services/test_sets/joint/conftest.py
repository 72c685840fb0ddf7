"""The tests of sets that gate and meter share have a study with one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from any_tenant import AnyTenant
from joint_lab import Shared, register

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

collect_ignore = ["joint_lab.py"]


@pytest.fixture(scope="module")
def registered(templates: Any, tmp_path_factory: Any) -> Callable[[str], Any]:
    """Return a laboratory with the study, for an adaptivity; the tests of a file have copies of it."""

    @functools.cache
    def make(adaptivity: str) -> Any:
        folder = tmp_path_factory.mktemp("shared")
        lab = templates("easeml", AnyTenant(folder / "artifacts"))
        register(lab, folder, gate={"adaptivity": adaptivity})
        return lab

    return make


@pytest.fixture
def shared(registered: Any, copied: Any, tmp_path: Path) -> Shared:
    """Verdicts are released."""
    return Shared(copied(registered("full")), tmp_path)


@pytest.fixture
def hidden(registered: Any, copied: Any, tmp_path: Path) -> Shared:
    """Verdicts are withheld."""
    return Shared(copied(registered("none")), tmp_path)

"""The tests of the pages share how a page is read, and import the scripts that make its figures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def figure_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Any, ...]]]:
    """Import modules of ``scripts/figures`` by name; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    yield lambda *names: tuple(importlib.import_module(f"figures.{name}") for name in names)
    for name in [name for name in sys.modules if name.split(".")[0] == "figures"]:
        monkeypatch.delitem(sys.modules, name)

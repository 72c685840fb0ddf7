"""A web server on this machine, an object store in memory, and a small cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from web_server import Web, serving

from easeml_core.files import download
from easeml_core.files.cache import FileCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A running server without files."""
    monkeypatch.setattr(download, "REST_SECONDS", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as found:
        yield found


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An empty object store in the memory of this process."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    """A cache of 1 MB."""
    return FileCache(tmp_path / "cache", limit_mb=1)

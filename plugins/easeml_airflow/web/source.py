"""Where the content of page and service comes from: bounded reads of the store, by the installation's connection."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.easeml import EasemlHook
from easeml_core.services.overview import overview
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.store.artifacts import ArtifactStore

STATEMENT_TIMEOUT_SECONDS = 5.0
"""The read runs in the server's own process, so it may not hold a thread of it for long."""

_lock = threading.Lock()
_open: dict[str, Store] = {}


def read_overview() -> Mapping[str, Any]:
    """What there is to show now.

    Raises:
        EasemlError: If the connection is missing, or the database does not answer.
    """
    return overview(open_store())


def open_store() -> Store:
    """The database, as the role that the connection names.

    Raises:
        EasemlError: If the connection is missing.
    """
    return _store(EasemlHook().url)


def open_artifacts() -> ArtifactStore:
    """Where models and data lie.

    Raises:
        EasemlError: If the connection is missing, or names no place.
    """
    return EasemlHook().get_artifacts()


def _store(url: str) -> Store:
    """One store while the connection stays the same; an edited connection takes effect at once."""
    with _lock:
        if url not in _open:
            for store in _open.values():
                store.close()
            _open.clear()
            _open[url] = Store(url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
        return _open[url]

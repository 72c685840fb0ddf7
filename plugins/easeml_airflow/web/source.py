"""Where the page's content comes from: one bounded read of the store, through the installation's connection."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.easeml import EasemlHook
from easeml_core.services.overview import overview
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

STATEMENT_TIMEOUT_SECONDS = 5.0
"""The read runs in the server's own process, so it may not hold a thread of it for long."""

_lock = threading.Lock()
_open: dict[str, Store] = {}


def read_overview() -> Mapping[str, Any]:
    """What there is to show now.

    Raises:
        EasemlError: If the connection is missing, or the database does not answer.
    """
    return overview(_store(EasemlHook().url))


def _store(url: str) -> Store:
    """One store while the connection stays the same; an edited connection takes effect at once."""
    with _lock:
        if url not in _open:
            for store in _open.values():
                store.close()
            _open.clear()
            _open[url] = Store(url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
        return _open[url]

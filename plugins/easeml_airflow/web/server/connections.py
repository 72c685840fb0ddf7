"""Where the content of page and service comes from: bounded reads of the store, by the installation's connection."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from easeml_airflow.hooks.easeml import WORKER, EasemlHook
from easeml_core.errors import NotFoundError, StoreUnavailableError
from easeml_core.store.database import Store
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from easeml_core.store.artifacts.local import ArtifactStore

STATEMENT_TIMEOUT_SECONDS = 5.0
"""The read runs in the server's own process, so it may not hold a thread of it for long."""

REFEREE_VARIABLE = "EASEML_REFEREE_DATABASE_URL"
"""The address of the role ``easeml_referee``: a setting of the API server's own process, never a connection of Airflow,
which any task may ask for."""

_lock = threading.Lock()
_open: dict[str, tuple[str, Store]] = {}


def open_store() -> Store:
    """The database, as the role that the connection names.

    Raises:
        StoreUnavailableError: If the connection is missing.
        EasemlError: If it is none of ours.
    """
    try:
        hook = EasemlHook()
        url = hook.url
    except NotFoundError as error:  # to who looks at a page the database is away, not the page
        raise StoreUnavailableError(str(error)) from error
    return _store(WORKER, url, hook.source)


def open_sealed() -> Store:
    """The database, as ``easeml_referee``: for the referee's pages only.

    Raises:
        StoreUnavailableError: This server was not given the address.
    """
    url = os.environ.get(REFEREE_VARIABLE, "")
    if not url:
        message = (
            f"this API server was not given the referee's address ({REFEREE_VARIABLE}), so it shows nothing of sealed "
            "sets; set it for the API server alone, or use `easeml ledger`, `easeml labels` and `easeml test-set` there"
        )
        raise StoreUnavailableError(message)
    return _store("easeml_referee", url, REFEREE_VARIABLE)


def open_artifacts() -> ArtifactStore:
    """Where models and data lie.

    Raises:
        EasemlError: If the connection is missing, or names no place.
    """
    return EasemlHook().get_artifacts()


def tenant_of(study: str) -> str:
    """The study's tenant; an empty text where there is no such study, which is no tenant's name."""
    with open_store().begin() as tx:
        try:
            return studies.get_study(tx, study).tenant
        except NotFoundError:
            return ""


def _store(role: str, url: str, source: str) -> Store:
    """One store a role while its address stays the same; an edited connection takes effect at once."""
    with _lock:
        known, store = _open.get(role, ("", None))
        if store is None or known != url:
            if store is not None:
                store.close()
            limit = STATEMENT_TIMEOUT_SECONDS
            store = Store(
                url, statement_timeout_seconds=limit, lock_timeout_seconds=0.8 * limit, needs=role, source=source
            )
            _open[role] = (url, store)
        return store

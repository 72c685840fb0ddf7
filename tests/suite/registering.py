"""Registers a study from keywords, as most tests want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.actions.studies import RegisterStudy
from easeml_core.services.registration import register

if TYPE_CHECKING:
    from easeml_core.services.registration.register import RegisteredStudy
    from easeml_core.store.database import Store


def register_study(store: Store, *, request_key: str, **settings: Any) -> RegisteredStudy:
    """Register the study of these settings."""
    return register.register_study(store, RegisterStudy(**settings), request_key=request_key)

"""The notifiers for DAG authors; each is imported on first use, so that parsing a DAG stays cheap."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easeml_airflow.notifications.alert import AlertNotifier as AlertNotifier

_MODULES = {"AlertNotifier": "easeml_airflow.notifications.alert"}

__all__ = ["AlertNotifier"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""The notifiers for DAG authors; each is imported on first use, so that parsing a DAG stays cheap."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easeml_airflow.notifications.base import EasemlNotifier as EasemlNotifier
    from easeml_airflow.notifications.function import FunctionNotifier as FunctionNotifier
    from easeml_airflow.notifications.mail import MailNotifier as MailNotifier
    from easeml_airflow.notifications.webhook import WebhookNotifier as WebhookNotifier

_MODULES = {
    "EasemlNotifier": "easeml_airflow.notifications.base",
    "FunctionNotifier": "easeml_airflow.notifications.function",
    "MailNotifier": "easeml_airflow.notifications.mail",
    "WebhookNotifier": "easeml_airflow.notifications.webhook",
}

__all__ = ["EasemlNotifier", "FunctionNotifier", "MailNotifier", "WebhookNotifier"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

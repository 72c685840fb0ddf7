"""The Airflow that this package needs, and the few names of Airflow that do not come from ``airflow.sdk``.

Operators, sensors, decorators, hooks, triggers and the plugin import it, so that an Airflow which is too old is named
in one sentence rather than by the first of its names that is missing.
"""

# ruff: noqa: E402 - the version is looked at before anything of Airflow is imported

from __future__ import annotations

import re
from importlib import metadata

NEEDED = (3, 1)
"""Oldest Airflow that works, as in pyproject.toml."""


def require_airflow(found: str | None) -> None:
    """Refuse an Airflow that is too old.

    Example:
        >>> require_airflow("3.1.0rc1")
        >>> require_airflow("2.11.2")
        Traceback (most recent call last):
            ...
        ImportError: easeml-airflow needs Apache Airflow 3.1 or newer, and this is 2.11.2: install another Airflow \
(pip install 'apache-airflow>=3.1,<4'), or remove easeml-airflow from this one
    """
    parts = re.match(r"(\d+)\.(\d+)", found or "")
    if parts is not None and (int(parts[1]), int(parts[2])) < NEEDED:
        needed = ".".join(map(str, NEEDED))
        message = (
            f"easeml-airflow needs Apache Airflow {needed} or newer, and this is {found}: install another Airflow "
            f"(pip install 'apache-airflow>={needed},<4'), or remove easeml-airflow from this one"
        )
        raise ImportError(message)


def _installed() -> str | None:
    for name in ("apache-airflow-core", "apache-airflow"):  # Airflow 2 has no core
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


require_airflow(_installed())

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

try:
    from airflow.sdk.exceptions import TaskDeferralTimeout
except ImportError:
    from airflow.exceptions import TaskDeferralTimeout  # type: ignore[no-redef]  # of Airflow 3.1
try:
    from airflow.sdk.observability.stats import Stats
except ImportError:
    from airflow.stats import Stats  # of Airflow 3.1
try:
    from airflow.sdk.exceptions import TaskAwaitingInput
except ImportError:  # in Airflow 3.1 and 3.2 a task that waits for a person defers
    TaskAwaitingInput = TaskDeferred  # type: ignore[assignment,misc]  # mypy reads the newest Airflow

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseEventTrigger",
    "BaseTrigger",
    "DecoratedOperator",
    "Stats",
    "TaskAwaitingInput",
    "TaskDecorator",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "TriggerEvent",
    "task_decorator_factory",
]

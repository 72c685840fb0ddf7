"""The few names of Airflow that have moved between 3.1 and 3.3, gathered in one place.

Everything else comes from ``airflow.sdk``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.sdk.exceptions import TaskAwaitingInput, TaskDeferralTimeout
else:
    try:
        from airflow.sdk.exceptions import TaskDeferralTimeout
    except ImportError:  # Airflow 3.1 still keeps it among the server's exceptions
        from airflow.exceptions import TaskDeferralTimeout
    try:
        from airflow.sdk.exceptions import TaskAwaitingInput
    except ImportError:  # before 3.3 a question to a person is a deferral like any other
        TaskAwaitingInput = TaskDeferred

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowSkipException",
    "BaseEventTrigger",
    "BaseTrigger",
    "DecoratedOperator",
    "TaskAwaitingInput",
    "TaskDecorator",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "TriggerEvent",
    "task_decorator_factory",
]

"""The training functions (``@trial``) of a DAG, so that it is handed only the trials that it can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperator

FUNCTION = "training_function"
"""Where the callable that Airflow sees keeps the function that trains; nothing of it has to be serialised there."""


def functions_of(task: BaseOperator) -> Sequence[str]:
    """Names of the training functions of a task's DAG, mapped ones too; none for a task without a DAG."""
    if not task.has_dag():
        return ()
    callables = [getattr(other, "python_callable", None) for other in task.dag.tasks]
    return sorted({made.__name__ for made in callables if made and FUNCTION in getattr(made, "__dict__", {})})

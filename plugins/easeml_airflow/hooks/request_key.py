"""The key that makes every write of a task repeatable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context


def request_key(context: Context) -> str:
    """One key for all tries of one task instance: ``dag id/run id/task id/map index``.

    The same key gives the same answer: a retry never starts a second trial and never spends a sealed set twice.
    """
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{map_index}"

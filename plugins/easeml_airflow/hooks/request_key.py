"""The key that makes every write of a task repeatable, and the name that its changes bear in the audit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context

    from easeml_core.store.actors import Actor


def request_key(context: Context) -> str:
    """One key for all tries of one task instance: ``dag id/run id/task id/map index``.

    The same key gives the same answer: a retry never starts a second trial and never spends a sealed set twice.
    """
    index = context["ti"].map_index
    return f"{_of_task(context)}/{-1 if index is None else index}"


def key_of_all(context: Context) -> str:
    """One key for all mapped instances of a task in a run, ``dag id/run id/task id/all``.

    For requests that add their study: a study may be in another instance at the next try.
    """
    return f"{_of_task(context)}/all"


def _of_task(context: Context) -> str:
    ti = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}"


def task_actor() -> Actor | None:
    """Who acts in this process: the task that it runs, as ``dag id/run id/task id``; None outside of tasks.

    Airflow puts the three into the environment of every task before it executes, and the number of its try.
    """
    from easeml_core.store.actors import Actor

    found = [os.environ.get(f"AIRFLOW_CTX_{part}", "") for part in ("DAG_ID", "DAG_RUN_ID", "TASK_ID")]
    tried = os.environ.get("AIRFLOW_CTX_TRY_NUMBER", "")
    number = int(tried) if tried.isdecimal() and 1 <= int(tried) < 2**31 else None
    return Actor("/".join(found), "task", try_number=number) if all(found) else None

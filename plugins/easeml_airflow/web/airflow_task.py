"""Where a task that made a request is seen in Airflow: a request key says which one it was, as far as one is kept."""

from __future__ import annotations

from urllib.parse import quote

from easeml_airflow import settings


def run_address(key: str | None) -> str | None:
    """The run of the DAG that used this request key, in Airflow's own pages; None for keys of the command line.

    Example:
        >>> run_address("nightly/manual__2026-01-02/train/3")
        '/dags/nightly/runs/manual__2026-01-02'
    """
    parts = _parts(key)
    return None if parts is None else _address("dags", parts[0], "runs", parts[1])


def task_address(key: str | None) -> str | None:
    """The task that used this request key: its log is the first thing to see there.

    Example:
        >>> task_address("nightly/manual__2026-01-02/train/3")
        '/dags/nightly/runs/manual__2026-01-02/tasks/train/mapped/3'
        >>> task_address("nightly/manual__2026-01-02/device/-1/17"), task_address("laptop")
        ('/dags/nightly/runs/manual__2026-01-02/tasks/device', None)
    """
    parts = _parts(key)
    if parts is None:
        return None
    dag, run, task, index = parts
    mapped = () if index == "-1" else ("mapped", index)
    return _address("dags", dag, "runs", run, "tasks", task, *mapped)


def is_of_stream(key: str | None) -> bool:
    """Whether one task asks and trains, trial after trial: then the task that asked has the log."""
    return _parts(key) is not None and str(key).count("/") > 3


def _parts(key: str | None) -> list[str] | None:
    """DAG, run, task and map index; what a stream puts after them is left out."""
    parts = (key or "").split("/")[:4]
    index = parts[3].removeprefix("-") if len(parts) == 4 else ""
    return parts if all(parts) and index.isdecimal() else None


def _address(*parts: str) -> str:
    return "/".join([settings.base_path(), *(quote(part, safe="") for part in parts)])
